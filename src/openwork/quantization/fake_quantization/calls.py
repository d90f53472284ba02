"""Quantizers of a module that one forward of the model calls several times: one for each call.

A head that is shared by the levels of a pyramid sees other ranges at each; one scale for all of them leaves
the smallest a few integers. Which call it is follows from their order since the model's forward began, of
which hooks on the model tell.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_OUTSIDE = -1
"""The number of a call that no forward of the model encloses."""


class _Turn:
    """The number of the call that comes next, in each thread."""

    def __init__(self) -> None:
        # There from the start, so that a compiled graph finds the same keys at its first call and later.
        self._next: dict[int, int] = {0: _OUTSIDE}

    def set(self, call: int) -> None:
        self._next[_thread()] = call

    def take(self) -> int:
        call = self._next.get(_thread(), _OUTSIDE)
        if call != _OUTSIDE:
            self._next[_thread()] = call + 1
        return call

    def back(self) -> None:
        """The call that came last comes once more."""
        self._next[_thread()] -= 1


def _thread() -> int:
    # A compiled graph cannot ask; no thread has the number 0.
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


class CallQuantizers(nn.Module):
    """The quantizers of one place in a module, in the order of the module's calls.

    name: the place, for messages. quantizers: one for each call, shared where calls see the same tensor;
    None where a call has nothing to quantize there. A forward of the model with fewer calls takes the first
    ones. Raises ValueError, naming the place, for a call beyond the last one and for one outside of the
    forward of the model that `count_calls` was given.
    """

    def __init__(self, name: str, quantizers: Sequence[nn.Module | None]) -> None:
        super().__init__()
        self.name, self.turn = name, _Turn()
        for call, one in enumerate(quantizers):
            self.add_module(str(call), nn.Identity() if one is None else one)

    @property
    def each(self) -> tuple[nn.Module, ...]:
        """What each call runs."""
        return tuple(one for one in self._modules.values() if one is not None)

    def forward(self, x: Tensor) -> Tensor:
        call, each = self.turn.take(), self.each
        if not 0 <= call < len(each):
            raise ValueError(_refusal(self.name, call, len(each)))
        rounded: Tensor = each[call](x)
        return rounded


def _refusal(name: str, call: int, count: int) -> str:
    happened = "outside of the model's forward" if call == _OUTSIDE else f"{call + 1} times in one forward"
    return (
        f"{name} is called {happened}, but it has one quantizer for each of the {count} calls that the model "
        "made of it in the example that it was prepared with; prepare the model with an example that makes "
        "all calls, or with calls='together', which gives all of them one quantizer (checkpointed "
        "activations need that, too)."
    )


class _Set:
    """A hook that gives every place the same number."""

    def __init__(self, turns: Sequence[_Turn], call: int) -> None:
        self.turns, self.call = turns, call

    def __call__(self, module: nn.Module, *_: Any) -> None:
        for turn in self.turns:
            turn.set(self.call)


def count_calls(model: nn.Module, places: Iterable[CallQuantizers]) -> None:
    """Let every forward of the model count the calls of these places from the first."""
    turns = tuple(place.turn for place in places)
    if turns:
        model.register_forward_pre_hook(_Set(turns, 0))
        model.register_forward_hook(_Set(turns, _OUTSIDE))


def flat(children: Iterable[nn.Module | None]) -> Iterator[nn.Module]:
    """The children of a module, those of its calls in the place of what holds them."""
    for child in children:
        if isinstance(child, CallQuantizers):
            yield from child.each
        elif child is not None:
            yield child


@contextmanager
def repeated(module: nn.Module) -> Iterator[None]:
    """While open, the module may be run once more with the quantizers of the call that it has just made."""
    for child in module.children():
        if isinstance(child, CallQuantizers):
            child.turn.back()
    yield

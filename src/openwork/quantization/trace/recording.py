"""One run of the example inputs, written down: which operation read which tensor, in which module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from openwork.quantization.trace.arguments import Arguments, tensors_in
from openwork.quantization.trace.operations import (
    FOLDING,
    PRODUCTS,
    function_name,
    kind_of,
    module_kind,
    operands,
)
from openwork.support.batches import Batch, evaluating, run_batch


@dataclass(frozen=True)
class Seen:
    """A tensor of the run.

    serial: one for every tensor, a new one after each in-place change. ancestors: the serials it was computed
    from, as bits, itself included. weighted: a weighted layer is among them. maker: the function or module
    that made it. fixed: it depends on parameters and constants only.
    """

    serial: int
    shape: tuple[int, ...]
    floating: bool
    ancestors: int
    weighted: bool
    maker: str
    fixed: bool

    @property
    def folds(self) -> bool:
        """Whether what made it can multiply its channels at no cost."""
        return self.maker in FOLDING


@dataclass(frozen=True)
class Event:
    """One call of a layer (index -1) or of a function in the forward of module `owner`.

    index: the function's place among the owner's functions with a kind, in one call of the owner. call: which
    call of the owner. inputs: the operands, None for what is no tensor.
    """

    owner: str
    index: int
    kind: str
    call: int
    inputs: tuple[Seen | None, ...]
    output: Seen | None
    function: str


@dataclass
class Recording:
    """What happened. consumers: per serial, who read the tensor, functions without a kind included."""

    events: list[Event] = field(default_factory=list)
    consumers: dict[int, list[str]] = field(default_factory=dict)
    outputs: Any = None

    def of(self, owner: str) -> list[Event]:
        """The functions with a kind in the forward of one module, over all its calls."""
        return [event for event in self.events if event.owner == owner and event.index >= 0]


class _Recorder(TorchFunctionMode):
    """Fills a recording while entered; modules tell it where they begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self.recording = Recording()
        self._serials: dict[tuple[int, int], Seen] = {}
        self._kept: list[Tensor] = []
        self._stack: list[str] = [""]
        self._counts: list[int] = [0]
        self._calls: dict[str, int] = {}
        self._inside = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        read = self._seen_all((args, kwargs))
        kind = kind_of(func)
        inputs = tuple(self._seen(x) for x in operands(kind, args, kwargs)) if kind else ()
        result = func(*args, **kwargs)
        if tensors_in(result):
            self._note(func, kind, read, inputs, result)
        return result

    def _note(
        self, func: Any, kind: str | None, read: list[Seen], inputs: tuple[Seen | None, ...], result: Any
    ) -> None:
        name = function_name(func)
        made = self._made(result, read, name, kind in PRODUCTS or _with_weight(kind, inputs))
        self._consume(read, name)
        if kind:
            owner = self._stack[-1]
            place = self._counts[-1]
            self._counts[-1] += 1
            output = made[0] if made else None
            self.recording.events.append(
                Event(owner, place, kind, self._calls.get(owner, 0), inputs, output, name)
            )

    def fix(self, model: nn.Module) -> None:
        """The model's parameters and buffers are there before the run."""
        for x in (*model.parameters(), *model.buffers()):
            self._add(x, 0, False, "", fixed=True)

    def enter(self, name: str, kind: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A module begins; one with a kind is a whole, and nothing in it is written down."""
        self._inside += 1
        if self._inside == 1:
            self._stack.append(name)
            self._counts.append(0)
            self._calls[name] = self._calls.get(name, -1) + 1
        if kind and self._inside == 1:
            self._reading = self._seen_all((args, kwargs))
            self._first = tuple(self._seen(x) for x in (*args, *kwargs.values())[:3])
        if not kind:
            self._inside -= 1

    def leave(self, name: str, kind: str | None, result: Any) -> None:
        """A module ends."""
        if not kind:
            self._inside += 1
        if self._inside == 1:
            self._stack.pop()
            self._counts.pop()
            if kind:
                self._add_layer(name, kind, result)
        self._inside -= 1

    def _add_layer(self, name: str, kind: str, result: Any) -> None:
        made = self._made(result, self._reading, name, kind in ("weighted", "multihead"))
        self._consume(self._reading, name)
        self.recording.events.append(
            Event(name, -1, kind, self._calls[name], self._first, made[0] if made else None, name)
        )

    def finish(self, outputs: Any) -> Recording:
        """The model's outputs count as read."""
        self._consume(self._seen_all(outputs), "the model's output")
        self.recording.outputs = outputs
        return self.recording

    def _consume(self, read: list[Seen], who: str) -> None:
        for seen in {seen.serial: seen for seen in read}.values():
            self.recording.consumers.setdefault(seen.serial, []).append(who)

    def _seen_all(self, nest: Any) -> list[Seen]:
        return [seen for seen in (self._seen(x) for x in tensors_in(nest)) if seen is not None]

    def _seen(self, x: Any) -> Seen | None:
        if not isinstance(x, Tensor):
            return None
        key = (id(x), x._version)
        if key not in self._serials:
            self._add(x, 0, False, "", fixed=False)
        return self._serials[key]

    def _made(self, result: Any, read: list[Seen], maker: str, weighted: bool) -> list[Seen]:
        ancestors, fixed = 0, True
        for seen in read:
            ancestors |= seen.ancestors
            fixed &= seen.fixed
            weighted |= seen.weighted
        return [self._add(x, ancestors, weighted, maker, fixed) for x in tensors_in(result)]

    def _add(self, x: Tensor, ancestors: int, weighted: bool, maker: str, fixed: bool) -> Seen:
        key = (id(x), x._version)
        if key in self._serials:
            return self._serials[key]
        serial = len(self._serials)
        ancestors |= 1 << serial
        seen = Seen(serial, tuple(x.shape), x.is_floating_point(), ancestors, weighted, maker, fixed)
        # Kept, so that no later tensor of the run takes this one's id.
        self._kept.append(x)
        self._serials[key] = seen
        return seen


def _with_weight(kind: str | None, inputs: tuple[Seen | None, ...]) -> bool:
    """Whether a product multiplies an activation by what comes from parameters alone."""
    return kind == "matmul" and {x.fixed for x in inputs if x is not None} == {True, False}


def record(model: nn.Module, example: Batch) -> Recording:
    """Run the example in evaluation mode and write down what happened."""
    recorder = _Recorder()
    recorder.fix(model)
    handles = []
    for name, module in model.named_modules():
        handles += _hooks(recorder, name, module)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(model), torch.no_grad(), recorder:
            outputs = run_batch(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
    return recorder.finish(outputs)


def _hooks(recorder: _Recorder, name: str, module: nn.Module) -> list[Any]:
    kind = module_kind(module)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder.enter(name, kind, args, kwargs)

    def after(_: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        recorder.leave(name, kind, result)

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]


def capture(model: nn.Module, names: Sequence[str], example: Batch) -> dict[str, Arguments]:
    """The arguments of the first call of each named module, cloned before it ran."""
    found: dict[str, Arguments] = {}
    handles = []
    for name in names:

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
            found.setdefault(name, Arguments(args, kwargs).copied())

        handles.append(model.get_submodule(name).register_forward_pre_hook(keep, with_kwargs=True))
    try:
        with evaluating(model), torch.no_grad():
            run_batch(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return found

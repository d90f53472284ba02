"""Which tensors come out of an operation that can multiply each channel of its output at no cost."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# LayerNorm and Linear (with its activation) carry a `y_multiplier` in the engine; see docs/arithmetic.md.
FOLDING = (functional.layer_norm, functional.gelu, functional.relu, torch.relu, Tensor.relu)


class Producers(TorchFunctionMode):
    """While entered, remembers the tensors that the operations of `FOLDING` return."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, weakref.ref[Tensor]] = {}

    def folds(self, x: Tensor) -> bool:
        """Whether `x` is what such an operation returned."""
        made = self._made.get(id(x))
        return made is not None and made() is x

    def forget(self) -> None:
        """Drop what was remembered."""
        self._made.clear()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FOLDING:
            self._made[id(result)] = weakref.ref(result)
        return result

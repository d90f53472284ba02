"""Whether a model still computes the same: its outputs before and after, in double precision.

A change of order changes the order of sums, so the outputs differ by rounding, and by nothing else. Of a
sum of L terms the error is at most L u times the sum of the terms' magnitudes (Higham 2002, section 4.2), u
the unit roundoff; through a network these errors pass as all rounding errors do. How much this network
makes of a rounding is measured: its outputs in single and in double precision differ by E, which is at
least one rounding at u32 of the magnitudes that matter, so S = max(max |y|, E / u32) stands for them. With
L the terms of all sums of the network together,

    tolerance = 2 L u S
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from openwork.sparsity.permutation.threads import threads_for


@dataclass(frozen=True)
class Difference:
    """The largest difference of two runs' outputs, what it may be, and what it is made of."""

    found: float
    tolerance: float

    @property
    def small(self) -> bool:
        return self.found <= self.tolerance


class Witness:
    """A model's outputs on its example inputs, kept to compare with.

    length : the terms of all sums of the network. lowered : the model casts to a lower precision on its
    way, so that only single precision's roundoff can be asked for.
    """

    def __init__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], length: int, lowered: bool
    ) -> None:
        self._model, self._args, self._kwargs = model, args, dict(kwargs)
        self._outputs = self._run(torch.float64)
        single = self._run(torch.float32)
        error = _distance(self._outputs, single)
        magnitude = max(
            (float(o.abs().max()) for o in self._outputs if o.is_floating_point() and o.numel()), default=0.0
        )
        roundoff = torch.finfo(torch.float32 if lowered else torch.float64).eps / 2
        amplified = max(magnitude, error / (torch.finfo(torch.float32).eps / 2))
        self.tolerance = 2 * max(1, length) * roundoff * amplified

    def compare(self) -> Difference:
        """The difference between the model as it was and as it is."""
        return Difference(_distance(self._outputs, self._run(torch.float64)), self.tolerance)

    @torch.no_grad()
    def _run(self, dtype: torch.dtype) -> list[Tensor]:
        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        state = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        state = {name: cast(tensor.detach()) for name, tensor in state.items()}
        args, kwargs = tree_map(cast, (self._args, self._kwargs))
        # Each weight takes part in some ten products at the least.
        with threads_for(10 * sum(tensor.numel() for tensor in state.values())):
            outputs = functional_call(self._model, state, args, kwargs)
        return [
            leaf.double() if leaf.is_floating_point() else leaf
            for leaf in tree_leaves(outputs)
            if isinstance(leaf, Tensor)
        ]


def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference; infinite where a shape, an integer or a place of NaN differs."""
    worst = 0.0
    for first, second in zip(one, other, strict=True):
        if first.shape != second.shape:
            return float("inf")
        if not first.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(first, second) else float("inf"))
        elif first.numel():
            # Equal infinities differ by nothing; NaN compares as infinitely far from everything,
            # itself included.
            gap = torch.where(first == second, 0.0, (first - second).abs())
            worst = max(worst, float(gap.nan_to_num(nan=float("inf")).max()))
    return worst

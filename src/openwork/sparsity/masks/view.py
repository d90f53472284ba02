"""How the weight of any layer is read as a stack of matrices [stack, out, in].

A pattern speaks of the input channels of each output channel. Convolutions have them once for each kernel tap
and group, transposed convolutions on the first axis; a view brings every kind to one form and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Kind = Literal["linear", "conv", "conv_transpose", "attention"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class WeightView:
    """A weight of `shape` as a stack of matrices: one for each kernel tap and group, taps outermost.

    linear          [O, I]              -> [1, O, I]
    conv            [O, I/g, *taps]     -> [taps * g, O/g, I/g]
    conv_transpose  [I, O/g, *taps]     -> [taps * g, O/g, I/g]
    attention       [3 E, E]            -> [3, E, E]: query, key and value
    """

    kind: Kind
    shape: tuple[int, ...]
    groups: int = 1

    @staticmethod
    def of(module: nn.Module, parameter: str = "weight") -> WeightView | None:
        """The view of a module's parameter; None where the module is of no kind that has one."""
        weight = module._parameters.get(parameter)
        if weight is None:
            return None
        shape = tuple(weight.shape)
        if isinstance(module, nn.MultiheadAttention):
            return _attention(parameter, shape)
        if parameter != "weight":
            return None
        if isinstance(module, nn.Linear):
            return WeightView("linear", shape)
        if isinstance(module, CONVOLUTIONS):
            return WeightView("conv", shape, module.groups)
        return WeightView("conv_transpose", shape, module.groups) if isinstance(module, TRANSPOSED) else None

    @property
    def stacked(self) -> tuple[int, int, int]:
        """The shape [stack, out, in] of `matrices`."""
        first, second = self.shape[:2]
        if self.kind == "linear":
            return 1, first, second
        if self.kind == "attention":
            return 3, first // 3, second
        taps = math.prod(self.shape[2:])
        if self.kind == "conv":
            return taps * self.groups, first // self.groups, second
        return taps * self.groups, second, first // self.groups

    def matrices(self, tensor: Tensor) -> Tensor:
        """The stack [stack, out, in] of a tensor of the weight's shape: a weight, a gradient, a mask.

        Raises ValueError for another shape.
        """
        if tuple(tensor.shape) != self.shape:
            raise ValueError(
                f"A tensor of the weight's shape {list(self.shape)} was expected, but its shape is "
                f"{list(tensor.shape)}."
            )
        if self.kind in ("linear", "attention"):
            return tensor.reshape(self.stacked)
        grouped = tensor.reshape(self.groups, -1, self.shape[1], math.prod(self.shape[2:]))
        axes = (3, 0, 1, 2) if self.kind == "conv" else (3, 0, 2, 1)
        return grouped.permute(axes).reshape(self.stacked)

    def restore(self, matrices: Tensor) -> Tensor:
        """The tensor of the weight's shape that `matrices` [stack, out, in] is the stack of; contiguous."""
        if tuple(matrices.shape) != self.stacked:
            raise ValueError(
                f"A stack of shape {list(self.stacked)} was expected, but its shape is "
                f"{list(matrices.shape)}."
            )
        if self.kind in ("linear", "attention"):
            return matrices.reshape(self.shape)
        split = matrices.reshape(-1, self.groups, *self.stacked[1:])
        axes = (1, 2, 3, 0) if self.kind == "conv" else (1, 3, 2, 0)
        return split.permute(axes).reshape(self.shape).contiguous()

    def place(self, matrix: int) -> str:
        """Words for one matrix of the stack: which kernel tap, group or projection;
        empty for a linear layer.
        """
        if self.kind == "linear":
            return ""
        if self.kind == "attention":
            return ("query", "key", "value")[matrix]
        tap, group = divmod(matrix, self.groups)
        return f"kernel tap {tap}" + (f", group {group}" if self.groups > 1 else "")


def _attention(parameter: str, shape: tuple[int, ...]) -> WeightView | None:
    if parameter == "in_proj_weight":
        return WeightView("attention", shape)
    return WeightView("linear", shape) if parameter in SEPARATE_PROJECTIONS else None


SEPARATE_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
"""The projections of an attention whose keys or values have another width than its queries."""


def weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and parameter of every weight of two or more dimensions, in the model's order."""
    for name, module in model.named_modules():
        for parameter in ("weight", "in_proj_weight", *SEPARATE_PROJECTIONS):
            weight = module._parameters.get(parameter)
            if weight is not None and weight.ndim >= 2:
                whole = ".".join(part for part in (name, parameter) if part)
                yield (name if parameter == "weight" else whole), module, parameter

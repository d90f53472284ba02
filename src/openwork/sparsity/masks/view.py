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
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

Kind = Literal["linear", "conv", "conv_transpose", "attention"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class WeightView:
    """A weight of `shape` as a stack of matrices: one for each kernel tap and group, taps outermost.

    linear          [O, I]              -> [1, O, I]; recurrent layers have their gates one below the other
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
        weight = parameter_of(module, parameter)
        if weight is None:
            return None
        shape = tuple(weight.shape)
        if isinstance(module, nn.MultiheadAttention):
            return _attention(parameter, shape)
        if isinstance(module, RECURRENT):
            return WeightView("linear", shape) if parameter.startswith("weight_") else None
        if parameter != "weight" and not (parameter in NORMED and normed(module) == parameter):
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


NORMED = ("parametrizations.weight.original1", "weight_v")
"""Where weight_norm keeps the direction v of w = g v / |v|, as a parametrization and in its older form. Zeros
of v are zeros of w.
"""


def normed(module: nn.Module) -> str | None:
    """The parameter that holds the directions of a module's weight; None where it has no weight norm."""
    if parametrize.is_parametrized(module, "weight"):
        chain = module.parametrizations["weight"]  # type: ignore[index]
        return NORMED[0] if [type(one) for one in chain] == [_WeightNorm] else None
    hooks = (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm))
    return NORMED[1] if any(hook.name == "weight" for hook in hooks) else None


def effective(module: nn.Module, parameter: str) -> Tensor:
    """The weight that the layer multiplies with: computed where `parameter` is its direction."""
    if parameter == NORMED[1]:
        hooks = (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm))
        computed: Tensor = next(hook for hook in hooks if hook.name == "weight").compute_weight(module)
        return computed.detach()
    found: Tensor = getattr(module, stands_for(parameter))
    return found.detach()


def parameter_of(module: nn.Module, parameter: str) -> nn.Parameter | None:
    """A module's own parameter, or that of its weight's parametrization; None where there is none."""
    if "." not in parameter:
        return module._parameters.get(parameter)
    try:
        return module.get_parameter(parameter)
    except AttributeError:
        return None


def stands_for(parameter: str) -> str:
    """What a parameter is to the layer: its weight, for the directions of a normed one; else itself."""
    return "weight" if parameter in NORMED else parameter


def full_name(module: str, parameter: str) -> str:
    """The name of a module's parameter in the model."""
    return f"{module}.{parameter}" if module else parameter


def weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, module and parameter of every parameter of two or more dimensions, in the model's order.

    The name is the module's where the parameter stands for its weight.
    """
    taken: set[int] = set()
    for name, module in model.named_modules():
        norm = normed(module)
        for parameter in (*((norm,) if norm else ()), *module._parameters):
            weight = parameter_of(module, parameter)
            if weight is None or weight.ndim < 2 or id(weight) in taken:
                continue
            if parameter == norm:
                taken.add(id(weight))
            own = stands_for(parameter) == "weight"
            yield (name if own else full_name(name, parameter)), module, parameter

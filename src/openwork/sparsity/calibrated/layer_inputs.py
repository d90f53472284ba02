"""How the inputs of every kind of layer meet its weight.

A layer with the matrices W [taps * G, O, I] of `view.py` computes, at each of its output positions and for
each group g,

    y[g] = sum over taps t of W[t * G + g] x[g, t]

where x[g, t] are the I channels of the input that tap t sees there. This file finds x: G is the number of
groups of a convolution, 3 for the packed projections of an attention, else 1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.sharded_tensors import sharded
from openwork.sparsity.masks.view import CONVOLUTIONS, NORMED, RECURRENT, SEPARATE_PROJECTIONS, TRANSPOSED

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional and the keyword arguments of one call of a module."""


@dataclass(frozen=True)
class InputReader:
    """Where the inputs of a weight are seen, and how they are read.

    host: the module whose calls show them. source: the tensor read, from a call's arguments. windows: of that
    tensor, a view [*positions, groups, *taps, I]. trailing: how many dimensions follow the positions. layout:
    readers with equal layouts get the same windows from the same tensor. groups, columns: of the windows,
    taps included. turned: whether all positions but the batch's come in reversed order.
    """

    host: nn.Module
    source: Callable[[Call], Tensor]
    windows: Callable[[Tensor], Tensor]
    trailing: int
    layout: Hashable
    groups: int
    columns: int
    turned: bool = False


def projections(prunable: Prunable) -> int:
    """How many inputs the weight has: 3 for packed attention projections, which meet the query, the key and
    the value, else 1.
    """
    return 3 if prunable.view.kind == "attention" else 1


def problems(prunable: Prunable) -> int:
    """The number of groups G of the weight's matrices that see different inputs."""
    return projections(prunable) * prunable.view.groups


def input_reason(model: nn.Module, prunable: Prunable) -> str:
    """Why the inputs of a weight cannot be read, in a sentence; empty if they can."""
    if sharded(prunable.weight):
        return (
            f"{prunable.name} is sharded over several processes, each of which sees other inputs; calibrate "
            "before the model is sharded."
        )
    return ""


def input_hidden(prunable: Prunable) -> bool:
    """Whether no call of a module shows what the weight multiplies: hidden states lie within a recurrent
    layer, and the weight that a weight norm computes is another.
    """
    return isinstance(prunable.module, RECURRENT) or prunable.parameter in NORMED


def readers(model: nn.Module, prunable: Prunable) -> list[InputReader]:
    """The readers of a weight's inputs, one for each of its `projections`."""
    module, parameter = prunable.module, prunable.parameter
    if isinstance(module, nn.MultiheadAttention):
        indices = range(3) if parameter == "in_proj_weight" else [SEPARATE_PROJECTIONS.index(parameter)]
        return [_argument_reader(prunable, index) for index in indices]
    if isinstance(module, CONVOLUTIONS + TRANSPOSED):
        return [_convolution_reader(prunable, module)]
    attention = _attention_of(model, module)
    return [_output_reader(prunable, attention) if attention is not None else _linear_reader(prunable)]


def _linear_reader(prunable: Prunable) -> InputReader:
    return _plain_reader(prunable, prunable.module, lambda call: _argument(call, 0, "input"), "channels last")


def _plain_reader(
    prunable: Prunable, host: nn.Module, source: Callable[[Call], Tensor], layout: Hashable
) -> InputReader:
    columns = prunable.view.stacked[2]
    first = layout == "channels second"

    def windows(tensor: Tensor) -> Tensor:
        ordered = tensor.transpose(0, 1) if first and tensor.ndim == 3 else tensor
        return (ordered if ordered.ndim > 1 else ordered[None])[..., None, :]

    return InputReader(host, source, windows, 2, layout, 1, columns)


def _argument(call: Call, index: int, name: str) -> Tensor:
    positional, keywords = call
    found = positional[index] if index < len(positional) else keywords[name]
    assert isinstance(found, Tensor)
    return found


def _argument_reader(prunable: Prunable, index: int) -> InputReader:
    attention, name = prunable.module, ("query", "key", "value")[index]
    assert isinstance(attention, nn.MultiheadAttention)
    layout = _order(attention)
    return _plain_reader(prunable, attention, lambda call: _argument(call, index, name), layout)


def _order(attention: nn.MultiheadAttention) -> str:
    return "channels last" if attention.batch_first else "channels second"


def _attention_of(model: nn.Module, projection: nn.Module) -> nn.MultiheadAttention | None:
    """The attention whose output projection this is: it reads the weight and never calls the module."""
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.out_proj is projection:
            return module
    return None


class _Bare(nn.Module):
    """Runs a module's forward pass without its hooks."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *positional: Any, **keywords: Any) -> Any:
        return self.inner.forward(*positional, **keywords)


def _output_reader(prunable: Prunable, attention: nn.MultiheadAttention) -> InputReader:
    """The heads' outputs are what the attention gives with the identity for its output projection."""

    def source(call: Call) -> Tensor:
        weight = prunable.weight
        parts = {"inner.out_proj.weight": torch.eye(len(weight), dtype=weight.dtype, device=weight.device)}
        if attention.out_proj.bias is not None:
            parts["inner.out_proj.bias"] = torch.zeros_like(attention.out_proj.bias)
        output: Tensor = torch.func.functional_call(_Bare(attention), parts, call[0], call[1])[0]
        return output

    return _plain_reader(prunable, attention, source, _order(attention))


def _convolution_reader(prunable: Prunable, module: nn.Module) -> InputReader:
    assert isinstance(module, CONVOLUTIONS + TRANSPOSED)
    shape = (module.kernel_size, module.stride, module.padding, module.dilation, module.groups)
    layout = (isinstance(module, TRANSPOSED), *shape, module.output_padding, module.padding_mode)
    stack, _, channels = prunable.view.stacked
    return InputReader(
        host=module,
        source=lambda call: _argument(call, 0, "input"),
        windows=lambda tensor: convolution_windows(module, tensor),
        trailing=2 + len(module.kernel_size),
        layout=layout,
        groups=module.groups,
        columns=stack // module.groups * channels,
        turned=isinstance(module, TRANSPOSED),
    )


def convolution_windows(module: nn.Module, source: Tensor) -> Tensor:
    """What each kernel tap sees at each output position: a view [N, *out, groups, *kernel, I / groups].

    module: a convolution or transposed convolution. source: its input, [N, I, *in] or [I, *in]. The output
    positions of a transposed convolution come in reversed order, and without an `output_size` that a call
    may ask for.
    """
    assert isinstance(module, CONVOLUTIONS + TRANSPOSED)
    kernel = module.kernel_size
    batch = source.detach() if source.ndim == len(kernel) + 2 else source.detach()[None]
    if isinstance(module, TRANSPOSED):
        padded, strides = _stretched(module, batch), (1,) * len(kernel)
    else:
        padded, strides = _padded(module, batch), module.stride
    for axis, (taps, step, apart) in enumerate(zip(kernel, strides, module.dilation, strict=True)):
        padded = padded.unfold(2 + axis, apart * (taps - 1) + 1, step)[..., ::apart]
    grouped = padded.reshape(len(padded), module.groups, -1, *padded.shape[2:])
    outs = range(3, 3 + len(kernel))
    taps_axes = range(3 + len(kernel), 3 + 2 * len(kernel))
    return grouped.permute(0, *outs, 1, *taps_axes, 2)


def _padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, batch: Tensor) -> Tensor:
    if module.padding == "same":
        spans = [apart * (taps - 1) for taps, apart in zip(module.kernel_size, module.dilation, strict=True)]
        pairs = [(span // 2, span - span // 2) for span in spans]
    elif module.padding == "valid":
        return batch
    else:
        pairs = [(int(amount), int(amount)) for amount in module.padding]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return functional.pad(batch, _flat(pairs), mode=mode)


def _stretched(module: nn.Module, batch: Tensor) -> Tensor:
    """The input on which a transposed convolution is an ordinary one of stride 1.

    Zeros between the elements for the stride, a border for the padding. An ordinary convolution reads the
    taps in the other direction, so the input is turned round.
    """
    assert isinstance(module, TRANSPOSED)
    dims = len(module.kernel_size)
    sizes = [(size - 1) * step + 1 for size, step in zip(batch.shape[2:], module.stride, strict=True)]
    spread = batch.new_zeros(*batch.shape[:2], *sizes)
    every: list[slice] = [slice(None, None, step) for step in module.stride]
    spread[(slice(None), slice(None), *every)] = batch
    pairs = []
    for i in range(dims):
        border = module.dilation[i] * (module.kernel_size[i] - 1) - int(module.padding[i])
        pairs.append((border, border + module.output_padding[i]))
    return functional.pad(spread, _flat(pairs)).flip(*range(2, 2 + dims))


def _flat(pairs: list[tuple[int, int]]) -> list[int]:
    """Amounts before and after each axis, in the order of `functional.pad`: the last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]


def readable(model: nn.Module, layers: Mapping[str, Prunable]) -> None:
    """Raise ValueError, with each reason, unless the inputs of all `layers` can be read."""
    reasons = [reason for layer in layers.values() if (reason := input_reason(model, layer))]
    if reasons:
        raise ValueError(" ".join(reasons))

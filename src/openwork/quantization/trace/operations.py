"""Which functions and modules have inputs to quantize, and what their operands are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from openwork.quantization.fake_quantization.modules import Quantized

_NAMES = {
    "add": ("add", "__add__", "__radd__", "add_", "__iadd__", "iadd"),
    "mul": ("mul", "multiply", "__mul__", "__rmul__", "mul_", "__imul__", "imul"),
    "pool": ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
             "adaptive_avg_pool3d", "mean"),
    "matmul": ("matmul", "__matmul__", "__rmatmul__", "bmm"),
    "attention": ("scaled_dot_product_attention",),
    "linear": ("linear",),
    "addmm": ("addmm",),
    "conv": ("conv1d", "conv2d", "conv3d"),
    "conv_transpose": ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    "unsupported": (
        "addbmm", "baddbmm", "einsum", "tensordot", "bilinear", "embedding", "embedding_bag",
        "multi_head_attention_forward",
    ),
}  # fmt: skip
KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
"""The kind of a function by its name in torch, as a method or as an operator."""

OPERANDS: dict[str, tuple[str, ...]] = {
    "add": ("left", "right"),
    "mul": ("left", "right"),
    "pool": ("input",),
    "matmul": ("left", "right"),
    "attention": ("query", "key", "value"),
    "linear": ("input", "weight"),
    "addmm": ("input", "weight"),
    "conv": ("input", "weight"),
    "conv_transpose": ("input", "weight"),
    "unsupported": (),
}
"""The operands that may be quantized, in the order of the arguments."""

_KEYWORDS = {
    "add": ("input", "other"),
    "mul": ("input", "other"),
    "pool": ("input",),
    "matmul": ("input", "other"),
    "attention": ("query", "key", "value"),
    "linear": ("input", "weight"),
    "addmm": ("mat1", "mat2"),
    "conv": ("input", "weight"),
    "conv_transpose": ("input", "weight"),
    "unsupported": (),
}

PRODUCTS = ("linear", "addmm", "conv", "conv_transpose")
"""The functions that are layers with a weight."""

FOLDING = ("layer_norm", "gelu", "relu")
"""Operations that carry a `y_multiplier` in the engine (docs/arithmetic.md): migration is free there."""

CLAMPS = ("relu", "relu_", "relu6", "hardtanh", "clamp", "clip")
"""Operations that a quantized output swallows: its lower or upper end is theirs."""

WEIGHTED = {
    cls: cls.forward
    for cls in (
        nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
        nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    )
}  # fmt: skip
"""The layers with a weight to quantize, and the forward that makes a subclass of them one of them."""

UNSUPPORTED = (nn.Bilinear, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, _ConvNd, nn.Linear)
"""Layers with weights that have no quantized form of their own."""


def kind_of(function: Callable[..., Any] | str) -> str | None:
    """The kind of a function or a method's name; None if it has nothing to quantize."""
    return KINDS.get(function_name(function))


def function_name(function: Callable[..., Any] | str) -> str:
    """The name of a function, or of the method that a string names."""
    return function if isinstance(function, str) else getattr(function, "__name__", "")


def operands(kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The operands of a call that may be quantized, None for those that are missing."""
    places = (place(kind, operand) for operand in range(len(_KEYWORDS[kind])))
    return tuple(args[at] if at < len(args) else kwargs.get(name) for at, name in places)


def place(kind: str, operand: int) -> tuple[int, str]:
    """Where an operand stands among the arguments, and its name when it is given by keyword."""
    # The first argument of addmm is what is added.
    return operand + (kind == "addmm"), _KEYWORDS[kind][operand]


def module_kind(module: nn.Module) -> str | None:
    """What kind of layer a module is as a whole; None if its forward is to be looked into.

    A subclass with a forward of its own, or a weight that is computed (weight norm, parametrizations), is
    looked into: there it calls the functions above.
    """
    if isinstance(module, Quantized):
        return "weighted"
    forward = type(module).forward
    for cls, own in WEIGHTED.items():
        if isinstance(module, cls) and forward is own and "weight" in module._parameters:
            return "weighted"
    if isinstance(module, nn.Embedding) and forward is nn.Embedding.forward:
        return "embedding"
    if isinstance(module, nn.MultiheadAttention) and forward is nn.MultiheadAttention.forward:
        return "multihead"
    if isinstance(module, _BatchNorm):
        return "batchnorm"
    if isinstance(module, (nn.Bilinear, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase)):
        return "unsupported"
    return None

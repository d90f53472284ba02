"""The operators of docs/program.md as data: names, element types, shapes and attributes.

A shape is a list of letters; the same letter is the same dimension within one node, and "..." at the front
stands for any leading dimensions. Everything that must agree about an operator's form (verifying, making
nodes, lowering) reads this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DOMAIN = "openwork"
VERSION = 1


@dataclass(frozen=True)
class Slot:
    """One input or output: its name, the element types it may have, its shape, and what it is."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[str, ...]
    optional: bool = False
    tensor: bool = False
    scale: str = "y_scale"
    """The attribute that is there exactly where a slot that may be f32 or u8 is u8."""


@dataclass(frozen=True)
class Operator:
    """One operator: its slots in ONNX order, its attributes (name -> "float", "int" or "string")."""

    name: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    attributes: dict[str, str]
    quantizes: bool = False
    """Whether y_scale and y_zero_point may be given, and make the (last) output u8."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Attributes that may be absent."""

    @property
    def activations(self) -> tuple[Slot, ...]:
        """The inputs that are values of the program."""
        return tuple(slot for slot in self.inputs if not slot.tensor)

    @property
    def tensors(self) -> tuple[Slot, ...]:
        """The inputs that are initializers."""
        return tuple(slot for slot in self.inputs if slot.tensor)


def _slot(name: str, dtypes: str, shape: str, *, optional: bool = False, tensor: bool = False) -> Slot:
    return Slot(name, tuple(dtypes.split("|")), tuple(shape.split()), optional, tensor)


def _tensor(name: str, dtype: str, shape: str, *, optional: bool = False) -> Slot:
    return _slot(name, dtype, shape, optional=optional, tensor=True)


ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "relu": (),
    "clip": ("alpha", "beta"),
    "leaky_relu": ("alpha",),
    "hard_sigmoid": ("alpha", "beta"),
    "hard_swish": (),
    "gelu": (),
    "silu": (),
    "sigmoid": (),
    "tanh": (),
}
"""The activations of docs/arithmetic.md, and the attributes that hold the numbers of each."""
QUANTIZATION = {"y_scale": "float", "y_zero_point": "int"}
RESIDUAL_QUANTIZATION = {"residual_scale": "float", "residual_zero_point": "int"}
_NUMBERS = {"alpha": "float", "beta": "float", "activation_last": "int"}
"""What a product may say about its activation: its numbers, and 1 where it comes after the residual."""


def operator_of_activation(name: str) -> str:
    """The operator that is this activation alone: "leaky_relu" is "LeakyRelu"."""
    return "".join(word.capitalize() for word in name.split("_"))

_BIAS = _tensor("bias", "f32", "N", optional=True)
_MULTIPLIER = _tensor("y_multiplier", "f32", "N", optional=True)
_RESIDUAL = _slot("residual", "f32", "... N", optional=True)
_MASK = _slot("mask", "i64", "B L", optional=True)
_HEADS = {"heads": "int", "scale": "float", "packed": "int"}
ATTENTION_ROUNDINGS = {
    "score_scale": "float",
    "score_zero_point": "int",
    "probability_scale": "float",
    "probability_zero_point": "int",
}

_EMBEDDING_SUM = Operator(
    "EmbeddingSum",
    (
        _slot("ids", "i64", "B L"),
        _slot("type_ids", "i64", "B L", optional=True),
        _tensor("word", "f32", "V H"),
        _tensor("position", "f32", "P H"),
        _tensor("type", "f32", "T H", optional=True),
    ),
    (_slot("y", "f32", "B L H"),),
    {},
)
_LAYER_NORM = Operator(
    "LayerNorm",
    (_slot("x", "f32", "... N"), _tensor("gamma", "f32", "N"), _tensor("beta", "f32", "N"), _MULTIPLIER),
    (_slot("y", "f32", "... N", optional=True), _slot("yq", "u8", "... N", optional=True)),
    {"epsilon": "float"},
    quantizes=True,
)
_LINEAR = Operator(
    "Linear",
    (
        _slot("x", "u8", "... K"),
        Slot("residual", ("f32", "u8"), ("...", "N"), optional=True, scale="residual_scale"),
        _tensor("weight", "s8", "N K"),
        _tensor("weight_scale", "f32", "N"),
        _BIAS,
        _MULTIPLIER,
    ),
    (_slot("y", "f32|u8", "... N"),),
    {"x_scale": "float", "x_zero_point": "int", "activation": "string"},
    quantizes=True,
    optional={**_NUMBERS, **RESIDUAL_QUANTIZATION},
)
_LINEAR_FLOAT = Operator(
    "LinearFloat",
    (_slot("x", "f32", "... K"), _RESIDUAL, _tensor("weight", "f32", "N K"), _BIAS),
    (_slot("y", "f32|u8", "... N"),),
    {"activation": "string"},
    quantizes=True,
    optional=_NUMBERS,
)
_ATTENTION = Operator(
    "Attention",
    (_slot("q", "f32", "B L H"), _slot("k", "f32", "B L H"), _slot("v", "f32", "B L H"), _MASK),
    (_slot("y", "f32|u8", "B L H"),),
    _HEADS,
    quantizes=True,
    optional=ATTENTION_ROUNDINGS,
)
PACKED_ATTENTION = Operator(
    "Attention",
    (_slot("qkv", "f32", "B L 3H"), _MASK),
    (_slot("y", "f32|u8", "B L H"),),
    _HEADS,
    quantizes=True,
    optional=ATTENTION_ROUNDINGS,
)
_MEAN_POOL = Operator(
    "MeanPool",
    (_slot("x", "f32", "B L H"), _slot("mask", "i64", "B L")),
    (_slot("y", "f32", "B H"),),
    {},
)
_L2_NORMALIZE = Operator(
    "L2Normalize", (_slot("x", "f32", "... N"),), (_slot("y", "f32", "... N"),), {"epsilon": "float"}
)
_QUANTIZE = Operator(
    "Quantize", (_slot("x", "f32", "..."),), (_slot("y", "u8", "..."),), {}, quantizes=True
)
_DEQUANTIZE = Operator(
    "Dequantize",
    (_slot("x", "u8", "..."),),
    (_slot("y", "f32", "..."),),
    {"x_scale": "float", "x_zero_point": "int"},
)
_ADD = Operator(
    "Add", (_slot("a", "f32", "..."), _slot("b", "f32", "...")), (_slot("y", "f32", "..."),), {}
)
_ACTIVATIONS = tuple(
    Operator(
        operator_of_activation(name),
        (_slot("x", "f32", "..."),),
        (_slot("y", "f32", "..."),),
        dict.fromkeys(numbers, "float"),
    )
    for name, numbers in ACTIVATIONS.items()
    if name != "none"
)

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        _EMBEDDING_SUM,
        _LAYER_NORM,
        _LINEAR,
        _LINEAR_FLOAT,
        _ATTENTION,
        _MEAN_POOL,
        _L2_NORMALIZE,
        _QUANTIZE,
        _DEQUANTIZE,
        _ADD,
        *_ACTIVATIONS,
    )
}


def operator(name: str, *, packed: bool = False) -> Operator | None:
    """The operator of this name, or None; `packed` asks for Attention's form with one qkv input."""
    return PACKED_ATTENTION if packed and name == "Attention" else OPERATORS.get(name)

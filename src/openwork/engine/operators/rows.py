"""The table of operators, row by row, as docs/program.md prints it."""

from __future__ import annotations

from openwork.engine.operators.activations import ACTIVATIONS, operator_of_activation
from openwork.engine.operators.attribute import Attribute, flag, integer, number, quantizer, scale
from openwork.engine.operators.checks import (
    activation_numbers,
    divides,
    ends_in_order,
    ordered_clip,
    packed_or_three,
    side_by_side,
    tables_of_integers,
)
from openwork.engine.operators.contract import Operator, Slot


def _slot(
    name: str, dtypes: str, shape: str, *, optional: bool = False, scale: str = "", indexes: str = ""
) -> Slot:
    return Slot(name, tuple(dtypes.split("|")), tuple(shape.split()), optional, scale=scale, indexes=indexes)


def _tensor(
    name: str,
    dtypes: str,
    shape: str,
    *,
    optional: bool = False,
    scale: str = "",
    needs: tuple[str, ...] = (),
) -> Slot:
    words = tuple(shape.split())
    return Slot(name, tuple(dtypes.split("|")), words, optional, tensor=True, scale=scale, needs=needs)


_QUANTIZED = quantizer("y")
_ANY_SHAPE = _slot("y", "f32", "...")

EMBEDDING_SUM = Operator(
    "EmbeddingSum",
    (
        _slot("ids", "i64", "B L", indexes="word"),
        _slot("type_ids", "i64", "B L", optional=True, indexes="type"),
        _tensor("word", "f32", "V H"),
        _tensor("position", "f32", "P H"),
        _tensor("type", "f32", "T H", needs=("type_ids",)),
    ),
    (_slot("y", "f32", "B L H"),),
)
LAYER_NORM = Operator(
    "LayerNorm",
    (
        _slot("x", "f32", "... N"),
        _tensor("gamma", "f32", "N"),
        _tensor("beta", "f32", "N"),
        _tensor("y_multiplier", "f32", "N", optional=True, needs=("y_scale",)),
    ),
    (
        _slot("y", "f32", "... N", optional=True),
        Slot("yq", ("u8",), ("...", "N"), needs=("y_scale",)),
    ),
    (number("epsilon", 0.0), *_QUANTIZED),
)
LINEAR = Operator(
    "Linear",
    (
        _slot("x", "u8|f32", "... K", scale="x_scale"),
        _slot("residual", "f32|u8", "... N", optional=True, scale="residual_scale"),
        _tensor("weight", "s8|f32", "N K", scale="x_scale"),
        _tensor("weight_scale", "f32", "N", needs=("x_scale",)),
        _tensor("bias", "f32", "N", optional=True),
        _tensor("y_multiplier", "f32", "N", optional=True, needs=("y_scale",)),
    ),
    (_slot("y", "f32|u8", "... N", scale="y_scale"),),
    (
        *quantizer("x"),
        Attribute("activation", "string", choices=tuple(ACTIVATIONS)),
        number("alpha", optional=True),
        number("beta", optional=True),
        flag("activation_last"),
        *_QUANTIZED,
        *quantizer("residual", needs=("residual",)),
    ),
    checks=(activation_numbers, ordered_clip),
    weighted="weight",
    epilogue=True,
)
ATTENTION = Operator(
    "Attention",
    (
        _slot("q", "f32", "B L Q"),
        Slot("k", ("f32",), ("B", "L", "H"), optional=True, needs=("v",)),
        Slot("v", ("f32",), ("B", "L", "H"), optional=True, needs=("k",)),
        _slot("mask", "i64", "B L", optional=True),
    ),
    (_slot("y", "f32|u8", "B L H", scale="y_scale"),),
    (
        integer("heads", 1, 65535),
        scale("scale"),
        *quantizer("score"),
        *quantizer("probability"),
        *_QUANTIZED,
    ),
    derive=packed_or_three,
    checks=(divides("heads", "H"),),
)
MEAN_POOL = Operator(
    "MeanPool", (_slot("x", "f32", "B L H"), _slot("mask", "i64", "B L")), (_slot("y", "f32", "B H"),)
)
L2_NORMALIZE = Operator(
    "L2Normalize", (_slot("x", "f32", "... N"),), (_slot("y", "f32", "... N"),), (number("epsilon", 0.0),)
)
QUANTIZE = Operator(
    "Quantize",
    (_slot("x", "f32", "..."),),
    (_slot("y", "u8", "..."),),
    quantizer("y", optional=False),
    layout="any",
)
DEQUANTIZE = Operator(
    "Dequantize",
    (_slot("x", "u8", "..."),),
    (_ANY_SHAPE,),
    quantizer("x", optional=False),
    layout="any",
)
ADD = Operator("Add", (_slot("a", "f32", "..."), _slot("b", "f32", "...")), (_ANY_SHAPE,), layout="any")
MULTIPLY = Operator(
    "Multiply", (_slot("a", "f32", "..."), _slot("b", "f32", "...")), (_ANY_SHAPE,), layout="any"
)
CONCAT = Operator(
    "Concat",
    (
        _tensor("tables", "u8", "I 256", optional=True),
        Slot("x", ("f32", "u8"), ("*",), variadic=True),
    ),
    (_slot("y", "f32|u8", "..."),),
    (integer("axis", 0, 7),),
    derive=side_by_side,
    checks=(tables_of_integers,),
)
TO_CHANNELS_LAST = Operator(
    "ToChannelsLast", (_slot("x", "f32|u8", "B C H W"),), (_slot("y", "f32|u8", "B H W C"),)
)
TO_CHANNELS_FIRST = Operator(
    "ToChannelsFirst", (_slot("x", "f32|u8", "B H W C"),), (_slot("y", "f32|u8", "B C H W"),)
)
_ACTIVATIONS = tuple(
    Operator(
        operator_of_activation(name),
        (_slot("x", "f32", "..."),),
        (_ANY_SHAPE,),
        tuple(number(each) for each in numbers),
        checks=(ends_in_order,) if name == "clip" else (),
        layout="any",
    )
    for name, numbers in ACTIVATIONS.items()
    if name != "none"
)

OPERATORS: dict[str, Operator] = {
    row.name: row
    for row in (
        EMBEDDING_SUM,
        LAYER_NORM,
        LINEAR,
        ATTENTION,
        MEAN_POOL,
        L2_NORMALIZE,
        QUANTIZE,
        DEQUANTIZE,
        ADD,
        MULTIPLY,
        CONCAT,
        TO_CHANNELS_LAST,
        TO_CHANNELS_FIRST,
        *_ACTIVATIONS,
    )
}
"""Every operator by its name."""

"""The table of operators, row by row, as docs/program.md prints it."""

from __future__ import annotations

from openwork.engine.operators.activations import ACTIVATIONS, operator_of_activation
from openwork.engine.operators.attribute import integer, integers, number, positive, quantizer, scale
from openwork.engine.operators.checks import (
    activation_numbers,
    divides,
    ends_in_order,
    ordered_clip,
    packed_or_three,
    rounded_sums,
    side_by_side,
    tables_of_integers,
)
from openwork.engine.operators.contract import Operator, Slot
from openwork.engine.operators.element_rows import ELEMENT_ROWS
from openwork.engine.operators.image_rows import IMAGE_ROWS
from openwork.engine.operators.product_parts import EPILOGUE_ATTRIBUTES, product_tensors
from openwork.engine.operators.shape_checks import LARGEST_SIZE, cuts, reshapes
from openwork.engine.operators.slot_words import tensor, value
from openwork.engine.operators.table_rows import TABLE_ROWS
from openwork.engine.program import MOST_AXES

_QUANTIZED = quantizer("y")
_ANY_SHAPE = value("y", "f32", "...")

EMBEDDING_SUM = Operator(
    "EmbeddingSum",
    (
        value("ids", "i64", "B L", indexes="word"),
        value("type_ids", "i64", "B L", optional=True, indexes="type"),
        tensor("word", "f32", "V H"),
        tensor("position", "f32", "P H"),
        tensor("type", "f32", "T H", needs=("type_ids",)),
    ),
    (value("y", "f32", "B L H"),),
)
LAYER_NORM = Operator(
    "LayerNorm",
    (
        value("x", "f32", "... N"),
        tensor("gamma", "f32", "N"),
        tensor("beta", "f32", "N"),
        tensor("y_multiplier", "f32", "N", optional=True, needs=("y_scale",)),
    ),
    (
        value("y", "f32", "... N", optional=True),
        Slot("yq", ("u8",), ("...", "N"), needs=("y_scale",)),
    ),
    (positive("epsilon"), *_QUANTIZED),
)
LINEAR = Operator(
    "Linear",
    (
        value("x", "u8|f32", "... K", scale="x_scale"),
        value("residual", "f32|u8", "... N", optional=True, scale="residual_scale"),
        *product_tensors("N K"),
    ),
    (value("y", "f32|u8", "... N", scale="y_scale"),),
    EPILOGUE_ATTRIBUTES,
    checks=(activation_numbers, ordered_clip, rounded_sums),
    weighted="weight",
    epilogue=True,
)
ATTENTION = Operator(
    "Attention",
    (
        value("q", "f32", "B L Q"),
        Slot("k", ("f32",), ("B", "L", "H"), optional=True, needs=("v",)),
        Slot("v", ("f32",), ("B", "L", "H"), optional=True, needs=("k",)),
        value("mask", "i64", "B L", optional=True),
    ),
    (value("y", "f32|u8", "B L H", scale="y_scale"),),
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
    "MeanPool", (value("x", "f32", "B L H"), value("mask", "i64", "B L")), (value("y", "f32", "B H"),)
)
L2_NORMALIZE = Operator(
    "L2Normalize", (value("x", "f32", "... N"),), (value("y", "f32", "... N"),), (positive("epsilon"),)
)
QUANTIZE = Operator(
    "Quantize",
    (value("x", "f32", "..."),),
    (value("y", "u8", "..."),),
    quantizer("y", optional=False),
    layout="any",
)
DEQUANTIZE = Operator(
    "Dequantize",
    (value("x", "u8", "..."),),
    (_ANY_SHAPE,),
    quantizer("x", optional=False),
    layout="any",
)
CONCAT = Operator(
    "Concat",
    (
        tensor("tables", "u8", "I 256", optional=True),
        Slot("x", ("f32", "u8"), ("*",), variadic=True),
    ),
    (value("y", "f32|u8", "..."),),
    (integer("axis", 0, 7),),
    derive=side_by_side,
    checks=(tables_of_integers,),
)
RESHAPE = Operator(
    "Reshape",
    (value("x", "f32|u8|i64", "*"),),
    (value("y", "f32|u8|i64", "..."),),
    (integers("shape", (1, MOST_AXES), -1, LARGEST_SIZE),),
    derive=reshapes,
    view=True,
)
SLICE = Operator(
    "Slice",
    (value("x", "f32|u8", "*"),),
    (value("y", "f32|u8", "..."),),
    (
        integer("axis", 0, MOST_AXES - 1),
        integer("begin", 0, LARGEST_SIZE),
        integer("end", 1, LARGEST_SIZE),
    ),
    derive=cuts,
)
SOFTMAX = Operator(
    "Softmax",
    (value("x", "f32", "... N"),),
    (value("y", "f32|u8", "... N", scale="y_scale"),),
    _QUANTIZED,
)
P_RELU = Operator(
    "PRelu", (value("x", "f32", "... N"), tensor("slope", "f32", "N")), (value("y", "f32", "... N"),)
)
_ACTIVATIONS = tuple(
    Operator(
        operator_of_activation(name),
        (value("x", "f32", "..."),),
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
        *TABLE_ROWS,
        LAYER_NORM,
        LINEAR,
        ATTENTION,
        MEAN_POOL,
        L2_NORMALIZE,
        QUANTIZE,
        DEQUANTIZE,
        *ELEMENT_ROWS,
        CONCAT,
        RESHAPE,
        SLICE,
        SOFTMAX,
        P_RELU,
        *IMAGE_ROWS,
        *_ACTIVATIONS,
    )
}
"""Every operator by its name."""

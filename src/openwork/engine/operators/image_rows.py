"""The rows of the operators on images, which stand channels last: [B, H, W, C]."""

from __future__ import annotations

from openwork.engine.operators.activations import ACTIVATIONS
from openwork.engine.operators.attribute import (
    Attribute,
    flag,
    integer,
    integers,
    number,
    positive,
    quantizer,
)
from openwork.engine.operators.checks import (
    activation_numbers,
    divides,
    ordered_clip,
    rounded_sums,
    weight_of_windows,
)
from openwork.engine.operators.contract import Operator
from openwork.engine.operators.image_checks import (
    enlarged,
    few_pixels,
    overhang_is_padding,
    padded,
    quantizes_floats,
    value_of_bytes,
)
from openwork.engine.operators.product_parts import EPILOGUE_ATTRIBUTES, product_tensors
from openwork.engine.operators.slot_words import tensor, value
from openwork.engine.operators.windows import LARGEST_WINDOW, WINDOW, slides

MOST_GROUPS = 1 << 20
_QUANTIZERS = (*quantizer("x"), *quantizer("y"))

CONV = Operator(
    "Conv",
    (
        value("x", "u8|f32", "B H W C", scale="x_scale"),
        value("residual", "f32|u8", "B P Q N", optional=True, scale="residual_scale"),
        *product_tensors("N R S G"),
    ),
    (value("y", "f32|u8", "B P Q N", scale="y_scale"),),
    (*WINDOW, integer("groups", 1, MOST_GROUPS), *EPILOGUE_ATTRIBUTES),
    derive=slides,
    checks=(activation_numbers, ordered_clip, rounded_sums, weight_of_windows),
    weighted="weight",
    epilogue=True,
    layout="channels last",
)
GROUP_NORM = Operator(
    "GroupNorm",
    (
        value("x", "f32", "B H W C"),
        value("shift", "f32", "B 1 1 C", optional=True),
        tensor("gamma", "f32", "C"),
        tensor("beta", "f32", "C"),
    ),
    (value("y", "f32|u8", "B H W C", scale="y_scale"),),
    (
        integer("groups", 1, MOST_GROUPS),
        positive("epsilon"),
        Attribute("activation", "string", choices=tuple(ACTIVATIONS)),
        number("alpha", optional=True),
        number("beta", optional=True),
        *quantizer("y"),
    ),
    checks=(divides("groups", "C"), activation_numbers, ordered_clip),
    layout="channels last",
)
MAX_POOL = Operator(
    "MaxPool",
    (value("x", "f32|u8", "B H W C"),),
    (value("y", "f32|u8", "B P Q C"),),
    WINDOW,
    derive=slides,
    layout="channels last",
)
AVERAGE_POOL = Operator(
    "AveragePool",
    (value("x", "u8|f32", "B H W C", scale="x_scale"),),
    (value("y", "f32|u8", "B P Q C", scale="y_scale"),),
    (
        *WINDOW,
        integers("overhang", 2, 0, LARGEST_WINDOW, optional=True),
        flag("count_include_pad"),
        *_QUANTIZERS,
    ),
    derive=slides,
    checks=(overhang_is_padding, few_pixels),
    layout="channels last",
)
GLOBAL_MAX_POOL = Operator(
    "GlobalMaxPool",
    (value("x", "f32|u8", "B H W C"),),
    (value("y", "f32|u8", "B 1 1 C"),),
    layout="channels last",
)
GLOBAL_AVERAGE_POOL = Operator(
    "GlobalAveragePool",
    (value("x", "u8|f32", "B H W C", scale="x_scale"),),
    (value("y", "f32|u8", "B 1 1 C", scale="y_scale"),),
    _QUANTIZERS,
    checks=(few_pixels,),
    layout="channels last",
)
PAD = Operator(
    "Pad",
    (value("x", "f32|u8", "B H W C"),),
    (value("y", "f32|u8", "B P Q N"),),
    (integers("pads", 6, 0, LARGEST_WINDOW), number("value")),
    derive=padded,
    checks=(value_of_bytes,),
    layout="channels last",
)
UPSAMPLE = Operator(
    "Upsample",
    (value("x", "f32|u8", "B H W C"),),
    (value("y", "f32|u8", "B P Q C"),),
    (integers("factors", 2, 1, LARGEST_WINDOW),),
    derive=enlarged,
    layout="channels last",
)
TO_CHANNELS_LAST = Operator(
    "ToChannelsLast",
    (value("x", "f32|u8", "B C H W"),),
    (value("y", "f32|u8", "B H W C", quantizer="y_scale"),),
    quantizer("y"),
    checks=(quantizes_floats,),
)
TO_CHANNELS_FIRST = Operator(
    "ToChannelsFirst", (value("x", "f32|u8", "B H W C"),), (value("y", "f32|u8", "B C H W"),)
)

IMAGE_ROWS = (
    CONV,
    GROUP_NORM,
    MAX_POOL,
    AVERAGE_POOL,
    GLOBAL_MAX_POOL,
    GLOBAL_AVERAGE_POOL,
    PAD,
    UPSAMPLE,
    TO_CHANNELS_LAST,
    TO_CHANNELS_FIRST,
)

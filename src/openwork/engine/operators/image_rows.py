"""The rows of the operators on images, which stand channels last: [B, H, W, C]."""

from __future__ import annotations

from openwork.engine.operators.attribute import integer
from openwork.engine.operators.checks import activation_numbers, ordered_clip, weight_of_windows
from openwork.engine.operators.contract import Operator
from openwork.engine.operators.epilogue_attributes import EPILOGUE_ATTRIBUTES, OUTPUT_TENSORS
from openwork.engine.operators.slot_words import tensor, value
from openwork.engine.operators.windows import WINDOW, slides

MOST_GROUPS = 1 << 20

CONV = Operator(
    "Conv",
    (
        value("x", "u8|f32", "B H W C", scale="x_scale"),
        value("residual", "f32|u8", "B P Q N", optional=True, scale="residual_scale"),
        tensor("weight", "s8|f32", "N R S G", scale="x_scale"),
        tensor("weight_scale", "f32", "N", needs=("x_scale",)),
        tensor("bias", "f32", "N", optional=True),
        *OUTPUT_TENSORS,
    ),
    (value("y", "f32|u8", "B P Q N", scale="y_scale"),),
    (*WINDOW, integer("groups", 1, MOST_GROUPS), *EPILOGUE_ATTRIBUTES),
    derive=slides,
    checks=(activation_numbers, ordered_clip, weight_of_windows),
    weighted="weight",
    epilogue=True,
    layout="channels last",
)
TO_CHANNELS_LAST = Operator(
    "ToChannelsLast", (value("x", "f32|u8", "B C H W"),), (value("y", "f32|u8", "B H W C"),)
)
TO_CHANNELS_FIRST = Operator(
    "ToChannelsFirst", (value("x", "f32|u8", "B H W C"),), (value("y", "f32|u8", "B C H W"),)
)

IMAGE_ROWS = (CONV, TO_CHANNELS_LAST, TO_CHANNELS_FIRST)

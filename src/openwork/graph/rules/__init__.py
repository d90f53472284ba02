"""The ordered list of rules. A rule runs until it applies nowhere before the next one begins, and the list is
repeated until no rule applies; so a rule may rely on everything above it."""

from __future__ import annotations

from collections.abc import Mapping

from openwork.graph.rewrite import Rule
from openwork.graph.rules.epilogue.followers import ACTIVATION, BIAS, RESIDUAL_ADD, RESIDUAL_INTEGERS
from openwork.graph.rules.epilogue.multiplier import MULTIPLIED_NORM, MULTIPLIED_OUTPUT, SHARE_MULTIPLIER
from openwork.graph.rules.epilogue.quantized_outputs import QUANTIZED_NORM, QUANTIZED_OUTPUT
from openwork.graph.rules.epilogue.siblings import PACK_SIBLINGS
from openwork.graph.rules.epilogue.values import MULTIPLIED_VALUES
from openwork.graph.rules.functions.activations import ADD, GELU, GELU_ERF, RELU
from openwork.graph.rules.functions.attention import ATTENTION
from openwork.graph.rules.functions.embedding import EMBEDDING_SUM
from openwork.graph.rules.functions.layer_norm import LAYER_NORM, LAYER_NORM_WRITTEN_OUT
from openwork.graph.rules.functions.mean_pool import MEAN_POOL, PLAIN_MEAN
from openwork.graph.rules.functions.normalize import L2_NORMALIZE, LP_NORMALIZE
from openwork.graph.rules.functions.unary import CLIP, GATE, UNARY
from openwork.graph.rules.prepare.constants import FOLD_CONSTANTS, FOLD_DEQUANTIZED
from openwork.graph.rules.prepare.identities import REMOVE_IDENTITIES
from openwork.graph.rules.prepare.qoperator import EXPAND_QLINEAR_MATMUL
from openwork.graph.rules.prepare.quantizers import DEQUANTIZE, QUANTIZE, SHARE_QUANTIZE
from openwork.graph.rules.prepare.relaxed import RELAX
from openwork.graph.rules.prepare.round_trips import (
    AFTER_MOVES,
    BEFORE_MOVES,
    REQUANTIZED,
    ROUNDED_ALREADY,
    ROUNDED_ROWS,
)
from openwork.graph.rules.prepare.shapes import SHAPE_OF_INPUT
from openwork.graph.rules.products.linear import LINEAR, LINEAR_FLOAT

RULES: tuple[Rule, ...] = (
    FOLD_CONSTANTS,
    SHAPE_OF_INPUT,
    REMOVE_IDENTITIES,
    EXPAND_QLINEAR_MATMUL,
    # Integer products first: what they read must still be integers.
    QUANTIZE,
    DEQUANTIZE,
    SHARE_MULTIPLIER,
    SHARE_QUANTIZE,
    LINEAR,
    FOLD_DEQUANTIZED,
    ROUNDED_ALREADY,
    ROUNDED_ROWS,
    REQUANTIZED,
    BEFORE_MOVES,
    AFTER_MOVES,
    LINEAR_FLOAT,
    BIAS,
    # Functions that span many nodes, before the small ones take nodes away from them.
    LAYER_NORM,
    LAYER_NORM_WRITTEN_OUT,
    GELU,
    GELU_ERF,
    EMBEDDING_SUM,
    ATTENTION,
    MEAN_POOL,
    PLAIN_MEAN,
    L2_NORMALIZE,
    LP_NORMALIZE,
    RELU,
    CLIP,
    GATE,
    UNARY,
    ADD,
    # What follows a step goes into it.
    ACTIVATION,
    RESIDUAL_ADD,
    MULTIPLIED_VALUES,
    PACK_SIBLINGS,
    SHARE_QUANTIZE,
    QUANTIZED_OUTPUT,
    QUANTIZED_NORM,
    MULTIPLIED_OUTPUT,
    MULTIPLIED_NORM,
    RESIDUAL_INTEGERS,
)


def _with(rule: Rule, after: Rule) -> tuple[Rule, ...]:
    place = RULES.index(after) + 1
    return (*RULES[:place], rule, *RULES[place:])


_RULES: Mapping[str, tuple[Rule, ...]] = {
    "exact": RULES,
    # What the integer products left: their roundings must be taken before, the float functions come after.
    "relaxed": _with(RELAX, after=AFTER_MOVES),
}
ROUNDINGS = tuple(_RULES)
"""How the model's roundings may be taken: all of them as they stand, or fewer between float operators."""


def check_rounding(rounding: str) -> None:
    """Raise ValueError for a rounding that is not one of ROUNDINGS."""
    if rounding not in ROUNDINGS:
        raise ValueError(f"The rounding is {' or '.join(map(repr, ROUNDINGS))}, but it is {rounding!r}.")


def rules_for(rounding: str) -> tuple[Rule, ...]:
    """The ordered list for one of ROUNDINGS; raises ValueError for another."""
    check_rounding(rounding)
    return _RULES[rounding]

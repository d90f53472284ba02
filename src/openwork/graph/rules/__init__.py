"""The phases of the reduction, in order, and the rules of each.

Within a phase a rule runs until it applies nowhere before the next one begins, so a rule may rely on
everything above it. The phases are repeated until no rule applies: what a later one makes may be work for an
earlier one.

A rule of the room `functions` that may come behind all others needs no mention here: its file is enough.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module

from openwork.graph.layout import CANCEL, PUSH, SHARE
from openwork.graph.layout_along import PUSH_ALONG
from openwork.graph.neighbours import stands_among_native
from openwork.graph.phase import Phase
from openwork.graph.quantized_moves import CANCEL_QUANTIZED, QUANTIZE_AND_MOVE
from openwork.graph.rewrite import Rule
from openwork.graph.row_layout import CANCEL_TURNS, PUSH_TURN
from openwork.graph.rules.conditions import (
    CONSTANTS_FOLDED,
    EPILOGUES_TAKEN,
    FUNCTIONS_NAMED,
    MOVES_MEET_NOT,
    PRODUCTS_MADE,
    QOPERATORS_EXPANDED,
)
from openwork.graph.rules.epilogue.clamps import CLAMP
from openwork.graph.rules.epilogue.concats import QUANTIZE_BEFORE_CONCAT, TABLES_INTO_PRODUCTS
from openwork.graph.rules.epilogue.followers import ACTIVATION, RESIDUAL_ADD
from openwork.graph.rules.epilogue.group_norms import ACTIVATION_INTO_NORM, SHIFT_INTO_NORM
from openwork.graph.rules.epilogue.integer_inputs import (
    DEQUANTIZE_LATER,
    INTEGER_INPUTS,
    QUANTIZE_EARLIER,
)
from openwork.graph.rules.epilogue.integer_residuals import RESIDUAL_INTEGERS
from openwork.graph.rules.epilogue.multiplier import MULTIPLIED_NORM, MULTIPLIED_OUTPUT, SHARE_MULTIPLIER
from openwork.graph.rules.epilogue.pads import DEQUANTIZE_BEHIND_PAD, PAD_INTO_CONV, QUANTIZE_BEFORE_PAD
from openwork.graph.rules.epilogue.parted_products import PARTED_PRODUCT
from openwork.graph.rules.epilogue.quantized_outputs import QUANTIZED_NORM, QUANTIZED_OUTPUT
from openwork.graph.rules.epilogue.reshaped_sums import SUM_BEFORE_RESHAPE
from openwork.graph.rules.epilogue.siblings import PACK_SIBLINGS
from openwork.graph.rules.epilogue.tables import LOOKUP, LOOKUP_AGAIN, LOOKUP_INTO_PRODUCT
from openwork.graph.rules.epilogue.values import MULTIPLIED_VALUES
from openwork.graph.rules.functions.activations import ADD, GELU, GELU_WRITTEN_OUT, RELU
from openwork.graph.rules.functions.attention import ATTENTION
from openwork.graph.rules.functions.bag_loops import BAG_LOOP
from openwork.graph.rules.functions.concat import CONCAT, CONCAT_INTEGERS
from openwork.graph.rules.functions.embedding import EMBEDDING_SUM
from openwork.graph.rules.functions.embedding_bag import EMBEDDING_BAG, ROW_BY_COLUMN
from openwork.graph.rules.functions.group_norm import GROUP_NORM, INSTANCE_NORM
from openwork.graph.rules.functions.hard_sigmoid import HARD_SIGMOID_WRITTEN_OUT
from openwork.graph.rules.functions.interaction import INTERACTION
from openwork.graph.rules.functions.layer_norm import LAYER_NORM, LAYER_NORM_WRITTEN_OUT
from openwork.graph.rules.functions.mean_pool import MEAN_POOL, PLAIN_MEAN
from openwork.graph.rules.functions.normalize import L2_NORMALIZE, LP_NORMALIZE
from openwork.graph.rules.functions.unary import CLIP, GATE, UNARY
from openwork.graph.rules.prepare.attention_operator import EXPAND_ATTENTION
from openwork.graph.rules.prepare.constants import FOLD_CONSTANTS, FOLD_DEQUANTIZED
from openwork.graph.rules.prepare.dequantized_tables import DEQUANTIZE_TABLE
from openwork.graph.rules.prepare.fed_images import MOVE_FIRST, NORMALIZED_BYTES
from openwork.graph.rules.prepare.identities import REMOVE_IDENTITIES
from openwork.graph.rules.prepare.numbered import NUMBERED
from openwork.graph.rules.prepare.qoperator import EXPAND_QLINEAR, EXPAND_QLINEAR_MICROSOFT
from openwork.graph.rules.prepare.quantizers import DEQUANTIZE, QUANTIZE, SHARE_QUANTIZE
from openwork.graph.rules.prepare.relaxed import RELAX
from openwork.graph.rules.prepare.round_trips import (
    AFTER_MOVES,
    BEFORE_MOVES,
    REQUANTIZED,
    ROUNDED_ALREADY,
    ROUNDED_ROWS,
)
from openwork.graph.rules.prepare.shapes import KNOWN_SIZE, SHAPE_OF_INPUT
from openwork.graph.rules.prepare.signed_integers import KEEP_SIGNED
from openwork.graph.rules.prepare.transposed import TRANSPOSED
from openwork.graph.rules.prepare.uniform_picks import UNIFORM_PICK
from openwork.graph.rules.products.bias import BIAS
from openwork.graph.rules.products.channel_scale import BATCH_NORM, CHANNEL_SCALE
from openwork.graph.rules.products.conv import CONV, CONV_FLOAT
from openwork.graph.rules.products.dynamic import DYNAMIC_LINEAR
from openwork.graph.rules.products.linear import LINEAR, LINEAR_FLOAT
from openwork.graph.rules.products.rows import ROWS


def _with_others(room: str, ordered: tuple[Rule, ...], elsewhere: tuple[Rule, ...] = ()) -> tuple[Rule, ...]:
    """The rules whose order matters, then the others of the room's files that stand nowhere else, by file."""
    folder = import_module(f"{__name__}.{room}")
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    modules = [import_module(f"{folder.__name__}.{name}") for name in names]
    found = dict.fromkeys(
        held for module in modules for held in vars(module).values() if isinstance(held, Rule)
    )
    return (*ordered, *(rule for rule in found if rule not in (*ordered, *elsewhere)))


PREPARE = Phase(
    "prepare",
    (
        FOLD_CONSTANTS,
        UNIFORM_PICK,
        KNOWN_SIZE,
        SHAPE_OF_INPUT,
        REMOVE_IDENTITIES,
        MOVE_FIRST,
        NUMBERED,
        EXPAND_QLINEAR,
        EXPAND_QLINEAR_MICROSOFT,
        EXPAND_ATTENTION,
        TRANSPOSED,
        KEEP_SIGNED,
        DEQUANTIZE_TABLE,
        QUANTIZE,
        DEQUANTIZE,
        NORMALIZED_BYTES,
        SHARE_MULTIPLIER,
        SHARE_QUANTIZE,
    ),
    leaves=(CONSTANTS_FOLDED, QOPERATORS_EXPANDED),
)
PRODUCTS = Phase(
    "products",
    # Integer products first: what they read must still be integers.
    (
        LINEAR,
        DYNAMIC_LINEAR,
        CONV,
        CONCAT_INTEGERS,
        # Tables of integers: their rows must still be integers. A loop before the lookup in front of it.
        BAG_LOOP,
        EMBEDDING_BAG,
        ROW_BY_COLUMN,
        FOLD_DEQUANTIZED,
        ROUNDED_ALREADY,
        ROUNDED_ROWS,
        REQUANTIZED,
        BEFORE_MOVES,
        AFTER_MOVES,
        LINEAR_FLOAT,
        CONV_FLOAT,
        # Their numbers of each channel are no convolution.
        GROUP_NORM,
        INSTANCE_NORM,
        BATCH_NORM,
        CHANNEL_SCALE,
        BIAS,
        ROWS,
    ),
    requires=PREPARE.leaves,
    leaves=(PRODUCTS_MADE,),
)
FUNCTIONS = Phase(
    "functions",
    _with_others(
        "functions",
        (
            # Those that span many nodes, before the small ones take nodes away from them.
            LAYER_NORM,
            LAYER_NORM_WRITTEN_OUT,
            GELU,
            GELU_WRITTEN_OUT,
            EMBEDDING_SUM,
            INTERACTION,
            ATTENTION,
            MEAN_POOL,
            PLAIN_MEAN,
            L2_NORMALIZE,
            LP_NORMALIZE,
            HARD_SIGMOID_WRITTEN_OUT,
            RELU,
            CLIP,
            GATE,
            UNARY,
            ADD,
            CONCAT,
        ),
        elsewhere=PRODUCTS.rules,
    ),
    requires=PRODUCTS.leaves,
    leaves=(FUNCTIONS_NAMED,),
)
EPILOGUE = Phase(
    "epilogue",
    (
        PARTED_PRODUCT,
        ACTIVATION,
        ACTIVATION_INTO_NORM,
        SHIFT_INTO_NORM,
        SUM_BEFORE_RESHAPE,
        RESIDUAL_ADD,
        MULTIPLIED_VALUES,
        PACK_SIBLINGS,
        SHARE_QUANTIZE,
        CLAMP,
        LOOKUP,
        LOOKUP_AGAIN,
        LOOKUP_INTO_PRODUCT,
        QUANTIZED_OUTPUT,
        QUANTIZED_NORM,
        MULTIPLIED_OUTPUT,
        MULTIPLIED_NORM,
        RESIDUAL_INTEGERS,
        INTEGER_INPUTS,
        DEQUANTIZE_LATER,
        QUANTIZE_EARLIER,
        QUANTIZE_BEFORE_CONCAT,
        TABLES_INTO_PRODUCTS,
        QUANTIZE_BEFORE_PAD,
        DEQUANTIZE_BEHIND_PAD,
        PAD_INTO_CONV,
    ),
    requires=FUNCTIONS.leaves,
    leaves=(EPILOGUES_TAKEN,),
)

LAYOUT = Phase(
    "layout",
    (PUSH, PUSH_ALONG, SHARE, CANCEL, CANCEL_QUANTIZED, QUANTIZE_AND_MOVE, PUSH_TURN, CANCEL_TURNS),
    leaves=(MOVES_MEET_NOT,),
)


def _beside_native(rule: Rule) -> Rule:
    """The rule for single nodes of ONNX where what they read, and what reads them, is native.

    One by one between other nodes of ONNX they would only cut the part that ONNX Runtime runs.
    """
    if rule.domain:
        return rule
    return replace(rule, match=lambda node: rule.match(node) if stands_among_native(node) else None)


REMAINS = Phase("remains", tuple(map(_beside_native, _with_others("remains", ()))), last=True)

PHASES: tuple[Phase, ...] = (PREPARE, PRODUCTS, FUNCTIONS, EPILOGUE, LAYOUT, REMAINS)
RULES: tuple[Rule, ...] = tuple(rule for phase in PHASES for rule in phase.rules)


def _relaxed(phase: Phase) -> Phase:
    """The phase with fewer roundings: integer products take theirs before it, float functions come after."""
    if phase is not PRODUCTS:
        return phase
    place = phase.rules.index(AFTER_MOVES) + 1
    return replace(phase, rules=(*phase.rules[:place], RELAX, *phase.rules[place:]))


_PHASES: Mapping[str, tuple[Phase, ...]] = {"exact": PHASES, "relaxed": tuple(map(_relaxed, PHASES))}
ROUNDINGS = tuple(_PHASES)
"""How the model's roundings may be taken: all of them as they stand, or fewer between float operators."""


def check_rounding(rounding: str) -> None:
    """Raise ValueError for a rounding that is not one of ROUNDINGS."""
    if rounding not in ROUNDINGS:
        raise ValueError(f"The rounding is {' or '.join(map(repr, ROUNDINGS))}, but it is {rounding!r}.")


def phases_for(rounding: str) -> tuple[Phase, ...]:
    """The phases for one of ROUNDINGS; raises ValueError for another."""
    check_rounding(rounding)
    return _PHASES[rounding]

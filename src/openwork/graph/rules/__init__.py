"""The ordered list of rules. A rule runs until it applies nowhere before the next one begins, and the list is
repeated until no rule applies; so a rule may rely on everything above it."""

from __future__ import annotations

from openwork.graph.rewrite import Rule
from openwork.graph.rules.activations import ADD, GELU, GELU_ERF, RELU
from openwork.graph.rules.attention import ATTENTION
from openwork.graph.rules.constants import FOLD_CONSTANTS, FOLD_DEQUANTIZED
from openwork.graph.rules.embedding import EMBEDDING_SUM
from openwork.graph.rules.epilogue import (
    ACTIVATION,
    BIAS,
    RESIDUAL_ADD,
)
from openwork.graph.rules.identities import REMOVE_IDENTITIES
from openwork.graph.rules.layer_norm import LAYER_NORM, LAYER_NORM_WRITTEN_OUT
from openwork.graph.rules.linear import LINEAR, LINEAR_FLOAT
from openwork.graph.rules.mean_pool import MEAN_POOL, PLAIN_MEAN
from openwork.graph.rules.multiplier import MULTIPLIED_NORM, MULTIPLIED_OUTPUT, SHARE_MULTIPLIER
from openwork.graph.rules.normalize import L2_NORMALIZE, LP_NORMALIZE
from openwork.graph.rules.qoperator import EXPAND_QLINEAR_MATMUL
from openwork.graph.rules.quantized_outputs import QUANTIZED_NORM, QUANTIZED_OUTPUT
from openwork.graph.rules.quantizers import DROP_ROUND_TRIP, QUANTIZE, SHARE_QUANTIZE
from openwork.graph.rules.shapes import SHAPE_OF_INPUT
from openwork.graph.rules.siblings import PACK_SIBLINGS
from openwork.graph.rules.unary import CLIP, GATE, UNARY
from openwork.graph.rules.values import MULTIPLIED_VALUES

RULES: tuple[Rule, ...] = (
    FOLD_CONSTANTS,
    SHAPE_OF_INPUT,
    REMOVE_IDENTITIES,
    EXPAND_QLINEAR_MATMUL,
    # Integer products first: what they read must still be integers.
    QUANTIZE,
    SHARE_MULTIPLIER,
    SHARE_QUANTIZE,
    LINEAR,
    FOLD_DEQUANTIZED,
    DROP_ROUND_TRIP,
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
)

"""The precision of an exported graph."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from openwork.export.layers import COPIED
from openwork.export.weights import quantizers
from openwork.quantization.copies import copied

logger = logging.getLogger(__name__)


def in_binary32(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """The model and its example inputs as the graph is to compute with them; copies where they change.

    A quantized model is written in float32, whatever it computes in: its scales are float32, and
    QuantizeLinear takes numbers of their type. So is one in BF16, which ONNX Runtime does not run on CPUs.
    Both types of half precision are part of float32, so no weight changes.
    """
    types = {x.dtype for x in (*model.parameters(), *model.buffers()) if x.is_floating_point()}
    rounds = any(quantizer.mode != "disabled" for quantizer in quantizers(model).values())
    foreign = {kind for kind in types if kind == torch.bfloat16 or (rounds and kind != torch.float32)}
    if not foreign:
        return model, inputs
    logger.warning(
        "The model computes in %s; the graph is written in float32, its inputs and outputs too.",
        " and ".join(sorted(str(kind).removeprefix("torch.") for kind in foreign)),
    )
    return copied(model, COPIED).float(), {name: _widened(x) for name, x in inputs.items()}


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x

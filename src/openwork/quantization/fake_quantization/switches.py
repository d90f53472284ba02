"""All quantizers of a model turned off and on together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from openwork.quantization.fake_quantization.fake_quant import FakeQuantize


def quantizers(model: nn.Module) -> list[FakeQuantize]:
    """Every quantizer of the model, shared ones once."""
    return [module for module in model.modules() if isinstance(module, FakeQuantize)]


def off(model: nn.Module) -> None:
    """Every quantizer lets its tensor through."""
    for quantizer in quantizers(model):
        quantizer.disable()


@contextmanager
def in_float(model: nn.Module) -> Iterator[None]:
    """While open, every quantizer lets its tensor through; afterwards those that quantized do so again."""
    on = [quantizer for quantizer in quantizers(model) if quantizer.mode != "disabled"]
    off(model)
    try:
        yield
    finally:
        for quantizer in on:
            quantizer.enable()

"""The places of a model where numbers are rounded: layers with their quantizers, and single quantizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from openwork.quantization.fake_quantization.calls import flat
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.fake_quantization.modules import is_quantized
from openwork.quantization.fake_quantization.multihead import QuantMultiheadAttention

SUFFIX = "_quantizer"


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """One place where numbers are rounded.

    name: of the module in the model. kind: the float layer's class, or "activation" for a quantizer that
    stands by itself, as on the inputs of an addition. quantizers: what rounds there.
    """

    name: str
    kind: str
    module: nn.Module
    quantizers: tuple[FakeQuantize, ...]

    @property
    def place(self) -> str:
        """The name that `include` and `exclude` of `prepare` know: the layer's, or that of the function whose
        operand the quantizer rounds, layer1.0.add0 for layer1.0.add0_left_quantizer.
        """
        head, _, call = self.name.rpartition(".")
        name = head if call.isdecimal() and head.endswith(SUFFIX) else self.name
        operand = name.removesuffix(SUFFIX)
        return operand.rpartition("_")[0] if name.endswith(SUFFIX) and "_" in operand else name


def quantized_layers(model: nn.Module) -> tuple[QuantizedLayer, ...]:
    """The layers of `model` that round something now, in the model's order; each quantizer of its own once.

    Quantizers that are disabled do not count. Raises ValueError for one that is still observing, and if
    nothing is quantized.
    """
    found = tuple(_layers(model))
    if not found:
        raise ValueError("Nothing in the model is quantized; prepare and calibrate it first.")
    return found


def _layers(model: nn.Module) -> Iterator[QuantizedLayer]:
    owned: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, QuantMultiheadAttention) or is_quantized(module):
            quantizers = _active(module)
            owned.update(id(quantizer) for quantizer in quantizers)
            if quantizers:
                kind = type(module).__name__.removeprefix("Quant")
                yield QuantizedLayer(name, kind, module, quantizers)
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantize) and id(module) not in owned and _is_active(module):
            yield QuantizedLayer(name, "activation", module, (module,))


def _active(module: nn.Module) -> tuple[FakeQuantize, ...]:
    children = {id(child): child for child in flat(module.children()) if isinstance(child, FakeQuantize)}
    return tuple(child for child in children.values() if _is_active(child))


def _is_active(quantizer: FakeQuantize) -> bool:
    if quantizer.mode == "observing":
        raise ValueError(f"The quantizer of {quantizer.name} is still observing; calibrate the model first.")
    return quantizer.mode != "disabled"


def all_quantizers(layers: Iterable[QuantizedLayer]) -> tuple[FakeQuantize, ...]:
    """Every quantizer of the layers, once."""
    return tuple({id(q): q for layer in layers for q in layer.quantizers}.values())


@contextmanager
def in_float(quantizers: Iterable[FakeQuantize]) -> Iterator[None]:
    """While open, the quantizers round nothing."""
    quantizers = tuple(quantizers)
    try:
        for quantizer in quantizers:
            quantizer.disable()
        yield
    finally:
        for quantizer in quantizers:
            quantizer.enable()


@contextmanager
def rounding(quantizers: Iterable[FakeQuantize]) -> Iterator[None]:
    """While open, quantizers that are disabled round again."""
    quantizers = tuple(quantizers)
    try:
        for quantizer in quantizers:
            quantizer.enable()
        yield
    finally:
        for quantizer in quantizers:
            quantizer.disable()

"""`prepare`: a model with quantizers in their places, before it has seen calibration data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from openwork.quantization.copies import copied
from openwork.quantization.corrections.batch_norm import Fold, fold_batchnorm
from openwork.quantization.corrections.bias_correction import BiasCorrection
from openwork.quantization.corrections.equalization import Equalized, equalize
from openwork.quantization.data.feeds import fitted
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.fake_quantization.modules import Quantized, is_quantized
from openwork.quantization.placement.choices import Candidate, LayerChoice, candidates, check_globs, table
from openwork.quantization.placement.groups import Group, group
from openwork.quantization.placement.insertion import place
from openwork.quantization.placement.options import QuantizationOptions
from openwork.quantization.trace.arguments import tensors_in
from openwork.quantization.trace.graph import TraceRefused
from openwork.quantization.trace.recording import Recording, capture, record
from openwork.quantization.trace.rewritten_module import Traced, traced
from openwork.quantization.trace.source import is_rewritten
from openwork.support.batches import Batch, evaluating, run_batch

logger = logging.getLogger(__name__)


class Prepared:
    """A model with quantizers, all off until `calibrate` chose their scales; make it with `prepare`.

    model: computes what the float model computes, up to the folding of BatchNorm, until then. choices: what
    is quantized, and why the rest is not. groups: the activations' quantizers and the places that share each.
    equalized: what became of every two layers in a row, where the options ask for equalization. corrected:
    what became of the biases, after a calibration whose options ask for that.
    """

    def __init__(
        self,
        model: nn.Module,
        options: QuantizationOptions,
        choices: tuple[LayerChoice, ...],
        groups: tuple[Group, ...],
        equalized: tuple[Equalized, ...] = (),
    ) -> None:
        self.model, self.options, self.choices, self.groups = model, options, choices, groups
        self.equalized = equalized
        self.corrected: BiasCorrection | None = None

    @property
    def layers(self) -> list[str]:
        """The names of what is quantized: layers, and functions by their module, kind and number."""
        return [choice.name for choice in self.choices if choice.quantized]

    @property
    def quantizers(self) -> dict[str, FakeQuantize]:
        """The activations' quantizers by their first names in the model."""
        activations = {id(group.quantizer) for group in self.groups}
        named = self.model.named_modules()
        return {name: m for name, m in named if isinstance(m, FakeQuantize) and id(m) in activations}

    def table(self) -> str:
        """The choices as lines of text."""
        return table(self.choices)


def prepare(
    model: nn.Module,
    example_inputs: Batch,
    options: QuantizationOptions | None = None,
    inplace: bool = False,
) -> Prepared:
    """Find what can be quantized in the model and put quantizers there, by one run of `example_inputs`.

    example_inputs: a tensor, a sequence of arguments or a mapping of keyword arguments of the model, of any
    size; modules whose forward is traced keep to the way that it took. inplace: change the model itself,
    so that a pruner or an optimizer that holds its layers goes on holding them (a bias that folding adds is
    new to it); otherwise a copy.
    Raises ValueError for a model that is quantized already, a glob that names nothing, and if nothing is left
    to quantize, giving the reasons.
    """
    options = options or QuantizationOptions()
    _refuse_quantized(model)
    model = model if inplace else copied(model, "prepare it with inplace=True")
    example_inputs = fitted(model, example_inputs)
    folds = fold_batchnorm(model, example_inputs) if options.batchnorm == "fold" else ()
    equalized = equalize(model, example_inputs, options.equalize) if options.equalize != "no" else ()
    recording = record(model, example_inputs)
    found = candidates(model, recording, options)
    check_globs(found, options)
    traces = _traces(model, found, recording, example_inputs)
    choices = (*(one.choice() for one in found), *map(_fold_choice, folds))
    if not any(choice.quantized for choice in choices):
        raise ValueError("Nothing is left to quantize:\n" + table(choices))
    for one in found:
        if one.unasked:
            logger.warning("%s stays in float: %s.", one.name or "The model", one.reason)
    groups = tuple(group(found, recording))
    place(model, found, groups, traces)
    _check_unchanged(model, example_inputs, recording.outputs)
    return Prepared(model, options, choices, groups, equalized)


def _refuse_quantized(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if is_quantized(module) or is_rewritten(module) or isinstance(module, FakeQuantize):
            raise ValueError(
                f"{name or 'The model'} is quantized already ({type(module).__name__}); prepare the float "
                "model."
            )


def _fold_choice(fold: Fold) -> LayerChoice:
    return LayerChoice(fold.norm, "BatchNorm", False, fold.reason)


def _traces(
    model: nn.Module, found: Iterable[Candidate], recording: Recording, example: Batch
) -> dict[str, Traced]:
    """The traces of the modules in whose forward functions are quantized; a refusal goes into the table."""
    chosen: dict[str, list[Candidate]] = {}
    for one in found:
        if one.is_function:
            chosen.setdefault(one.owner, []).append(one)
    owners = [owner for owner, ones in chosen.items() if any(one.reason is None for one in ones)]
    arguments = capture(model, owners, example)
    traces = {}
    for owner in owners:
        kinds = [event.kind for event in recording.of(owner) if event.call == 0]
        try:
            with evaluating(model):
                traces[owner] = traced(model.get_submodule(owner), owner, arguments[owner], kinds)
        except TraceRefused as refused:
            for one in chosen[owner]:
                one.unasked |= one.reason is None
                one.reason = one.reason or str(refused)
    return traces


@torch.no_grad()
def _check_unchanged(model: nn.Module, example: Batch, before: Any) -> None:
    """Raise ValueError unless the model computes what it did, all quantizers being off."""
    with evaluating(model):
        after = run_batch(model, example)
    layers = sum(isinstance(module, (Quantized, nn.MultiheadAttention)) for module in model.modules())
    longest = max(p.numel() // max(len(p), 1) for p in model.parameters() if p.dim())
    for old, new in zip(_floats(before), _floats(after), strict=True):
        error, bound = float((old - new).norm()), _tolerance(layers, longest, old.dtype) * float(old.norm())
        if not error <= bound:
            raise ValueError(
                f"With all quantizers off the prepared model's output differs by {error:.3g} (norm) from the "
                f"float model's, more than the {bound:.3g} that rounding explains. A module of it computes "
                "something else when it is called twice, or has a state that a run changes."
            )


def _tolerance(layers: int, reduction: int, dtype: torch.dtype) -> float:
    """The relative error, of the outputs' norm,
    that writing attention out may cause by summing in another order.

    A sum of k products is off by about sqrt(k) u, u being half a unit in the last place; each layer adds its
    own and passes on those before it at about their relative size. 16 times that leaves room for
    cancellation. Everything but attention is the same to the bit.
    """
    return 16.0 * layers * math.sqrt(reduction) * torch.finfo(dtype).eps / 2


def _floats(nest: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(nest) if tensor.is_floating_point()]

"""Quantizers put into a model, where the choices and the groups say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from openwork.quantization.fake_quantization.calls import CallQuantizers, count_calls, flat
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize, FakeQuantizeOptions
from openwork.quantization.fake_quantization.modules import quantize_embedding, quantize_layer
from openwork.quantization.fake_quantization.multihead import quantize_multihead
from openwork.quantization.fake_quantization.switches import off
from openwork.quantization.placement.choices import Candidate
from openwork.quantization.placement.groups import Group, Slot, child_name
from openwork.quantization.trace.rewritten_module import Insertion, Traced, install

WEIGHT_AXES = {"linear": 0, "conv": 0, "conv_transpose": 1, "matmul": 1, "addmm": 1}
"""The axis of the output channels in the weight that a function reads."""


def place(
    model: nn.Module, found: Iterable[Candidate], groups: Iterable[Group], traces: Mapping[str, Traced]
) -> None:
    """Put the quantizers of all that is quantized into the model, in place; all of them are off.

    traces: of the modules in whose forward functions are quantized, by name.
    """
    insertions: dict[str, list[Insertion]] = {}
    for one in found:
        if one.reason is None:
            _place_weights(model, one, insertions.setdefault(one.owner, []))
    for slot, quantizer in _quantizers(groups):
        one = slot.candidate
        setattr(model.get_submodule(one.owner), slot.attribute, quantizer)
        if one.is_function:
            insertions[one.owner].append(Insertion(one.index, one.kind, slot.operand, slot.attribute))
    count_calls(model, (module for module in model.modules() if isinstance(module, CallQuantizers)))
    _to_devices(model)
    for owner, trace in traces.items():
        if insertions.get(owner):
            install(trace, insertions[owner])
    _leave_fast_paths(model)
    off(model)


def _quantizers(groups: Iterable[Group]) -> Iterator[tuple[Slot, nn.Module]]:
    """What stands in each place, by its first slot: a quantizer, or those of all calls."""
    calls: dict[tuple[str, str], dict[int, tuple[Slot, FakeQuantize]]] = {}
    for shared in groups:
        for slot in shared.slots:
            if slot.call is None:
                yield slot, shared.quantizer
            else:
                there = calls.setdefault((slot.candidate.owner, slot.attribute), {})
                there[slot.call] = slot, shared.quantizer
    for there in calls.values():
        first, _ = there[min(there)]
        apart = [there[i][1] if i in there else None for i in range(len(first.candidate.events))]
        same = apart[0] if len(set(apart)) == 1 else None
        yield first, same or CallQuantizers(first.place, apart)


def _leave_fast_paths(model: nn.Module) -> None:
    """Without gradients torch's transformer runs on the float weights of its layers, past any quantizer,
    unless these attributes, which decide nothing else, say that it cannot.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _place_weights(model: nn.Module, one: Candidate, insertions: list[Insertion]) -> None:
    module = model.get_submodule(one.owner)
    if one.kind == "embedding":
        quantize_embedding(module)
    elif one.kind == "multihead":
        assert isinstance(module, nn.MultiheadAttention)
        quantize_multihead(module, one.name, one.options.learned)
    elif not one.is_function:
        quantize_layer(module, one.name, one.options.learned)
    elif one.kind in WEIGHT_AXES and one.weight_operand(1):
        name = child_name(one, "weight")
        setattr(module, name, _following(one))
        insertions.append(Insertion(one.index, one.kind, 1, name))


def _following(one: Candidate) -> FakeQuantize:
    """A quantizer of a weight that a function reads: per output channel, its scales follow the weight."""
    seen = one.events[0].inputs[1]
    assert seen is not None
    axis = WEIGHT_AXES[one.kind]
    options = FakeQuantizeOptions(axis=axis, channels=seen.shape[axis], narrow=True, follow=True)
    made = FakeQuantize(f"{one.name}.weight", options)
    made.quantize()
    return made


def _to_devices(model: nn.Module) -> None:
    """Quantizers go to where the weights of the module nearest above them are, else to the model's first."""
    owned = {
        id(p) for module in model.modules() if isinstance(module, FakeQuantize) for p in module.parameters()
    }
    first = next((p.device for p in model.parameters() if id(p) not in owned), torch.device("cpu"))
    for module in model.modules():
        device = next((p.device for p in module.parameters() if id(p) not in owned), first)
        if isinstance(module, CallQuantizers):
            continue
        for child in flat(module.children()):
            if isinstance(child, FakeQuantize):
                child.to(device)

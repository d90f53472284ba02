"""Which activations share a quantizer: those that are the same tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.fake_quantization.multihead import ACTIVATIONS
from openwork.quantization.observers.observer import ObserverKind
from openwork.quantization.placement.choices import Candidate
from openwork.quantization.placement.options import QuantizationOptions
from openwork.quantization.trace.operations import CLAMPS, OPERANDS
from openwork.quantization.trace.recording import Recording, Seen
from openwork.quantization.trace.rewritten_module import OUTPUT


@dataclass(frozen=True, eq=False)
class Slot:
    """One place for an activation's quantizer: an operand of a candidate, or what it gives (operand -1).

    attribute: the name of the quantizer in the candidate's owner. seen: the tensors there, one for each call;
    none for what is inside of a layer.
    """

    candidate: Candidate
    operand: int
    attribute: str
    seen: tuple[Seen, ...]

    @property
    def name(self) -> str:
        """The slot for messages: the layer for its input, else with the operand."""
        if self.attribute == "input_quantizer":
            return self.candidate.name
        place = self.attribute.removesuffix("_quantizer")
        if self.candidate.is_function:
            place = place.rpartition("_")[2]
        return f"{self.candidate.name}.{place}"


@dataclass(eq=False)
class Group:
    """Slots that see the same tensor and so share one quantizer, hence one scale."""

    slots: list[Slot]
    options: QuantizationOptions
    quantizer: FakeQuantize

    @property
    def names(self) -> list[str]:
        """The names of the slots, the first one the quantizer's own."""
        return [slot.name for slot in self.slots]

    @property
    def linear(self) -> list[str]:
        """The Linear layers that read the tensor; empty if anything else does."""
        owners = [slot.candidate.owner for slot in self.slots if slot.candidate.is_linear]
        return owners if len(owners) == len(self.slots) else []

    @property
    def folds(self) -> bool:
        """Whether what makes the tensor can multiply its channels at no cost."""
        return all(seen.folds for slot in self.slots for seen in slot.seen)

    @property
    def observer(self) -> ObserverKind:
        """How the range is chosen."""
        kind = self.options.observer or self.options.rules.observer
        return "mse" if kind == "output" and not self.linear else kind


def group(candidates: Iterable[Candidate], recording: Recording) -> list[Group]:
    """Slots of all that is quantized, joined where they see the same tensor with the same options."""
    slots = [slot for one in candidates if one.reason is None for slot in _slots(one, recording)]
    return [_made(members) for members in _joined(slots)]


def child_name(candidate: Candidate, operand: str) -> str:
    """The name of a function's quantizer in its owner: add0_left_quantizer."""
    return f"{candidate.name.rpartition('.')[2]}_{operand}_quantizer"


def _slots(candidate: Candidate, recording: Recording) -> list[Slot]:
    slots = []
    for operand in candidate.operands:
        if candidate.is_function and candidate.weight_operand(operand):
            continue
        seen = tuple(s for event in candidate.events if (s := event.inputs[operand]) is not None)
        slots.append(Slot(candidate, operand, _attribute(candidate, operand), seen))
    if candidate.kind == "multihead":
        # Without rounded products only the input of the output projection is left.
        first = len(candidate.operands) if candidate.options.rules.products else len(ACTIVATIONS) - 1
        slots += [Slot(candidate, i, ACTIVATIONS[i], ()) for i in range(first, len(ACTIVATIONS))]
    if candidate.kind == "embedding" or (candidate.options.rules.outputs and _stands(candidate, recording)):
        name = child_name(candidate, "output") if candidate.is_function else "output_quantizer"
        outputs = tuple(event.output for event in candidate.events if event.output is not None)
        slots.append(Slot(candidate, OUTPUT, name, outputs))
    return slots


def _attribute(candidate: Candidate, operand: int) -> str:
    if candidate.is_function:
        return child_name(candidate, OPERANDS[candidate.kind][operand])
    return ACTIVATIONS[operand] if candidate.kind == "multihead" else "input_quantizer"


def _stands(candidate: Candidate, recording: Recording) -> bool:
    """Whether the output is quantized as it is: not where only a clamp or a BatchNorm, which belongs to the
    layer, reads it.
    """
    if candidate.kind == "multihead":
        return False
    norms = {event.owner for event in recording.events if event.kind == "batchnorm"}
    readers = [
        reader
        for event in candidate.events
        if event.output is not None
        for reader in recording.consumers.get(event.output.serial, [])
    ]
    return not readers or not all(reader in CLAMPS or reader in norms for reader in readers)


def _key(options: QuantizationOptions) -> tuple[object, ...]:
    activation = options.activation or options.rules.activation
    observer = options.observer or options.rules.observer
    return activation, observer, options.percentile, options.learned, options.migrate


def _joined(slots: Sequence[Slot]) -> list[list[Slot]]:
    """Connected slots, in the order of the first of each set."""
    parent = list(range(len(slots)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    first: dict[tuple[object, ...], int] = {}
    for i, slot in enumerate(slots):
        for seen in slot.seen:
            j = root(first.setdefault((seen.serial, *_key(slot.candidate.options)), i))
            low, high = sorted((j, root(i)))
            parent[high] = low
    sets: dict[int, list[Slot]] = {}
    for i, slot in enumerate(slots):
        sets.setdefault(root(i), []).append(slot)
    return list(sets.values())


def _made(slots: list[Slot]) -> Group:
    options = slots[0].candidate.options
    activation = options.activation or options.rules.activation
    return Group(slots, options, FakeQuantize.for_activation(slots[0].name, activation, options.learned))

"""Which activations share a quantizer: those that are the same tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    none for what is inside of a layer. call: which call of the owner; None for all of them.
    """

    candidate: Candidate
    operand: int
    attribute: str
    seen: tuple[Seen, ...]
    call: int | None = None

    @property
    def name(self) -> str:
        """The slot for messages: the layer for its input, else with the operand; the call where each has a
        quantizer.
        """
        return self.place if self.call is None else f"{self.place}[{self.call}]"

    @property
    def place(self) -> str:
        """The name without the call."""
        if self.attribute == "input_quantizer":
            return self.candidate.name
        place = self.attribute.removesuffix("_quantizer")
        if self.candidate.is_function:
            place = place.rpartition("_")[2]
        return f"{self.candidate.name}.{place}"

    @property
    def several(self) -> bool:
        """Whether the quantizer sees several tensors in one run."""
        return len({seen.serial for seen in self.seen}) > 1


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
        # A multiplier divides the weight, which all calls of a layer have in common.
        if any(slot.call is not None for slot in self.slots):
            return False
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
    slots: list[Slot] = []
    for operand in candidate.operands:
        if candidate.is_function and candidate.weight_operand(operand):
            continue
        seen = [event.inputs[operand] for event in candidate.events]
        slots += _by_call(candidate, operand, _attribute(candidate, operand), seen)
    if candidate.kind == "multihead":
        slots += _inside(candidate)
    name = child_name(candidate, "output") if candidate.is_function else "output_quantizer"
    if candidate.kind == "embedding":
        # Whatever the call, it gives rows of one table.
        outputs = tuple(event.output for event in candidate.events if event.output is not None)
        slots.append(Slot(candidate, OUTPUT, name, outputs))
    elif candidate.options.rules.outputs:
        slots += _by_call(candidate, OUTPUT, name, _standing(candidate, recording))
    return slots


def _apart(candidate: Candidate) -> bool:
    return candidate.options.calls == "apart" and len(candidate.events) > 1


def _by_call(
    candidate: Candidate, operand: int, attribute: str, seen: Sequence[Seen | None]
) -> Iterator[Slot]:
    """The slots of one place, by what each call has there: one for each, or one where they are the same."""
    there = tuple(one for one in seen if one is not None)
    if _apart(candidate) and len({None if one is None else one.serial for one in seen}) > 1:
        for call, one in enumerate(seen):
            if one is not None:
                yield Slot(candidate, operand, attribute, (one,), call)
    elif there:
        yield Slot(candidate, operand, attribute, there)


def _inside(candidate: Candidate) -> Iterator[Slot]:
    """The slots within an attention."""
    calls = range(len(candidate.events)) if _apart(candidate) else (None,)
    # Without rounded products only the input of the output projection is left.
    first = len(candidate.operands) if candidate.options.rules.products else len(ACTIVATIONS) - 1
    for operand in range(first, len(ACTIVATIONS)):
        for call in calls:
            yield Slot(candidate, operand, ACTIVATIONS[operand], (), call)


def _attribute(candidate: Candidate, operand: int) -> str:
    if candidate.is_function:
        return child_name(candidate, OPERANDS[candidate.kind][operand])
    return ACTIVATIONS[operand] if candidate.kind == "multihead" else "input_quantizer"


def _standing(candidate: Candidate, recording: Recording) -> list[Seen | None]:
    """The outputs that are quantized as they are, by call: not where only a clamp or a BatchNorm, which
    belongs to the layer, reads it.
    """
    if candidate.kind == "multihead":
        return []
    norms = {event.owner for event in recording.events if event.kind == "batchnorm"}
    outputs = [event.output for event in candidate.events]
    read = [_read_by(output, recording) for output in outputs]
    kept = [not who or not all(one in CLAMPS or one in norms for one in who) for who in read]
    if not _apart(candidate):
        kept = [any(kept)] * len(kept)
    return [output if keep else None for output, keep in zip(outputs, kept, strict=True)]


def _read_by(output: Seen | None, recording: Recording) -> list[str]:
    return [] if output is None else recording.consumers.get(output.serial, [])


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

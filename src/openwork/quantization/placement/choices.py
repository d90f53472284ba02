"""What can be quantized in a recorded run, and the reason for everything that is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from openwork.quantization.fake_quantization.multihead import refusal as multihead_refusal
from openwork.quantization.placement.options import QuantizationOptions, Rules
from openwork.quantization.trace.operations import OPERANDS, UNSUPPORTED, module_kind
from openwork.quantization.trace.recording import Event, Recording, Seen

# 255 * 127 * k must stay below 2^31 for the exact INT32 sum (docs/arithmetic.md).
LONGEST_REDUCTION = 66_000

NO_KERNEL = "has no INT8 form; only Linear, convolutions, attention products and additions have"


@dataclass(frozen=True)
class LayerChoice:
    """Whether one layer or function is quantized, and how, or the reason why not."""

    name: str
    kind: str
    quantized: bool
    reason: str


@dataclass
class Candidate:
    """A layer, or one function in a module's forward, over all its calls in the example.

    reason: why it stays in float; None while it is to be quantized. unasked: nobody asked for that.
    """

    name: str
    label: str
    kind: str
    owner: str
    index: int
    events: list[Event]
    options: QuantizationOptions
    reason: str | None = None
    unasked: bool = False
    operands: tuple[int, ...] = field(default=())
    is_linear: bool = False

    @property
    def is_function(self) -> bool:
        """Whether it is a function in its owner's forward, and no layer."""
        return self.index >= 0

    def weight_operand(self, operand: int) -> bool:
        """Whether the operand comes from parameters alone in every call."""
        inputs = [event.inputs[operand] for event in self.events]
        return all(seen is not None and seen.fixed for seen in inputs)

    @property
    def _products(self) -> str:
        return "and the operands of both products " if self.options.rules.products else ""

    def choice(self) -> LayerChoice:
        """The row of the table."""
        how = {
            "add": "both inputs per tensor",
            "mul": "both inputs per tensor",
            "pool": "input per tensor, the one that a product scales",
            "matmul": "both operands per tensor",
            "attention": "query, key and value per tensor",
            "embedding": "output per tensor",
            "multihead": f"weights per channel, the inputs {self._products}per tensor",
        }.get(self.kind, "weight per channel, input per tensor")
        if len(self.events) > 1 and self.options.calls == "apart" and self.kind != "embedding":
            how += f", for each of its {len(self.events)} calls"
        return LayerChoice(self.name, self.label, self.reason is None, self.reason or how)


def candidates(model: nn.Module, recording: Recording, options: QuantizationOptions) -> list[Candidate]:
    """Everything with inputs to quantize, in the order of the modules, refused ones with their reason."""
    found: list[Candidate] = []
    layers: dict[str, list[Event]] = {}
    for event in recording.events:
        if event.index < 0:
            layers.setdefault(event.owner, []).append(event)
    wholes = {name for name, module in model.named_modules() if module_kind(module) == "multihead"}
    for name, module in model.named_modules():
        kind = module_kind(module)
        if name and name.rpartition(".")[0] in wholes:
            continue
        if kind in ("weighted", "embedding", "multihead", "unsupported"):
            found.append(_layer(name, module, kind, layers.get(name, []), options))
        elif kind is None:
            found += _functions(name, recording, options) or _unseen(name, module, recording, options)
    return _without_other_pools(found)


def _without_other_pools(found: list[Candidate]) -> list[Candidate]:
    """Of the means over an image only those stay that read what a product scales: squeeze-and-excitation.

    They read what is rounded for the product; else the tensor would be kept as floats besides, for them.
    """
    scaled = {
        seen.serial
        for one in found
        if one.kind == "mul" and one.reason is None
        for event in one.events
        for seen in event.inputs
        if seen is not None
    }
    return [one for one in found if one.kind != "pool" or all(_reads(event, scaled) for event in one.events)]


def _reads(event: Event, serials: set[int]) -> bool:
    return any(seen is not None and seen.serial in serials for seen in event.inputs)


def check_globs(found: Iterable[Candidate], options: QuantizationOptions) -> None:
    """Raise ValueError for a glob that names nothing in the table."""
    names = [candidate.name for candidate in found]
    for glob in options.globs():
        if not any(fnmatchcase(name, glob) for name in names):
            raise ValueError(
                f"The glob {glob!r} names nothing to quantize; there is: {', '.join(names) or 'nothing'}."
            )


def table(choices: Iterable[LayerChoice]) -> str:
    """The choices as aligned lines of text: name, kind, INT8 or float, reason."""
    rows = [(c.name or "(the model)", c.kind, "INT8" if c.quantized else "float", c.reason) for c in choices]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def _layer(
    name: str, module: nn.Module, kind: str, events: list[Event], options: QuantizationOptions
) -> Candidate:
    chosen = options.of(name)
    linear = isinstance(module, nn.Linear)
    made = Candidate(name, type(module).__name__, kind, name, -1, events, options, is_linear=linear)
    if isinstance(chosen, str):
        made.reason = chosen
        return made
    made.options = chosen
    made.reason = _layer_refusal(module, kind, events, options.rules)
    made.unasked = made.reason is not None and kind in ("weighted", "unsupported")
    made.operands = {"weighted": (0,), "multihead": (0, 1, 2)}.get(kind, ())
    return made


def _layer_refusal(module: nn.Module, kind: str, events: list[Event], rules: Rules) -> str | None:
    if kind == "unsupported":
        return f"{type(module).__name__} {NO_KERNEL}"
    if kind == "embedding" and not rules.embeddings:
        return "this style leaves embeddings in float"
    if kind == "multihead":
        assert isinstance(module, nn.MultiheadAttention)
        if reason := multihead_refusal(module):
            return reason
    if kind == "weighted" and (reduction := _reduction(module)) > LONGEST_REDUCTION:
        return f"{reduction} products overflow an INT32 sum; at most {LONGEST_REDUCTION} fit"
    return None if events else "is never called with the example inputs"


def _reduction(module: nn.Module) -> int:
    weight = module.get_parameter("weight")
    outputs = weight.shape[0]
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        outputs = weight.shape[1] * module.groups
    return weight.numel() // max(outputs, 1)


def _functions(name: str, recording: Recording, options: QuantizationOptions) -> list[Candidate]:
    """The functions in one module's forward, numbered within their kind."""
    calls: dict[int, list[Event]] = {}
    for event in recording.of(name):
        calls.setdefault(event.call, []).append(event)
    if not calls:
        return []
    paths = {tuple(event.kind for event in events) for events in calls.values()}
    counts: dict[str, int] = {}
    made = []
    for place, first in enumerate(next(iter(calls.values()))):
        number = counts.get(first.kind, 0)
        counts[first.kind] = number + 1
        label = f"{name}.{first.kind}{number}" if name else f"{first.kind}{number}"
        events = [events[place] for events in calls.values() if len(events) > place]
        one = _function(label, first, events, options, same=len(paths) == 1)
        if one.reason is None and first.kind == "add" and _normalized(events, recording):
            one.reason = TO_LAYERNORM
        made.append(one)
    return [one for one in made if one.reason != _NO_ROW]


_NO_ROW = "no tensor of its own to quantize"
TO_LAYERNORM = "goes to a LayerNorm, which runs in float: INT8 would save nothing and cost accuracy"


def _normalized(events: Iterable[Event], recording: Recording) -> bool:
    outputs = [event.output for event in events if event.output is not None]
    return any("layer_norm" in recording.consumers.get(output.serial, []) for output in outputs)


def _function(
    name: str, first: Event, events: list[Event], options: QuantizationOptions, same: bool
) -> Candidate:
    made = Candidate(name, first.function, first.kind, first.owner, first.index, events, options)
    made.operands = tuple(range(len(OPERANDS[first.kind])))
    reasons = [_function_refusal(event) for event in events]
    made.reason = next((reason for reason in reasons if reason), None)
    if made.reason == _NO_ROW:
        return made
    chosen = options.of(name)
    if isinstance(chosen, str):
        made.reason = chosen
    else:
        made.options = chosen
    if not made.reason and not same:
        made.reason = f"the forward of {first.owner or 'the model'} takes different ways in its calls"
    made.reason = made.reason or _style_refusal(first, options.rules)
    return made


def _style_refusal(event: Event, rules: Rules) -> str | None:
    if event.kind == "add" and not rules.adds(max(len(seen.shape) if seen else 0 for seen in event.inputs)):
        return "this style leaves residual additions in float"
    products = event.kind == "attention" or (event.kind == "matmul" and not _any_fixed(event))
    return "this style leaves attention products in float" if products and not rules.products else None


def _any_fixed(event: Event) -> bool:
    return any(seen is not None and seen.fixed for seen in event.inputs)


def _function_refusal(event: Event) -> str | None:
    if event.kind == "add":
        return _add_refusal(event.inputs)
    if event.kind == "mul":
        return None if scales_channels(event.inputs) else _NO_ROW
    if event.kind == "pool":
        return None if event.output is not None and event.output.weighted else _NO_ROW
    if event.kind == "unsupported":
        reads = event.output is not None and event.output.floating
        return f"{event.function} {NO_KERNEL}" if reads else _NO_ROW
    if event.kind in ("matmul", "attention"):
        return _product_refusal(event.inputs)
    return _weighted_refusal(event)


def _weighted_refusal(event: Event) -> str | None:
    x, weight = event.inputs
    if x is None or weight is None or not (x.floating and weight.floating):
        return _NO_ROW
    return None if weight.fixed else "its weight is computed from activations, so it has no fixed scale"


def _product_refusal(inputs: tuple[Seen | None, ...]) -> str | None:
    seen = [x for x in inputs if x is not None]
    if len(seen) < len(inputs) or not all(x.floating for x in seen) or all(x.fixed for x in seen):
        return _NO_ROW
    if any(x.fixed for x in seen):
        left, right = seen[:2]
        if len(seen) == 2 and right.fixed and not left.fixed and len(right.shape) == 2:
            return None
        return "one operand comes from parameters alone, and not as the right one, [K, N], of a product"
    if not all(x.weighted for x in seen):
        return "is no product of activations: not all of its operands come from layers with weights"
    return None


def _add_refusal(inputs: tuple[Seen | None, ...]) -> str | None:
    """An addition is residual if two paths of one shape meet in it,
    each with weighted layers or one the other's source.
    """
    left, right = inputs
    if left is None or right is None or not (left.floating and right.floating) or left.fixed or right.fixed:
        return _NO_ROW
    if left.shape != right.shape:
        return f"is no residual addition: the shapes {list(left.shape)} and {list(right.shape)} differ"
    if (left.weighted and right.weighted) or (left.weighted and _source(right, left)):
        return None
    if right.weighted and _source(left, right):
        return None
    return "is no residual addition: its inputs are no two paths from one source through weighted layers"


def scales_channels(inputs: tuple[Seen | None, ...]) -> bool:
    """Whether a product multiplies an image's channels by a factor each, both from layers with weights."""
    left, right = inputs
    if left is None or right is None:
        return False
    if not all(x.floating and x.weighted and not x.fixed for x in (left, right)):
        return False
    return factor_for_channels(left.shape, right.shape) or factor_for_channels(right.shape, left.shape)


def factor_for_channels(factors: Sequence[object], image: Sequence[object]) -> bool:
    """Whether shapes are those of factors [N, C, 1, ...] and of what they multiply, [N, C, ...]."""
    if len(factors) != len(image) or len(image) < 3 or sizes_differ(factors[:2], image[:2]):
        return False
    return all(size == 1 for size in factors[2:]) and any(size != 1 for size in image[2:])


def sizes_differ(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether two shapes of one rank cannot be the same. Free sizes that a graph calls by different names may
    be equal; but where a 1 meets one of them, it is there to be broadcast.
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return any(1 in pair or all(isinstance(size, int) for size in pair) for pair in pairs)


def _source(early: Seen, late: Seen) -> bool:
    return bool(late.ancestors >> early.serial & 1)


def _unseen(
    name: str, module: nn.Module, recording: Recording, options: QuantizationOptions
) -> list[Candidate]:
    """A row for a layer with weights that is no layer of torch's own and calls none of its functions."""
    if not isinstance(module, UNSUPPORTED) or recording.of(name):
        return []
    made = Candidate(name, type(module).__name__, "unsupported", name, -1, [], options, unasked=True)
    ran = any(event.owner.startswith(name) for event in recording.events)
    made.reason = (
        f"{type(module).__name__} has a forward of its own that calls no function to quantize"
        if ran
        else "is never called with the example inputs"
    )
    return [made]

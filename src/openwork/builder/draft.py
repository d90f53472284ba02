"""A draft of an engine: a model reduced, lowered and decided, with some of its nodes left as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir as ir

from openwork import graph
from openwork.backends.backend import Backend
from openwork.builder.faults import drafting
from openwork.builder.free_sizes import known_sizes
from openwork.builder.layers import Decided, Request, decide, used_tensors
from openwork.builder.lower import BuildError, Fallback, Lowered, lower
from openwork.builder.shape_names import fitted, translated
from openwork.builder.tactics import Timer
from openwork.engine.program import Program
from openwork.engine.report import FallbackPart, LeftOut, Refusal
from openwork.engine.sizes import free_sizes
from openwork.graph import Change, read, reduce
from openwork.graph.model import describe, dims
from openwork.graph.reader import VERBATIM
from openwork.graph.reduce import LEFT
from openwork.graph.stated_patterns import stated_patterns
from openwork.support.progress import Advance

Source = Path | onnx.ModelProto


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a build was asked for, as far as every draft of it needs it; see `openwork.builder.build`."""

    source: Source
    sparsity: str
    rounding: str
    precision: str
    shapes: Sequence[Sequence[int]] | None
    strict: bool
    backends: tuple[Backend, ...]


@dataclass(frozen=True)
class Draft:
    """One engine that a model can become.

    nodes : the names of the model's nodes. changes, refusals : of the reduction. sizes : the free dimensions'
    sizes of each shape that is timed.
    """

    lowered: Lowered
    decided: Decided
    nodes: frozenset[str]
    changes: tuple[Change, ...]
    refusals: tuple[graph.Refusal, ...]
    sizes: tuple[dict[str, int], ...]
    notes: tuple[str, ...]

    @cached_property
    def fallbacks(self) -> tuple[FallbackPart, ...]:
        """What other back ends than the first run, each node with its reason."""
        return tuple(map(_part, self.lowered.fallbacks))

    @property
    def native(self) -> bool:
        """Whether any step is the first back end's own."""
        return bool(self.lowered.origins)

    @property
    def feeds(self) -> tuple[tuple[int, ...], ...]:
        """The sizes of each timed shape, in the order of the inputs' free dimensions."""
        return tuple(tuple(sizes.values()) for sizes in self.sizes)

    @property
    def stated_refusals(self) -> tuple[Refusal, ...]:
        """The refusals as a report has them."""
        return tuple(Refusal(refusal.rule, refusal.node, refusal.reason) for refusal in self.refusals)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The roundings that were left out, as a report has them."""
        return tuple(LeftOut(change.node, change.note) for change in self.changes if change.note)


def make_draft(
    order: Order,
    timer: Timer,
    advance: Advance,
    keep: Collection[str] | None = (),
    like: Draft | None = None,
) -> Draft:
    """Read the model anew, reduce it without the nodes to keep, and decide its products.

    keep : the names of nodes that stay as they are; None keeps all. like : another draft of the model, whose
    shapes are timed.
    Raises BuildError, in a sentence, for a model that cannot become such an engine: DraftError where another
    draft of it may.
    """
    with drafting("Reading the model"):
        model = read(order.source, modernize=keep is not None, probe=keep is not None)
    check_quantized(order.precision, model.graph)
    nodes = frozenset(str(node.name) for node in model.graph)
    verbatim = keep is None or VERBATIM in model.meta or order.backends[0].takes_models
    # Operators of openwork are for those that run them: a back end that takes ONNX, asked first, gets it.
    limit = 0 if verbatim else None
    _explain([node for node in model.graph if keep is None or node.name in keep], like)
    with drafting("Making native operators of the model"):
        reduced, changes, refusals = reduce(model, limit, rounding=order.rounding, keep=keep or ())
    with drafting("Making steps of the model"):
        lowered = lower(reduced, order.backends)
    _check_fallbacks(lowered.fallbacks, order.strict)
    inputs = _sizes(order, model, lowered.program, like)
    with drafting("Deciding how the model's products run"):
        known = known_sizes(lowered.program, lowered.tensors, inputs)
        stated = stated_patterns(reduced.graph)
        request = Request(order.sparsity, known.sizes, stated, reduced=order.precision == "bf16")
        decided = decide(lowered.program, lowered.tensors, request, timer, advance)
    said = (model.meta[VERBATIM],) if VERBATIM in model.meta else ()
    decided.tensors = used_tensors(decided)
    return Draft(
        lowered, decided, nodes, tuple(changes), tuple(refusals), tuple(inputs), (*known.notes, *said)
    )


QUANTIZED = re.compile("QLinear|Quantize|Integer|^Q(Attention|Gemm|MoE)")
"""What the names of operators that make, read or multiply quantized values hold."""


def check_quantized(precision: str, nodes: Iterable[ir.Node]) -> None:
    """Raise BuildError, saying how it is quantized, for a float model of which INT8 is asked."""
    if precision == "int8" and not any(QUANTIZED.search(node.op_type) for node in nodes):
        raise BuildError(
            "The precision int8 needs a quantized model, but nothing in this one is quantized: quantize it "
            "with calibration data first (`openwork quantize MODEL -o QUANTIZED --data DATA`, or "
            "openwork.quantization.float_onnx.quantize_onnx), and build what that writes."
        )


def _explain(nodes: Iterable[ir.Node], like: Draft | None) -> None:
    """Say of nodes that are left as they are why: as before, of what had no native step in another draft."""
    parts = () if like is None else like.lowered.fallbacks
    known = {name: why for part in parts for name, why in zip(part.nodes, part.reasons, strict=True)}
    for node in nodes:
        node.meta[LEFT] = known.get(describe(node), "it is left to ONNX Runtime with its neighbours")


def _sizes(order: Order, model: ir.Model, program: Program, like: Draft | None) -> list[dict[str, int]]:
    if like is not None:
        return [translated(sizes, like.decided.program, program) for sizes in like.sizes]
    inputs = [dims(value) or () for value in model.graph.inputs]
    if order.shapes is None:
        return free_sizes(program, None)
    return free_sizes(program, [fitted(shape, inputs, program) for shape in order.shapes])


def _part(part: Fallback) -> FallbackPart:
    reason = " ".join(f"{node}: {why}." for node, why in zip(part.nodes, part.reasons, strict=True))
    return FallbackPart(part.step, part.backend.title, part.nodes, reason)


def _check_fallbacks(parts: Sequence[Fallback], strict: bool) -> None:
    """Raise BuildError where other back ends than the first may not or cannot run what is left to them."""
    problems = ["The build is strict"] if strict else [part.backend.unavailable() for part in parts]
    problem = next((problem for problem in problems if problem), None)
    if parts and problem:
        listed = " ".join(_part(part).reason for part in parts)
        raise BuildError(f"{problem}, but a part of the model has no native implementation: {listed}")


def idle_nodes(draft: Draft) -> frozenset[str]:
    """The model's nodes that no native product needs: what falls back, and what stands in native steps that
    run between fallback parts without a product among them.

    Empty where every native stage has a product, or nothing falls back.
    """
    lowered = draft.lowered
    weighted = {step.name for step in lowered.program.steps if step.tactics or step.op in HEAVY}
    busy = [stage for stage in lowered.stages if weighted.intersection(stage)]
    if not lowered.fallbacks or len(busy) == len(lowered.stages):
        return frozenset()
    needed = frozenset[str]().union(*(lowered.origins[step] for stage in busy for step in stage))
    return draft.nodes - needed


HEAVY = frozenset({"attention", "embedding_sum"})
"""Operators that are worth a border on either side, beside products."""

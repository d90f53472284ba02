"""The build report: one document that says, layer by layer, what was found, timed and picked, and why.

Its JSON form is described in docs/build_report.md; the terminal table and the log lines are drawn from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from openwork.engine.problem import WHOLE, Tactic
from openwork.support.fields import Field
from openwork.support.records import read_record

REPORT_VERSION = 5

_MOST_NODES_NAMED = 3


@dataclass(frozen=True)
class Bucket:
    """One number of rows at which a layer's tactics were timed.

    seconds : time of each tactic (lower quartile of the repeats), the problem's base first. pick : the tactic
    that runs there.
    cached : timed by an earlier build.
    """

    rows: int
    seconds: dict[str, float]
    pick: str
    cached: bool

    @property
    def dense(self) -> float:
        """Seconds of the tactic that the others are measured by."""
        return self.seconds[self.base]

    @property
    def base(self) -> str:
        """The tactic that others are measured by: the fastest that leaves no zero out, of the element type
        of the first, or the first where no such form holds the weights."""
        first, *others = self.seconds
        element, whole = Tactic.parse(first).element, [first]
        for text in others:
            tactic = Tactic.parse(text)
            if tactic.form in WHOLE and tactic.element == element:
                whole.append(text)
        return min(whole, key=self.seconds.__getitem__)


@dataclass(frozen=True)
class Pick:
    """The tactic up to `max_rows` rows; None is for all larger ones."""

    max_rows: int | None
    tactic: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One linear layer.

    n, k : output and input channels. element : type of the weights, i8, f32 or bf16. pattern : the one its
    weights hold, or None. zeros : the fraction of zero weights. eligible : whether it may run sparse on this
    machine, with `reason` in either case. work : what each sparse form that may run it is expected to take,
    dense taking 1.
    picks : what runs, by number of rows, with `why`. bytes_dense, bytes_stored : of its weights.
    """

    name: str
    n: int
    k: int
    element: str
    activation: str
    output: str
    pattern: str | None
    zeros: float
    eligible: bool
    reason: str
    work: dict[str, float]
    buckets: tuple[Bucket, ...]
    picks: tuple[Pick, ...]
    why: str
    bytes_dense: int
    bytes_stored: int

    @property
    def sparse(self) -> bool:
        """Whether a sparse tactic was picked for any number of rows."""
        forms = [(Tactic.parse(bucket.pick).form, Tactic.parse(bucket.base).form) for bucket in self.buckets]
        return any(picked != base for picked, base in forms) and self.eligible


@dataclass(frozen=True)
class Fusion:
    """One change to the graph: the rule and where it applied."""

    rule: str
    where: str


@dataclass(frozen=True)
class Refusal:
    """One place where a rule did not apply, and why."""

    rule: str
    where: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """One rounding of the model that the engine does without, as asked: where it stood, what stays of it."""

    where: str
    what: str


@dataclass(frozen=True)
class FallbackPart:
    """One part of the model that another back end than the first runs: its step, or the first of its steps,
    the back end as messages name it, the nodes, and why each is not native."""

    step: str
    backend: str
    nodes: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        if len(self.nodes) <= _MOST_NODES_NAMED:
            return f"{self.step} runs in {self.backend}. {self.reason}"
        first = ", ".join(self.nodes[:_MOST_NODES_NAMED])
        others = len(self.nodes) - _MOST_NODES_NAMED
        listed = f"{first} and {others} more nodes"
        return f"{self.step} runs in {self.backend}: {listed}; the report has the reason for each."


@dataclass(frozen=True)
class WholeTime:
    """What whole engines took at one shape, in seconds (median): "native" with every native step, "joined"
    without those that stand between fallback parts and hold no product, "onnxruntime" the model as one part.

    shape : one size per free dimension of the inputs.
    """

    shape: tuple[int, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Environment:
    """What the timings were taken on."""

    openwork: str
    cpu: str
    isa: str
    threads: int
    kernels: str


@dataclass(frozen=True)
class Settings:
    """What the build was asked for; shapes hold one size per free dimension of the inputs.

    rounding : "exact", or "relaxed" where roundings between float operators may be left out. precision :
    "fp32", "bf16" or "int8", of `openwork.build`. native : "on", "off" or "force", of `openwork.build`.
    verify : whether the engine was run and compared.
    """

    sparsity: str
    rounding: str
    precision: str
    native: str
    verify: bool
    shapes: tuple[tuple[int, ...], ...]
    strict: bool


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """A whole build. accuracy_kept is false where the build itself pruned weights."""

    version: int
    model: str
    environment: Environment
    settings: Settings
    accuracy_kept: bool
    notes: tuple[str, ...]
    layers: tuple[Layer, ...]
    fusions: tuple[Fusion, ...]
    refusals: tuple[Refusal, ...]
    left_out: tuple[LeftOut, ...]
    fallbacks: tuple[FallbackPart, ...]
    whole: tuple[WholeTime, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of docs/build_report.md."""
        return asdict(self)

    @property
    def eligible(self) -> tuple[str, ...]:
        """Names of the layers that may run sparse."""
        return tuple(layer.name for layer in self.layers if layer.eligible)

    @property
    def picked_sparse(self) -> tuple[str, ...]:
        """Names of the layers that a sparse tactic runs for some number of rows."""
        return tuple(layer.name for layer in self.layers if layer.sparse)

    def lines(self) -> list[str]:
        """The two lines that users of TensorRT look for, what falls back, what is left out, and the notes."""
        lines = [
            "(Sparsity) Layers eligible for sparse math: " + (", ".join(self.eligible) or "none"),
            "(Sparsity) The plan picked sparse implementation for layers: "
            + (", ".join(self.picked_sparse) or "none"),
        ]
        lines += [f"(Fallback) {part}" for part in self.fallbacks]
        lines += [f"(Whole) {_whole_line(time)}" for time in self.whole]
        if self.left_out:
            count = len(self.left_out)
            lines.append(
                f"(Rounding) {count} rounding{'s' if count > 1 else ''} between float operators left out, as "
                "asked; the report lists them."
            )
        return [*lines, *self.notes]


def _whole_line(time: WholeTime) -> str:
    shape = "x".join(map(str, time.shape)) or "fixed shapes"
    listed = ", ".join(f"{name} {seconds * 1e3:.3g} ms" for name, seconds in time.seconds.items())
    return f"{shape}: {listed}"


def read_report(item: Field) -> BuildReport:
    """Check a report's JSON and return it; raises EngineFileError where it does not match
    docs/build_report.md."""
    version = item.members().get("version")
    if version is None or version.value != REPORT_VERSION:
        item.refuse(f"a build report of version {REPORT_VERSION}")
    return read_record(BuildReport, item)

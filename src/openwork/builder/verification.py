"""Checking an engine: run on samples, beside the model in ONNX Runtime, and which step differs first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from openwork.backends.onnxruntime.witness import Witness
from openwork.backends.target import Target
from openwork.builder.differences import comparable, difference, equal, is_measure, tolerance_of
from openwork.builder.draft import Draft, Source
from openwork.builder.samples import of_other_sizes, samples, with_float_masks
from openwork.engine.program import FALLBACK, Named
from openwork.runtime.engine import Engine, bound_engine
from openwork.support.texts import first_line

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    difference : how the engine differs from ONNX Runtime, or None. step : the native step from which on it
    does, where it was found. note : why there was nothing to compare with, or None.
    """

    difference: str | None = None
    step: str | None = None
    note: str | None = None


class Judge:
    """Compares engines of one model with the model in ONNX Runtime, on the same samples."""

    def __init__(self, source: Source, target: Target) -> None:
        self.source, self.target = source, target
        self._expected: tuple[Arrays, Arrays] | None = None
        self._why_not: str | None = None
        self._stated: Mapping[str, Sequence[object]] = {}

    @property
    def sample(self) -> Arrays | None:
        """Inputs that the model in ONNX Runtime runs with; None where none are known."""
        return None if self._expected is None else self._expected[0]

    def check(self, draft: Draft, engine: Engine) -> Verdict:
        """Run the engine on samples of the smallest timed shape; raises ValueError where it does not run but
        the model in ONNX Runtime does."""
        try:
            known = self._known(engine, draft)
        except _Contradiction as contradiction:
            return Verdict(f"{contradiction}")
        if known is None:
            return Verdict(note=self._why_not)
        found = self._compare(draft, engine, *known)
        if found is None:
            return self._narrowed(draft, engine, known[0]) or Verdict()
        masked = with_float_masks(known[0])
        if masked is not None and self._agrees(draft, engine, masked):
            return Verdict()
        return found

    def _narrowed(self, draft: Draft, engine: Engine, feed: Arrays) -> Verdict | None:
        """That native steps take one size alone where the model takes others, if they do."""
        other = of_other_sizes(engine, self._stated, feed) if draft.native else None
        if other is None:
            return None
        try:
            Witness(self.source, self.target.threads).run(other)
        except ValueError:
            return None
        info = next(info for info in engine.inputs if not info.fits(other[info.name].shape))
        stated, taken = ", ".join(map(str, info.shape)), list(other[info.name].shape)
        return Verdict(f"the input '{info.name}' takes [{stated}] alone, but ONNX Runtime takes {taken} too")

    def _agrees(self, draft: Draft, engine: Engine, feed: Arrays) -> bool:
        """Whether the engine agrees on other samples, where the model runs with them."""
        try:
            expected = Witness(self.source, self.target.threads).run(feed)
        except ValueError:
            return False
        return self._compare(draft, engine, feed, expected) is None

    def _compare(self, draft: Draft, engine: Engine, feed: Arrays, expected: Arrays) -> Verdict | None:
        made = engine.run(feed)
        tolerance = tolerance_of(draft.decided.bf16)
        differing = {name: difference(made[name], expected[name], tolerance) for name in made}
        found = {name: why for name, why in differing.items() if why is not None}
        if not found:
            return None
        step = self._first(draft, feed)
        # Integers may be the places of the largest of numbers that roundings put in another order.
        faults = {n: why for n, why in found.items() if not _may_be_places(made[n], expected[n])}
        if not faults and step is None:
            return None
        name, why = next(iter((faults or found).items()))
        return Verdict(f"the output '{name}' {why}", step)

    def _known(self, engine: Engine, draft: Draft) -> tuple[Arrays, Arrays] | None:
        """Samples with what ONNX Runtime makes of them; None, with a reason, where it makes nothing that can
        be compared. Raises _Contradiction where the draft says otherwise of the outputs' shapes."""
        if self._expected is None and self._why_not is None:
            try:
                witness = Witness(self.source, self.target.threads)
                self._stated = witness.inputs
                self._expected = _answer(witness, engine, draft)
            except _Contradiction:
                raise
            except (ValueError, ImportError) as error:
                self._why_not = f"The engine was not compared with ONNX Runtime: {first_line(error)}"
        return self._expected

    def _first(self, draft: Draft, feed: Arrays) -> str | None:
        """The first native step whose result differs from the model's value of the same name."""
        watched = dict(_watched(draft))
        if not watched:
            return None
        program = draft.decided.program
        names = {index: draft.lowered.names[index] for index in watched}
        expected = self._values(tuple(names.values()), feed)
        outputs = tuple(Named(f"{index}", index) for index in watched)
        probe = bound_engine(replace(program, outputs=outputs), draft.decided.tensors, None, self.target)
        made = probe.run(feed)
        for index, step in watched.items():
            known, found = expected.get(names[index]), made[f"{index}"]
            if known is None or not comparable(found, known):
                continue
            if difference(found, known, tolerance_of(draft.decided.bf16)) is not None:
                return step
        return None

    def _values(self, names: Sequence[str], feed: Arrays) -> Arrays:
        """The model's values of these names, as far as it has them: rules make some that it has not."""
        try:
            return Witness(self.source, self.target.threads, names).run(feed)
        except ValueError:
            if len(names) == 1:
                return {}
            half = len(names) // 2
            return {**self._values(names[:half], feed), **self._values(names[half:], feed)}


def _may_be_places(made: Array, expected: Array) -> bool:
    return comparable(made, expected) and not is_measure(expected)


class _Contradiction(ValueError):
    """A draft whose native steps say of an output's shape what ONNX Runtime contradicts."""


def _answer(witness: Witness, engine: Engine, draft: Draft) -> tuple[Arrays, Arrays]:
    """The first samples that the witness runs with, and what it makes of them.

    Raises ValueError, saying why, where there are none that can be compared, and _Contradiction where that
    is the fault of the draft's native steps.
    """
    reason, misfit = "", None
    for feed in samples(engine, draft.feeds):
        try:
            expected = witness.run(feed)
        except ValueError as error:
            reason = reason or first_line(error)
            continue
        misfit = _misfit(engine, expected)
        if misfit is not None:
            if draft.native and witness.as_stated(expected):
                break
            # What the model says of its outputs holds for other data than these.
            reason = "on samples it makes outputs of other shapes than it states."
            continue
        if not all(map(equal, expected.values(), witness.run(feed).values())):
            raise ValueError("the model draws random numbers.")
        return feed, expected
    raise _Contradiction(misfit) if misfit is not None and draft.native else ValueError(reason)


def _misfit(engine: Engine, made: Arrays) -> str | None:
    """How ONNX Runtime's outputs contradict the shapes that an engine states, or None."""
    for info in engine.outputs:
        if info.name in made and not info.fits(made[info.name].shape):
            stated, found = ", ".join(map(str, info.shape)), list(made[info.name].shape)
            return f"the output '{info.name}' has the shape [{stated}], but ONNX Runtime makes {found}"
    return None


def _watched(draft: Draft) -> Iterator[tuple[int, str]]:
    """The values that native steps make, with the step of each."""
    for step in draft.decided.program.steps:
        if step.op != FALLBACK:
            for index in step.outputs:
                if index is not None:
                    yield index, step.name

"""Checking an engine: run on samples, beside the model in ONNX Runtime, and which step differs first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.onnxruntime.witness import Witness
from openwork.backends.target import Target
from openwork.builder.draft import Draft, Source
from openwork.engine.program import FALLBACK, Named
from openwork.runtime.engine import Engine, bound_engine

Array = NDArray[Any]
Arrays = Mapping[str, Array]

TOLERANCE = 0.05
"""The length of the difference, of that of the expected numbers, that roundings which fall the other way
explain in a deep network; a wrong operator makes more."""
_FLAT = 1e-5
"""A difference that no operator of single precision promises to stay below, where all numbers are about 0."""


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
        self._expected: list[tuple[Arrays, Arrays]] | None = None
        self._why_not: str | None = None

    @property
    def sample(self) -> Arrays | None:
        """Inputs that the model in ONNX Runtime runs with; None where none are known."""
        return self._expected[0][0] if self._expected else None

    def check(self, draft: Draft, engine: Engine) -> Verdict:
        """Run the engine on samples of the smallest timed shape; raises ValueError where it does not run but
        the model in ONNX Runtime does."""
        feeds = self._known(engine, draft)
        if feeds is None:
            return Verdict(note=self._why_not)
        for feed, expected in feeds:
            found = self._compare(draft, engine, feed, expected)
            if found is not None:
                return found
        return Verdict()

    def _compare(self, draft: Draft, engine: Engine, feed: Arrays, expected: Arrays) -> Verdict | None:
        made = engine.run(feed)
        differing = {name: difference(made[name], expected[name]) for name in made}
        numbers = {name: why for name, why in differing.items() if why and _is_measure(expected[name])}
        if not any(differing.values()):
            return None
        step = self._first(draft, feed)
        # Integers may be the places of the largest of numbers that roundings put in another order.
        if not numbers and step is None:
            return None
        name, why = next(iter((numbers or {k: v for k, v in differing.items() if v}).items()))
        return Verdict(f"the output '{name}' {why}", step)

    def _known(self, engine: Engine, draft: Draft) -> list[tuple[Arrays, Arrays]] | None:
        """Samples with what ONNX Runtime makes of them; None, with a reason, where it makes nothing that can
        be compared."""
        if self._expected is None and self._why_not is None:
            try:
                witness = Witness(self.source, self.target.threads)
                self._expected = list(_answers(witness, engine, min(draft.feeds, key=np.prod)))
            except (ValueError, ImportError) as error:
                self._why_not = f"The engine was not compared with ONNX Runtime: {_line(error)}"
            else:
                if not self._expected:
                    self._expected = None
                    self._why_not = (
                        "The engine was not compared with ONNX Runtime: the model draws random numbers."
                    )
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
            if known is not None and _comparable(found, known) and difference(found, known) is not None:
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


def _answers(witness: Witness, engine: Engine, shape: Sequence[int]) -> Iterator[tuple[Arrays, Arrays]]:
    """Samples and what the witness makes of them, where it makes the same twice."""
    plain = engine.sample(shape)
    for number, feed in enumerate((plain, _varied(plain))):
        try:
            expected = witness.run(feed)
        except ValueError:
            if number == 0:
                raise
            continue
        if not _fit(engine, expected):
            # What the model says of its outputs holds for other data than these.
            raise ValueError("on samples it makes outputs of other shapes than it states.")
        again = witness.run(feed)
        if all(
            np.array_equal(expected[name], again[name], equal_nan=_is_measure(again[name])) for name in again
        ):
            yield feed, expected


def _fit(engine: Engine, made: Arrays) -> bool:
    return all(info.fits(made[info.name].shape) for info in engine.outputs if info.name in made)


def _varied(feed: Arrays) -> dict[str, Array]:
    """The samples with zeros among the ones of integers and truths, which may be masks."""
    rng = np.random.default_rng(1)
    return {
        name: np.where(rng.random(array.shape) < 0.3, np.zeros_like(array), array)
        if array.dtype.kind in "iub" and array.size and (array == 1).all()
        else array
        for name, array in feed.items()
    }


def _watched(draft: Draft) -> Iterator[tuple[int, str]]:
    """The values that native steps make, with the step of each."""
    for step in draft.decided.program.steps:
        if step.op != FALLBACK:
            for index in step.outputs:
                if index is not None:
                    yield index, step.name


def _equal(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=_is_measure(b))


def _is_measure(array: Array) -> bool:
    return array.dtype.kind == "f"


def _comparable(made: Array, expected: Array) -> bool:
    return made.dtype == expected.dtype and made.shape == expected.shape


def difference(made: Array, expected: Array) -> str | None:
    """How an array differs from the expected one by more than roundings explain; None where it does not.

    Floats and 8-bit integers may be off by TOLERANCE of their spread, all else must be equal. What is not
    finite in the expected array may be anything.
    """
    if not _comparable(made, expected):
        return f"is {made.dtype} {list(made.shape)}, but {expected.dtype} {list(expected.shape)} was expected"
    if not _is_measure(expected) and (expected.dtype.kind == "b" or expected.dtype.itemsize > 1):
        return None if np.array_equal(made, expected) else "has other elements than expected"
    finite = (
        np.isfinite(expected.astype(np.float64))
        if expected.dtype.kind != "b"
        else np.ones(expected.shape, bool)
    )
    a, b = made[finite].astype(np.float64), expected[finite].astype(np.float64)
    if not a.size:
        return None
    if not np.isfinite(a).all():
        return "is not finite where it should be"
    allowed = TOLERANCE * np.linalg.norm(b) + (_FLAT if _is_measure(expected) else 1) * np.sqrt(b.size)
    off = float(np.linalg.norm(a - b))
    if off <= allowed:
        return None
    return f"is off by {off / max(float(np.linalg.norm(b)), 1e-30):.1%} of its length"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

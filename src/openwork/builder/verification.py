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
from openwork.support.bf16 import UNIT_ROUNDOFF
from openwork.support.texts import first_line

Array = NDArray[Any]
Arrays = Mapping[str, Array]

TOLERANCE = 0.05
"""The length of the difference, of that of the expected numbers, that roundings which fall the other way
explain in a deep network; a wrong operator makes more."""


def tolerance_of(bf16: int) -> float:
    """The same with a number of products in BF16 among the steps (docs/arithmetic.md, "Linear, FP32 and
    BF16"): each moves its result by a further part, and parts that do not depend on each other add up in
    squares."""
    return float(TOLERANCE + 2 * UNIT_ROUNDOFF * np.sqrt(bf16))


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
        self._expected: tuple[Arrays, Arrays] | None = None
        self._why_not: str | None = None

    @property
    def sample(self) -> Arrays | None:
        """Inputs that the model in ONNX Runtime runs with; None where none are known."""
        return None if self._expected is None else self._expected[0]

    def check(self, draft: Draft, engine: Engine) -> Verdict:
        """Run the engine on samples of the smallest timed shape; raises ValueError where it does not run but
        the model in ONNX Runtime does."""
        known = self._known(engine, draft)
        if known is None:
            return Verdict(note=self._why_not)
        found = self._compare(draft, engine, *known)
        if found is None:
            return Verdict()
        masked = _with_float_masks(known[0])
        if masked is not None and self._agrees(draft, engine, masked):
            return Verdict()
        return found

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
        numbers = {name: why for name, why in differing.items() if why and _is_measure(expected[name])}
        if not any(differing.values()):
            return None
        step = self._first(draft, feed)
        # Integers may be the places of the largest of numbers that roundings put in another order.
        if not numbers and step is None:
            return None
        name, why = next(iter((numbers or {k: v for k, v in differing.items() if v}).items()))
        return Verdict(f"the output '{name}' {why}", step)

    def _known(self, engine: Engine, draft: Draft) -> tuple[Arrays, Arrays] | None:
        """Samples with what ONNX Runtime makes of them; None, with a reason, where it makes nothing that can
        be compared."""
        if self._expected is None and self._why_not is None:
            try:
                self._expected = _answer(Witness(self.source, self.target.threads), engine, draft)
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
            if known is None or not _comparable(found, known):
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


def _answer(witness: Witness, engine: Engine, draft: Draft) -> tuple[Arrays, Arrays]:
    """The first samples that the witness runs with, and what it makes of them.

    Raises ValueError, saying why, where there are none that can be compared.
    """
    reason = ""
    for feed in _samples(engine, draft):
        try:
            expected = witness.run(feed)
        except ValueError as error:
            reason = reason or first_line(error)
            continue
        if not _fit(engine, expected):
            # What the model says of its outputs holds for other data than these.
            reason = "on samples it makes outputs of other shapes than it states."
            continue
        if not all(map(_equal, expected.values(), witness.run(feed).values())):
            raise ValueError("the model draws random numbers.")
        return feed, expected
    raise ValueError(reason)


def _samples(engine: Engine, draft: Draft) -> Iterator[Arrays]:
    """Samples to try: two or more of everything, and with masks that drop something, where that may be."""
    smallest = min(draft.feeds, key=np.prod)
    at_least_two = tuple(max(size, 2) for size in smallest)
    # A table of few positions takes no more than a few.
    for shape in dict.fromkeys((at_least_two, smallest, tuple(min(size, 4) for size in at_least_two))):
        plain = engine.sample(shape)
        yield {name: _mixed(array) for name, array in plain.items()}
        yield plain


def _with_float_masks(feed: Arrays) -> Arrays | None:
    """The samples with zeros and ones in the floats that may be masks: those of fewer axes than another
    input, or beside ids. As a mask, normal floats may keep nothing. None where there are none."""
    most = max(array.ndim for array in feed.values())
    ids = any(array.dtype.kind in "iu" for array in feed.values())
    masks = {
        name: _mixed(np.ones(array.shape, np.int64)).astype(array.dtype)
        for name, array in feed.items()
        if array.dtype.kind == "f" and array.ndim >= 2 and (array.ndim < most or ids)
    }
    return {**feed, **masks} if masks else None


def _mixed(array: Array) -> Array:
    """Integers and truths that are all one, which may be a mask, with zeros among them.

    A mask may keep what is one or what is not; each row has both, since a row of which nothing is kept means
    nothing.
    """
    if array.dtype.kind not in "iub" or not array.ndim or array.shape[-1] < 2 or not (array == 1).all():
        return array
    mixed = np.where(np.random.default_rng(1).random(array.shape) < 0.3, np.zeros_like(array), array)
    mixed[..., 0], mixed[..., -1] = 1, 0
    return mixed


def _fit(engine: Engine, made: Arrays) -> bool:
    return all(info.fits(made[info.name].shape) for info in engine.outputs if info.name in made)


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


def difference(made: Array, expected: Array, tolerance: float) -> str | None:
    """How an array differs from the expected one by more than roundings explain; None where it does not.

    Floats and 8-bit integers may be off by `tolerance` of their spread, all else must be equal. What is not
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
    allowed = tolerance * np.linalg.norm(b) + (_FLAT if _is_measure(expected) else 1) * np.sqrt(b.size)
    off = float(np.linalg.norm(a - b))
    if off <= allowed:
        return None
    return f"is off by {off / max(float(np.linalg.norm(b)), 1e-30):.1%} of its length"

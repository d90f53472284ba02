"""Free dimensions of 0: only where every native step that has them takes none of them for more."""

from __future__ import annotations

import numpy as np
import pytest

from openwork.engine.ports import check_feed, inputs_of
from openwork.engine.program import Named, Program, Step, Value

PAST = Value("f32", (1, 2, "past", 4))


def decoder(mask: str) -> Program:
    """One attention with a past and a mask of a free dimension of this name."""
    values = (Value("f32", (1, "new", 24)), PAST, PAST, Value("i64", (1, mask)), Value("f32", (1, "new", 8)))
    step = Step(
        "attention", "a", (0, None, None, 3, None, 1, 2), (4, None, None), {}, {"heads": 2, "scale": 0.5}
    )
    inputs = tuple(Named(name, index) for index, name in enumerate(("q", "past_k", "past_v", "mask")))
    return Program(inputs, (Named("y", 4),), values, (step,))


def feed(past: int, new: int) -> dict[str, np.ndarray]:
    cached = np.zeros((1, 2, past, 4), np.float32)
    mask = np.ones((1, past + new), np.int64)
    return {"q": np.zeros((1, new, 24), np.float32), "past_k": cached, "past_v": cached, "mask": mask}


def test_a_past_may_be_empty() -> None:
    arrays = check_feed(inputs_of(decoder("total")), feed(0, 1))
    assert [array.shape for array in arrays] == [(1, 1, 24), (1, 2, 0, 4), (1, 2, 0, 4), (1, 1)]


def test_what_stands_elsewhere_too_may_not_be_zero() -> None:
    with pytest.raises(ValueError, match=r"past_k.*takes an array that is not empty"):
        check_feed(inputs_of(decoder("past")), feed(0, 1))
    with pytest.raises(ValueError, match=r"'q'.*takes an array that is not empty"):
        check_feed(inputs_of(decoder("total")), feed(3, 0))

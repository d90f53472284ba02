"""The check of feeds that look like the last one: quick, and no less strict."""

from __future__ import annotations

import numpy as np
import pytest

from openwork.engine.ports import FeedCheck, TensorInfo

INPUTS = (
    TensorInfo("x", np.dtype(np.float32), ("rows", 4)),
    TensorInfo("mask", np.dtype(np.int64), ("rows",)),
)


def feed(rows: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, 4), np.float32), "mask": np.ones(rows, np.int64)}


def test_arrays_that_fit_are_given_as_they_are() -> None:
    check = FeedCheck(INPUTS)
    for _ in range(3):
        fed = feed()
        given = check(fed)
        assert given[0] is fed["x"]
        assert given[1] is fed["mask"]


def test_order_and_names_of_a_feed_do_not_matter_but_count() -> None:
    check = FeedCheck(INPUTS)
    check(feed())
    turned = dict(reversed(feed().items()))
    assert [array.dtype for array in check(turned)] == [np.float32, np.int64]
    with pytest.raises(ValueError, match="The input 'mask' is missing"):
        check({"x": feed()["x"]})
    with pytest.raises(ValueError, match="The input 'mask' is missing"):
        check({"x": feed()["x"], "musk": feed()["mask"]})
    with pytest.raises(ValueError, match="There is no input 'more'"):
        check({**feed(), "more": feed()["x"]})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((3, 5), np.float32)}, ValueError, "takes 4 in dimension 1"),
        ({"x": np.ones((2, 4), np.float32)}, ValueError, "takes 2 in dimension 0"),
        ({"x": np.ones((3, 4), np.float64)}, TypeError, "takes float32, but float64 came"),
        ({"x": [[1.0] * 4] * 3}, TypeError, "takes a plain NumPy array, but list came"),
        ({"x": np.ma.masked_array(np.ones((3, 4), np.float32))}, TypeError, "but MaskedArray came"),
        ({"x": None}, TypeError, "but NoneType came"),
    ],
)
def test_what_differs_from_the_last_feed_is_checked(
    change: dict, error: type[Exception], message: str
) -> None:
    check = FeedCheck(INPUTS)
    check(feed())
    check(feed())
    with pytest.raises(error, match=message):
        check({**feed(), **change})
    assert len(check(feed())) == 2


def test_what_must_be_copied_is_copied_each_time() -> None:
    check = FeedCheck(INPUTS)
    for _ in range(3):
        given = check({**feed(), "x": np.ones((4, 3), np.float32).T})
        assert given[0].flags.c_contiguous
        assert given[0].shape == (3, 4)
    swapped = feed()["x"].astype(">f4")
    assert check({**feed(), "x": swapped})[0].dtype.isnative

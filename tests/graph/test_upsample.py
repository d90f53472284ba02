"""Resize to whole multiples of an image's size, in every spelling, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openwork
from graph_models import Builder, runtime
from openwork.graph import read, reduce

SHAPE = (2, 5, 3, 4)


def resize(b: Builder, scales: tuple[float, ...] | None, sizes: tuple[int, ...] = (), **given: Any) -> str:
    x = b.input("x", list(SHAPE))
    if scales is not None:
        return b.add("Resize", x, "", b.constant(np.array(scales, np.float32)), **given)
    return b.add("Resize", x, "", "", b.integers(*sizes), **given)


SPELLINGS = [
    {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
    {"coordinate_transformation_mode": "pytorch_half_pixel", "nearest_mode": "round_prefer_ceil"},
    {},
]


@pytest.mark.parametrize("given", SPELLINGS)
@pytest.mark.parametrize("factors", [(2, 2), (1, 3), (4, 1), (5, 2)])
def test_repeated_pixels_are_native(given: dict[str, str], factors: tuple[int, int], tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    model = b.model(y=resize(b, (1, 1, *factors), mode="nearest", **given))
    feeds = {"x": b.rng.standard_normal(SHAPE).astype(np.float32)}
    report = openwork.build(model, tmp_path / "m.engine", native="force", threads=1, progress=False)
    found = openwork.load(tmp_path / "m.engine", threads=1).run(feeds)
    assert np.array_equal(found["y"], runtime(model, feeds)["y"])
    assert not report.fallbacks


def test_a_stated_size_is_native(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    given = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    model = b.model(y=resize(b, None, (2, 5, 6, 12), mode="nearest", **given))
    feeds = {"x": b.rng.standard_normal(SHAPE).astype(np.float32)}
    report = openwork.build(model, tmp_path / "m.engine", native="force", threads=1, progress=False)
    assert np.array_equal(
        openwork.load(tmp_path / "m.engine", threads=1).run(feeds)["y"], runtime(model, feeds)["y"]
    )
    assert not report.fallbacks


@pytest.mark.parametrize(
    ("scales", "given", "reason"),
    [
        ((1.0, 1.0, 1.5, 2.0), {"mode": "nearest"}, "are not whole numbers of height and width alone"),
        ((1.0, 2.0, 2.0, 2.0), {"mode": "nearest"}, "are not whole numbers of height and width alone"),
        ((1.0, 1.0, 2.0, 2.0), {"mode": "linear"}, "it is of the mode linear"),
        (
            (1.0, 1.0, 3.0, 3.0),
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "round_prefer_floor"},
            "its coordinates do not repeat every pixel",
        ),
        (
            (1.0, 1.0, 2.0, 2.0),
            {"coordinate_transformation_mode": "align_corners", "nearest_mode": "floor"},
            "its coordinates do not repeat every pixel",
        ),
    ],
)
def test_others_stay_with_their_reason(scales: tuple[float, ...], given: dict[str, str], reason: str) -> None:
    b = Builder(np.random.default_rng(0))
    _, _, refusals = reduce(read(b.model(y=resize(b, scales, **given))))
    assert any(reason in refusal.reason for refusal in refusals)

"""PRelu with stored slopes, on images and on rows, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import openwork
from graph_models import Builder, runtime


@pytest.mark.parametrize(
    ("shape", "slope", "native"),
    [
        ((2, 5, 4, 3), (5, 1, 1), True),
        ((2, 5, 4, 3), (1,), True),
        ((2, 5, 4, 3), (1, 5, 1, 1), True),
        ((2, 7), (7,), True),
        ((2, 5, 4, 5), (5,), False),
        ((2, 5, 4, 3), (4, 1), False),
    ],
)
def test_slopes(shape: tuple[int, ...], slope: tuple[int, ...], native: bool, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    model = b.model(y=b.add("PRelu", b.input("x", list(shape)), b.normal(*slope)))
    feeds = {"x": b.rng.standard_normal(shape).astype(np.float32)}
    report = openwork.build(model, tmp_path / "m.engine", native="force", progress=False)
    found = openwork.load(tmp_path / "m.engine").run(feeds)
    assert np.allclose(found["y"], runtime(model, feeds)["y"], rtol=1e-6, atol=0)
    assert bool(report.fallbacks) != native

"""The benchmarks of loading and of the threads beside ours: real engines, every stage, equal outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.fallback_threads import WIDTH, loaded, measure, model, spinning
from benchmarks.loading.__main__ import stages
from benchmarks.loading.encoder import Size, write_encoder

import openwork
from openwork.backends.onnxruntime import session
from openwork.engine.engine_file import read_engine

SMALL = Size(layers=2, width=128, inner=256, vocabulary=50, positions=16)


@pytest.mark.parametrize(("pattern", "kind"), [(None, "weight"), ("2:4", "indices"), ("32:64", "bitmap")])
def test_its_engine_runs_and_every_stage_is_timed(pattern: str | None, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "small.engine"
    write_encoder(path, SMALL, pattern, "dense" if pattern is None else "window8")
    assert sum(name.endswith(kind) for name in read_engine(path).tensors) == 4 * SMALL.layers
    engine = openwork.load(path, threads=1, verify=True)
    feed = engine.sample((2, 7))
    found = engine.run(feed)["embedding"]
    assert found.shape == (2, SMALL.width)
    assert np.isfinite(found).all()
    times = stages(path)
    assert list(times) == [
        "header and program",
        "digests",
        "decoding",
        "packing",
        "all weights",
        "whole load",
        "verify",
    ]
    assert all(seconds > 0 for seconds in times.values())


def test_threads_that_spin_and_threads_that_sleep_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "mixed.engine"
    openwork.build(model(), path, shapes=[[2]], threads=1, timing_cache=tmp_path / "t.json", progress=False)
    before = dict(session.AMONG_OTHERS)
    engines = loaded(path, 1)
    assert before == session.AMONG_OTHERS
    with spinning(True):
        assert session.AMONG_OTHERS["session.intra_op.allow_spinning"] == "1"
    found = measure(engines, {"x": np.ones((2, WIDTH), np.float32)}, 10)
    assert {name: len(seconds) for name, seconds in found.items()} == {"spin": 10, "sleep": 10}

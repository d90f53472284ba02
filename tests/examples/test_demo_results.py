"""What the demo draws from its results: sentences, tables of at most 100 columns, JSON and the chart."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from examples.minilm_search import chart, table
from examples.minilm_search.lineup import FP32, OURS
from examples.minilm_search.measuring import Quality, Race, race
from examples.minilm_search.plan import INT8_PEERS, Plan
from examples.minilm_search.results import Results
from examples.minilm_search.runners import Runner
from examples.minilm_search.settings import PATTERNS, SHAPES, Settings
from PIL import Image
from rich.console import Console
from rich.table import Table

from openwork.bench.latency import Timing
from openwork.engine.report import Bucket, BuildReport, Environment, Layer, Pick
from openwork.engine.report import Settings as BuildSettings
from openwork.evaluate.retrieval import Retrieval
from openwork.support.machine import Machine

NAMES = (FP32, *INT8_PEERS, *OURS.values())
MILLISECONDS = dict(zip(NAMES, (10.0, 6.0, 5.0, 4.0, 3.0, 2.5, 1.5, 1.4, 1.0), strict=True))


def _run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    return np.eye(2, 4, dtype=np.float32)


def _layer(block: int, name: str, pattern: str | None) -> Layer:
    buckets = tuple(
        Bucket(rows, {"dense": rows * 1e-6, "window8": rows * 5e-7}, "window8", False) for rows in (32, 2048)
    )
    if pattern is None:
        buckets = tuple(Bucket(bucket.rows, {"dense": 1e-4}, "dense", False) for bucket in buckets)
    stored = 60 if pattern else 100
    return Layer(
        name=f"encoder.encoder.layer.{block}.{name}",
        n=384,
        k=1536,
        element="i8",
        activation="none",
        output="f32",
        pattern=pattern,
        zeros=0.5 if pattern else 0.0,
        eligible=pattern is not None,
        reason="No pattern holds.",
        work={},
        buckets=buckets,
        picks=(Pick(None, buckets[0].pick),),
        why="Twice as fast.",
        bytes_dense=100,
        bytes_stored=stored,
    )


def _report(pattern: str | None) -> BuildReport:
    layers = tuple(
        _layer(block, name, pattern) for block in range(6) for name in ("output.dense", "attention.self.qkv")
    )
    return BuildReport(
        version=3,
        model="m",
        environment=Environment("0", "cpu", "avx2", 2, "1"),
        settings=BuildSettings("on", "exact", "fp32", "on", True, ((1, 32),), True),
        accuracy_kept=True,
        notes=(),
        layers=layers,
        fusions=(),
        refusals=(),
        left_out=(),
        fallbacks=(),
        whole=(),
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"x" * 2_000_000)
    samples = {name: np.full(12, time) for name, time in MILLISECONDS.items()}
    runners = {name: Runner(name, "some settings", _run, file) for name in NAMES}
    races = [
        Race(
            shape,
            runners,
            {name: Timing(s * shape[0], s * shape[0]) for name, s in samples.items()},
            dict.fromkeys(NAMES, 1.0),
        )
        for shape in SHAPES
    ]
    quality = {name: Quality(Retrieval(0.6, 0.5, 0.4, 0.8), 0.99, 0.9) for name in NAMES}
    quality[OURS["2:4"]] = Quality(Retrieval(0.57, 0.5, 0.4, 0.8), 0.99, 0.9)
    reports = {"dense": _report(None), **{pattern: _report(pattern) for pattern in PATTERNS}}
    machine = Machine("Example CPU", 2, ("avx2",), "3.11", {})
    plan = Plan(2_000, INT8_PEERS, {"2:4": 1.0, "32:64": 1.0, "16:64": 3.0})
    return Results(machine, Settings(tmp_path, 2), plan, quality, races, reports, {"Corpus": 1.0})


def _printed(drawn: Table) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(drawn)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_speed_up_is_over_the_fastest_int8_peer(results: Results) -> None:
    assert results.speedups()["1x128"] == {
        OURS["dense"]: 1.2,
        OURS["2:4"]: 2.0,
        OURS["32:64"]: pytest.approx(3 / 1.4),
        OURS["16:64"]: 3.0,
    }
    assert results.sentences()[1].endswith("3.00x as fast as OpenVINO INT8 NNCF (some settings)")


def test_quality_and_weights_are_relative_to_dense(results: Results) -> None:
    assert results.kept(OURS["2:4"]) == pytest.approx(0.95, rel=1e-12)
    assert results.weights_ratio("2:4") == 0.6
    assert (
        "openwork INT8 2:4: 95.0% of dense FP32's NDCG@10; weights of the pruned layers 0.60 of dense INT8's"
        in (results.sentences())
    )


def test_a_restless_machine_is_mentioned(results: Results) -> None:
    assert not any("doing other things" in line for line in results.sentences())
    timing = Timing(np.array([1.0, 3.0]), np.array([1.0, 3.0]))
    restless = replace(results.races[0], timings={**results.races[0].timings, FP32: timing})
    changed = replace(results, races=[restless, *results.races[1:]])
    assert changed.sentences()[-1].startswith("1 of 27 timings vary by over 2.5%")


def test_the_comparison_fits_and_names_everyone(results: Results) -> None:
    text = _printed(table.comparison(results))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "…" not in text
    rows = {name: next(line for line in text.splitlines() if line.strip().startswith(name)) for name in NAMES}
    assert rows[OURS["2:4"]].split()[-8:] == [
        "0.5700",
        "95.0%",
        "0.5000",
        "0.4000",
        "1.50",
        "1.50",
        "24.00",
        "2.0",
    ]


def test_equal_layers_share_a_row(results: Results) -> None:
    text = _printed(table.layers(results.reports["2:4"], "2:4"))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert text.count("block 0, 1, 2, 3, 4, 5") == 2
    assert "2048 -> 1024" in text
    assert "2.00x window8" in text


def test_reasons_say_why_a_layer_stays_dense(results: Results) -> None:
    assert table.reasons(results.reports["dense"]) == [
        "(1) No pattern holds.",
        "(Sparsity) Layers eligible for sparse math: 0 of 12",
        "(Sparsity) The plan picked sparse implementation for layers: 0 of 12",
    ]


def test_the_record_is_json(results: Results) -> None:
    record = json.loads(json.dumps(results.record()))
    assert record["fastest_int8_peer"] == dict.fromkeys(("1x32", "1x128", "16x128"), "OpenVINO INT8 NNCF")
    assert record["runners"][FP32]["latency"]["16x128"]["median"] == 160
    assert record["runners"][FP32]["bytes"] == 2_000_000


def test_the_chart_is_drawn(results: Results, tmp_path: Path) -> None:
    chart.draw(results, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > pixels.shape[0] > 800
    own = np.array([0xE0, 0x7B, 0x39])
    assert (pixels == own).all(axis=2).sum() > 1_000
    assert [path.name for path in tmp_path.glob("*.png")] == ["chart.png"]


def _turned(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    return -_run(input_ids, attention_mask)


def test_a_runner_that_computes_something_else_is_not_timed(results: Results) -> None:
    good = next(iter(results.races[0].runners.values()))
    other = replace(good, name="other", run=_turned)
    ids = np.ones((2, 3), np.int64)
    with pytest.raises(ValueError, match=r"cosine -1.000 to dense FP32 at 2x3"):
        race((2, 3), [good, other], {}, (ids, ids), 0.01)


def test_a_sparse_engine_is_checked_against_its_own_model(results: Results) -> None:
    good = next(iter(results.races[0].runners.values()))
    other = replace(good, name="other", run=_turned)
    ids = np.ones((2, 3), np.int64)
    made = race((2, 3), [good, other], {"other": replace(other, name="witness")}, (ids, ids), 1e-6)
    assert made.cosines == {good.name: 1.0, "other": -1.0}
    with pytest.raises(ValueError, match=r"cosine -1.000 to the same model in ONNX Runtime at 2x3"):
        race((2, 3), [good, other], {"other": good}, (ids, ids), 0.01)

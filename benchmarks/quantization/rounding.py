"""What the model's roundings between float operators cost MiniLM: time and NDCG@10, exact and relaxed.

python -m benchmarks.quantization.rounding                  each style of Q/DQ, 1,000 held-out pairs
python -m benchmarks.quantization.rounding --queries 50     a short look

MiniLM is calibrated and exported in each style; each file is built twice. The engines are timed in turns in
one process, after their embeddings were compared with ONNX Runtime's on the same file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from examples.minilm_search import corpus, texts
from examples.minilm_search.settings import MAXIMUM_LENGTH
from examples.minilm_search.training import to_onnx, token_batches

import openwork
from openwork.bench.latency import Options, measure
from openwork.engine.report import BuildReport
from openwork.evaluate.retrieval import cosine_similarity, retrieval
from openwork.models import load_minilm, load_tokenizer
from openwork.quantization import QuantizationOptions, quantize
from openwork.support.cores import physical_cores
from openwork.support.machine import this_machine

WORK = Path("build/benchmarks/rounding")
STYLES = ("openwork", "tensorrt", "onnxruntime")
ROUNDINGS = ("exact", "relaxed")
SHAPES = ((1, 32), (1, 128), (16, 128))


@dataclass(frozen=True)
class Plan:
    """What to measure. queries: held-out pairs. seconds: timed calls of each engine at each shape."""

    styles: tuple[str, ...] = STYLES
    queries: int = 1_000
    calibration_texts: int = 128
    seconds: float = 2.0
    threads: int = 1


@dataclass(frozen=True)
class Row:
    """One engine: what was left out and what falls back, its quality, and its median time in ms by shape.

    witness: NDCG@10 of ONNX Runtime on the same file. cosine: the least of the embeddings' cosines to its.
    """

    style: str
    rounding: str
    left_out: int
    fallbacks: int
    ndcg_at_10: float
    witness: float
    cosine: float
    milliseconds: Mapping[str, float]


class Data:
    """The texts, in tokens."""

    def __init__(self, plan: Plan, work: Path) -> None:
        found = corpus.load(work / "corpus.json")
        self.tokenizer = load_tokenizer(max_length=MAXIMUM_LENGTH)
        self.test = found.test[: plan.queries]
        asked = [pair.query for pair in self.test] + [pair.document for pair in self.test]
        self.batches = list(texts.batches(self.tokenizer, asked))
        self.long = [pair.document for pair in found.test]
        ids = texts.token_ids(self.tokenizer, found.training_texts()[: plan.calibration_texts])
        self.calibration = [{"input_ids": i, "attention_mask": m} for i, m in token_batches(ids)]

    def score(self, run: texts.Run) -> tuple[float, texts.FloatArray]:
        """NDCG@10 and the embeddings."""
        made = texts.embed(run, self.batches)
        half = len(self.test)
        return retrieval(made[:half], made[half:]).ndcg_at_10, made


def _runner(engine: Any) -> texts.Run:
    def run(ids: texts.IntArray, mask: texts.IntArray) -> texts.FloatArray:
        (values,) = engine.run({"input_ids": ids, "attention_mask": mask}).values()
        return np.asarray(values, np.float32)

    return run


def _witness(path: Path) -> texts.Run:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


def exported(style: str, data: Data, work: Path) -> Path:
    """MiniLM with Q/DQ in one style, as ONNX."""
    path = work / f"{style}.onnx"
    options = QuantizationOptions(style=style)  # type: ignore[arg-type]
    to_onnx(quantize(load_minilm(), data.calibration, options), path)
    return path


def _built(source: Path, rounding: str, plan: Plan) -> tuple[Any, BuildReport]:
    path = source.with_suffix(f".{rounding}.engine")
    report = openwork.build(
        source, path, rounding=rounding, shapes=SHAPES, threads=plan.threads, progress=False
    )
    return openwork.load(path, threads=plan.threads), report


def run(plan: Plan, work: Path) -> list[Row]:
    """All engines, each scored, and all of them timed against each other."""
    data = Data(plan, work)
    runners: dict[tuple[str, str], texts.Run] = {}
    found: dict[tuple[str, str], tuple[BuildReport, float, float, float]] = {}
    for style in plan.styles:
        source = exported(style, data, work)
        witness, right = data.score(_witness(source))
        for rounding in ROUNDINGS:
            engine, report = _built(source, rounding, plan)
            runners[style, rounding] = _runner(engine)
            ndcg, made = data.score(runners[style, rounding])
            found[style, rounding] = report, ndcg, witness, float(cosine_similarity(made, right).min())
    times = timed(runners, data, plan)
    return [
        Row(*key, len(report.left_out), len(report.fallbacks), *scores, times[key])
        for key, (report, *scores) in found.items()
    ]


def timed(
    runners: Mapping[tuple[str, str], texts.Run], data: Data, plan: Plan
) -> dict[tuple[str, str], dict[str, float]]:
    """The median of each engine's times at each shape, in ms, measured in turns."""
    times: dict[tuple[str, str], dict[str, float]] = {key: {} for key in runners}
    for shape in SHAPES:
        inputs = texts.exact_shape(data.tokenizer, data.long, *shape)
        calls = {" ".join(key): lambda run=run, inputs=inputs: run(*inputs) for key, run in runners.items()}
        measured = measure(calls, Options(duration=plan.seconds), lambda done: None)
        for key in runners:
            times[key]["x".join(map(str, shape))] = measured[" ".join(key)].median
    return times


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    shapes = list(rows[0].milliseconds)
    lines = [
        f"{'style':12} {'rounding':8} {'left out':>8} {'ORT parts':>9} "
        f"{'NDCG@10':>8} {'of ORT':>8} {'cosine':>8} " + " ".join(f"{shape + ' ms':>10}" for shape in shapes)
    ]
    for row in rows:
        numbers = " ".join(f"{row.milliseconds[shape]:10.2f}" for shape in shapes)
        lines.append(
            f"{row.style:12} {row.rounding:8} {row.left_out:8} {row.fallbacks:9} {row.ndcg_at_10:8.4f} "
            f"{row.witness:8.4f} {row.cosine:8.4f} {numbers}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write rounding.json into the work folder."""
    default = Plan(threads=physical_cores())
    made = argparse.ArgumentParser(prog="python -m benchmarks.quantization.rounding", description=__doc__)
    made.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    made.add_argument("--queries", type=int, default=default.queries, help="held-out pairs")
    made.add_argument("--calibration-texts", type=int, default=default.calibration_texts)
    made.add_argument("--seconds", type=float, default=default.seconds, help="of each engine at each shape")
    made.add_argument("--threads", type=int, default=default.threads)
    made.add_argument("--work", type=Path, default=WORK)
    given = made.parse_args(arguments)
    plan = Plan(tuple(given.styles), given.queries, given.calibration_texts, given.seconds, given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    rows = run(plan, given.work)
    print(this_machine().line(plan.threads), table(rows), sep="\n")
    record = {"plan": asdict(plan), "rows": [asdict(row) for row in rows], "machine": this_machine().record()}
    (given.work / "rounding.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

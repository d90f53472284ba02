"""Quality of every runner on the held-out pairs, and the latency of all of them in one interleaved run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openwork.bench.latency import Options, Timing, measure, ratio
from openwork.evaluate.retrieval import Retrieval, cosine_similarity, retrieval
from openwork.support.progress import progress_bar

from .corpus import Pair
from .runners import Runner
from .settings import SHAPES
from .store import Store
from .texts import Batch, FloatArray, IntArray, embed

LEAST_COSINE = 0.9
"""What quantizing may cost: the least mean cosine to dense FP32 of a runner without a witness."""
LEAST_AGREEMENT = 0.99
"""The least cosine of any embedding to the same INT8 model's in ONNX Runtime."""
Shape = tuple[int, int]


@dataclass(frozen=True)
class Quality:
    """How well a runner's embeddings find the held-out documents, and how close they are to dense FP32's."""

    retrieval: Retrieval
    mean_cosine: float
    least_cosine: float


def embeddings(runner: Runner, data: Sequence[Batch], store: Store) -> FloatArray:
    """The runner's embeddings of the held-out texts, from an earlier run if nothing changed."""
    status = runner.file.stat()
    key = {
        "settings": runner.settings,
        "bytes": status.st_size,
        "time": status.st_mtime_ns,
        "texts": len(data),
    }
    name = "embeddings." + "".join(c if c.isalnum() else "_" for c in runner.name) + ".npy"

    def make(path: Path) -> None:
        with progress_bar(runner.name, len(data)) as advance:
            np.save(path, embed(runner.run, data, lambda done: advance(done)))

    values: FloatArray = np.load(store.file(name, key, make))
    return values


def quality(values: FloatArray, reference: FloatArray) -> Quality:
    """values, reference: embeddings of all queries, then of all documents, in the order of the pairs."""
    half = len(values) // 2
    cosines = cosine_similarity(values, reference)
    return Quality(retrieval(values[:half], values[half:]), float(cosines.mean()), float(cosines.min()))


@dataclass(frozen=True)
class Agreement:
    """Cosines of the embeddings of all held-out texts to those of the same Q/DQ model in ONNX Runtime."""

    least: float
    median: float
    texts: int


def agreement(values: FloatArray, witness: FloatArray) -> Agreement:
    """values, witness: embeddings of the same texts."""
    cosines = cosine_similarity(values, witness)
    return Agreement(float(cosines.min()), float(np.median(cosines)), len(cosines))


def test_texts(pairs: Sequence[Pair]) -> list[str]:
    """All queries, then all documents."""
    return [pair.query for pair in pairs] + [pair.document for pair in pairs]


@dataclass(frozen=True)
class Race:
    """One interleaved run at one shape: each runner's timing, and its cosine to FP32 on the same inputs."""

    shape: Shape
    runners: dict[str, Runner]
    timings: dict[str, Timing]
    cosines: dict[str, float]

    def fastest(self, names: Sequence[str]) -> str:
        """The name with the lowest median."""
        return min(names, key=lambda name: self.timings[name].median)

    def speedup(self, base: str, other: str) -> float:
        """How many times faster `other` is than `base`, round by round."""
        return ratio(self.timings[base], self.timings[other])


def race(
    shape: Shape,
    runners: Sequence[Runner],
    witnesses: Mapping[str, Runner],
    inputs: tuple[IntArray, IntArray],
    seconds: float,
) -> Race:
    """Time `runners`, the first of them dense FP32, against each other, after checking what they compute.

    witnesses: for each runner of another model than the dense one, that very model in ONNX Runtime. Raises
    ValueError if a runner's embeddings are far from its witness's, or else from dense FP32's.
    """
    made = {runner.name: np.array(runner.run(*inputs)) for runner in runners}
    reference = made[runners[0].name]
    cosines = {name: float(cosine_similarity(values, reference).mean()) for name, values in made.items()}
    agreements = {name: cosine_similarity(made[name], w.run(*inputs)).min() for name, w in witnesses.items()}
    for name, cosine in {**cosines, **agreements}.items():
        if not cosine >= (LEAST_AGREEMENT if name in witnesses else LEAST_COSINE):
            what = "the same model in ONNX Runtime" if name in witnesses else "dense FP32"
            raise ValueError(
                f"{name} gives embeddings of cosine {cosine:.3f} to {what} at {label(shape)}: it does "
                "not compute the same, and its time would mean nothing. Make its model file anew."
            )
    calls = {runner.name: lambda runner=runner: runner.run(*inputs) for runner in runners}
    with progress_bar(label(shape), 1.0) as advance:
        timings = measure(calls, Options(duration=seconds), advance)
    return Race(shape, {runner.name: runner for runner in runners}, timings, cosines)


def label(shape: Shape) -> str:
    """A shape as the tables write it."""
    return f"{shape[0]}x{shape[1]}"


LABELS = tuple(label(shape) for shape in SHAPES)

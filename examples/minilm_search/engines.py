"""The models of the demo as files: each made once for its settings, from what stands before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openwork
from openwork.engine.report import BuildReport
from openwork.models import SentenceEmbedder, load_tokenizer

from . import corpus, peers, texts, training
from .plan import DYNAMIC, NNCF, STATIC, Plan
from .settings import CALIBRATION_TEXTS, MAXIMUM_LENGTH, PATTERNS, PRUNING_TEXTS, SHAPES, Settings
from .store import Store

PEER_TEXTS = 64
DENSE = "dense"
Key = Mapping[str, Any]


@dataclass
class Workshop:
    """The stages of one run, with what they share. notes: what a stage has to say beyond its file."""

    settings: Settings
    store: Store
    corpus: corpus.Corpus
    plan: Plan
    teacher: SentenceEmbedder
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokenizer = load_tokenizer(max_length=MAXIMUM_LENGTH)
        words = self.corpus.training_texts()
        ids = texts.token_ids(self.tokenizer, words)
        self.material = training.Material(ids, ids[:PRUNING_TEXTS], ids[:CALIBRATION_TEXTS])
        self.peer_data = list(texts.batches(self.tokenizer, words[:PEER_TEXTS], size=1))
        self.base: Key = {"packages": corpus.fingerprint(), "openwork": openwork.__version__}

    def dense_float(self) -> Path:
        """The dense model in FP32, as ONNX."""
        return self.store.file("dense.onnx", self.base, lambda path: training.to_onnx(self.teacher, path))

    def pruned(self, pattern: str) -> Path:
        """The state of the model pruned in one shot."""
        return self.store.file(
            f"{_file_name(pattern)}.pruned.pt",
            {**self.base, "pattern": pattern, "texts": PRUNING_TEXTS},
            lambda path: self._prune(pattern, path),
        )

    def _prune(self, pattern: str, path: Path) -> None:
        path.with_suffix(".checkpoint").unlink(missing_ok=True)
        training.prune(self.teacher, pattern, self.material, path)

    def trained(self, pattern: str) -> Path:
        """The state of the sparse model after its share of the distillation."""
        pruned, minutes = self.pruned(pattern), self.plan.minutes[pattern]
        return self.store.file(
            f"{_file_name(pattern)}.trained.pt",
            self._trained_key(pattern),
            lambda path: self.notes.append(
                training.train(self.teacher, pattern, pruned, minutes, self.material.all, path)
            ),
        )

    def _trained_key(self, pattern: str) -> Key:
        return {**self.base, "pattern": pattern, "minutes": self.plan.minutes[pattern]}

    def quantized(self, pattern: str) -> Path:
        """The INT8 model with Q/DQ, as ONNX, of "dense" or of a pattern."""
        key = self.base if pattern == DENSE else self._trained_key(pattern)
        source = None if pattern == DENSE else self.trained(pattern)

        def make(path: Path) -> None:
            model = self.teacher if source is None else training.restore(self.teacher, pattern, source)[0]
            training.to_onnx(training.to_int8(model, self.material.calibration), path)

        return self.store.file(f"{_file_name(pattern)}.int8.onnx", {**key, "texts": CALIBRATION_TEXTS}, make)

    def engine(self, pattern: str) -> Path:
        """The engine built from the INT8 model."""
        source, threads = self.quantized(pattern), self.settings.threads
        key = {"source": source.stat().st_mtime_ns, "threads": threads, "shapes": SHAPES, **self.base}
        return self.store.file(
            f"{_file_name(pattern)}.engine",
            key,
            lambda path: openwork.build(source, path, shapes=SHAPES, threads=threads, strict=True),
        )

    def engines(self) -> dict[str, Path]:
        """The engine of the dense model and of each pattern."""
        return {pattern: self.engine(pattern) for pattern in (DENSE, *PATTERNS)}

    def peer(self, name: str) -> Path:
        """The dense model quantized by a peer's own tool."""
        source, data = self.dense_float(), self.peer_data
        key = {**self.base, "texts": PEER_TEXTS, **_versions()}
        file, make = {
            DYNAMIC: ("peer.dynamic.onnx", lambda path: peers.dynamic_by_onnxruntime(source, path)),
            STATIC: ("peer.static.onnx", lambda path: peers.static_by_onnxruntime(source, path, data)),
            NNCF: ("peer.nncf.xml", lambda path: peers.by_nncf(source, path, data)),
        }[name]
        return self.store.file(file, key, make)

    def inputs(self, shape: tuple[int, int]) -> tuple[texts.IntArray, texts.IntArray]:
        """Held-out text at exactly `shape`."""
        return texts.exact_shape(self.tokenizer, [pair.document for pair in self.corpus.test], *shape)


def _versions() -> Key:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnxruntime", "openvino", "nncf")}


def _file_name(pattern: str) -> str:
    return pattern.replace(":", "_")


def engine_path(work: Path, pattern: str) -> Path:
    """Where a run keeps the engine of "dense" or of a pattern."""
    return work / f"{_file_name(pattern)}.engine"


def report_of(engine: Path) -> BuildReport:
    """The build report that an engine file carries."""
    return openwork.load(engine).report

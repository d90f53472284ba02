"""MiniLM as everybody gets it: INT8, dense and pruned, and as the peers' own tools quantize it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from examples.minilm_search import peers, texts
from examples.minilm_search.corpus import Corpus, load
from examples.minilm_search.runners import Runner, with_onnxruntime, with_openvino, with_openwork
from examples.minilm_search.settings import MAXIMUM_LENGTH
from examples.minilm_search.training import to_int8, to_onnx
from tokenizers import Tokenizer

import openwork
from openwork.models import load_minilm, load_tokenizer
from openwork.sparsity import Pruner

DENSE = "dense"
SHAPES = [[1, 32], [1, MAXIMUM_LENGTH], [16, MAXIMUM_LENGTH]]
_CALIBRATED = 128


@dataclass
class Files:
    """The files of a run, each made once in `folder`. threads: what the engines are built for."""

    folder: Path
    threads: int

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.corpus: Corpus = load(self.folder / "corpus.json")
        self.tokenizer: Tokenizer = load_tokenizer(max_length=MAXIMUM_LENGTH)

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self.folder / name
        if not path.exists():
            make(path)
        return path

    def _calibration(self) -> list[texts.Batch]:
        return list(texts.batches(self.tokenizer, self.corpus.training_texts()[:_CALIBRATED]))

    def _int8(self, pattern: str, path: Path) -> None:
        torch.manual_seed(0)
        model = copy.deepcopy(load_minilm())
        if pattern != DENSE:
            Pruner(model, pattern).prune("magnitude")
        chosen = texts.token_ids(self.tokenizer, self.corpus.training_texts()[:_CALIBRATED])
        to_onnx(to_int8(model, chosen), path)

    def quantized(self, pattern: str) -> Path:
        """The Q/DQ file of a pattern."""
        stem = pattern.replace(":", "-")
        return self._made(f"minilm.{stem}.int8.onnx", lambda path: self._int8(pattern, path))

    def ours(self, pattern: str) -> Runner:
        """This engine."""
        source = self.quantized(pattern)
        built = source.with_suffix(f".{self.threads}.engine")
        if not built.exists():
            cache = self.folder / "timings.json"
            openwork.build(source, built, shapes=SHAPES, threads=self.threads, timing_cache=cache)
        return with_openwork(f"openwork {pattern}", built, self.threads)

    def peers(self) -> list[Runner]:
        """ONNX Runtime and OpenVINO on the same file, and on those of their own quantizers."""
        source = self._made("minilm.float.onnx", lambda path: to_onnx(load_minilm(), path))
        data = self._calibration()
        dynamic = self._made("minilm.dynamic.onnx", lambda path: peers.dynamic_by_onnxruntime(source, path))
        static = self._made(
            "minilm.static.onnx", lambda path: peers.static_by_onnxruntime(source, path, data)
        )
        nncf = self._made("minilm.nncf.xml", lambda path: peers.by_nncf(source, path, data))
        same = self.quantized(DENSE)
        found = [
            with_onnxruntime(f"ONNX Runtime, {name}", path, self.threads)
            for name, path in (("same file", same), ("dynamic", dynamic), ("static", static))
        ]
        for name, path in (("same file", same), ("NNCF", nncf)):
            found.append(with_openvino(f"OpenVINO, {name}", path, self.threads, "f32"))
        return found

"""The stages of the example, each of which is left out where an earlier run has finished it."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from openwork.sparsity import Calibration
from openwork.support.files import write_atomic

from .engines import PRECISIONS, Call, build, export_unet, with_onnxruntime, with_openvino, with_openwork
from .measuring import times
from .networks import Painter, new_classifier, new_painter
from .picture import draw
from .sampling import Request, Texts, accuracy, embed, every_glyph, paint
from .settings import PATTERN, UNETS, Settings
from .training import Course, calibration_batches, pruner_of, save, train, train_classifier

RATE, FINETUNING_RATE = 1e-3, 4e-4
SHEET = 32
"""Pictures of each engine that are drawn side by side."""


def _is_newer(path: Path, source: Path) -> bool:
    """Whether a file was made of the present source: it is there, and no older."""
    return path.exists() and path.stat().st_mtime >= source.stat().st_mtime


class Demo:
    """One run: the settings, and the files of its folder."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings, self.console = settings, console
        settings.work.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(settings.threads)

    def file(self, name: str) -> Path:
        """A file of the folder; the size of the UNet is a part of its name."""
        return self.settings.work / f"{self.settings.size}.{name}"

    def dense(self) -> Painter:
        """The dense painter: the user's own weights, or trained here."""
        given, painter = self.settings, new_painter(UNETS[self.settings.size])
        if given.weights is not None:
            painter.load_state_dict(torch.load(given.weights, weights_only=True))
            return painter.eval()
        course = Course(given.steps, given.batch, RATE, self.file("dense.pt"), "training")
        train(painter, course)
        return painter

    def sparse(self, dense: Painter) -> Painter:
        """The painter pruned by SparseGPT and trained on, its zeros kept."""
        given, painter = self.settings, copy.deepcopy(dense)
        pruner, start = pruner_of(painter), self.file("pruned.pt")
        if start.exists():
            painter.load_state_dict(torch.load(start, weights_only=True))
        else:
            batches = calibration_batches(given.batch)
            pruner.prune("sparsegpt", Calibration(batches, bfloat16=False), progress=True)
            save(painter.state_dict(), start)
        course = Course(
            given.finetune, given.batch, FINETUNING_RATE, self.file("sparse.pt"), "training on", pruner
        )
        train(painter, course)
        pruner.verify()
        return painter

    def engines(self, painters: dict[str, Painter]) -> dict[str, Path]:
        """The engine of each painter in each precision, by name."""
        made = {}
        for kind, painter in painters.items():
            source = self.file(f"{kind}.onnx")
            if not _is_newer(source, self._trained(kind)):
                export_unet(painter, source)
            for precision in PRECISIONS:
                name = f"{kind} {precision}"
                made[name] = self.file(f"{kind}.{precision}.engine")
                if not _is_newer(made[name], source):
                    build(source, made[name], precision, self.settings.threads)
        return made

    def _trained(self, kind: str) -> Path:
        """Where the weights of a painter come from."""
        return self.settings.weights or self.file("dense.pt") if kind == "dense" else self.file("sparse.pt")

    def peers(self) -> dict[str, Call]:
        """The dense file in the others' engines."""
        path, threads = self.file("dense.onnx"), self.settings.threads
        found = {"ONNX Runtime fp32": with_onnxruntime(path, threads)}
        for precision in PRECISIONS:
            found[f"OpenVINO {precision}"] = with_openvino(path, threads, precision)
        return found

    def run(self) -> None:
        """All stages, and the tables."""
        given, dense = self.settings, self.dense()
        painters = {"dense": dense, PATTERN.replace(":", "of"): self.sparse(dense)}
        classifier = train_classifier(new_classifier(), self.file("classifier.pt"))
        paths, request = self.engines(painters), every_glyph(given.pictures)
        runners = {name: with_openwork(path, given.threads) for name, path in paths.items()}
        samples, judged = {}, {}
        for name, call in runners.items():
            painter = painters[name.split()[0]]
            samples[name] = self._paint(painter, call, request, name)
            judged[name] = accuracy(classifier, samples[name], request)
        draw(
            {name: pictures[:SHEET] for name, pictures in samples.items()}, request, self.file("samples.png")
        )
        timed = times({**runners, **self.peers()}, given.size, given.seconds)
        medians = {batch: {name: t.median for name, t in of.items()} for batch, of in timed.items()}
        self._report(judged, medians)

    def _paint(self, painter: Painter, call: Call, request: Request, title: str) -> np.ndarray[Any, Any]:
        given = self.settings
        texts = Texts(embed(painter, request.captions), embed(painter, [""]), given.strength)
        return paint(call, texts, given.sampling, title)

    def _report(self, judged: dict[str, float], medians: dict[int, dict[str, float]]) -> None:
        given = {name: str(value) for name, value in asdict(self.settings).items()}
        record = {"settings": given, "accuracy": judged, "milliseconds of a call": medians}
        write_atomic(self.file("results.json"), [json.dumps(record, indent=1).encode() + b"\n"])
        steps, table = (
            self.settings.sampling,
            Table("", "glyph is the caption's", title="Pictures of captions"),
        )
        for batch in medians:
            table.add_column(f"ms a picture, {batch // 2} at once", justify="right")
        for name in medians[min(medians)]:
            seen = f"{100 * judged[name]:.1f}%" if name in judged else ""
            each = (f"{of[name] * steps / (batch // 2):.1f}" for batch, of in medians.items())
            table.add_row(name, seen, *each)
        self.console.print(table)
        self.console.print(f"Samples side by side: {self.file('samples.png')}", soft_wrap=True)

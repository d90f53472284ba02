"""The ONNX files of a measurement: a random network, pruned, settled, quantized, for images of one shape."""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from benchmarks.networks.lively import settle
from benchmarks.networks.plans import DENSE, NETWORKS, Kind, Shape
from openwork.export import ExportOptions, export
from openwork.qdq.targets import Bias, TargetName
from openwork.quantization import QuantizationOptions, quantize
from openwork.sparsity import Pruner

INPUT = "images"
_SETTLED, _CALIBRATED = 4, 2
_AXES = {INPUT: {0: "batch", 2: "height", 3: "width"}}


class FileError(Exception):
    """Why there is no file: a sentence."""


@dataclass
class Files:
    """The files of one network, each made once. image: height and width of what settles and calibrates it."""

    network: str
    image: tuple[int, int]
    folder: Path
    seed: int = 0
    pruned: dict[str, nn.Module] = field(default_factory=dict)

    def path(self, pattern: str, kind: Kind, style: str, shape: Shape) -> Path:
        """The file for images of this shape; raises FileError where the pattern fits no layer."""
        stem = f"{self.network}.{pattern.replace(':', '-')}.{kind}.{style if kind == 'int8' else 'float'}"
        free = self.folder / f"{stem}.onnx"
        if not free.exists():
            self._write(self._model(pattern), kind, style, free)
        fixed = self.folder / f"{stem}.{'x'.join(map(str, shape.sizes))}.onnx"
        if not fixed.exists():
            _fix(free, fixed, shape)
        return fixed

    def _model(self, pattern: str) -> nn.Module:
        if pattern not in self.pruned:
            torch.manual_seed(self.seed)
            model = NETWORKS[self.network]().eval()
            if pattern != DENSE:
                try:
                    Pruner(model, pattern).prune("magnitude")
                except ValueError as error:
                    raise FileError(str(error).split(". ")[0] + ".") from error
            self.pruned[pattern] = settle(model, self._images(_SETTLED, 1))
        return self.pruned[pattern]

    def _images(self, batch: int, seed: int) -> Tensor:
        return torch.from_numpy(images(Shape(batch, *self.image), self.seed + seed))

    def _write(self, model: nn.Module, kind: Kind, style: str, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "int8":
                batches = [self._images(2, 2 + i) for i in range(_CALIBRATED)]
                logging.disable(logging.WARNING)
                model = quantize(copy.deepcopy(model), batches, QuantizationOptions(style=style))  # type: ignore[arg-type]
                logging.disable(logging.NOTSET)
            target: TargetName | None = "onnxruntime" if kind == "int8" and style == "onnxruntime" else None
            bias: Bias | None = "int32" if kind == "int8" and style == "openwork" else None
            options = ExportOptions(dynamic_axes=_AXES, exporter="legacy", target=target, bias=bias)
            export(model, {INPUT: self._images(2, 0)}, path, options)


def images(shape: Shape, seed: int) -> np.ndarray:
    """Random images, f32 [batch, 3, H, W]: noise of three scales, as pictures have structures of several."""
    rng = np.random.default_rng(seed)
    found = np.zeros(shape.sizes, np.float32)
    for grain in (1, 4, 16):
        sides = [-(-side // grain) for side in (shape.height, shape.width)]
        coarse = rng.standard_normal((shape.batch, 3, *sides), np.float32)
        found += coarse.repeat(grain, 2).repeat(grain, 3)[:, :, : shape.height, : shape.width]
    return found / np.float32(3**0.5)


def _fix(source: Path, path: Path, shape: Shape) -> None:
    """Give the model's input its sizes: what a peer knows beforehand it may use."""
    model = onnx.load(source)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape.sizes, strict=True):
        dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = shape.batch
    # Shapes between that still have names would contradict the sizes.
    del model.graph.value_info[:]
    onnx.save(model, path)

"""The ONNX files of a measurement: a random network, pruned, settled, quantized, for inputs of one shape."""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from benchmarks.networks.inputs import IMAGES, axes, tensors
from benchmarks.networks.lively import settle, spread
from benchmarks.networks.plans import DENSE, NETWORKS, PRUNED, Kind, Shape
from openwork.export import ExportOptions, export
from openwork.qdq.targets import Bias, TargetName
from openwork.quantization import QuantizationOptions, quantize
from openwork.sparsity import Pruner

_SETTLED, _CALIBRATED = 4, 2
_CALIBRATION_BATCH = 2
_RECOMMENDS = {"dlrm": 512}
"""The networks that have no statistics of their own, and the examples in a batch that calibrates them."""


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
            model = spread(model) if self.network in _RECOMMENDS else model
            if pattern != DENSE:
                try:
                    Pruner(model.get_submodule(PRUNED.get(self.network, "")), pattern).prune("magnitude")
                except ValueError as error:
                    raise FileError(str(error).split(". ")[0] + ".") from error
            settled = self.network in _RECOMMENDS
            self.pruned[pattern] = model if settled else settle(model, self._fed(_SETTLED, 1)[IMAGES])
        return self.pruned[pattern]

    def _fed(self, batch: int, seed: int) -> dict[str, Tensor]:
        return tensors(self.network, Shape(batch, *self.image), self.seed + seed)

    def _write(self, model: nn.Module, kind: Kind, style: str, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "int8":
                batch = _RECOMMENDS.get(self.network, _CALIBRATION_BATCH)
                batches = [self._fed(batch, 2 + i) for i in range(_CALIBRATED)]
                logging.disable(logging.WARNING)
                model = quantize(copy.deepcopy(model), batches, QuantizationOptions(style=style))  # type: ignore[arg-type]
                logging.disable(logging.NOTSET)
            target: TargetName | None = "onnxruntime" if kind == "int8" and style == "onnxruntime" else None
            bias: Bias | None = "int32" if kind == "int8" and style == "openwork" else None
            options = ExportOptions(
                dynamic_axes=axes(self.network), exporter="legacy", target=target, bias=bias
            )
            export(model, self._fed(2, 0), path, options)


def _fix(source: Path, path: Path, shape: Shape) -> None:
    """Give the model's inputs their sizes: what a peer knows beforehand it may use."""
    model = onnx.load(source)
    sizes = {"batch": shape.batch, "height": shape.height, "width": shape.width}
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = shape.batch
    # Shapes between that still have names would contradict the sizes.
    del model.graph.value_info[:]
    onnx.save(model, path)

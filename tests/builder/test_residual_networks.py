"""Networks of residual blocks, whose sums are written over what they add: the bits of the reference."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import openwork
from convolutional_networks import CLASSES, fill, image
from openwork.builder import tactics
from openwork.export import ExportOptions, export
from openwork.graph import read, reduce
from openwork.graph.reference import run as reference
from openwork.models import ResNet, ResNetConfig
from openwork.quantization import QuantizationOptions, quantize

SIZE = 32
NETWORKS = {
    # Channels that no vector divides, several blocks of each size.
    "basic": ResNetConfig("basic", (3, 2), (21, 38), classes=CLASSES),
    "bottleneck": ResNetConfig("bottleneck", (3, 2), (9, 17), classes=CLASSES),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)


def exported(name: str, style: str | None, path: Path) -> Path:
    """The network's file for any batch: in float, or quantized in a style."""
    model: nn.Module = fill(ResNet(NETWORKS[name]))
    options = ExportOptions(dynamic_axes={"images": {0: "batch"}}, exporter="legacy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if style is not None:
            batches = [image(SIZE, SIZE, seed=seed) for seed in range(2)]
            model = quantize(model, batches, QuantizationOptions(style=style))  # type: ignore[arg-type]
        return export(model, {"images": image(SIZE, SIZE)}, path, options)


@pytest.mark.parametrize("style", [None, "openwork", "onnxruntime"])
@pytest.mark.parametrize("name", NETWORKS)
def test_residual_networks_have_the_bits_of_the_reference(
    name: str, style: str | None, tmp_path: Path
) -> None:
    path = exported(name, style, tmp_path / "m.onnx")
    options = {"native": "force", "strict": True, "threads": 1, "progress": False}
    report = openwork.build(
        path, tmp_path / "m.engine", shapes=[[1], [3]], timing_cache=tmp_path / "timings.json", **options
    )
    assert not report.fallbacks
    model, _, _ = reduce(read(path))
    # Of nine images some slices are made, each on one thread.
    for batch in (1, 9):
        feed = {"images": image(SIZE, SIZE, batch=batch, seed=batch).numpy()}
        (expected,) = reference(model, feed).values()
        for threads in (1, 2):
            (found,) = openwork.load(tmp_path / "m.engine", threads=threads).run(feed).values()
            np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))

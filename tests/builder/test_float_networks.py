"""Float convolutional networks by both of torch's exporters: native steps, and ONNX Runtime's numbers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import openwork
from convolutional_networks import SMALL, fill, image
from engine_samples import pruned
from openwork.builder import tactics
from openwork.builder.builder import build

SIZE = 64
TOLERANCE = 200 * 2.0**-24
"""Of the length of the scores. Each layer adds up to a thousand products in another order, in roundings that
are alike in size and fall either way: n of them move a sum by about the root of n times 2^-24, and 40 layers
make n 40,000."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)


def network(name: str, pattern: str | None) -> nn.Module:
    """The network, its wide enough weights pruned along their input channels."""
    model = fill(SMALL[name]())
    for module in model.modules() if pattern is not None else ():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = module.weight.data
        rows = (weight if weight.ndim == 2 else weight.permute(2, 3, 0, 1)).reshape(-1, weight.shape[1])
        if rows.shape[1] % 64 == 0:
            kept = torch.from_numpy(pruned(rows.numpy(), str(pattern)))
            if weight.ndim == 4:
                n, k, height, width = weight.shape
                kept = kept.reshape(height, width, n, k).permute(2, 3, 0, 1).contiguous()
            module.weight.data = kept
    return model


def exported(model: nn.Module, path: Path, *, dynamo: bool, free: bool) -> Path:
    """The model's file with a free batch, and where asked with free height and width."""
    axes = {0: "batch", **({2: "height", 3: "width"} if free else {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            dims = {axis: torch.export.Dim.DYNAMIC if axis else torch.export.Dim("batch") for axis in axes}
            options = {"dynamic_shapes": (dims,), "verbose": False}
        else:
            options = {"dynamic_axes": {"x": axes}, "opset_version": 17}
        example = (image(SIZE, SIZE),)
        torch.onnx.export(model, example, str(path), dynamo=dynamo, input_names=["x"], **options)
    return path


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("dynamo", "pattern", "free"), [(False, "2:4", False), (False, "16:64", True), (True, None, True)]
)
def test_they_run_natively_and_agree(
    name: str, dynamo: bool, pattern: str | None, free: bool, tmp_path: Path
) -> None:
    path = exported(network(name, pattern), tmp_path / "m.onnx", dynamo=dynamo, free=free)
    shapes = [[1, SIZE, SIZE], [3, SIZE, SIZE + 32]] if free else [[1], [3]]
    cache = tmp_path / "timings.json"
    options = {"native": "force", "strict": True, "threads": 1, "progress": False, "timing_cache": cache}
    report = build(path, tmp_path / "m.engine", shapes=shapes, **options)
    assert not report.fallbacks
    assert bool(report.eligible) == (pattern is not None)
    engine = openwork.load(tmp_path / "m.engine", threads=1)
    session = onnxruntime.InferenceSession(str(path))
    for batch, height, width in [(1, SIZE, SIZE), (3, SIZE, SIZE), *([(2, 70, 93)] if free else [])]:
        feed = {"x": image(height, width, batch=batch).numpy()}
        (expected,), (found,) = session.run(None, feed), engine.run(feed).values()
        assert np.linalg.norm(found - expected) <= TOLERANCE * np.linalg.norm(expected)

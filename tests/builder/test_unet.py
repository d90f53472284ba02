"""A UNet by both of torch's exporters: native behind the sines of the time, and ONNX Runtime's numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import openwork
from openwork.builder import tactics
from openwork.graph import read, reduce
from openwork.models.unet import UNet, UNetConfig

ATTENTIONS, TOKENS = 8, 7
TOLERANCE = {
    "fp32": np.sqrt(ATTENTIONS / TOKENS) / (11580 * np.sqrt(12)),
    "bf16": 2 * 2.0**-8 * np.sqrt(60),
}
"""Of the length of the noise. FP32: attention holds values in steps of 1 / 11580 of the largest, off by
1 / sqrt(12) of a step in the mean square, less where some tokens are averaged; other sums' order counts less.
BF16: each of 60 products in a row moves what it makes by 2^-8 of either factor, in its own direction."""
BATCH, SIDE = 2, 16


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)


def feeds(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    return {
        "images": rng.standard_normal((batch, 3, SIDE, SIDE)).astype(np.float32),
        "times": rng.integers(0, 1000, batch),
        "text": rng.standard_normal((batch, TOKENS, 16)).astype(np.float32),
    }


def exported(path: Path, *, dynamo: bool, groups: int = 8) -> Path:
    """A UNet of two levels with a free batch, its weights as they begin."""
    torch.manual_seed(0)
    unet = UNet(UNetConfig((32, 64), (False, True), context=16, groups=groups)).eval()
    given = {name: torch.from_numpy(array) for name, array in feeds(BATCH).items()}
    free: dict[str, Any] = {"dynamic_axes": {name: {0: "batch"} for name in given}, "opset_version": 17}
    if dynamo:
        free = {
            "dynamic_shapes": ({0: torch.export.Dim("batch")},) * 3,
            "verbose": False,
            "opset_version": 21,
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            unet, tuple(given.values()), str(path), dynamo=dynamo, input_names=list(given), **free
        )
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dynamo", [False, True])
def test_it_agrees(dynamo: bool, precision: str, tmp_path: Path) -> None:
    path = exported(tmp_path / "m.onnx", dynamo=dynamo)
    options: dict[str, Any] = {"native": "force", "threads": 1, "progress": False, "shapes": [[BATCH]]}
    cache = tmp_path / "timings.json"
    openwork.build(path, tmp_path / "m.engine", precision=precision, timing_cache=cache, **options)
    engine = openwork.load(tmp_path / "m.engine", threads=1)
    session = onnxruntime.InferenceSession(str(path))
    for batch in (1, BATCH, 3):
        given = feeds(batch)
        wanted, found = session.run(None, given)[0], next(iter(engine.run(given).values()))
        assert np.linalg.norm(found - wanted) <= TOLERANCE[precision] * np.linalg.norm(wanted)


@pytest.mark.parametrize("groups", [1, 32])
@pytest.mark.parametrize("dynamo", [False, True])
def test_nothing_moves_channels_between_its_ends(dynamo: bool, groups: int, tmp_path: Path) -> None:
    reduced, _, _ = reduce(read(exported(tmp_path / "m.onnx", dynamo=dynamo, groups=groups)))
    names = [node.op_type for node in reduced.graph if node.domain == "openwork"]
    assert names.count("ToChannelsLast") == names.count("ToChannelsFirst") == names.count("Upsample") == 1
    assert not {"Silu", "Gelu", "Slice", "Add"} & set(names)
    rest = {node.op_type for node in reduced.graph if node.domain != "openwork"}
    assert rest <= {"Cast", "Unsqueeze", "Mul", "Sin", "Cos", "Concat"}

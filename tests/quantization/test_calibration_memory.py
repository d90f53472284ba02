"""What calibration keeps does not grow with the data; the benchmark measures the same with 10,000 batches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from openwork.quantization.observers.observer import ObserverKind, make_observer

ROOT = Path(__file__).parents[2]


def _bytes(state: Any) -> int:
    if isinstance(state, dict):
        return sum(_bytes(value) for value in state.values())
    return state.numel() * state.element_size() if isinstance(state, Tensor) else 0


@pytest.mark.parametrize("kind", get_args(ObserverKind))
def test_what_an_observer_keeps_stops_growing(kind: ObserverKind) -> None:
    generator = torch.Generator().manual_seed(0)
    observer = make_observer(kind, "layer", symmetric=False)
    kept = []
    for batch in range(1800):
        x = torch.randn(4, 16, generator=generator) * 10.0 ** (batch % 61 - 30)
        observer.observe(x)
        if batch in (1700, 1799):
            kept.append(_bytes(observer.state_dict()))
    assert kept[0] == kept[1]
    # Two signs of 2^14 counts of 8 bytes, or 1024 rows and their hashes, and a few numbers.
    assert kept[1] <= (1 << 18) + (1 << 14)


@pytest.mark.slow  # Imports torch again and runs ResNet-50.
def test_resnet_50_takes_less_than_it_may(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.calibration_memory", "--batches", "10", "--size", "32"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "memory.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "memory.json").read_text())
    assert found["tensors"] == 54 + 16 + 4
    assert found["observers"] == 54 * 6 + 20 * 5
    # The histograms alone take ten; something was measured.
    assert 10 < found["above_model"] < 200
    assert "above it" in done.stdout

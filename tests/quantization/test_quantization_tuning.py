"""The benchmark of equalization, bias correction and migration: its nets, its table, and a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.quantization_tuning import __main__ as program
from benchmarks.quantization_tuning import minilm, mobile
from benchmarks.quantization_tuning.gain import Gain, error, lines


def test_spread_channels_are_the_same_function() -> None:
    model = mobile.net(0).eval()
    wide = mobile.spread(model, 1.0, seed=3)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ratio = (wide.get_parameter("1.1.weight") / model.get_parameter("1.1.weight")).detach()
    assert float(ratio.max() / ratio.min()) > 10
    with torch.no_grad():
        found, wanted = wide[:-1](x), model[:-1](x)
    # Seven layers of sums of at most 48 products: 16 sqrt(k) 2^-24 for each.
    assert float((found - wanted).norm()) <= 7 * 16 * 7 * 2.0**-24 * float(wanted.norm())


def test_a_tiny_run_writes_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gains.json"
    program.main(["--mobile", "--seeds", "1", "--steps", "60", "--json", str(path)])
    found = json.loads(path.read_text())
    assert len(found) == 2 * len(mobile.LINEUP)
    by_way = {(gain["case"], gain["tuned"]): gain["error"] for gain in found}
    spread = f"depthwise net, {mobile.SPREAD}"
    assert by_way[spread, "equalize by activations"] < by_way[spread, "nothing"] / 2
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(found)
    with pytest.raises(SystemExit):
        program.main(["--seeds", "0"])


def test_rows_are_means_over_seeds() -> None:
    gains = [Gain("net", "nothing", e, 0.5 + e, 0.75) for e in (1e-4, 3e-4)]
    assert lines([*gains, Gain("other", "nothing", 2e-4)])[1:] == [
        "| net | nothing | 2 ± 1.4 | 50.02 % | 75.00 % |",
        "| other | nothing | 2 ± 0 |  |  |",
    ]
    assert error(torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([[2.0, 0], [3, 0]])) == pytest.approx(0.5)


def test_texts_are_enough_and_always_the_same() -> None:
    plan = minilm.Plan()
    assert len(minilm.texts()) >= plan.calibration + plan.measured
    assert minilm.texts() == minilm.texts()

"""Recurrent layers, weight norm and all other parameters: pruned, or named with the reason."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from openwork.export import ExportOptions, export
from openwork.quantization import QuantizationAwareTraining, QuantizationOptions, quantize
from openwork.sparsity import Calibration, Pattern, Pruner

LENGTHS = "It holds the lengths of weight_norm, one number for each output."

KINDS = {
    "LSTM": lambda: nn.LSTM(16, 32, num_layers=2, bidirectional=True, batch_first=True),
    "projected": lambda: nn.LSTM(16, 32, proj_size=8, batch_first=True),
    "GRU": lambda: nn.GRU(16, 32, bidirectional=True, batch_first=True),
    "RNN": lambda: nn.RNN(16, 32, batch_first=True),
    "LSTMCell": lambda: nn.LSTMCell(16, 32),
    "GRUCell": lambda: nn.GRUCell(16, 32),
    "RNNCell": lambda: nn.RNNCell(16, 32),
}
NORMS = {"parametrized": parametrizations.weight_norm, "hooked": weight_norm}


def normed(kind: str, layer: nn.Module, **options: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        # The older function says that it is deprecated.
        patch.setattr("warnings.warn", lambda *_, **__: None)
        return NORMS[kind](layer, **options)


class Everything(nn.Module):
    """The kinds of parameters that models have."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.norm, self.words = nn.Linear(20, 32), nn.LayerNorm(32), nn.Embedding(10, 32)
        self.rnn, self.cell = nn.LSTM(32, 64), nn.GRUCell(32, 16)
        self.bi, self.own = nn.Bilinear(8, 8, 8), nn.Parameter(torch.randn(16, 16))
        self.wn = normed("parametrized", nn.Linear(16, 16))
        self.old = normed("hooked", nn.Linear(16, 16))
        self.sn = parametrizations.spectral_norm(nn.Linear(8, 8))
        self.cut = prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.inp(x)


def test_every_parameter_has_one_row() -> None:
    model = Everything()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    report = pruner.report()
    rows = {row["name"]: row for row in json.loads(report.json())}
    assert len(rows) == len(report.rows) == len(list(model.parameters()))
    assert sum(int(np.prod(row["shape"])) for row in rows.values()) == sum(
        p.numel() for p in model.parameters()
    )
    eligible = {name for name, row in rows.items() if row["eligible"]}
    assert eligible == {
        "inp", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "cell.weight_ih", "cell.weight_hh", "wn", "old",
    }  # fmt: skip
    assert all(rows[name]["zeros"] == 0.5 for name in eligible)
    for name, reason in {
        "own": "It is a parameter of its own of Everything, of which no layer says how it is multiplied.",
        "words": "Embedding is looked up, not multiplied, so zeros in it save no work.",
        "bi": "Bilinear multiplies two inputs with each other, which no sparse kernel does.",
        "old.weight_g": LENGTHS,
        "wn.parametrizations.weight.original0": LENGTHS,
        "sn.parametrizations.weight.original": (
            "The weight is computed from it by SpectralNorm, which does not keep zeros."
        ),
        "cut.weight_orig": (
            "torch.nn.utils.prune holds a mask of its own on it; end that with its `remove` first."
        ),
        "norm.weight": "A pattern is one of matrices; this is a vector or a number.",
        "scale": "A pattern is one of matrices; this is a vector or a number.",
    }.items():
        assert rows[name]["reason"] == reason
    weights = 20 * 32 + 256 * 32 + 256 * 64 + 48 * 32 + 48 * 16 + 2 * 16 * 16
    total = sum(p.numel() for p in model.parameters())
    assert str(report).splitlines()[-1] == (
        f"7 of 14 weights pruned, 50.0% of their weights zero; these are {weights:,} of the model's "
        f"{total:,} parameters"
    )


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_weights_are_held_and_travel(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"r": KINDS[kind]()})
    layer: Any = model["r"]
    pruner = Pruner(model, "2:4")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pruner.attach(optimizer)
    names = [name for name in layer._parameters if name.startswith("weight_")]
    assert set(pruner.prunables) == {f"r.{name}" for name in names}
    x = torch.randn(3, 16) if kind.endswith("Cell") else torch.randn(3, 5, 16)
    for _ in range(3):
        optimizer.zero_grad()
        output = layer(x)
        (output[0] if isinstance(output, tuple) else output).square().sum().backward()
        optimizer.step()
    pruner.verify()
    pattern = Pattern.parse("2:4")
    assert all(pattern.holds(layer.get_parameter(name).detach().numpy()) for name in names)
    # The flat list that torch's kernels read holds the same tensors.
    fresh = nn.ModuleDict({"r": KINDS[kind]()})
    Pruner(fresh, "2:4")
    fresh.load_state_dict(model.state_dict())
    for one, other in zip(_outputs(layer(x)), _outputs(fresh["r"](x)), strict=True):
        assert torch.equal(one, other)
    if not kind.endswith("Cell"):
        assert {id(x) for x in layer._flat_weights} == {id(x) for x in layer._parameters.values()}


def _outputs(nest: Any) -> list[Tensor]:
    return [nest] if isinstance(nest, Tensor) else [x for part in nest for x in _outputs(part)]


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_zeros_of_a_normed_weight_stay_zeros(kind: str, layer: str) -> None:
    torch.manual_seed(0)
    made = nn.Linear(16, 8) if layer == "linear" else nn.Conv1d(16, 8, 3)
    model = nn.Sequential(normed(kind, made))
    pruner = Pruner(model, "2:4")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner.attach(optimizer)
    x = torch.randn(4, 16) if layer == "linear" else torch.randn(4, 16, 5)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    model(x)
    pruner.verify()
    weight, mask = model[0].weight.detach(), pruner.masks["0"]
    assert "0.weight_mask" in model.state_dict()
    assert bool((weight[~mask] == 0).all())
    assert bool((weight[mask] != 0).all())
    stack = pruner.prunables["0"].view.matrices(weight)
    assert Pattern.parse("2:4").holds(stack.numpy())
    lengths = weight.flatten(1).norm(dim=1)
    given = model[0].weight_g if kind == "hooked" else model[0].parametrizations.weight.original0
    torch.testing.assert_close(lengths, given.detach().flatten().abs())
    if kind == "parametrized":
        parametrize.remove_parametrizations(model[0], "weight")
        again = Pruner(model, "2:4")
        again.verify()
        assert again.zeros == 0.5


@pytest.mark.parametrize("kind", NORMS)
def test_patterns_that_may_empty_a_row_are_refused_for_weight_norm(kind: str) -> None:
    for pattern in ("4x1:0.5", "1x1:0.75"):
        model = nn.Sequential(normed(kind, nn.Linear(16, 8)), nn.Linear(16, 8))
        table = {row.name: row.reason for row in Pruner(model, pattern).table}
        assert table["0"].startswith(
            f"Its weight_norm divides by the length of each row, which {pattern} may"
        )
        assert table["1"] == ""
    turned = nn.Sequential(normed(kind, nn.ConvTranspose1d(8, 8, 3)), nn.Linear(16, 8))
    table = {row.name: row.reason for row in Pruner(turned, "2:4").table}
    assert "may leave zero" in table["0"]


def test_calibrated_methods_take_magnitude_where_no_input_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rnn = nn.Linear(16, 16), nn.GRU(16, 16, batch_first=True)
            self.last = normed("parametrized", nn.Linear(16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.rnn(self.first(x))[0])

    torch.manual_seed(0)
    batches = [torch.randn(4, 6, 16)]
    for method in ("wanda", "sparsegpt"):
        model = Net()
        expected = Pruner(copy.deepcopy(model), "2:4")
        expected.prune("magnitude")
        pruner = Pruner(model, "2:4")
        with caplog.at_level(logging.WARNING):
            errors = pruner.prune(method, Calibration(batches))  # type: ignore[arg-type]
        pruner.verify()
        assert set(errors) == set(pruner.prunables)
        assert "cannot see what rnn.weight_ih_l0, rnn.weight_hh_l0, last multiplies" in caplog.text
        for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "last"):
            assert torch.equal(pruner.masks[name], expected.masks[name])


class Sequence(nn.Module):
    """Recurrent and normed layers that ONNX has."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn, self.gru = nn.LSTM(16, 16, batch_first=True), nn.GRU(16, 16, batch_first=True)
        self.cell, self.head = nn.GRUCell(16, 16), nn.Linear(16, 8)
        self.wn = normed(kind, nn.Linear(16, 16))
        self.wc = normed(kind, nn.Conv1d(16, 16, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(self.rnn(x)[0])[0]
        y = self.wc(y.transpose(1, 2)).transpose(1, 2)
        return self.head(self.wn(self.cell(y[:, -1], y[:, 0])))


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("int8", [False, True])
def test_masks_survive_quantization_and_export(kind: str, exporter: Any, int8: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Sequence(kind).eval(), torch.randn(4, 5, 16)
    Pruner(model, "2:4").prune()
    model(x)
    if int8:
        model = quantize(model, [x], QuantizationOptions())
        training = QuantizationAwareTraining(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        training.attach(optimizer)
        model(x).square().sum().backward()
        optimizer.step()
        training.finish(x)
    path = export(model, {"x": x}, tmp_path / "m.onnx", ExportOptions(exporter=exporter))
    found = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=0, atol=0.02 if int8 else 1e-6)
    with torch.no_grad():
        weight: Any = dict(model.named_parameters())["rnn.weight_hh_l0"]
        weight[0] = 1.0
    with pytest.raises(
        ValueError, match=r"rnn: the weight at row 0, column . is not zero though its mask drops"
    ):
        export(model, {"x": x}, tmp_path / "m.onnx", ExportOptions(exporter=exporter))

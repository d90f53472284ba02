"""The name of a pattern goes with its mask: pruned, copied, quantized, saved, exported, built, reported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from openwork.builder.builder import build
from openwork.export import ExportOptions, export
from openwork.quantization import QuantizationOptions, quantize
from openwork.quantization.float_onnx import quantize_onnx
from openwork.sparsity import Pruner, PrunerOptions
from openwork.sparsity.interop.asp import AutomaticSparsity

KEY = "openwork.pattern."
PATTERNS = ("2:4", "2:4t", "4:16", "2:4@2", "16x1:0.5", "5:7", "3x5:0.6", "1x1:0.3")


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return mixed


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 64)).eval()


def _rows() -> Tensor:
    return torch.randn(8, 64, generator=torch.Generator().manual_seed(1))


def _named(path: Path) -> dict[str, str]:
    return {p.key.removeprefix(KEY): p.value for p in onnx.load(path).metadata_props if p.key.startswith(KEY)}


def _exported(model: nn.Module, path: Path, patterns: Mapping[str, str] | None = None) -> dict[str, str]:
    options = ExportOptions(exporter="legacy", patterns=patterns or {})
    return _named(export(model, _rows(), path, options))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_name_survives_from_the_pruner_to_the_report(pattern: str, tmp_path: Path) -> None:
    model = _model()
    Pruner(model, pattern).prune()
    torch.save(copy.deepcopy(model), tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    quantized = quantize(loaded, [_rows()] * 2, QuantizationOptions(style="openwork"))
    wanted = {"0.weight": pattern, "2.weight": pattern}
    assert _exported(quantized, tmp_path / "int8.onnx") == wanted
    report = build(tmp_path / "int8.onnx", tmp_path / "m.engine", threads=1, progress=False, shapes=[[4]])
    assert [layer.pattern for layer in report.layers] == [pattern, pattern]


def test_the_name_goes_through_the_float_model_and_its_quantization(tmp_path: Path) -> None:
    model = _model()
    Pruner(model, "2:4t").prune()
    wanted = {"0.weight": "2:4t", "2.weight": "2:4t"}
    assert _exported(model, tmp_path / "float.onnx") == wanted
    made = quantize_onnx(tmp_path / "float.onnx", [_rows().numpy()] * 2)
    assert _named(made.write(tmp_path / "int8.onnx")) == wanted


def test_a_state_dict_takes_its_name_from_the_pruner_that_it_is_loaded_into(tmp_path: Path) -> None:
    model, other = _model(), _model()
    Pruner(model, "16x1:0.5").prune()
    state = model.state_dict()
    assert [key for key in state if "pattern" in key] == []
    Pruner(other, "16x1:0.5")
    other.load_state_dict(state)
    assert _exported(other, tmp_path / "m.onnx") == {"0.weight": "16x1:0.5", "2.weight": "16x1:0.5"}


def test_what_the_caller_names_comes_before_what_the_pruner_left(tmp_path: Path) -> None:
    model = _model()
    Pruner(model, {"0": "2:4t", "*": "5:7"}).prune()
    named = _exported(model, tmp_path / "m.onnx", {"0": "2:4"})
    assert named == {"0.weight": "2:4", "2.weight": "5:7"}


def test_the_last_pruner_that_chose_the_masks_names_them(tmp_path: Path) -> None:
    model = _model()
    first = Pruner(model, "2:4t")
    first.prune()
    first.detach()
    second = Pruner(model, "1x1:0.8")
    assert _exported(model, tmp_path / "m.onnx")["0.weight"] == "2:4t"
    second.prune()
    assert _exported(model, tmp_path / "m.onnx")["0.weight"] == "1x1:0.8"


def test_a_name_that_the_mask_does_not_keep_to_is_not_written(tmp_path: Path) -> None:
    model = _model()
    pruner = Pruner(model, "1x1:0.9", schedule="gradual:linear:0:4")
    pruner.steps = 3
    pruner.renew()
    named = _exported(model, tmp_path / "m.onnx")
    assert set(named) == {"0.weight", "2.weight"}
    assert "1x1:0.9" not in named.values()
    uneven = _model()
    with torch.no_grad():
        uneven[0].weight *= 9  # a global budget takes nearly all of its zeros from the other layer
    Pruner(uneven, "4x1:0.5", options=PrunerOptions(scope="global")).prune()
    assert "0.weight" not in _exported(uneven, tmp_path / "m.onnx")
    assert _exported(uneven, tmp_path / "m.onnx")["2.weight"] == "4x1:0.5"


def test_a_mask_without_a_name_is_recorded_by_its_zeros(tmp_path: Path) -> None:
    model = _model()
    Pruner(model, "2:4t").prune()
    for layer in (model[0], model[2]):
        del layer.weight_pattern
    assert _exported(model, tmp_path / "m.onnx") == {"0.weight": "2:4", "2.weight": "2:4"}


def test_an_average_and_asp_carry_the_name_too(tmp_path: Path) -> None:
    model = _model()
    average = copy.deepcopy(model)
    pruner = Pruner(model, "2:4t")
    pruner.prune()
    pruner.apply(to=average)
    wanted = {"0.weight": "2:4t", "2.weight": "2:4t"}
    assert _exported(average, tmp_path / "m.onnx") == wanted
    asp, imported = AutomaticSparsity(), _model()
    asp.init_model_for_pruning(imported, "m4n2_2d_best", verbosity=0)
    asp.compute_sparse_masks()
    assert _exported(imported, tmp_path / "m.onnx") == wanted


def test_only_the_projections_that_keep_to_a_fraction_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Attention().eval()
    with torch.no_grad():
        model.attention.in_proj_weight[:32] *= 9  # the query keeps more of its weights than key and value
    Pruner(model, "1x1:0.3").prune()
    rows = torch.randn(4, 5, 32)
    quantized = quantize(model, [rows, rows], QuantizationOptions(style="tensorrt"))
    named = _named(export(quantized, rows, tmp_path / "m.onnx"))
    stem = "attention.in_proj_weight"
    assert {name for name in named if name.startswith(stem)} == {f"{stem}.1", f"{stem}.2"}
    assert set(named.values()) == {"1x1:0.3"}

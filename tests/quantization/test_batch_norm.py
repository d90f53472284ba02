"""BatchNorm folded into the layer before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from openwork.qdq.batch_norm import BatchNorm
from openwork.quantization import QuantizationOptions, calibrate, fold_batchnorm, prepare
from openwork.quantization.corrections.batch_norm import Fold
from openwork.quantization.fake_quantization.modules import Quantized
from quant_models import images, lively, small_resnet

CASES: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 8), nn.BatchNorm1d(8), (5, 6)),
    "conv1d": (nn.Conv1d(6, 8, 3, bias=False), nn.BatchNorm1d(8), (5, 6, 9)),
    "grouped conv2d": (nn.Conv2d(6, 8, 3, groups=2), nn.BatchNorm2d(8), (5, 6, 9, 9)),
    "conv3d": (nn.Conv3d(4, 8, 2), nn.BatchNorm3d(8), (2, 4, 5, 5, 5)),
    "transposed 1d": (nn.ConvTranspose1d(6, 8, 3, stride=2), nn.BatchNorm1d(8), (5, 6, 9)),
    "transposed 2d": (nn.ConvTranspose2d(6, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8), (2, 6, 5, 5)),
    "transposed 3d": (nn.ConvTranspose3d(4, 8, 2), nn.BatchNorm3d(8), (2, 4, 5, 5, 5)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_folding_leaves_the_output_and_masked_zeros(case: str) -> None:
    torch.manual_seed(0)
    layer, norm, shape = CASES[case]
    model = lively(nn.Sequential(layer, norm)).eval()
    mask = torch.rand_like(layer.weight) > 0.5
    layer.register_buffer("weight_mask", mask)
    with torch.no_grad():
        layer.weight.mul_(mask)
    x = torch.randn(shape)
    exact = model(x)
    folds = fold_batchnorm(model, x)
    assert folds == (Fold("1", "0", "folded into 0"),)
    assert isinstance(model[1], nn.Identity)
    folded = model(x)
    # At most 54 products and a bias in a sum, of numbers around 1 that sum to less than 32.
    torch.testing.assert_close(folded, exact, rtol=0, atol=2 * 64 * 32 * 2.0**-24)
    assert not torch.equal(folded, layer(x) * 0), "the layer must compute something"
    assert not layer.weight[~mask].any()
    assert torch.equal(layer.get_buffer("weight_mask"), mask)


def test_the_tolerance_refuses_a_wrong_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    right = BatchNorm.folded_bias
    monkeypatch.setattr(BatchNorm, "folded_bias", lambda norm, bias: right(norm, bias) + 1e-3)
    with pytest.raises(ValueError, match=r"Folding bn1 into conv1 changed an output by 0.00"):
        fold_batchnorm(small_resnet(), images()[0])


class Odd(nn.Module):
    """BatchNorms that cannot be folded, one for each reason."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.shared = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.first, self.plain = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)
        self.read, self.behind = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.bare, self.bare_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.unused = nn.BatchNorm2d(4)
        self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.other.weight = self.one.weight
        self.tied = nn.BatchNorm2d(4)
        self.rows, self.lengths = nn.Linear(8, 8), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shared(self.twice(x)) + self.shared(self.twice(-x)) + self.plain(self.first(x))
        read = self.read(x)
        y = y + self.behind(read) + read + self.bare_norm(self.bare(x))
        y = y + self.tied(self.one(x)) + self.other(x)
        return self.lengths(self.rows(y.mean(2)))


def test_what_cannot_be_folded_says_why() -> None:
    torch.manual_seed(0)
    model, x = lively(Odd()).eval(), images()[0]
    exact = model(x)
    reasons = {fold.norm: fold.reason for fold in fold_batchnorm(model, x)}
    assert reasons == {
        "shared": "runs 2 times in the example, so no one layer can take it in",
        "first": "does not follow a Linear, Conv or ConvTranspose layer directly",
        "behind": "is not alone in reading read: behind, add do",
        "bare_norm": "has no running statistics to fold",
        "unused": "runs 0 times in the example, so no one layer can take it in",
        "tied": "follows one, whose parameters other layers share",
        "lengths": "normalizes another axis than the output channels of rows",
    }
    assert torch.equal(model(x), exact)


def test_the_integers_survive_folding_after_calibration() -> None:
    model, batches = small_resnet(), images()
    prepared = prepare(model, batches[0], QuantizationOptions(batchnorm="keep", learned="step"))
    assert any(isinstance(module, nn.BatchNorm2d) for module in prepared.model.modules())
    calibrate(prepared, batches)
    layers = {n: m for n, m in prepared.model.named_modules() if isinstance(m, Quantized)}
    before = {name: layer.quantized_weight().int() for name, layer in layers.items()}
    folds = fold_batchnorm(prepared.model, batches[0])
    assert sum(fold.layer is not None for fold in folds) == 6
    for name, layer in layers.items():
        # A factor of either sign scales weight and scale alike; rounding may move a tie by one.
        difference = (layer.quantized_weight().int().abs() - before[name].abs()).abs()
        assert int(difference.max()) <= 1
        assert float((difference > 0).float().mean()) < 1e-2


def test_a_large_mean_that_cancels_is_no_fault() -> None:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    x = torch.rand(2, 3, 8, 8) + 1e4
    norm.running_mean.copy_(layer(x).mean((0, 2, 3)).detach())
    norm.running_var.fill_(1e-2)
    assert fold_batchnorm(nn.Sequential(layer, norm).eval(), x)[0].layer == "0"


def test_half_precision_is_folded_within_its_own_tolerance() -> None:
    model, x = small_resnet().bfloat16(), images()[0].bfloat16()
    assert all(fold.layer is not None for fold in fold_batchnorm(model, x))
    assert model(x).dtype == torch.bfloat16


def test_dense_weights_of_a_moving_mask_are_scaled_too() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    layer.register_buffer("weight_dense", layer.weight.detach().clone())
    model = lively(nn.Sequential(layer, nn.BatchNorm1d(4))).eval()
    fold_batchnorm(model, torch.randn(3, 4))
    assert torch.equal(layer.get_buffer("weight_dense"), layer.weight)

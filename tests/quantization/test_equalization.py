"""Cross-layer equalization: which pairs, equal ranges, the same function, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from openwork.quantization.corrections import equalization
from openwork.quantization.corrections.batch_norm import fold_batchnorm
from openwork.quantization.corrections.channel_scaling import (
    Link,
    balance,
    grouped,
    input_ranges,
    output_ranges,
    ungrouped,
)
from openwork.quantization.corrections.equalization import equalize, tolerance
from quant_models import images, small_resnet


def _spread(net: nn.Module, seed: int = 0) -> nn.Module:
    """Output channels of every layer made to differ by up to a hundred times; another function, of course."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            by = 10 ** (torch.rand(len(module.weight), generator=generator) * 1.9 - 0.95)
            with torch.no_grad():
                module.weight.mul_(by.reshape(-1, *[1] * (module.weight.dim() - 1)))
                if module.bias is not None:
                    module.bias.mul_(by)
    return net.eval()


def _chain() -> nn.Sequential:
    """Every form of weight and every function that lets a factor through."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.PReLU(8), nn.Dropout(0.1),
        nn.Conv2d(8, 12, 1, groups=2, bias=False), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.ConvTranspose2d(12, 6, 2, stride=2, groups=3), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 10), nn.Identity(), nn.Linear(10, 3),
    )  # fmt: skip


def _weight(layer: nn.Module) -> Tensor:
    return grouped(layer.get_parameter("weight").detach().double(), *equalization.form(layer))


def test_a_chain_of_every_form_gets_equal_ranges_and_stays_the_same_function() -> None:
    net, x = _spread(_chain()), images()[0]
    before = net(x)
    rows = equalize(net, x)
    assert [(row.first, row.second, row.done) for row in rows] == [
        ("0", "2", True), ("2", "5", True), ("5", "8", True), ("8", "11", True), ("11", "14", True),
        ("14", "16", True),
    ]  # fmt: skip
    for row in rows:
        first = output_ranges(_weight(net.get_submodule(row.first)))
        second = input_ranges(_weight(net.get_submodule(row.second)), 4 if row.second == "14" else 1)
        # 1e-3 a sweep and half of each neighbour's move left over: a few thousandths.
        torch.testing.assert_close(first, second, rtol=1e-2, atol=0)
    error = float((net(x) - before).detach().norm() / before.detach().norm())
    assert 0 < error <= tolerance(7, 108, torch.float32)


def test_the_ranges_of_the_activations_may_decide() -> None:
    net, x = _spread(_chain()), images()[0]
    rows = equalize(net, x, "activations")
    assert all(row.done for row in rows)
    between = net[:2](x).detach().abs().amax((0, 2, 3)).double()
    torch.testing.assert_close(between, input_ranges(_weight(net[2])), rtol=1e-2, atol=0)


@pytest.mark.parametrize("between", [nn.ReLU6(), nn.Hardtanh(), nn.Hardswish()])
def test_clipping_functions_are_refused(between: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), between, nn.Conv2d(8, 4, 1)).eval()
    before = copy.deepcopy(net.state_dict())
    (row,) = equalize(net, images()[0])
    assert not row.done
    assert row.reason.endswith("clips at a fixed number, which the factors would move")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_other_functions_and_readers_are_refused() -> None:
    net = small_resnet()
    fold_batchnorm(net, images()[0])
    reasons = {row.second: (row.done, row.reason) for row in equalize(net, images()[0])}
    within = [name for name, (done, _) in reasons.items() if done]
    assert within == ["layer1.0.conv2", "layer2.0.conv2"]
    assert all(done or "only one reader may" in why or "add" in why for done, why in reasons.values())
    gelu = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
    (row,) = equalize(gelu, torch.randn(3, 4))
    assert row.reason.startswith("gelu lies between, for which f(s x) = s f(x) is not known")


class _Odd(nn.Module):
    """A layer that runs twice, shared parameters, and a reader beside the second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.tied, self.tied_too = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied_too.weight = self.tied.weight
        self.last = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tied_too(self.tied(self.twice(self.twice(x))).relu()).relu()
        return self.last(x), x


def test_layers_that_are_not_alone_are_refused() -> None:
    rows = equalize(_Odd().eval(), torch.randn(2, 4))
    assert not any(row.done for row in rows)
    text = " ".join(row.reason for row in rows)
    assert "twice runs 2 times in the example" in text
    assert "other layers share the parameters of tied" in text


class _Liar(nn.Module):
    """Knows how large its input is, behind torch's back."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x).relu()
        return self.two(h) + float(h.detach().numpy().max())


def test_a_model_that_would_change_is_put_back() -> None:
    net = _spread(_Liar())
    before = copy.deepcopy(net.state_dict())
    (row,) = equalize(net, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert not row.done
    assert "put back: with all pairs scaled the model's output moved by" in row.reason
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_masks_hold_and_dense_weights_follow() -> None:
    net: Any = _spread(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)))
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    dense = net[2].weight.detach().clone()
    net[2].weight.data.mul_(mask)
    net[2].register_buffer("weight_mask", mask)
    net[2].register_buffer("weight_dense", dense)
    (row,) = equalize(net, torch.randn(3, 8))
    assert row.done
    assert torch.equal(net[2].weight != 0, mask)
    assert torch.equal(net[2].weight_dense * mask, net[2].weight)


def test_silent_channels_keep_their_weights() -> None:
    net: Any = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    net[0].weight.data[1] = 0
    net[2].weight.data[:, 2] = 0
    rows = net[0].weight.detach().clone(), net[2].weight.detach().clone()
    equalize(net, torch.randn(3, 4))
    assert torch.equal(net[0].weight[1:3], rows[0][1:3])
    assert torch.equal(net[2].weight[:, 1:3], rows[1][:, 1:3])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**20))
def test_grouped_weights_are_those_of_the_layer(groups: int, out: int, inner: int, seed: int) -> None:
    """Scaling the input channels of a grouped weight is scaling the layer's input, for both kinds."""
    generator = torch.Generator().manual_seed(seed)
    by = torch.rand(groups * inner, generator=generator).double() + 0.5
    x = torch.randn(2, groups * inner, 5, generator=generator).double()
    for kind, layer in (
        ("conv", nn.Conv1d(groups * inner, groups * out, 2, groups=groups, bias=False)),
        ("conv_transpose", nn.ConvTranspose1d(groups * inner, groups * out, 2, groups=groups, bias=False)),
    ):
        layer.double()
        wanted = layer(x * by[:, None])
        weight = grouped(layer.weight.detach(), kind, groups)  # type: ignore[arg-type]
        assert weight.shape == (groups, out, inner, 2)
        scaled = weight * by.reshape(groups, 1, inner, 1)
        layer.weight.data.copy_(ungrouped(scaled, kind, layer.weight.shape))  # type: ignore[arg-type]
        torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)


def test_two_layers_meet_at_the_geometric_mean() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = {"a": torch.rand(1, 5, 3, 1, generator=generator).double() + 0.1}
    weights["b"] = torch.rand(1, 2, 5, 1, generator=generator).double() + 0.1
    (factors,) = balance(weights, [Link("a", "b")], [None])
    wanted = (output_ranges(weights["a"]) / input_ranges(weights["b"])).sqrt()
    torch.testing.assert_close(factors, wanted, rtol=1e-12, atol=0)

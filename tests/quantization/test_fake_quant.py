"""Fake quantization against torch's own operations, the formulas of the papers and docs/arithmetic.md."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from openwork.qdq.affine import (
    Affine,
    choose_affine,
    dequantize_weight,
    quantize,
    quantize_weight,
    weight_scales,
)
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize, FakeQuantizeOptions
from openwork.quantization.observers.observer import MaxObserver


def _values(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def _run(function: nn.Module, x: Tensor, seed: int = 9) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of x for a random one of the output."""
    x = x.detach().clone().requires_grad_()
    y = function(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)))
    assert x.grad is not None
    return y.detach(), x.grad


def _ready(
    options: FakeQuantizeOptions, low: float | Tensor = -2.0, high: float | Tensor = 5.0
) -> FakeQuantize:
    made = FakeQuantize("layer", options)
    made.load_ranges(low, high)
    made.quantize()
    return made


@pytest.mark.parametrize("dtype", ["s8", "u8"])
@pytest.mark.parametrize("seed", range(3))
def test_per_tensor_values_and_gradients_are_torchs(dtype: str, seed: int) -> None:
    quantizer = _ready(FakeQuantizeOptions(dtype=dtype))  # type: ignore[arg-type]
    scale, zero_point = quantizer.scales()
    x = torch.cat(
        [_values(seed, 4000), (torch.arange(-300, 300) + 0.5) * scale, torch.tensor([torch.nan, 1e30])]
    )
    x = torch.cat([x, torch.tensor([torch.inf, -torch.inf])])

    def theirs(x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *quantizer.limits)

    for ours, wanted in zip(_run(quantizer, x), _run(theirs, x), strict=True):  # type: ignore[arg-type]
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["s8", "u8"])
def test_per_channel_values_and_gradients_are_torchs(dtype: str, axis: int) -> None:
    shape = (6, 5, 7)
    channels = shape[axis]
    options = FakeQuantizeOptions(dtype=dtype, axis=axis, channels=channels)  # type: ignore[arg-type]
    high = torch.linspace(0.5, 6, channels)
    quantizer = _ready(options, -high / 3, high)
    scale, zero_point = quantizer.scales()

    def theirs(x: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis % 3, *quantizer.limits)

    x = _values(1, *shape)
    x[0, 0, 0] = torch.nan
    for ours, wanted in zip(_run(quantizer, x), _run(theirs, x), strict=True):  # type: ignore[arg-type]
        assert torch.equal(ours, wanted)


def test_infinity_saturates_at_its_own_end_per_channel() -> None:
    # torch's operation sends +infinity to the lower end there.
    quantizer = _ready(
        FakeQuantizeOptions(axis=0, channels=2), torch.tensor([-1.0, -2]), torch.tensor([1.0, 2])
    )
    x = torch.tensor([[torch.inf, -torch.inf, 1e30], [-1e30, torch.nan, 0.0]])
    top, bottom = 127 * quantizer.scale, -128 * quantizer.scale
    wanted = torch.stack(
        [torch.stack([top[0], bottom[0], top[0]]), torch.stack([bottom[1], bottom[1], top[1] * 0])]
    )
    assert torch.equal(quantizer(x), wanted)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_is_quantized_as_the_engine_does(axis: int) -> None:
    weight = _values(2, 6, 4, 3, 3)
    weight.select(axis, 1).zero_()
    weight[:, :, 0] = 0
    quantizer = FakeQuantize.for_weight("conv", weight, axis)
    scales = weight_scales(weight.numpy(), "conv", axis)
    q = quantize_weight(weight.numpy(), scales, axis)
    assert np.array_equal(quantizer.scales(weight)[0].numpy(), scales)
    assert np.array_equal(quantizer.integers(weight).numpy(), q)
    assert np.array_equal(quantizer(weight).numpy(), dequantize_weight(q, scales, axis))
    assert (quantizer(weight)[weight == 0] == 0).all()
    assert quantizer.zero_point.eq(0).all()
    assert quantizer.limits == (-127, 127)


@given(st.floats(-100, 100, width=32), st.floats(0, 100, width=32), st.sampled_from(["s8", "u8"]))
@settings(max_examples=60, deadline=None)
def test_integers_are_those_of_the_arithmetic(low: float, extent: float, dtype: str) -> None:
    affine = choose_affine(low, low + extent, dtype)  # type: ignore[arg-type]
    quantizer = FakeQuantize("layer", FakeQuantizeOptions(dtype=dtype))  # type: ignore[arg-type]
    quantizer.load_affine(affine)
    x = torch.cat([_values(0, 200) * 20, torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0])])
    assert np.array_equal(quantizer.integers(x).numpy(), quantize(x.numpy(), affine))
    assert quantizer.affine == affine
    quantizer.quantize()
    assert torch.equal(quantizer(x), (quantizer.integers(x).int() - affine.zero_point).float() * affine.scale)


def test_a_weights_scale_follows_it_until_it_is_frozen() -> None:
    weight = _values(3, 4, 10)
    quantizer = FakeQuantize.for_weight("linear", weight)
    before = quantizer.scales()[0]
    quantizer(weight * 2)
    assert torch.equal(quantizer.scales()[0], before * 2)
    assert torch.equal(quantizer.scales(weight)[0], before)
    quantizer.freeze()
    quantizer(weight * 8)
    assert torch.equal(quantizer.scales(weight * 8)[0], before)
    quantizer.quantize()
    quantizer(weight * 8)
    assert torch.equal(quantizer.scales()[0], before * 8)


def test_a_scale_that_never_followed_anything_is_not_frozen() -> None:
    quantizer = FakeQuantize("up", FakeQuantizeOptions(axis=1, channels=3, narrow=True, follow=True))
    quantizer.quantize()
    with pytest.raises(ValueError, match="up has no scale yet"):
        quantizer.freeze()
    weight = _values(0, 2, 3)
    wanted = quantizer(weight)
    quantizer.freeze()
    assert torch.equal(quantizer(weight), wanted)


# Gradients beyond torch's.


@pytest.mark.parametrize("learned", ["no", "amax"])
def test_the_clipped_gradient_passes_where_x_is_within_amax(learned: str) -> None:
    quantizer = _ready(FakeQuantizeOptions(gradient="amax", learned=learned), -1.27, 1.27)  # type: ignore[arg-type]
    amax = 127 * quantizer.scale.detach()
    x = torch.stack(
        [amax, -amax, amax * 1.001, -amax * 1.001, amax * 0.999, amax * 9, torch.tensor(torch.nan)]
    )
    _, gradient = _run(torch.nn.Sequential(quantizer), x)
    given_ = torch.randn(7, generator=torch.Generator().manual_seed(9))
    assert torch.equal(gradient, given_ * torch.tensor([1.0, 1, 0, 0, 1, 0, 0]))
    plain = _ready(FakeQuantizeOptions(narrow=True), -1.27, 1.27)
    x = torch.cat([x, _values(4, 500)])
    assert torch.allclose(quantizer(x), plain(x), rtol=2**-22, atol=0)


@pytest.mark.parametrize("dtype", ["s8", "u8"])
def test_a_learned_amax_takes_the_gradient_of_what_is_clipped(dtype: str) -> None:
    quantizer = _ready(FakeQuantizeOptions(dtype=dtype, learned="amax"), -1.0, 3.0)  # type: ignore[arg-type]
    low, high = (float(end.detach()) for end in quantizer._grid(None).ends(torch.zeros(1)))
    x = _values(5, 300)
    upstream = torch.randn(300, generator=torch.Generator().manual_seed(9))
    _run(quantizer, x)
    amax = quantizer.amax
    assert amax is not None
    assert amax.grad is not None
    # d high / d amax = 1; d low / d amax = low / high.
    wanted = upstream[x > high].sum() + upstream[x < low].sum() * (low / high)
    assert float(amax.grad) == pytest.approx(float(wanted), rel=1e-5)
    before = quantizer.scales()[0]
    with torch.no_grad():
        amax.mul_(0.5)
    assert float(quantizer.scales()[0]) == pytest.approx(float(before) / 2, rel=1e-6)


@pytest.mark.parametrize("axis", [None, 0])
def test_a_learned_step_takes_the_gradient_of_the_paper(axis: int | None) -> None:
    options = FakeQuantizeOptions(axis=axis, channels=3, narrow=True, learned="step")
    high = 2.0 if axis is None else torch.tensor([1.0, 2.0, 4.0])
    quantizer = _ready(options, -high, high)
    x = _values(6, 3, 200)
    upstream = torch.randn(3, 200, generator=torch.Generator().manual_seed(9))
    y, gradient = _run(quantizer, x)
    scale = quantizer.scales()[0]
    column = scale if axis is None else scale[:, None]
    v = (x * (1 / column)).double()
    inside = v.abs() <= 127
    assert torch.equal(y, (v.round().clamp(-127, 127).float() * column))
    # The gradient passes through x * (1 / scale) * scale: two roundings from 1.
    assert torch.allclose(gradient, upstream * inside, rtol=2**-21, atol=0)
    each = torch.where(inside, v.round() - v, v.sign() * 127) * upstream
    count = x.numel() if axis is None else 200
    wanted = (each.sum() if axis is None else each.sum(1)) / (count * 127) ** 0.5
    assert quantizer.scale.grad is not None
    assert torch.allclose(quantizer.scale.grad.double(), wanted, rtol=1e-3, atol=1e-4)


def test_a_learned_step_improves_a_bad_one() -> None:
    x = _values(7, 2000)
    quantizer = _ready(FakeQuantizeOptions(learned="step"), -30.0, 30.0)
    error = [float((quantizer(x) - x).detach().square().mean())]
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (quantizer(x) - x).square().mean().backward()
        optimizer.step()
    error.append(float((quantizer(x) - x).detach().square().mean()))
    assert error[1] < error[0] / 2


def test_zeros_of_a_mask_stay_zeros_while_training() -> None:
    weight = nn.Parameter(_values(8, 8, 16))
    mask = torch.rand(8, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    for learned in ("no", "amax", "step"):
        quantizer = FakeQuantize.for_weight("linear", weight * mask, learned=learned)  # type: ignore[arg-type]
        y = quantizer(weight * mask)
        assert torch.equal(y[~mask], torch.zeros_like(y[~mask]))
        (gradient,) = torch.autograd.grad(y.sum(), weight)
        assert not gradient[~mask].any()


# Modes.


def test_observing_chooses_the_scale_and_lets_the_tensor_through() -> None:
    quantizer = FakeQuantize.for_activation("relu")
    assert quantizer.mode == "disabled"
    x = _values(0, 50)
    assert quantizer(x) is x
    quantizer.observe("max")
    assert quantizer(x) is x
    quantizer(x * 2)
    quantizer.quantize()
    assert quantizer.mode == "quantizing"
    assert quantizer.observer is None
    assert quantizer.affine == choose_affine(float(x.min()) * 2, float(x.max()) * 2, "u8")
    quantizer.disable()
    assert quantizer(x) is x
    quantizer.enable()
    assert not torch.equal(quantizer(x), x)


def test_quantizers_may_share_an_observer() -> None:
    left, right = FakeQuantize.for_activation("left"), FakeQuantize.for_activation("right")
    shared = MaxObserver("add")
    for quantizer in (left, right):
        quantizer.observe_with(shared)
    left(torch.tensor([0.0, 1.0]))
    right(torch.tensor([0.0, 2.55]))
    for quantizer in (left, right):
        quantizer.quantize()
    assert left.affine == right.affine == choose_affine(0.0, float(np.float32(2.55)), "u8")


@pytest.mark.parametrize("learned", ["amax", "step"])
def test_what_is_frozen_is_not_trained(learned: str) -> None:
    quantizer = _ready(FakeQuantizeOptions(learned=learned))  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in quantizer.parameters())
    quantizer.freeze()
    assert not any(parameter.requires_grad for parameter in quantizer.parameters())
    x = _values(1, 20)
    before = quantizer(x)
    assert not before.requires_grad
    quantizer.quantize()
    assert all(parameter.requires_grad for parameter in quantizer.parameters())


def test_per_channel_observing_and_dead_channels() -> None:
    quantizer = FakeQuantize("layer", FakeQuantizeOptions(axis=1, channels=3, dtype="u8"))
    quantizer.observe("percentile", 100.0)
    x = _values(2, 4, 3, 8)
    x[:, 1] = 0
    quantizer(x)
    quantizer.quantize()
    scale, zero_point = quantizer.scales()
    for channel in range(3):
        low, high = float(x[:, channel].min()), float(x[:, channel].max())
        affine = choose_affine(low, high, "u8")
        assert float(scale[channel]) == pytest.approx(affine.scale, rel=1e-3)
        assert abs(int(zero_point[channel]) - affine.zero_point) <= 1
    assert float(scale[1]) == 1
    assert torch.equal(quantizer(x)[:, 1], x[:, 1])


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_other_floating_types_come_back_as_they_came(kind: str) -> None:
    quantizer = _ready(FakeQuantizeOptions())
    x = _values(3, 30).to(getattr(torch, kind))
    assert quantizer(x).dtype == x.dtype
    assert torch.equal(quantizer(x), quantizer(x.float()).to(x.dtype))


# Surroundings.

OPTIONS = [
    FakeQuantizeOptions(),
    FakeQuantizeOptions(dtype="u8"),
    FakeQuantizeOptions(gradient="amax"),
    FakeQuantizeOptions(dtype="u8", learned="amax"),
    FakeQuantizeOptions(learned="step"),
    FakeQuantizeOptions(axis=0, channels=4, narrow=True, follow=True),
    FakeQuantizeOptions(axis=1, channels=6, narrow=True, learned="step"),
    FakeQuantizeOptions(axis=1, channels=6, narrow=True, learned="amax"),
]


def _filled(options: FakeQuantizeOptions) -> FakeQuantize:
    high = torch.full(options.shape, 2.5)
    return _ready(options, -high, high)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_compiles_whole(options: FakeQuantizeOptions) -> None:
    torch._dynamo.reset()
    quantizer = _filled(options)
    compiled = torch.compile(copy.deepcopy(quantizer), fullgraph=True, backend="aot_eager")
    x = _values(0, 4, 6)
    for ours, wanted in zip(_run(compiled, x), _run(quantizer, x), strict=True):
        assert torch.equal(ours, wanted)
    for ours, wanted in zip(compiled.parameters(), quantizer.parameters(), strict=True):
        assert torch.allclose(ours.grad, wanted.grad, rtol=1e-5, atol=0)
    assert torch.equal(compiled.scale, quantizer.scale)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_copied_pickled_and_restored(options: FakeQuantizeOptions, tmp_path: Path) -> None:
    quantizer = _filled(options)
    quantizer.freeze()
    torch.save(quantizer.state_dict(), tmp_path / "state.pt")
    restored = FakeQuantize("layer", options)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x = _values(0, 4, 6)
    for other in (restored, copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert other.mode == "frozen"
        assert other.calibrated
        assert torch.equal(other(x), quantizer(x))
        assert not any(parameter.requires_grad for parameter in other.parameters())
        assert str(other) == str(quantizer)
        assert "frozen" in str(other)


def test_observing_is_copied_too_but_does_not_outlive_its_observer() -> None:
    quantizer = FakeQuantize.for_activation("layer")
    quantizer.observe("entropy")
    quantizer(_values(0, 100))
    other = copy.deepcopy(quantizer)
    other(_values(1, 100))
    assert quantizer.observer is not None
    assert quantizer.observer.values == 100
    restored = FakeQuantize.for_activation("layer")
    restored.load_state_dict(quantizer.state_dict())
    assert restored.mode == "disabled"


# Refusals.


def test_bad_input_is_refused_by_name() -> None:
    quantizer = FakeQuantize.for_activation("layer1.add")
    for act in (quantizer.quantize, quantizer.freeze, quantizer.enable):
        with pytest.raises(ValueError, match=r"layer1\.add has no scale yet; run calibration batches"):
            act()
    quantizer.observe("mse")
    with pytest.raises(ValueError, match=r"No data reached the input of layer1\.add"):
        quantizer.quantize()
    with pytest.raises(
        ValueError, match=r"input of layer1\.add holds 1 values that are NaN or infinite, of 2"
    ):
        quantizer(torch.tensor([1.0, torch.inf]))
    with pytest.raises(
        ValueError, match=r"layer1\.add: Channel 0: A range of values must be finite and in order"
    ):
        quantizer.load_ranges(1.0, -1.0)
    with pytest.raises(ValueError, match=r"layer1\.add is quantized to u8, but the map given is of s8"):
        quantizer.load_affine(Affine(1.0, 0, "s8"))
    with pytest.raises(ValueError, match=r"layer1\.add takes a scale and a zero point of shape \(\)"):
        quantizer.load_scales(torch.ones(3))
    with pytest.raises(ValueError, match="not a positive normal number"):
        quantizer.load_scales(torch.tensor(0.0))
    with pytest.raises(ValueError, match="lies in 0 to 255"):
        quantizer.load_scales(torch.tensor(1.0), torch.tensor(300))
    with pytest.raises(ValueError, match="has a scale for each channel"):
        _ = FakeQuantize.for_weight("w", torch.ones(2, 2)).affine
    with pytest.raises(ValueError, match="w: output channel 1 of the weight holds NaN or infinity"):
        FakeQuantize.for_weight("w", torch.tensor([[1.0], [torch.nan]]))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"dtype": "s4"}, "one of s8, u8, but got 's4'"),
        ({"learned": "both"}, "one of no, amax, step, but got 'both'"),
        ({"gradient": "none"}, "one of torch, amax, but got 'none'"),
        ({"follow": True, "learned": "step"}, "symmetric and not learned"),
        ({"dtype": "u8", "narrow": True}, "Only s8 can leave -128 out"),
        ({"axis": 0, "channels": 0}, "at least one channel"),
    ],
)
def test_odd_options_are_refused(choice: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FakeQuantizeOptions(**choice)  # type: ignore[arg-type]

"""Quantization-aware training: the user's loop, masks, frozen statistics, resuming."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.quantization import QuantizationOptions, calibrate, prepare, quantize
from openwork.quantization.fake_quantization.modules import Quantized
from openwork.quantization.placement import Prepared
from openwork.quantization.qat import FrozenStatistics, QuantizationAwareTraining, freeze_batchnorm
from openwork.sparsity import Pruner
from quant_models import InPlace, images, lively, small_resnet

LABELS = torch.tensor([0, 1, 2, 3])


def _prepared(model: nn.Module | None = None, inplace: bool = False, **options: Any) -> Prepared:
    batches = images()
    prepared = prepare(model or small_resnet(), batches[0], QuantizationOptions(**options), inplace)
    calibrate(prepared, batches)
    return prepared


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    model.train()
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images(1, seed=step)[0]), LABELS)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _sgd(training: QuantizationAwareTraining) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(training.parameter_groups(weight_decay=1e-4), lr=0.02, momentum=0.9)
    training.attach(optimizer)
    return optimizer


@pytest.mark.parametrize("learned", ["no", "step", "amax"])
def test_training_learns_what_rounding_took(learned: str) -> None:
    model = _prepared(learned=learned).model
    training = QuantizationAwareTraining(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = _sgd(training)
    losses = [_train(model, optimizer, range(1))[0] for _ in range(25)]
    assert losses[-1] < 0.5 * losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"conv1.weight", "layer2.0.conv2.weight", "fc.bias"} <= moved
    scales = {name for name in before if name.endswith((".scale", ".amax"))}
    assert bool(scales) == (learned != "no")
    assert scales <= moved
    assert training.step == 25


def test_learned_scales_do_not_decay() -> None:
    training = QuantizationAwareTraining(_prepared(learned="step").model)
    weights, scales = training.parameter_groups(weight_decay=0.1, lr=1.0)
    assert (weights["weight_decay"], scales["weight_decay"]) == (0.1, 0.0)
    assert len(scales["params"]) == len({id(p) for p in scales["params"]}) > 10
    names = {id(p): name for name, p in training.model.named_parameters()}
    assert all(names[id(p)].endswith(".scale") for p in scales["params"])


def test_statistics_freeze_at_their_step_and_fold_at_the_end() -> None:
    model = _prepared(batchnorm="keep").model
    training = QuantizationAwareTraining(model, freeze_batchnorm_at=2, freeze_scales_at=3)
    optimizer = _sgd(training)
    norm: Any = model.get_submodule("layer1.0.bn1")
    means = [norm.running_mean.clone()]
    for step in range(4):
        _train(model, optimizer, range(step, step + 1))
        means.append(norm.running_mean.clone())
    assert not torch.equal(means[1], means[0])
    assert not torch.equal(means[2], means[1])
    assert torch.equal(means[2], means[3])
    assert torch.equal(means[2], means[4])
    assert isinstance(norm, FrozenStatistics)
    assert isinstance(norm, nn.BatchNorm2d)
    assert model.training
    assert not norm.training
    model.eval()
    exact = model(images()[0])
    integers = {n: m.quantized_weight() for n, m in model.named_modules() if isinstance(m, Quantized)}
    folds = training.finish(images()[0])
    assert all(fold.layer is not None for fold in folds)
    assert not any(isinstance(module, FrozenStatistics) for module in model.modules())
    found = model(images()[0])
    # The integers stay, so the two differ by rounding, and where it moves an activation by one step.
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.9999
    for name, before in integers.items():
        layer: Any = model.get_submodule(name)
        assert int((layer.quantized_weight().int().abs() - before.int().abs()).abs().max()) <= 1


def test_frozen_statistics_stay_through_a_call_of_train() -> None:
    model = _prepared(batchnorm="keep").model
    assert freeze_batchnorm(model) == 6
    assert freeze_batchnorm(model) == 0
    model.train()
    first, second = model(images()[0]), model(images()[0])
    assert torch.equal(first, second)
    with pytest.raises(ValueError, match=r"1 \(BatchNorm1d\) must be one of torch's BatchNorms with running"):
        freeze_batchnorm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)))


@pytest.mark.parametrize("options", [{"batchnorm": "keep"}, {"learned": "step"}])
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(options: dict[str, Any]) -> None:
    whole = QuantizationAwareTraining(_prepared(**options).model, freeze_batchnorm_at=2)
    losses = _train(whole.model, _sgd(whole), range(6))

    first = QuantizationAwareTraining(_prepared(**options).model, freeze_batchnorm_at=2)
    optimizer = _sgd(first)
    begun = _train(first.model, optimizer, range(3))
    file = io.BytesIO()
    torch.save([first.model.state_dict(), optimizer.state_dict(), first.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)

    fresh = small_resnet(seed=9)
    model = prepare(fresh, images()[0], QuantizationOptions(**options)).model
    model.load_state_dict(states[0])
    second = QuantizationAwareTraining(model, freeze_batchnorm_at=2)
    optimizer = _sgd(second)
    optimizer.load_state_dict(states[1])
    second.load_state_dict(states[2])
    assert begun + _train(model, optimizer, range(3, 6)) == losses
    expected, found = whole.model.state_dict(), model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert second.step == whole.step == 6


def _masked_resnet() -> nn.Module:
    model = small_resnet()
    Pruner(model, "2:4", exclude=("conv1", "fc")).prune("magnitude")
    return model


def test_masks_hold_without_a_pruner_and_may_not_change() -> None:
    model = _prepared(_masked_resnet()).model
    training = QuantizationAwareTraining(model)
    _train(model, _sgd(training), range(4))
    training.verify()
    layer: Any = model.get_submodule("layer1.0.conv1")
    assert not layer.weight[~layer.weight_mask].any()
    assert not layer.quantized_weight()[~layer.weight_mask].any()
    assert layer.weight[layer.weight_mask].all()
    layer.weight_mask.logical_not_()
    with pytest.raises(
        ValueError, match=r"mask of layer1\.0\.conv1\.weight changed during quantization-aware"
    ):
        training.finish(images()[0])


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_pruner_goes_on_holding(when: str) -> None:
    model = small_resnet()
    rest = {"exclude": ("conv1", "fc")}
    if when == "before":
        pruner = Pruner(model, "2:4", **rest)
        pruner.prune("magnitude")
        quantized = _prepared(model, inplace=True).model
    else:
        quantized = _prepared(model).model
        pruner = Pruner(quantized, "2:4", **rest)
        pruner.prune("magnitude")
    assert {row.kind for row in pruner.table if row.eligible} <= {"QuantConv2d", "Conv2d"}
    optimizer = torch.optim.SGD(quantized.parameters(), lr=0.05, momentum=0.9)
    pruner.attach(optimizer)
    masks = {name: mask.clone() for name, mask in pruner.masks.items()}
    assert len(masks) == 5
    _train(quantized, optimizer, range(4))
    pruner.verify()
    for name, mask in masks.items():
        layer: Any = quantized.get_submodule(name)
        assert torch.equal(layer.weight_mask, mask)
        integers = layer.quantized_weight()
        assert not integers[~mask].any()
        assert integers[mask].any()


def test_an_attention_is_pruned_after_it_was_prepared() -> None:
    torch.manual_seed(0)
    layer, x = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval(), torch.randn(2, 5, 16)
    model = quantize(layer, [x, x])
    pruner = Pruner(model, "2:4")
    pruner.prune("magnitude")
    assert "self_attn.in_proj_weight" in pruner.masks
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner.attach(optimizer)
    for _ in range(2):
        model(x).square().mean().backward()
        optimizer.step()
    pruner.verify()
    attention: Any = model.self_attn
    integers = attention.in_proj_quantizer.integers(attention.in_proj_weight)
    assert not integers[~attention.in_proj_weight_mask].any()


def test_training_needs_scales_and_the_models_parameters() -> None:
    batches = images()
    with pytest.raises(ValueError, match=r"conv1, .* have no scale yet; calibrate the model"):
        QuantizationAwareTraining(prepare(small_resnet(), batches[0]).model)
    with pytest.raises(ValueError, match="Nothing in the model is quantized"):
        QuantizationAwareTraining(small_resnet())
    training = QuantizationAwareTraining(_prepared().model)
    with pytest.raises(ValueError, match="trains none of the model's parameters"):
        training.attach(torch.optim.SGD(small_resnet().parameters(), lr=0.1))


def test_training_compiled_is_training() -> None:
    torch.manual_seed(0)
    plain = quantize(lively(InPlace()).eval(), images(channels=8)).train()
    other = copy.deepcopy(plain)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    x = images(1, channels=8)[0]

    def gradients(model: Any, owner: nn.Module) -> list[Tensor]:
        model(x).square().mean().backward()
        return [p.grad for p in owner.parameters() if p.grad is not None]

    expected, found = gradients(plain, plain), gradients(compiled, other)
    assert len(expected) == len(found) == 4
    for one, two in zip(expected, found, strict=True):
        # The same operations, decomposed: sums over 256 pixels in another order.
        torch.testing.assert_close(
            one, two, rtol=256 * 2.0**-24, atol=256 * 2.0**-24 * float(one.abs().max())
        )

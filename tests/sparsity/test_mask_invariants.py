"""A mask is never lost: whatever people do to models and optimizers between two steps."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from openwork.sparsity import Pruner

SEED = 31

Make = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "sgd nesterov foreach": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1, foreach=False),
    "adam foreach": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True, foreach=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.02, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "adagrad fused": lambda p: torch.optim.Adagrad(p, lr=0.05, fused=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.02),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.02),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.02),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.02),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4, line_search_fn="strong_wolfe"),
}

SCHEDULES = ["one-shot", "progressive:2:3", "gradual:cubic:1:5", "sr-ste:5:0.01"]


def network() -> nn.Sequential:
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.GELU(),
        nn.Linear(16, 8),
    )


def batch(step: int) -> Tensor:
    return torch.randn(6, 8, 4, 4, generator=torch.Generator().manual_seed(1000 * SEED + step))


def loss_of(model: nn.Module, step: int) -> Tensor:
    inputs = batch(step)
    return (model(inputs) - inputs.mean(dim=(2, 3))).square().mean()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, start: int, end: int) -> None:
    for step in range(start, end):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)  # type: ignore[arg-type]
        else:
            closure()
            optimizer.step()


def started(
    schedule: str = "one-shot", make: Make = OPTIMIZERS["adam"], **given: Any
) -> tuple[nn.Sequential, torch.optim.Optimizer, Pruner]:
    model = network()
    pruner = Pruner(model, given.pop("pattern", "2:4"), schedule=schedule, **given)
    optimizer = make(model.parameters())
    pruner.attach(optimizer)
    return model, optimizer, pruner


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_keeps_the_masks(name: str, schedule: str) -> None:
    model, optimizer, pruner = started(schedule, OPTIMIZERS[name])
    before = snapshot(model)
    for step in range(8):
        train(model, optimizer, step, step + 1)
        pruner.verify()
    assert pruner.zeros == 0.5
    assert pruner.finished
    changed = [key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])]
    assert {key for key in changed if key.endswith("weight")} == {"0.weight", "3.weight", "5.weight"}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("lbfgs", "adafactor")])
def test_what_the_optimizer_remembers_of_a_dropped_weight_is_cleared(name: str) -> None:
    model, optimizer, pruner = started("one-shot:3", OPTIMIZERS[name])
    train(model, optimizer, 0, 3)
    assert pruner.zeros == 0.5
    for prunable in pruner.prunables.values():
        for key, state in optimizer.state[prunable.weight].items():
            if isinstance(state, Tensor) and state.shape == prunable.weight.shape:
                assert not state[~prunable.mask].any(), (prunable.name, key)
                assert key == "prev" or state[prunable.mask].any(), (prunable.name, key)


def test_momentum_is_cleared_when_prune_is_called_in_the_middle() -> None:
    model, optimizer, pruner = started("one-shot:100", OPTIMIZERS["sgd"])
    train(model, optimizer, 0, 3)
    assert pruner.zeros == 0.0
    pruner.prune()
    pruner.verify()
    for prunable in pruner.prunables.values():
        assert not optimizer.state[prunable.weight]["momentum_buffer"][~prunable.mask].any()


def test_dropped_weights_gather_no_momentum() -> None:
    model, optimizer, pruner = started("one-shot", OPTIMIZERS["adam"])
    train(model, optimizer, 0, 4)
    for prunable in pruner.prunables.values():
        state = optimizer.state[prunable.weight]
        assert not state["exp_avg"][~prunable.mask].any()
        assert not state["exp_avg_sq"][~prunable.mask].any()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("criterion", ["magnitude", "snip-momentum", "movement"])
def test_a_run_stopped_at_any_step_goes_on_bit_for_bit(schedule: str, criterion: str) -> None:
    end, saved = 8, []
    model, optimizer, pruner = started(schedule, OPTIMIZERS["adamw foreach"], criterion=criterion)
    for step in range(end):
        file = io.BytesIO()
        torch.save([model.state_dict(), optimizer.state_dict(), pruner.state_dict()], file)
        saved.append(file.getvalue())
        train(model, optimizer, step, step + 1)
    for step, content in enumerate(saved):
        states = torch.load(io.BytesIO(content), weights_only=True)
        again = network()
        resumed = Pruner(again, "2:4", schedule=schedule, criterion=criterion)
        restored = OPTIMIZERS["adamw foreach"](again.parameters())
        for target, state in zip((again, restored, resumed), states, strict=True):
            target.load_state_dict(state)
        resumed.attach(restored)
        train(again, restored, step, end)
        assert same(again.state_dict(), model.state_dict()), step
        assert resumed.steps == pruner.steps


def test_the_order_of_loading_and_attaching_does_not_matter() -> None:
    model, optimizer, pruner = started("gradual:cubic:1:6")
    train(model, optimizer, 0, 3)
    states = copy.deepcopy([model.state_dict(), optimizer.state_dict(), pruner.state_dict()])
    train(model, optimizer, 3, 8)
    again, restored, resumed = started("gradual:cubic:1:6")
    for target, state in zip((again, restored, resumed), states, strict=True):
        target.load_state_dict(state)
    train(again, restored, 3, 8)
    assert same(again.state_dict(), model.state_dict())


def test_a_dense_optimizer_state_does_not_revive_weights() -> None:
    """A state saved before pruning has momentum for what is pruned now."""
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, 0, 3)
    state = copy.deepcopy(optimizer.state_dict())
    pruner = Pruner(model, "2:4")
    pruner.attach(optimizer)
    optimizer.load_state_dict(state)
    train(model, optimizer, 3, 5)
    pruner.verify()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_average_takes_the_masks(schedule: str, use_buffers: bool) -> None:
    model, optimizer, pruner = started(schedule)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=use_buffers)
    for step in range(8):
        train(model, optimizer, step, step + 1)
        average.update_parameters(model)
    pruner.apply(to=average)
    for prunable in pruner.prunables.values():
        twin = average.module.get_submodule(prunable.name)
        mask = twin.get_buffer("weight_mask")
        assert torch.equal(mask, prunable.mask)
        assert mask.data_ptr() != prunable.mask.data_ptr()
        assert not twin.get_parameter("weight")[~mask].any()
        assert not torch.equal(twin.get_parameter("weight"), prunable.weight)
    pruner.verify()


@pytest.mark.parametrize("name", ["sgd", "sgd fused", "adamw foreach", "adamw fused"])
@pytest.mark.parametrize("schedule", ["one-shot", "gradual:linear:1:4", "sr-ste:4:0.01"])
def test_a_grad_scaler_that_skips_a_step(name: str, schedule: str) -> None:
    model, optimizer, pruner = started(schedule, OPTIMIZERS[name], criterion="snip")
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for step in range(7):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 2:
            weight = model[3].weight
            assert isinstance(weight, nn.Parameter)
            assert weight.grad is not None
            weight.grad[0, 0] = torch.inf
            before = snapshot(model)
        scaler.step(optimizer)
        scaler.update()
        if step == 2:
            assert same(model.state_dict(), before)
            assert pruner.steps == 2
        pruner.verify()
    assert (pruner.steps, pruner.zeros) == (6, 0.5)


def test_a_grad_scaler_s_steps_equal_the_unscaled_ones() -> None:
    """A power of two scales and unscales without rounding."""
    results = []
    for name in ("adamw foreach", "adamw fused"):
        for scale in (None, 1024.0):
            model, optimizer, pruner = started(
                "gradual:linear:1:4", OPTIMIZERS[name], criterion="snip-momentum"
            )
            scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
            for step in range(5):
                optimizer.zero_grad()
                scaler.scale(loss_of(model, step)).backward()
                scaler.step(optimizer)
                scaler.update()
            results.append((snapshot(model), pruner.state_dict()["scores"]))
    for (plain, scores), (scaled, scaled_scores) in (results[:2], results[2:]):
        assert same(plain, scaled)
        assert all(same(scores[name], scaled_scores[name]) for name in scores)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_compiled_model_trains_like_the_plain_one(schedule: str) -> None:
    plain, optimizer, _ = started(schedule)
    train(plain, optimizer, 0, 7)
    model, optimizer, pruner = started(schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = torch.compile(model, backend="eager")
        train(compiled, optimizer, 0, 7)  # type: ignore[arg-type]
    pruner.verify()
    assert same(model.state_dict(), plain.state_dict())
    torch._dynamo.reset()


def test_masks_do_not_make_a_compiled_model_compile_again() -> None:
    model, optimizer, _ = started("gradual:cubic:1:7")
    count = 0

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        nonlocal count
        count += 1
        return graph.forward

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        train(torch.compile(model, backend=backend), optimizer, 0, 8)  # type: ignore[arg-type]
    assert count == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_of_model_pruner_and_optimizer_train_like_the_originals(schedule: str, how: str) -> None:
    model, optimizer, pruner = started(schedule, criterion="snip")
    train(model, optimizer, 0, 3)
    whole = (model, optimizer, pruner)
    copied = copy.deepcopy(whole) if how == "deepcopy" else pickle.loads(pickle.dumps(whole))
    train(model, optimizer, 3, 7)
    other, stepped, twin = copied
    assert twin.prunables["0"].module is other[0]
    twin.attach(stepped)
    train(other, stepped, 3, 7)
    assert same(other.state_dict(), model.state_dict())
    twin.verify()
    other[0].weight.data.fill_(1.0)
    pruner.verify()


def test_a_model_alone_is_copied_and_pickled_with_its_masks() -> None:
    model, optimizer, _ = started()
    train(model, optimizer, 0, 2)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same(copied.state_dict(), model.state_dict())
        Pruner(copied, "2:4").verify()


def test_gradients_accumulate() -> None:
    model, optimizer, pruner = started("gradual:linear:1:4", criterion="snip")
    for step in range(6):
        optimizer.zero_grad()
        for part in range(3):
            (loss_of(model, 10 * step + part) / 3).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        pruner.verify()
    assert (pruner.steps, pruner.zeros) == (6, 0.5)


def test_gradients_kept_from_step_to_step_are_masked_once_more() -> None:
    model, optimizer, pruner = started()
    for step in range(4):
        loss_of(model, step).backward()
        optimizer.step()
        for prunable in pruner.prunables.values():
            assert prunable.weight.grad is not None
            assert not prunable.weight.grad[~prunable.mask].any()
    pruner.verify()


def test_masks_travel_in_the_state_dict_of_every_kind_of_layer() -> None:
    torch.manual_seed(SEED)
    layers = {
        "taps": nn.Conv1d(8, 8, 3),
        "groups": nn.Conv2d(16, 8, 3, groups=2),
        "volume": nn.Conv3d(8, 4, 2),
        "up": nn.ConvTranspose2d(8, 4, 2),
        "attention": nn.MultiheadAttention(8, 2),
        "apart": nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
    }
    model = nn.ModuleDict(copy.deepcopy(layers))
    pruner = Pruner(model, "2:4")
    pruner.prune()
    state = model.state_dict()
    assert {key for key in state if key.endswith("_mask")} == {
        *(f"{name}.weight_mask" for name in ("taps", "groups", "volume", "up")),
        *(f"{name}.out_proj.weight_mask" for name in ("attention", "apart")),
        "attention.in_proj_weight_mask",
        *(f"apart.{part}_proj_weight_mask" for part in "qkv"),
    }
    again = nn.ModuleDict(layers)
    restored = Pruner(again, "2:4")
    again.load_state_dict(state)
    restored.verify()
    assert same(again.state_dict(), state)


def test_masks_of_another_shape_are_refused() -> None:
    model, _, pruner = started()
    state = model.state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for 3\.weight_mask"):
        model.load_state_dict({**state, "3.weight_mask": torch.ones(16, 64, dtype=torch.bool)})
    model[3].register_buffer("weight_mask", torch.ones(16, 64, dtype=torch.bool))
    with pytest.raises(
        ValueError, match=r"The mask of 3 has the shape \[16, 64\], but its weight has \[16, 128\]"
    ):
        pruner.apply()


def test_two_pruners_on_one_module_are_refused() -> None:
    model, _, pruner = started()
    with pytest.raises(
        ValueError, match=r"0 is pruned by another Pruner \(2:4, one-shot, .*\); two would undo"
    ):
        Pruner(model, "1x1:0.5")
    pruner.detach()
    Pruner(model, "2:4").verify()


def test_two_pruners_on_different_layers_work_side_by_side() -> None:
    model = network()
    first = Pruner(model, "2:4", include=["0"])
    second = Pruner(model, "1x1:0.75", include=["3"], schedule="gradual:linear:1:4")
    optimizer = OPTIMIZERS["adam"](model.parameters())
    first.attach(optimizer)
    second.attach(optimizer)
    train(model, optimizer, 0, 6)
    first.verify()
    second.verify()
    assert (first.zeros, second.zeros) == (0.5, 0.75)


def test_an_optimizer_of_another_model_is_refused() -> None:
    pruner = Pruner(network(), "2:4")
    with pytest.raises(ValueError, match="The optimizer trains none of the pruned weights"):
        pruner.attach(OPTIMIZERS["sgd"](network().parameters()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    model = network()
    pruner = Pruner(model, "2:4")
    weight = model[3].weight
    assert isinstance(weight, nn.Parameter)
    with torch.no_grad():
        weight[1, 2] = value
    with pytest.raises(ValueError, match=rf"The weight of 3 holds {value} at row 1, column 2"):
        pruner.attach(OPTIMIZERS["sgd"](model.parameters()))
    assert all(bool(mask.all()) for mask in pruner.masks.values())


def test_a_weight_that_becomes_nan_stops_the_next_choice_of_masks() -> None:
    model, optimizer, _ = started("progressive:2:3", OPTIMIZERS["sgd"])
    train(model, optimizer, 0, 2)
    weight = model[5].weight
    assert isinstance(weight, nn.Parameter)
    with torch.no_grad():
        weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="holds nan at"):
        train(model, optimizer, 2, 4)


def test_a_replaced_weight_is_pruned_in_the_place_of_the_old_one() -> None:
    model, optimizer, pruner = started()
    train(model, optimizer, 0, 2)
    layer = model[3]
    layer.weight = nn.Parameter(torch.ones(16, 128))
    assert [fault for fault in pruner.faults() if "The weight of 3 is 1 at" in fault]
    other = OPTIMIZERS["sgd"](model.parameters())
    pruner.attach(other)
    train(model, other, 2, 4)
    pruner.verify()
    assert layer.weight.count_nonzero() <= 16 * 64


def test_a_replaced_weight_of_another_shape_is_refused() -> None:
    model, optimizer, pruner = started()
    model[5] = nn.Linear(16, 8)
    train(model, optimizer, 0, 1)
    model[3].weight = nn.Parameter(torch.ones(16, 64))
    with pytest.raises(
        ValueError, match=r"The mask of 3 has the shape \[16, 128\], but its weight has \[16, 64\]"
    ):
        pruner.verify()


def test_moving_and_casting_a_model_keeps_its_masks() -> None:
    model, _, pruner = started()
    model.double()
    assert {mask.dtype for mask in pruner.masks.values()} == {torch.bool}
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    pruner.attach(optimizer)
    inputs = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    model(inputs).sum().backward()
    optimizer.step()
    pruner.verify()


def test_detach_lets_go() -> None:
    model, optimizer, pruner = started()
    train(model, optimizer, 0, 1)
    masks = {name: mask.clone() for name, mask in pruner.masks.items()}
    pruner.detach()
    train(model, optimizer, 1, 2)
    assert same(pruner.masks, masks)
    assert pruner.faults()


def test_a_wrapper_without_hooks_is_looked_into() -> None:
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    model = network()
    pruner = Pruner(model, "2:4")
    inner = OPTIMIZERS["sgd"](model.parameters())
    assert pruner.attach(Wrapper(Wrapper(inner))).optimizer is inner
    train(model, inner, 0, 2)
    pruner.verify()
    with pytest.raises(TypeError, match=r"A torch\.optim\.Optimizer, .* was expected, but this is dict"):
        pruner.attach({})  # type: ignore[arg-type]


def test_asking_for_an_optimizer_s_state_is_no_step() -> None:
    """torch makes the states that are missing by a step on gradients of zero at a learning rate of zero."""

    def make(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05)

    model, optimizer, pruner = started("sr-ste:5:0.01", make)
    plain, other, _ = started("sr-ste:5:0.01", make)
    for step in range(7):
        get_optimizer_state_dict(model, optimizer)
        assert pruner.steps == step
        train(model, optimizer, step, step + 1)
        optimizer.zero_grad()
    train(plain, other, 0, 7)
    assert same(model.state_dict(), plain.state_dict())


def test_a_warm_up_from_zero_counts_its_first_step() -> None:
    model, optimizer, pruner = started("progressive:2:2", OPTIMIZERS["sgd"])
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 4)
    for step in range(4):
        train(model, optimizer, step, step + 1)
        warm_up.step()
    assert (pruner.steps, pruner.zeros) == (4, 0.5)


def test_a_compiled_step_is_not_compiled_again_by_the_masks() -> None:
    model, optimizer, pruner = started("gradual:cubic:1:5", OPTIMIZERS["sgd"])
    count = 0

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        nonlocal count
        count += 1
        return graph.forward

    counts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        step = torch.compile(lambda: optimizer.step(), backend=backend)
        for number in range(8):
            optimizer.zero_grad()
            loss_of(model, number).backward()
            step()
            pruner.verify()
            counts.append(count)
    plain, other, _ = started("gradual:cubic:1:5", OPTIMIZERS["sgd"])
    train(plain, other, 0, 8)
    assert same(model.state_dict(), plain.state_dict())
    # The second step differs from the first by the momentum that is there; nothing after it does.
    assert counts[1:] == [counts[1]] * 7
    torch._dynamo.reset()


def test_a_weight_that_is_parametrized_later_is_refused() -> None:
    model, optimizer, _ = started()
    nn.utils.parametrizations.weight_norm(model[3])
    with pytest.raises(
        ValueError, match=r"3 has no parameter 'weight' any more: it was removed or parametrized"
    ):
        train(model, optimizer, 0, 1)

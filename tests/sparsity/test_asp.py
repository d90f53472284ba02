"""ASP's calls: the same layers, masks and steps as ASP, and its checkpoints."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Iterator
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity import Pattern, Pruner
from openwork.sparsity.interop.asp import ASP, AutomaticSparsity
from openwork.sparsity.interop.asp_checkpoint import from_asp

SEED = 41


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    ASP.reset()
    yield
    ASP.reset()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 32, 3, padding=1)
        self.mix = nn.MultiheadAttention(32, 2, batch_first=True)
        self.odd = nn.Linear(32, 36)
        self.frozen = nn.Linear(32, 32)
        self.out = nn.Linear(32, 8)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(torch.relu(self.stem(x)))).flatten(2).transpose(1, 2)
        x = self.mix(x, x, x, need_weights=False)[0]
        return self.out(self.frozen(x + self.odd(x)[..., :32])).mean(dim=1)  # type: ignore[no-any-return]


def network() -> Network:
    torch.manual_seed(SEED)
    return Network()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, start: int, end: int) -> None:
    for step in range(start, end):
        generator = torch.Generator().manual_seed(SEED + step)
        optimizer.zero_grad()
        model(torch.randn(2, 3, 4, 4, generator=generator)).square().sum().backward()
        optimizer.step()


def best_of_all(weight: Tensor) -> Tensor:
    """ASP's rule written out: of the six ways to keep 2 of 4, the one with the largest sum of |w|."""
    ways = torch.zeros(6, 4)
    for row, pair in zip(ways, combinations(range(4), 2), strict=True):
        row[list(pair)] = 1
    groups = weight.abs().reshape(-1, 4)
    return ways[(groups @ ways.T).argmax(dim=1)].reshape(weight.shape).bool()


def test_a_trained_model_is_pruned_by_asp_s_rule_and_stays_so() -> None:
    model = network()
    dense = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = sgd(model)
    ASP.prune_trained_model(model, optimizer)
    assert ASP.is_sparsity_enabled()
    assert set(ASP.pruner.prunables) == {"body", "mix.in_proj_weight", "mix.out_proj", "out"}
    taps = dense["body.weight"].permute(2, 3, 0, 1)
    assert torch.equal(model.body.get_buffer("weight_mask").permute(2, 3, 0, 1), best_of_all(taps))
    assert torch.equal(model.out.get_buffer("weight_mask"), best_of_all(dense["out.weight"]))
    assert torch.equal(model.mix.get_buffer("in_proj_weight_mask"), best_of_all(dense["mix.in_proj_weight"]))
    train(model, optimizer, 0, 4)
    ASP.verify()
    assert not torch.equal(model.out.weight, dense["out.weight"] * model.out.get_buffer("weight_mask"))


def test_masked_steps_are_asp_s_where_momentum_starts_with_them() -> None:
    """ASP masks the gradient, steps, and masks the weight; here is that loop beside ours."""
    model, by_hand = network(), network()
    optimizer, plain = sgd(model), sgd(by_hand)
    ASP.prune_trained_model(model, optimizer)
    masks = {
        "body.weight": model.body.get_buffer("weight_mask"),
        "mix.in_proj_weight": model.mix.get_buffer("in_proj_weight_mask"),
        "mix.out_proj.weight": model.mix.out_proj.get_buffer("weight_mask"),
        "out.weight": model.out.get_buffer("weight_mask"),
    }
    weights = {name: weight for name, weight in by_hand.named_parameters() if name in masks}
    for name, weight in weights.items():
        weight.data.mul_(masks[name])
    for step in range(3):
        generator = torch.Generator().manual_seed(SEED + step)
        plain.zero_grad()
        by_hand(torch.randn(2, 3, 4, 4, generator=generator)).square().sum().backward()
        for name, weight in weights.items():
            assert weight.grad is not None
            weight.grad.mul_(masks[name])
        plain.step()
        for name, weight in weights.items():
            weight.data.mul_(masks[name])
    train(model, optimizer, 0, 3)
    ours = dict(model.named_parameters())
    assert all(torch.equal(weight, ours[name]) for name, weight in by_hand.named_parameters())


def test_the_layers_are_chosen_by_asp_s_rules(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    with caplog.at_level(logging.DEBUG, "openwork.sparsity"):
        ASP.init_model_for_pruning(model, disallowed_layer_names=["out"], allow_permutation=False)
    assert set(ASP.pruner.prunables) == {"body", "mix.in_proj_weight", "mix.out_proj"}
    assert "Not pruning stem: Its 16 outputs and 3 inputs are not multiples of 8 and 16" in caplog.text
    assert "Not pruning odd: Its 36 outputs and 32 inputs" in caplog.text
    assert "Not pruning frozen: It is not trained" in caplog.text
    assert "Not pruning out: It is among disallowed_layer_names." in caplog.text
    ASP.reset()
    ASP.init_model_for_pruning(model, whitelist=[nn.Linear], allowed_layer_names=["out", "odd", "body"])
    assert set(ASP.pruner.prunables) == {"out"}
    ASP.reset()
    ASP.init_model_for_pruning(model, allowed_layer_names=["mix"])
    assert set(ASP.pruner.prunables) == {"mix.in_proj_weight"}


def test_verbosity_is_a_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "openwork.sparsity"):
        ASP.init_model_for_pruning(network(), verbosity=1)
        ASP.compute_sparse_masks()
    assert caplog.records == []
    ASP.reset()
    with caplog.at_level(logging.DEBUG, "openwork.sparsity"):
        ASP.init_model_for_pruning(network(), verbosity=2)
        ASP.compute_sparse_masks()
    assert "out: 50.00% of [8, 32] are zero." in caplog.text
    assert "Not pruning" not in caplog.text


def test_sparsity_is_off_until_the_masks_are_computed() -> None:
    model, dense = network(), network()
    optimizer, plain = sgd(model), sgd(dense)
    ASP.init_model_for_pruning(model, allow_permutation=False)
    ASP.init_optimizer_for_pruning(optimizer)
    train(model, optimizer, 0, 2)
    train(dense, plain, 0, 2)
    assert not ASP.is_sparsity_enabled()
    ours = dict(model.named_parameters())
    assert all(torch.equal(weight, ours[name]) for name, weight in dense.named_parameters())
    ASP.compute_sparse_masks()
    assert ASP.is_sparsity_enabled()
    momentum = optimizer.state[model.out.weight]["momentum_buffer"]
    assert not momentum[~model.out.get_buffer("weight_mask")].any()
    train(model, optimizer, 2, 4)
    ASP.verify()


def test_pruned_weights_come_back_where_they_are_kept() -> None:
    model = network()
    dense = copy.deepcopy(model.state_dict())
    ASP.init_model_for_pruning(model, allow_recompute_mask=True, allow_permutation=False)
    ASP.init_optimizer_for_pruning(sgd(model))
    ASP.compute_sparse_masks()
    masks = {name: mask.clone() for name, mask in ASP.pruner.masks.items()}
    ASP.restore_pruned_weights()
    assert not ASP.is_sparsity_enabled()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in dense.items())
    ASP.compute_sparse_masks()
    ASP.compute_sparse_masks()
    assert all(torch.equal(mask, masks[name]) for name, mask in ASP.pruner.masks.items())
    ASP.restore_pruned_weights()
    ASP.restore_pruned_weights()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in dense.items())


def test_pruned_weights_are_lost_where_they_are_not_kept() -> None:
    model = network()
    ASP.init_model_for_pruning(model)
    ASP.restore_pruned_weights()
    ASP.compute_sparse_masks()
    with pytest.raises(ValueError, match=r"To compute the masks anew, .*allow_recompute_mask=True\)"):
        ASP.compute_sparse_masks()
    with pytest.raises(ValueError, match="To restore the pruned weights, the model must be set with"):
        ASP.restore_pruned_weights()


@pytest.mark.parametrize("calculator", ["m4n2_2d_best", "m4n2_2d_greedy"])
def test_two_dimensional_masks_hold_along_rows_and_columns(calculator: str) -> None:
    model = network()
    ASP.init_model_for_pruning(model, calculator, allow_permutation=False)
    dense = model.out.weight.detach().clone()
    ASP.compute_sparse_masks()
    mask = model.out.get_buffer("weight_mask")
    assert Pattern.parse("2:4").holds(mask.numpy())
    assert Pattern.parse("2:4").holds(mask.T.numpy())
    legal = [
        torch.tensor(rows)
        for rows in permutations(
            [[int(i in pair) for i in range(4)] for pair in combinations(range(4), 2)] * 2, 4
        )
        if all(sum(column) == 2 for column in zip(*rows, strict=True))
    ]
    blocks = dense.square().reshape(2, 4, 8, 4).permute(0, 2, 1, 3).reshape(-1, 16)
    best = (blocks @ torch.stack(legal).reshape(-1, 16).float().T).max(dim=1).values.sum()
    # A sum of 128 squares in float32, in two orders: off by at most 128 roundings of the whole.
    assert (dense.square() * mask).sum() >= best * (1 - 128 * torch.finfo(torch.float32).eps)


def test_patterns_of_this_package_and_functions_are_calculators() -> None:
    model = network()
    ASP.init_model_for_pruning(model, "2:4@2", allow_permutation=False)
    ASP.compute_sparse_masks()
    assert Pattern.parse("2:4@2").holds(model.out.get_buffer("weight_mask").numpy())
    ASP.reset()
    first_two = torch.tensor([1.0, 1.0, 0.0, 0.0])
    other = network()
    ASP.init_model_for_pruning(
        other,
        lambda weight: first_two.repeat(*weight.shape[:-1], weight.shape[-1] // 4),
        whitelist=[nn.Linear],
    )
    ASP.compute_sparse_masks()
    assert not other.out.weight[:, 2::4].any()
    ASP.verify()


def test_a_function_s_bad_masks_are_refused() -> None:
    ASP.init_model_for_pruning(network(), lambda weight: weight[0] > 0)
    with pytest.raises(
        ValueError, match=r"gave a mask of shape \[16, 3, 3\] for body, whose weight has \[32, 16"
    ):
        ASP.compute_sparse_masks()
    ASP.reset()
    ASP.init_model_for_pruning(network(), torch.ones_like, whitelist=[nn.Linear])
    with pytest.raises(
        ValueError, match=r"mask of mix\.out_proj is not 2:4: .*row 0, group 0: 4 non-zero weights"
    ):
        ASP.compute_sparse_masks()


class Wide(nn.Linear):
    pass


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16, 16))


def test_layers_of_one_s_own() -> None:
    model = nn.Sequential(Wide(16, 16), Strange())
    ASP.init_model_for_pruning(model, whitelist=[nn.Conv2d], custom_layer_dict={Wide: ["weight"]})
    assert set(ASP.pruner.prunables) == {"0"}
    ASP.reset()
    with pytest.raises(ValueError, match="custom_layer_dict names Strange, of which it is not known"):
        ASP.init_model_for_pruning(model, custom_layer_dict={Strange: ["weight"]})


def asp_state(model: nn.Module, kept: bool = False) -> dict[str, Tensor]:
    """The state as ASP would have saved it."""
    state = {}
    for key, tensor in model.state_dict().items():
        if key.endswith("_mask"):
            stem, parameter = key.removesuffix("_mask").rsplit(".", 1)
            state[f"{stem}.__{parameter}_mma_mask"] = tensor
            if kept:
                state[f"{stem}.__{parameter}_mma_pruned_p"] = torch.full(tensor.shape, 0.5) * ~tensor
        else:
            state[key] = tensor
    return state


@pytest.mark.parametrize("kept", [False, True])
def test_a_checkpoint_of_asp_s_is_restored(kept: bool) -> None:
    saved = network()
    ASP.prune_trained_model(saved, sgd(saved))
    state = asp_state(saved, kept)
    ASP.reset()
    model = network()
    ASP.init_model_for_pruning(model, allow_recompute_mask=kept)
    model.load_state_dict(copy.deepcopy(state))
    optimizer = sgd(model)
    ASP.init_optimizer_for_pruning(optimizer)
    assert ASP.is_sparsity_enabled()
    assert all(
        torch.equal(tensor, saved.state_dict()[key])
        for key, tensor in model.state_dict().items()
        if not key.endswith("_pruned")
    )
    train(model, optimizer, 0, 2)
    ASP.verify()
    if kept:
        before = model.out.weight.detach().clone()
        mask = model.out.get_buffer("weight_mask").clone()
        ASP.restore_pruned_weights()
        assert torch.equal(model.out.weight, torch.where(mask, before, 0.5))


def test_a_checkpoint_of_asp_s_serves_a_plain_pruner() -> None:
    saved = network()
    ASP.prune_trained_model(saved, sgd(saved))
    state = from_asp(asp_state(saved))
    assert state.keys() == saved.state_dict().keys()
    model = network()
    pruner = Pruner(model, dict.fromkeys(("body", "mix*", "out"), "2:4"))
    model.load_state_dict(state)
    pruner.verify()
    assert pruner.zeros == 0.5


def test_bad_checkpoints_are_refused() -> None:
    saved = network()
    ASP.prune_trained_model(saved, sgd(saved))
    state = asp_state(saved)
    with pytest.raises(
        ValueError, match=r"mask of out\.weight has the shape \[8, 16\], but its weight has \[8, 32\]"
    ):
        from_asp({**state, "out.__weight_mma_mask": torch.ones(8, 16, dtype=torch.bool)})
    with pytest.raises(
        ValueError, match=r"128 weights of out\.weight in the checkpoint are not zero where ASP's"
    ):
        from_asp({**state, "out.weight": torch.ones(8, 32)})
    ASP.reset()
    model = network()
    ASP.init_model_for_pruning(model)
    partly = {**state, "out.__weight_mma_mask": torch.ones(8, 32, dtype=torch.bool)}
    model.load_state_dict(partly)
    with pytest.raises(
        ValueError, match="1 of 4 masks keep everything, such as that of out, and the others do not"
    ):
        ASP.is_sparsity_enabled()


def test_calls_out_of_order_are_refused() -> None:
    assert not ASP.already_init_asp_model()
    with pytest.raises(RuntimeError, match=r"No model is set; call init_model_for_pruning\(model\) first"):
        ASP.compute_sparse_masks()
    with pytest.raises(RuntimeError, match="No model is set"):
        ASP.init_optimizer_for_pruning(sgd(network()))
    model = network()
    ASP.init_model_for_pruning(model)
    assert ASP.already_init_asp_model()
    with pytest.raises(RuntimeError, match=r"A model is set already; call reset\(\)"):
        ASP.init_model_for_pruning(network())
    with pytest.raises(ValueError, match="The optimizer trains none of the pruned weights"):
        ASP.init_optimizer_for_pruning(sgd(network()))


def test_a_model_that_asp_would_not_prune_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"leave no layer of this model to prune\. 0: Its 10 outputs and 10 inputs"
    ):
        ASP.init_model_for_pruning(nn.Sequential(nn.Linear(10, 10)))
    with pytest.raises(ValueError, match="is not a sparsity pattern"):
        ASP.init_model_for_pruning(network(), "m4n2")
    assert not ASP.already_init_asp_model()


def test_two_models_at_once() -> None:
    first, second = AutomaticSparsity(), AutomaticSparsity()
    one, other = network(), network()
    first.prune_trained_model(one, sgd(one))
    second.prune_trained_model(other, sgd(other))
    first.verify()
    second.verify()


def test_the_model_is_still_copied_and_pickled() -> None:
    model = network()
    ASP.prune_trained_model(model, sgd(model))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        copied.load_state_dict(asp_state(model))
        assert torch.equal(copied.out.weight, model.out.weight)


def heavy(model: nn.Module) -> None:
    """Weights as trained ones are: their size varies from channel to channel."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(
                    torch.randn(weight.shape[1], generator=generator)
                    .exp()
                    .reshape(-1, *[1] * (weight.ndim - 2))
                )


def test_channels_are_permuted_where_inputs_are_given() -> None:
    def plain() -> nn.Sequential:
        torch.manual_seed(SEED)
        model = nn.Sequential(
            nn.Linear(16, 32),
            nn.ReLU(),
            nn.Linear(32, 64),
            nn.ReLU(),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Linear(32, 8),
        )
        heavy(model)
        return model

    inputs = torch.randn(4, 16, generator=torch.Generator().manual_seed(SEED))
    kept = []
    for given in (None, inputs):
        model = plain()
        expected = model(inputs).detach()
        optimizer = sgd(model)
        ASP.reset()
        ASP.init_model_for_pruning(model, allow_recompute_mask=True, example_inputs=given)
        ASP.init_optimizer_for_pruning(optimizer)
        ASP.compute_sparse_masks()
        kept.append(
            sum(float(layer.weight.detach().abs().sum()) for layer in model if isinstance(layer, nn.Linear))
        )
        ASP.verify()
        assert (ASP.permutation is None) == (given is None)
        ASP.restore_pruned_weights()
        # Sums of at most 64 terms in another order, through four layers: a few hundred roundings.
        scale = float(expected.abs().max())
        assert (
            float((model(inputs).detach() - expected).abs().max())
            <= 512 * torch.finfo(torch.float32).eps * scale
        )
    assert kept[1] > 1.01 * kept[0]


@pytest.mark.parametrize(
    ("calculator", "inputs", "reason"),
    [
        ("m4n2_1d", None, "pass example_inputs to have the model traced"),
        ("m4n2_2d_best", torch.ones(2, 16), "a permutation of the inputs does nothing for 2:4t"),
        ("4x1:0.5", torch.ones(2, 16), "a permutation of the inputs does nothing for 4x1:0.5"),
    ],
)
def test_the_order_of_channels_stays_for_a_reason(
    calculator: str, inputs: Tensor | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    ASP.init_model_for_pruning(nn.Sequential(nn.Linear(16, 16)), calculator, example_inputs=inputs)
    with caplog.at_level(logging.INFO, "openwork.sparsity"):
        ASP.compute_sparse_masks()
    assert f"The channels keep their order: {reason}" in caplog.text
    assert ASP.permutation is None

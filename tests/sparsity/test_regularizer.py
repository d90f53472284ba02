"""Group lasso against autograd, gradient pruning against the mask, and both inside a pruner's step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from openwork.sparsity import Pattern, Pruner
from openwork.sparsity.masks.mask import magnitude_mask
from openwork.sparsity.pruner.options import PrunerOptions
from openwork.sparsity.pruner.regularizer import GradientPruning, GroupLasso

PATTERNS = ["4x1:0.5", "2x3:0.5", "1x1:0.9", "2:4", "2:4@2", "4:8@4", "2:4t"]
UNITS = {"4x1:0.5": (4, 1), "2x3:0.5": (2, 3), "2:4@2": (2, 1), "4:8@4": (4, 1)}


def _stack(seed: int, shape: tuple[int, int, int] = (2, 9, 13)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("text", PATTERNS)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_group_lasso_is_the_gradient_of_its_penalty(text: str, seed: int) -> None:
    rows, columns = UNITS.get(text, (1, 1))
    weight, gradient = _stack(seed), _stack(seed + 1)
    mask = _stack(seed + 2) > -1
    leaf = (weight * mask).double().requires_grad_()
    units = [
        leaf[i, r : r + rows, c : c + columns]
        for i in range(2)
        for r in range(0, 9, rows)
        for c in range(0, 13, columns)
    ]
    penalty = 0.3 * torch.stack([unit.norm() for unit in units if bool((unit != 0).any())]).sum()
    (expected,) = torch.autograd.grad(penalty, leaf)
    changed = GroupLasso(0.3)(weight, gradient, Pattern.parse(text), mask)
    # |w / norm| <= 1 with a norm of at most 6 squares: under 16 roundings; one more for a sum below 8.
    bound = 16 * 2**-24 + 8 * 2**-24
    torch.testing.assert_close(changed.double(), gradient.double() + expected, rtol=0, atol=bound)


def test_group_lasso_leaves_a_zero_block_alone() -> None:
    weight = torch.zeros(1, 4, 2)
    weight[0, :, 1] = 2.0
    changed = GroupLasso(0.5)(weight, torch.zeros(1, 4, 2), Pattern.parse("4x1:0.5"), weight == weight)
    assert changed[0].tolist() == [[0.0, 0.25]] * 4


@pytest.mark.parametrize("text", PATTERNS)
def test_gradient_pruning_follows_the_magnitude_mask(text: str) -> None:
    pattern, weight, gradient = Pattern.parse(text), _stack(1), _stack(2)
    everything = torch.ones_like(weight, dtype=torch.bool)
    by_weight = GradientPruning()(weight, gradient, pattern, everything)
    assert torch.equal(by_weight, gradient * magnitude_mask(weight, pattern))
    by_gradient = GradientPruning("gradient")(weight, gradient, pattern, everything)
    assert torch.equal(by_gradient, gradient * magnitude_mask(gradient, pattern))


def test_keeps_the_type_of_the_gradient() -> None:
    weight, mask = _stack(1).bfloat16(), torch.ones(2, 9, 13, dtype=torch.bool)
    for rule in (GroupLasso(0.1), GradientPruning()):
        assert rule(weight, weight.clone(), Pattern.parse("2:4"), mask).dtype == torch.bfloat16


def test_a_pruner_applies_them_before_the_step() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    pruner = Pruner(
        layer, "4x1:0.5", options=PrunerOptions(regularizers=(GroupLasso(0.1),)), schedule="one-shot:5"
    )
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    pruner.attach(optimizer)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros(8, 8)
    optimizer.step()
    norms = before.view(2, 4, 8).norm(dim=1, keepdim=True).expand(2, 4, 8).reshape(8, 8)
    # One addition and the lasso's few roundings, all of numbers below 1.
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * before / norms, rtol=0, atol=8 * 2**-24)


def test_lasso_empties_blocks_that_the_loss_does_not_need() -> None:
    torch.manual_seed(0)
    layer, data = nn.Linear(8, 4, bias=False), torch.randn(64, 8)
    target = data[:, :4] @ torch.randn(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        functional_loss = (layer(data) - target).square().mean()
        functional_loss.backward()
        stack, grad = layer.weight.detach()[None], layer.weight.grad
        assert grad is not None
        grad.copy_(GroupLasso(0.05)(stack, grad[None], Pattern.parse("4x1:0.5"), stack == stack)[0])
        optimizer.step()
    norms = layer.weight.detach().norm(dim=0)
    assert norms[4:].max() < 0.01 < 0.1 < norms[:4].min()


def test_refuses_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"alpha of a group lasso is a number of at least 0, but it is -1\."):
        GroupLasso(-1)
    with pytest.raises(ValueError, match="but it is nan"):
        GroupLasso(float("nan"))
    with pytest.raises(ValueError, match='by "weight" or by "gradient", but this is \'both\''):
        GradientPruning("both")  # type: ignore[arg-type]

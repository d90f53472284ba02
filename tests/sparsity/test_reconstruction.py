"""Second-order reconstruction against a plain float64 loop that inverts every Hessian anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elimination import eliminated
from openwork.sparsity import (
    Calibration,
    GroupPattern,
    Pattern,
    Pruner,
    magnitude_mask,
    output_error,
    reconstruct,
)
from openwork.sparsity.calibrated.chain import find_blocks
from openwork.sparsity.calibrated.gram import GramCollector
from openwork.sparsity.calibrated.layer_inputs import readers
from prunables import prunables

DAMPING = 0.01


def _problem(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """A weight and the gram of correlated inputs, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    inputs = torch.randn(8 * columns, columns, generator=generator) @ mixing + 0.1
    return torch.randn(rows, columns, generator=generator), inputs.T @ inputs / len(inputs)


def _reference(weight: Tensor, gram: Tensor, pattern: GroupPattern) -> np.ndarray:
    """For each set of rows that shares a mask and each group: remove the cheapest position until N are left.

    A removal of position p from the positions F that are still free changes row w by -w_p / G_pp * G[p, :],
    with G the inverse of the Hessian of F (Hassibi & Stork 1993); a group that is done is free no more.
    """
    hessian = gram.double().numpy() + DAMPING * gram.double().diagonal().mean().item() * np.eye(len(gram))
    columns = weight.shape[1]
    spans = [(left, min(left + pattern.group, columns)) for left in range(0, columns, pattern.group)]
    return eliminated(weight.numpy(), hessian, spans, pattern.kept, pattern.shared)


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("2:4", 6, 32),
        ("1:4", 5, 16),
        ("4:8", 4, 24),
        ("4:16", 3, 40),
        ("2:4@2", 5, 16),
        ("2:4@4", 8, 18),
        ("2:4", 1, 7),
    ],
)
def test_a_reconstruction_is_the_loop_s(text: str, rows: int, columns: int) -> None:
    pattern = Pattern.parse(text)
    assert isinstance(pattern, GroupPattern)
    weight, gram = _problem(rows, columns, seed=columns)
    got = reconstruct(weight, gram, pattern, DAMPING)
    expected = _reference(weight, gram, pattern)
    assert torch.equal(got.mask, torch.from_numpy(expected != 0))
    assert torch.equal(got.weight != 0, got.mask)
    # float32 against float64: the damped Hessian's condition stays below 1e4 here, and 1e4 * 6e-8 = 6e-4.
    assert np.abs(got.weight.numpy() - expected).max() < 6e-4 * np.abs(expected).max()


def test_panels_do_not_change_the_result() -> None:
    """Wider than one panel of columns and higher than one chunk of rows."""
    pattern = GroupPattern(4, 16)
    weight, gram = _problem(1030, 288, seed=5)
    got = reconstruct(weight, gram, pattern)
    rows = [0, 1023, 1024, 1029]
    alone = reconstruct(weight[rows], gram, pattern)
    assert torch.equal(got.mask[rows], alone.mask)
    assert (got.weight[rows] - alone.weight).abs().max() < 1e-4


@pytest.mark.parametrize("text", ["2:4", "4:8", "4:16", "4:64", "2:4@2", "2:4@4", "4x1:0.5", "1x1:0.75"])
def test_the_pattern_holds_and_the_output_is_nearer_than_after_magnitude(text: str) -> None:
    pattern = Pattern.parse(text)
    weight, gram = _problem(24, 128, seed=1)
    got = reconstruct(weight, gram, pattern)
    assert pattern.holds(got.weight.numpy())
    assert pattern.holds(got.mask.numpy())
    # Block masks are chosen before the sweep, from the diagonal alone, and gain less.
    share = 0.8 if isinstance(pattern, GroupPattern) else 1.0
    assert got.error < share * output_error(weight, weight * magnitude_mask(weight, pattern), gram)


def test_the_error_is_the_layer_s_own() -> None:
    generator = torch.Generator().manual_seed(2)
    inputs, weight = torch.randn(64, 16, generator=generator), torch.randn(8, 16, generator=generator)
    got = reconstruct(weight, inputs.T @ inputs, Pattern.parse("2:4"))
    lost = (inputs @ (got.weight - weight).T).square().sum() / (inputs @ weight.T).square().sum()
    # Both sum 64 x 8 float32 squares of like size; 1e-5 is 168 epsilons.
    assert got.error == pytest.approx(float(lost), rel=1e-5)


def test_autocast_around_it_does_not_round_the_products() -> None:
    weight, gram = _problem(8, 64, seed=4)
    expected = reconstruct(weight, gram, Pattern.parse("2:4"))
    with torch.autocast("cpu", torch.bfloat16):
        got = reconstruct(weight, gram, Pattern.parse("2:4"))
    assert torch.equal(got.weight, expected.weight)
    assert got.error == expected.error


def test_bad_input_is_refused() -> None:
    weight, gram = _problem(4, 16, seed=3)
    pattern = Pattern.parse("2:4")
    with pytest.raises(ValueError, match=r"must have the shape \[16, 16\], but it has \[8, 8\]"):
        reconstruct(weight, gram[:8, :8], pattern)
    with pytest.raises(ValueError, match="the calibration inputs of this layer are all zero"):
        reconstruct(weight, torch.zeros(16, 16), pattern)
    with pytest.raises(ValueError, match="The gram matrix holds NaN or infinity"):
        reconstruct(weight, gram * float("nan"), pattern)
    with pytest.raises(ValueError, match="damping must be positive, but it is 0"):
        reconstruct(weight, gram, pattern, damping=0)
    with pytest.raises(ValueError, match="A weight holds nan at row 0, column 0"):
        reconstruct(weight * float("nan"), gram, pattern)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x + self.out(torch.tanh(self.first(x)) * self.second(x)) * scale


class _Stack(nn.Module):
    """Two blocks in a chain, then a layer outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, scale)
        return self.head(x)


class _Reordered(_Stack):
    """The blocks are there, but each reads the model's input."""

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.head(self.blocks[0](x, scale) + self.blocks[1](x, scale))


def _batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(9)
    return [(torch.randn(4, 10, 16, generator=generator), torch.tensor(0.5)) for _ in range(count)]


def test_layers_with_one_input_share_one_gram_over_the_rows_that_count() -> None:
    torch.manual_seed(0)
    block = _Block()
    (x, scale), keep = _batches(1)[0], torch.arange(40).view(4, 10) % 3 > 0
    collector = GramCollector({name: readers(block, layer)[0] for name, layer in prunables(block).items()})
    with collector.listening(), torch.no_grad():
        collector.begin(keep)
        block(x, scale)
    assert collector.groups == {"first": ["first", "second"], "out": ["out"]}
    rows = x[keep]
    assert torch.allclose(collector.grams["first"][0], rows.T @ rows / len(rows), rtol=0, atol=1e-5)


def test_a_chain_of_blocks_is_found_only_where_it_is_one() -> None:
    torch.manual_seed(0)
    stack, reordered = _Stack(), _Reordered()
    assert find_blocks(stack, prunables(stack), _batches()[0]) == list(stack.blocks)
    assert find_blocks(reordered, prunables(reordered), _batches()[0]) == []


@pytest.mark.parametrize("kind", [_Stack, _Reordered])
def test_a_model_is_pruned_as_its_layers_are_one_by_one(kind: type[_Stack]) -> None:
    """Later blocks are calibrated on what pruned blocks give; without a chain, all on the dense model."""
    torch.manual_seed(0)
    model = kind()
    dense = {name: layer.weight.detach().clone() for name, layer in prunables(model).items()}
    pruner = Pruner(model, "2:4")
    errors = pruner.prune("sparsegpt", Calibration(_batches(), bfloat16=False))
    pruner.verify()
    assert set(errors) == set(dense)
    name = "blocks.1.first"
    with torch.no_grad():
        inputs = [model.blocks[0](*batch) if kind is _Stack else batch[0] for batch in _batches()]
    rows = torch.cat([x.flatten(0, 1) for x in inputs])
    expected = reconstruct(dense[name], rows.T @ rows / len(rows), Pattern.parse("2:4"))
    assert torch.equal(pruner.masks[name], expected.mask)
    assert (pruner.prunables[name].weight - expected.weight).abs().max() < 1e-4


def test_layers_that_never_run_are_named() -> None:
    torch.manual_seed(0)
    model = _Stack()
    model.unused = nn.Linear(16, 16)
    with pytest.raises(
        ValueError, match="Calibration never ran the layers unused; exclude them from pruning"
    ):
        Pruner(model, "2:4").prune("sparsegpt", Calibration(_batches()))


def test_calibration_needs_batches() -> None:
    with pytest.raises(ValueError, match="Calibration needs at least one batch of inputs, but there is none"):
        Calibration([])

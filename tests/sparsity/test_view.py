"""Weights of every kind of layer as stacks of matrices, and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity.masks.view import WeightView, weights_of

LAYERS = {
    "linear": nn.Linear(6, 4),
    "conv1d": nn.Conv1d(8, 6, 3),
    "conv2d": nn.Conv2d(8, 6, (2, 3)),
    "conv3d": nn.Conv3d(4, 6, (2, 1, 3)),
    "grouped": nn.Conv2d(8, 6, 3, groups=2),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6),
    "transposed1d": nn.ConvTranspose1d(8, 6, 3),
    "transposed2d": nn.ConvTranspose2d(8, 6, (2, 3)),
    "transposed3d": nn.ConvTranspose3d(4, 6, 2),
    "transposed grouped": nn.ConvTranspose2d(8, 6, 3, groups=2),
}


def _matrix(layer: nn.Module, weight: Tensor, tap: tuple[int, ...], group: int) -> Tensor:
    """One matrix of the stack, element by element from the layers' own definitions."""
    if isinstance(layer, nn.Linear):
        return weight
    groups = layer.groups  # type: ignore[union-attr]
    at = (slice(None), slice(None), *tap)
    if layer.transposed:  # type: ignore[union-attr]
        inputs = weight.shape[0] // groups
        return weight[at][group * inputs : (group + 1) * inputs].T
    outputs = weight.shape[0] // groups
    return weight[at][group * outputs : (group + 1) * outputs]


@pytest.mark.parametrize("name", LAYERS)
def test_a_stack_holds_one_matrix_for_each_tap_and_group(name: str) -> None:
    layer = LAYERS[name]
    weight = layer.weight.detach()
    view = WeightView.of(layer)
    assert view is not None
    stack = view.matrices(weight)
    assert tuple(stack.shape) == view.stacked
    taps = (
        [()]
        if isinstance(layer, nn.Linear)
        else list(torch.cartesian_prod(*map(torch.arange, weight.shape[2:])))
    )
    taps = [tuple(torch.atleast_1d(torch.as_tensor(tap)).tolist()) for tap in taps]
    groups = getattr(layer, "groups", 1)
    expected = [_matrix(layer, weight, tap, group) for tap in taps for group in range(groups)]
    assert torch.equal(stack, torch.stack(expected))
    restored = view.restore(stack)
    assert torch.equal(restored, weight)
    assert restored.is_contiguous()


def test_the_input_axis_is_the_one_that_the_layer_sums_over() -> None:
    for name, layer in LAYERS.items():
        view = WeightView.of(layer)
        assert view is not None
        inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels // layer.groups  # type: ignore[union-attr, operator]
        assert view.stacked[2] == inputs, name


def test_an_attention_has_three_matrices() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert [(name, parameter) for name, _, parameter in weights_of(attention)] == [
        ("in_proj_weight", "in_proj_weight"),
        ("out_proj", "weight"),
    ]
    view = WeightView.of(attention, "in_proj_weight")
    assert view is not None
    assert view.stacked == (3, 8, 8)
    stack = view.matrices(attention.in_proj_weight)
    assert torch.equal(stack[1], attention.in_proj_weight[8:16])
    assert [view.place(i) for i in range(3)] == ["query", "key", "value"]
    other = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    views = [WeightView.of(other, parameter) for _, _, parameter in list(weights_of(other))[:3]]
    assert [view.stacked for view in views if view] == [(1, 8, 8), (1, 8, 4), (1, 8, 6)]


def test_what_is_no_product_has_no_view() -> None:
    for module in (nn.Embedding(8, 8), nn.BatchNorm1d(8), nn.LSTM(8, 8), nn.ReLU(), nn.Bilinear(8, 8, 8)):
        assert WeightView.of(module) is None
    assert WeightView.of(nn.Linear(8, 8), "bias") is None


def test_another_shape_is_refused() -> None:
    view = WeightView.of(nn.Conv2d(8, 6, 3))
    assert view is not None
    with pytest.raises(
        ValueError, match=r"weight's shape \[6, 8, 3, 3\] was expected, but its shape is \[6, 8\]"
    ):
        view.matrices(torch.zeros(6, 8))
    with pytest.raises(ValueError, match=r"A stack of shape \[9, 6, 8\] was expected"):
        view.restore(torch.zeros(6, 8, 3, 3))
    assert view.place(4) == "kernel tap 4"

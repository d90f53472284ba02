"""Criteria against values worked by hand from their formulas."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openwork.patterns.pattern import Pattern
from openwork.sparsity.masks.mask import best_mask
from openwork.sparsity.pruner.criterion import Criterion, Magnitude, SnipMomentum

NAMES = ["magnitude", "gradient", "snip", "snip-momentum", "movement"]

# Two steps of one weight of 2 x 4; short binary fractions, so that sums of products are exact.
WEIGHTS = [
    torch.tensor([[1.0, -2.0, 0.5, 4.0], [0.0, 1.5, -1.0, 0.25]]),
    torch.tensor([[0.5, -2.5, 1.0, 3.0], [0.5, 1.0, -1.5, 0.5]]),
]
GRADIENTS = [
    torch.tensor([[0.5, 0.25, -4.0, 0.0], [8.0, -1.0, 2.0, 4.0]]),
    torch.tensor([[-1.0, 0.5, 1.0, 0.5], [2.0, 1.0, 0.0, -4.0]]),
]
# From the formulas, by hand: |g1| + |g2|; |w1 g1| + |w2 g2|; 0.9 |w1 g1| + |w2 g2|; -(w1 g1 + w2 g2).
BY_HAND = {
    "magnitude": [[0.25, 6.25, 1.0, 9.0], [0.25, 1.0, 2.25, 0.25]],
    "gradient": [[1.5, 0.75, 5.0, 0.5], [10.0, 2.0, 2.0, 8.0]],
    "snip": [[1.0, 1.75, 3.0, 1.5], [1.0, 2.5, 2.0, 3.0]],
    "snip-momentum": [[0.95, 1.7, 2.8, 1.5], [1.0, 2.35, 1.8, 2.9]],
    "movement": [[0.0, 1.75, 1.0, -1.5], [-1.0, 0.5, 2.0, 1.0]],
}


def _scores(name: str) -> Tensor:
    criterion, state = Criterion.parse(name), {}
    for weight, gradient in zip(WEIGHTS, GRADIENTS, strict=True):
        criterion.observe(state, weight, gradient)
    return criterion.scores(WEIGHTS[-1], state)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_formula_by_hand(name: str) -> None:
    expected = torch.tensor(BY_HAND[name])
    # 0.9 is no binary fraction: half an epsilon for it, for the product and for the sum.
    tolerance = 2e-7 if name == "snip-momentum" else 0.0
    assert (_scores(name) - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "pattern", "kept"),
    [
        ("snip-momentum", "2:4", [[0, 1, 1, 0], [0, 1, 0, 1]]),
        # Sums of both rows: 1.95, 4.05, 4.6, 4.4.
        ("snip-momentum", "2:4@2", [[0, 0, 1, 1], [0, 0, 1, 1]]),
        # Blocks of one row and two columns: 2.65, 4.3, 3.35, 4.7; two of four are zero.
        ("snip-momentum", "1x2:0.5", [[0, 0, 1, 1], [0, 0, 1, 1]]),
        # Blocks of two rows and one column, as for 2:4@2, but one of four is zero.
        ("snip-momentum", "2x1:0.25", [[0, 1, 1, 1], [0, 1, 1, 1]]),
        # Energies 1.25 + ...: of rows x columns 1x2: 6.5, 10, 1.25, 2.5.
        ("magnitude", "1x2:0.5", [[1, 1, 1, 1], [0, 0, 0, 0]]),
        ("magnitude", "2:4@2", [[0, 1, 0, 1], [0, 1, 0, 1]]),
        # Movement may be negative: 0, 1.75, 1, -1.5 and -1, 0.5, 2, 1.
        ("movement", "2:4", [[0, 1, 1, 0], [0, 0, 1, 1]]),
        ("movement", "3:4", [[1, 1, 1, 0], [0, 1, 1, 1]]),
        # Sums of 2x2 blocks: 1.25 and 2.5.
        ("movement", "2x2:0.5", [[0, 0, 1, 1], [0, 0, 1, 1]]),
        ("gradient", "1:4", [[0, 0, 1, 0], [1, 0, 0, 0]]),
        ("snip", "1x1:0.5", [[0, 0, 1, 0], [0, 1, 1, 1]]),
    ],
)
def test_masks_are_those_worked_by_hand(name: str, pattern: str, kept: list[list[int]]) -> None:
    assert best_mask(_scores(name), Pattern.parse(pattern)).int().tolist() == kept


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(NAMES), st.integers(1, 6))
def test_scores_are_the_sums_of_a_float64_loop(seed: int, name: str, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    criterion, state = Criterion.parse(name), {}
    shape = (3, 5, 2)
    expected = torch.zeros(shape, dtype=torch.float64)
    for _ in range(steps):
        weight, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
        criterion.observe(state, weight, gradient)
        w, g = weight.double(), gradient.double()
        expected = {
            "magnitude": w * w,
            "gradient": expected + g.abs(),
            "snip": expected + (w * g).abs(),
            "snip-momentum": 0.9 * expected + (w * g).abs(),
            "movement": expected - w * g,
        }[name]
    got = criterion.scores(weight, state)
    assert got.dtype == torch.float32
    # Each of the steps rounds a product and a sum of numbers below 16 * steps: 2 * steps * 6e-8 * 16 * steps.
    assert (got - expected).abs().max() < 2e-6 * steps * steps


@pytest.mark.parametrize("name", NAMES)
def test_names_and_values(name: str) -> None:
    criterion = Criterion.parse(f" {name} ")
    assert str(criterion) == criterion.name == name
    assert criterion == Criterion.parse(name) == pickle.loads(pickle.dumps(criterion))
    assert criterion.needs_gradient == (name != "magnitude")


@pytest.mark.parametrize("text", ["wanda", "", "SNIP", None, 3])
def test_an_unknown_name_lists_the_known_ones(text: object) -> None:
    with pytest.raises(
        ValueError, match='names are "magnitude", "gradient", "snip", "snip-momentum", "movement"'
    ):
        Criterion.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_state_that_was_saved_goes_on_bit_for_bit(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    steps = [[torch.randn(6, 8, generator=generator) for _ in range(2)] for _ in range(20)]
    criterion, straight, resumed = Criterion.parse(name), {}, {}
    for i, (weight, gradient) in enumerate(steps):
        criterion.observe(straight, weight, gradient)
        criterion.observe(resumed, weight, gradient)
        if i == 7:
            resumed = copy.deepcopy(resumed)
            assert {value.shape for value in resumed.values()} == {weight.shape}
    assert torch.equal(criterion.scores(weight, straight), criterion.scores(weight, resumed))


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_gradients_that_are_not_finite_leave_their_element_alone(name: str, bad: float) -> None:
    criterion, state, without = Criterion.parse(name), {}, {}
    criterion.observe(state, WEIGHTS[0], GRADIENTS[0])
    criterion.observe(without, WEIGHTS[0], GRADIENTS[0])
    before = criterion.scores(WEIGHTS[0], state)
    broken = GRADIENTS[1].clone()
    broken[0, 1] = bad
    criterion.observe(state, WEIGHTS[1], broken)
    criterion.observe(without, WEIGHTS[1], GRADIENTS[1])
    expected = criterion.scores(WEIGHTS[1], without).clone()
    expected[0, 1] = before[0, 1]
    assert torch.equal(criterion.scores(WEIGHTS[1], state), expected)


def test_a_step_that_overflows_everywhere_changes_nothing() -> None:
    criterion, state = Criterion.parse("snip-momentum"), {}
    criterion.observe(state, WEIGHTS[0], GRADIENTS[0])
    before = criterion.scores(WEIGHTS[0], state).clone()
    criterion.observe(state, WEIGHTS[1], torch.full_like(WEIGHTS[1], torch.inf))
    assert torch.equal(criterion.scores(WEIGHTS[1], state), before)


def test_half_precision_weights_are_scored_in_float32() -> None:
    criterion, state = Criterion.parse("snip"), {}
    weight, gradient = torch.full((1, 4), 300.0).half(), torch.full((1, 4), 300.0).half()
    criterion.observe(state, weight, gradient)
    # 90000 is above the largest half.
    assert criterion.scores(weight, state).tolist() == [[90000.0] * 4]
    assert Magnitude().scores(weight, {}).tolist() == [[90000.0] * 4]


def test_scores_carry_no_gradient_and_do_not_change_the_weight() -> None:
    weight = torch.nn.Parameter(WEIGHTS[0].clone())
    criterion, state = Criterion.parse("movement"), {}
    criterion.observe(state, weight, GRADIENTS[0])
    assert not criterion.scores(weight, state).requires_grad
    assert torch.equal(weight, WEIGHTS[0])


def test_bad_input_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"shape \[2, 4\] must have the same shape, but its shape is \[4, 2\]"
    ):
        Criterion.parse("snip").observe({}, WEIGHTS[0], GRADIENTS[0].T)
    with pytest.raises(ValueError, match='"snip" ranks weights by their gradients but has observed none yet'):
        Criterion.parse("snip").scores(WEIGHTS[0], {})
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), but it is 1"):
        SnipMomentum(1.0)


def test_magnitude_observes_nothing() -> None:
    criterion, state = Magnitude(), {}
    criterion.observe(state, WEIGHTS[0], GRADIENTS[0])
    assert state == {}
    assert criterion.observed(state)


@pytest.fixture
def one_process() -> object:
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", NAMES)
def test_weights_that_processes_share_are_scored_alike(name: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    criterion, state = Criterion.parse(name), {}
    for weight, gradient in zip(WEIGHTS, GRADIENTS, strict=True):
        held = [distribute_tensor(x, mesh, [Shard(0)]) for x in (weight, gradient)]
        criterion.observe(state, *held)
    scores = criterion.scores(held[0], state)
    assert isinstance(scores, DTensor)
    assert all(isinstance(value, DTensor) and value.placements == (Shard(0),) for value in state.values())
    assert torch.equal(scores.full_tensor(), _scores(name))

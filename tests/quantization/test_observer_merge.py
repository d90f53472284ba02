"""Observers of parts of the data, merged, are those of one worker that saw all of it: the same scales to the
bit."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.quantization.observers.observer import MovingObserver, Observer, ObserverKind, make_observer
from two_workers import expect_agreement

KINDS: list[ObserverKind] = ["output", "max", "moving", "percentile", "entropy", "mse"]
CASES = [(kind, symmetric, axis) for kind in KINDS for symmetric in (True, False) for axis in (None, 1)]
CASES = [case for case in CASES if case[0] != "output" or case[2] is None]


def batches(seed: int = 0, count: int = 6) -> list[Tensor]:
    """Batches of growing and shrinking range, f32 [8, 3, 40]; channel 2 has no negative values."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(8, 3, 40, generator=generator) * 3.0 ** ((5 * i) % 7 - 3) for i in range(count)]
    for batch in made:
        batch[:, 2].abs_()
    return made


def same(a: Observer, b: Observer) -> bool:
    """Whether two observers saw the same, to the bit; the range is a function of that."""
    states = [a.state_dict(), b.state_dict()]
    for state in states:
        del state["batches"]
        if state["seen"].get("negative", 0) is None:
            # Counts that were never made are zeros.
            state["seen"]["negative"] = torch.zeros_like(state["seen"]["positive"])
    return equal(*states)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def observed(kind: ObserverKind, symmetric: bool, axis: int | None, data: list[Tensor]) -> Observer:
    observer = make_observer(kind, "layer", 99.0, symmetric, axis)
    for batch in data:
        observer.observe(batch)
    return observer


@pytest.mark.parametrize(("kind", "symmetric", "axis"), CASES)
def test_workers_agree_with_one(kind: ObserverKind, symmetric: bool, axis: int | None) -> None:
    data = batches()
    # One worker's batch is the union of the workers' batches, as a distributed sampler deals them out.
    whole = observed(kind, symmetric, axis, data)
    parts = [observed(kind, symmetric, axis, [b[rank::2] for b in data]) for rank in range(2)]
    for one, other in (parts, parts[::-1]):
        merged = deepcopy(one)
        merged.merge(other)
        assert same(merged, whole)
    assert equal(merged.ranges()[0].tolist(), whole.ranges()[0].tolist())
    assert equal(merged.ranges()[1].tolist(), whole.ranges()[1].tolist())
    # A worker that saw nothing changes nothing.
    empty = make_observer(kind, "layer", 99.0, symmetric, axis)
    empty.merge(whole)
    assert same(empty, whole)
    whole.merge(make_observer(kind, "layer", 99.0, symmetric, axis))
    assert same(empty, whole)


@pytest.mark.parametrize(("kind", "symmetric", "axis"), CASES)
def test_what_was_saved_goes_on_as_if_never_interrupted(
    kind: ObserverKind, symmetric: bool, axis: int | None, tmp_path: Path
) -> None:
    data = batches(1)
    whole = observed(kind, symmetric, axis, data)
    half = observed(kind, symmetric, axis, data[:3])
    torch.save(half.state_dict(), tmp_path / "state.pt")
    restored = make_observer(kind, "layer", 99.0, symmetric, axis)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    copied, pickled = deepcopy(half), pickle.loads(pickle.dumps(half))
    for observer in (restored, copied, pickled):
        assert same(observer, half)
        for batch in data[3:]:
            observer.observe(batch)
        assert same(observer, whole)


def test_a_moving_range_of_workers_with_unequal_and_many_batches_is_that_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(4, generator=generator) for _ in range(100)]
    for left_steps, right_steps in ((100, 100), (100, 97), (3, 100), (40, 0)):
        steps = max(left_steps, right_steps)
        whole, left, right = (MovingObserver("layer", share=0.3) for _ in range(3))
        for i in range(steps):
            parts = ([data[i][:2]] if i < left_steps else []) + ([data[i][2:]] if i < right_steps else [])
            whole.observe(torch.cat(parts))
        for i in range(left_steps):
            left.observe(data[i][:2])
        for i in range(right_steps):
            right.observe(data[i][2:])
        assert left.most < 100
        left.merge(right)
        assert left.range() == whole.range()
        assert left.values == whole.values


def test_observers_of_other_settings_are_refused() -> None:
    one, other = (make_observer("percentile", name, p) for name, p in (("a", 99.0), ("b", 99.9)))
    with pytest.raises(ValueError, match=r"observer of a has the settings .* cannot take in one of b"):
        one.merge(other)
    with pytest.raises(ValueError, match=r"given to the observer of a was saved with the settings .*99\.9"):
        one.load_state_dict(other.state_dict())
    left, right = (make_observer("max", name, axis=0) for name in "ab")
    left.observe(torch.ones(3, 2))
    right.observe(torch.ones(4, 2))
    with pytest.raises(ValueError, match="of a has 4 channels along axis 0, but 3 before"):
        left.merge(right)


WORKER = """
import sys
import torch
import torch.distributed as dist
from test_observer_merge import CASES, batches, same
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.observers.observer import make_observer
from openwork.quantization.observers.merge import merge_across_workers


class Layer(torch.nn.Linear):
    def __init__(self):
        super().__init__(6, 5)
        self.quantizer = FakeQuantize.for_weight("layer", self.weight)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.quantizer(self.weight), self.bias)


dist.init_process_group("gloo")
rank, workers = dist.get_rank(), dist.get_world_size()
named = {str(case): case for case in CASES}
mine = {name: make_observer(case[0], name, 99.0, *case[1:]) for name, case in named.items()}
whole = {name: make_observer(case[0], name, 99.0, *case[1:]) for name, case in named.items()}
for batch in batches():
    for name in named:
        mine[name].observe(batch[rank::workers])
        whole[name].observe(batch)
assert not any(same(mine[name], whole[name]) for name in named)
merge_across_workers(mine)
different = [name for name in named if not same(mine[name], whole[name])]
assert not different, different
try:
    merge_across_workers({"layer": mine[next(iter(named))]} if rank else {})
except ValueError as error:
    assert "Worker 1 observes other tensors than worker 0: they differ in layer." in str(error), error
else:
    sys.exit("other names were not refused")

# Training: the scales that follow the weight and the learned ones stay those of all workers.
torch.manual_seed(rank)
model = torch.nn.Sequential(FakeQuantize.for_activation("x", "s8", learned="step"), Layer())
model[0].load_ranges(-2.0, 2.0)
model[0].quantize()
model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.randn(4, 6)).square().mean().backward()
    optimizer.step()
mine = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
# The scale that follows was taken before the last step of the weights; take it again.
mine["1.quantizer.scale"] = model.module[1].quantizer.scales(model.module[1].weight)[0]
all_of_them = [None] * workers
dist.all_gather_object(all_of_them, mine)
for name, tensor in all_of_them[0].items():
    assert torch.equal(tensor, all_of_them[1][name]), name
assert float(mine["0.scale"]) != float(torch.tensor(2.0) / 127)
print("agreed", flush=True)
dist.destroy_process_group()
"""


def test_two_ranks_calibrate_to_the_same_scales_as_one_and_train_together(tmp_path: Path) -> None:
    expect_agreement(WORKER, tmp_path)

"""Small work runs on one thread: threads that wait for each other cost more than they bring."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.sparsity import permute
from openwork.sparsity.permutation.problem import Bundle, Effort, Problem, round_work
from openwork.sparsity.permutation.search import search
from openwork.sparsity.permutation.threads import LARGE_WORK, threads_for

STATE: Any = vars(importlib.import_module("openwork.sparsity.permutation.search"))["_State"]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _problem(channels: int = 32, rows: int = 16) -> Problem:
    pattern = Pattern.parse("2:4")
    assert isinstance(pattern, GroupPattern)
    generator = torch.Generator().manual_seed(0)
    return Problem(pattern, torch.rand(channels, rows, generator=generator))


def test_a_search_among_few_channels_takes_one_thread_and_gives_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    original = STATE.round

    def watched(self: Any, bundle: Bundle) -> float:
        seen.append(torch.get_num_threads())
        return original(self, bundle)

    monkeypatch.setattr(STATE, "round", watched)
    order = search(_problem(), Effort(least=5, most=5))
    assert seen == [1] * 5
    assert torch.get_num_threads() == 2
    assert sorted(order.tolist()) == list(range(32))
    seen.clear()
    monkeypatch.setattr("openwork.sparsity.permutation.threads.LARGE_WORK", round_work(_problem()))
    assert torch.equal(search(_problem(), Effort(least=5, most=5)), order), "the number decides nothing"
    assert seen == [2] * 5, "large work is shared out"


def test_a_failure_gives_the_threads_back() -> None:
    def fail() -> None:
        with threads_for(1):
            assert torch.get_num_threads() == 1
            raise KeyError("failed")

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == 2
    with threads_for(LARGE_WORK):
        assert torch.get_num_threads() == 2


def test_permuting_a_small_model_leaves_the_number_of_threads() -> None:
    seen = []

    class Watched(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(input)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), Watched(32, 8)).eval()
    permute(model, torch.randn(4, 16), "2:4")
    assert 1 in seen, "the comparison of outputs before and after"
    assert torch.get_num_threads() == 2

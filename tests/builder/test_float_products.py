"""Products of f32: their zeros are found, dense and sparse are timed against each other, and the faster is
picked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine_samples import pruned
from openwork import _native
from openwork.backends.target import choose_target, environment
from openwork.builder import tactics
from openwork.builder.layers import Decided, Request, decide, used_tensors
from openwork.builder.tactics import Timer
from openwork.builder.timing_cache import TimingCache
from openwork.engine.problem import Tactic
from openwork.engine.program import Choice, Named, Program, Step, Value
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import assemble, dense

N, K = 96, 128


def program(weight: np.ndarray) -> tuple[Program, dict[str, np.ndarray]]:
    """One f32 product."""
    values = (Value("f32", ("rows", K)), Value("f32", ("rows", N)))
    step = Step(
        "linear",
        "a",
        (0, None),
        (1,),
        {"weight": "a.weight"},
        {"activation": "relu"},
        tactics=(Choice(None, "f32:dense"),),
    )
    return Program((Named("x", 0),), (Named("y", 1),), values, (step,)), {"a.weight": weight}


def weight_of(pattern: str | None, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(0.5, 2, (N, K)).astype(np.float32)
    return values if pattern is None else pruned(values, pattern).astype(np.float32)


@pytest.fixture
def timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Timer:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
    monkeypatch.setattr(tactics, "DISTURBED", np.inf)
    target = choose_target(None, 1)
    return Timer(target, environment(target), TimingCache(tmp_path / "t.json", {}))


def decided(weight: np.ndarray, timer: Timer, rows: int = 64, sparsity: str = "on") -> Decided:
    return decide(*program(weight), Request(sparsity, [{"rows": rows}]), timer, lambda *_: None)


@pytest.mark.parametrize("pattern", ["1:4", "2:4@2", "4:16", "1x1:0.9"])
def test_their_sparse_forms_are_timed_against_dense(pattern: str, timer: Timer) -> None:
    weight = weight_of(pattern)
    found = decided(weight, timer)
    (layer,) = found.layers
    assert (layer.element, layer.pattern, layer.output, layer.eligible) == ("f32", pattern, "f32", True)
    forms = {f"f32:{form.name}" for form in _native.forms(timer.target.isa, "f32")}
    assert set(layer.buckets[0].seconds) <= forms
    assert len(layer.buckets[0].seconds) > 1
    assert layer.buckets[0].dense > 0
    assert found.notes(0) == ()
    (step,) = found.program.steps
    assert all(Tactic.parse(choice.tactic).element == "f32" for choice in step.tactics)
    assert step.pattern == pattern
    assert layer.bytes_stored < layer.bytes_dense == weight.nbytes
    stored = assemble(used_tensors(found), "a.weight", Pattern.parse(pattern), K)
    np.testing.assert_array_equal(dense(stored), weight)


def test_dense_ones_have_one_tactic(timer: Timer) -> None:
    found = decided(weight_of(None), timer)
    assert found.program.steps[0].tactics == (Choice(None, "f32:dense"),)
    assert found.layers[0].why == "The only tactic for this layer is f32:dense."
    pruned_here = decided(weight_of(None), replace(timer, timed={}), sparsity="force")
    assert pruned_here.layers[0].pattern == "2:4"
    assert pruned_here.pruned == ["a"]

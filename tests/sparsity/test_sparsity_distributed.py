"""Pruning on two processes, by DDP and by FSDP2, equals pruning on one, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pruned_training import (
    BREAK,
    CASES,
    STEPS,
    WORKERS,
    network,
    optimizer_of,
    pruner_of,
    run_alone,
    step_alone,
)

TESTS = Path(__file__).parents[1]
TIMEOUT = 120


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def launched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results and checkpoints of the two processes."""
    folder = tmp_path_factory.mktemp(request.param)
    for name in CASES:
        model, optimizer, pruner = run_alone(CASES[name], BREAK)
        states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        torch.save({**states, "pruner": pruner.state_dict()}, folder / f"{name}.pt")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(
                "--nproc-per-node",
                str(WORKERS),
                str(TESTS / "distributed_run.py"),
                request.param,
                str(folder),
            ),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@cache
def alone(name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    model, _, pruner = run_alone(CASES[name])
    pruner.verify()
    return {"model": model.state_dict(), "pruner": pruner.state_dict()}


def tensors(state: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested state, by their path."""
    if not isinstance(state, dict):
        return {prefix: state}
    parts = [tensors(value, f"{prefix}/{key}") for key, value in state.items()]
    return {path: leaf for part in parts for path, leaf in part.items()}


def assert_same(found: Any, expected: Any) -> None:
    ours, theirs = tensors(found), tensors(expected)
    assert ours.keys() == theirs.keys()
    different = [
        path
        for path, leaf in ours.items()
        if not (torch.equal(leaf, theirs[path]) if isinstance(leaf, Tensor) else leaf == theirs[path])
    ]
    assert not different, different


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("run", ["whole", "resumed", "taken over"])
def test_two_processes_equal_one(launched: Path, name: str, run: str) -> None:
    results = torch.load(launched / "results.pt", weights_only=True)
    assert_same(results[name][run], alone(name))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_one_process_goes_on_from_the_checkpoint_of_two(launched: Path, name: str) -> None:
    model = network()
    optimizer, pruner = optimizer_of(CASES[name], model), pruner_of(CASES[name], model)
    states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.load(states, checkpoint_id=launched / name, no_dist=True)
    set_state_dict(model, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
    pruner.load_state_dict(torch.load(launched / name / "pruner.pt", weights_only=True))
    pruner.attach(optimizer)
    for step in range(BREAK, STEPS):
        step_alone(model, optimizer, step)
    assert_same({"model": model.state_dict(), "pruner": pruner.state_dict()}, alone(name))


def test_the_cases_prune_and_are_told_apart() -> None:
    masks = {
        name: [tensor for key, tensor in alone(name)["model"].items() if key.endswith("_mask")]
        for name in CASES
    }
    kept = {
        name: sum(int(m.sum()) for m in some) / sum(m.numel() for m in some) for name, some in masks.items()
    }
    # A global budget leaves a layer up to one block more: 5 blocks of 4 of the 2176 weights.
    assert kept == pytest.approx(
        {"one-shot": 0.5, "gradual": 0.5, "blocks": 0.25, "sr-ste": 0.5}, abs=20 / 2176
    )
    weights = [alone(name)["model"]["hidden.weight"] for name in CASES]
    assert all(not torch.equal(weights[i], weights[j]) for i in range(4) for j in range(i))


def test_the_comparison_can_fail() -> None:
    state = {"model": {"weight": torch.zeros(3)}, "steps": 3}
    assert_same(state, {"model": {"weight": torch.zeros(3)}, "steps": 3})
    for other in ({"model": {"weight": torch.ones(3)}, "steps": 3}, {**state, "steps": 4}, {"steps": 3}):
        with pytest.raises(AssertionError):
            assert_same(state, other)

"""Runs on each of two processes (`torchrun --nproc-per-node 2`) what `pruned_training` runs on one.

    distributed_run.py ENGINE FOLDER

ENGINE is ddp or fsdp. For each case: the whole run; the run that is saved at its break, made anew and
resumed; and the run that goes on from FOLDER/<case>.pt, which one process has saved at the break. The final
states go to FOLDER/results.pt, the sharded checkpoints to FOLDER/<case>.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from openwork.sparsity import Pruner
from openwork.sparsity.masks.sharded_tensors import sharded
from pruned_training import BREAK, CASES, STEPS, WORKERS, Case, loss_of, network, optimizer_of, pruner_of

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Run:
    """A model on its engine, with its optimizer and pruner."""

    def __init__(self, engine: str, case: Case, prune_first: bool) -> None:
        self.engine, self.model = engine, network()
        # A pruner may be made before the weights are sharded or after it.
        pruner = pruner_of(case, self.model) if prune_first else None
        self.wrapped = _wrapped(engine, self.model)
        self.pruner: Pruner = pruner or pruner_of(case, self.model)
        self.optimizer = optimizer_of(case, self.model)

    def train(self, start: int, end: int) -> Run:
        self.pruner.attach(self.optimizer)
        for step in range(start, end):
            self.optimizer.zero_grad()
            loss_of(self.wrapped, step, dist.get_rank()).backward()
            self.optimizer.step()
        self.pruner.verify()
        self._check_layout()
        return self

    def _check_layout(self) -> None:
        """Shards are multiplied with shards: the masks lie as the weights do."""
        for name, prunable in self.pruner.prunables.items():
            held = sharded(prunable.weight), sharded(prunable.mask)
            assert held == ((self.engine == "fsdp"),) * 2, (name, held)

    def save(self, folder: Path) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder)
        state = self.pruner.state_dict()
        if dist.get_rank() == 0:
            torch.save(state, folder / "pruner.pt")
        dist.barrier()

    def load(self, folder: Path) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=folder)
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        self.pruner.load_state_dict(torch.load(folder / "pruner.pt", weights_only=True))

    def load_whole(self, file: Path) -> None:
        saved = torch.load(file, weights_only=True)
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=saved["model"],
            optim_state_dict=saved["optimizer"],
            options=WHOLE,
        )
        self.pruner.load_state_dict(saved["pruner"])

    def result(self) -> dict[str, Any]:
        return {"model": get_model_state_dict(self.model, options=WHOLE), "pruner": self.pruner.state_dict()}


def _wrapped(engine: str, model: nn.Module) -> nn.Module:
    if engine == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh("cpu", (WORKERS,))
    fully_shard(model.get_submodule("hidden"), mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _runs(engine: str, name: str, case: Case, folder: Path) -> dict[str, dict[str, Any]]:
    whole = Run(engine, case, prune_first=True).train(0, STEPS)
    Run(engine, case, prune_first=False).train(0, BREAK).save(folder / name)
    resumed = Run(engine, case, prune_first=True)
    resumed.load(folder / name)
    taken_over = Run(engine, case, prune_first=False)
    taken_over.load_whole(folder / f"{name}.pt")
    return {
        "whole": whole.result(),
        "resumed": resumed.train(BREAK, STEPS).result(),
        "taken over": taken_over.train(BREAK, STEPS).result(),
    }


def main(engine: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {name: _runs(engine, name, case, folder) for name, case in CASES.items()}
    if dist.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""Measuring how much each layer's pruning costs: one layer and one pattern at a time, resumable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from openwork.patterns.pattern import Pattern
from openwork.sparsity.allocation.fingerprint import inputs_digest, model_digest
from openwork.sparsity.allocation.sensitivity import Sensitivity
from openwork.sparsity.calibrated.oneshot import Calibration
from openwork.sparsity.masks.eligibility import layer_table
from openwork.sparsity.masks.mask import best_mask, check_weight
from openwork.sparsity.masks.masked_tensors import multiply
from openwork.sparsity.masks.prunable import Prunable, prunables_of
from openwork.sparsity.masks.sharded_tensors import full, like
from openwork.sparsity.pruner.methods import CALIBRATED, Method
from openwork.support.batches import evaluating
from openwork.support.files import write_atomic
from openwork.support.progress import progress_bar

Loss = Callable[[nn.Module], float]

FILE_VERSION = 1

# Two runs on one machine may sum a batch in another order: a million float32 terms, pairwise, differ by far
# less, and no other data set comes as near.
_SAME_LOSS = 1e-5


@dataclass(frozen=True)
class SensitivityOptions:
    """How sensitivity is measured.

    method: how a layer is pruned, see `Pruner.prune`. calibration: what "wanda" and "sparsegpt" need. path: a
    JSON file that every measurement is written to, and from which an interrupted run goes on; None keeps
    nothing. progress: show a bar on the standard error stream.
    """

    method: Method = "magnitude"
    calibration: Calibration | None = None
    path: str | os.PathLike[str] | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("magnitude", *CALIBRATED):
            known = ", ".join(f'"{name}"' for name in ("magnitude", *CALIBRATED))
            raise ValueError(f"Sensitivity is measured by one of {known}, but the method is {self.method!r}.")
        if (self.calibration is not None) != (self.method in CALIBRATED):
            need = "needs calibration inputs" if self.method in CALIBRATED else "takes no calibration inputs"
            raise ValueError(f'The method "{self.method}" {need}.')


@dataclass(frozen=True)
class _Job:
    """One measurement: this weight, pruned to its pattern."""

    prunable: Prunable
    text: str

    @property
    def layer(self) -> str:
        return self.prunable.name


def measure_sensitivity(
    model: nn.Module,
    loss: Loss,
    patterns: Sequence[Pattern | str],
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    options: SensitivityOptions | None = None,
) -> Sensitivity:
    """The loss of `model` with one layer alone pruned, for each layer and each pattern.

    model: in evaluation mode while it is measured; whatever happens, it is left exactly as it was: weights,
    buffers, modes, and the random state. loss: of the model on a small data set, the same set at each call;
    run without gradients, and from the same random state each time. patterns: at least one. include,
    exclude: as for `Pruner`. Raises ValueError if no layer may carry any of the patterns, for a dense loss
    that is NaN or infinite, or if the file of an earlier run belongs to another model, method, data set or
    calibration.
    """
    options = options or SensitivityOptions()
    jobs, refused = _jobs(model, patterns, include, exclude)
    journal = _Journal(options, model)
    with _undisturbed(model), torch.no_grad():
        dense = _measured(loss, model)
        if not math.isfinite(dense):
            raise ValueError(
                f"The loss of the model before any pruning is {dense}; there is nothing to compare."
            )
        found = journal.resume(dense)
        with progress_bar("measuring sensitivity", len(jobs), options.progress) as advance:
            for done, job in enumerate(jobs, 1):
                losses = found.setdefault(job.layer, {})
                if job.text not in losses:
                    with _pruned(model, job.prunable, options):
                        value = _measured(loss, model)
                    losses[job.text] = value if math.isfinite(value) else math.inf
                    journal.write(Sensitivity(journal.dense, found, refused, options.method))
                advance(done, f"{job.layer} {job.text}")
    asked = {
        job.layer: {j.text: found[j.layer][j.text] for j in jobs if j.layer == job.layer} for job in jobs
    }
    return Sensitivity(journal.dense, asked, refused, options.method)


def _jobs(
    model: nn.Module, patterns: Sequence[Pattern | str], include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[_Job], dict[str, dict[str, str]]]:
    """What is to be measured, layer by layer, and the reasons of what is not."""
    if isinstance(patterns, (str, Pattern)) or not patterns:
        raise ValueError('The patterns are a list with at least one, such as ["2:4", "4:16"].')
    texts = list(dict.fromkeys(str(p if isinstance(p, Pattern) else Pattern.parse(p)) for p in patterns))
    # The ends of a network too: a measurement finds out, and what it finds names the layers to prune.
    tables = {text: layer_table(model, text, include, exclude, spare_ends=False) for text in texts}
    prunables = {text: prunables_of(model, rows) for text, rows in tables.items()}
    names = [row.name for row in tables[texts[0]]]
    jobs = [_Job(prunables[t][name], t) for name in names for t in texts if name in prunables[t]]
    refused: dict[str, dict[str, str]] = {}
    for text, rows in tables.items():
        for row in rows:
            if not row.eligible:
                refused.setdefault(row.name, {})[text] = row.reason
    if not jobs:
        reasons = (
            " ".join(str(row) for row in tables[texts[0]][:3]) or "It has no layer with a weight matrix."
        )
        raise ValueError(f"No layer of this model can carry any of {', '.join(texts)}. {reasons}")
    return jobs, refused


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; modes and buffers as before outside."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with evaluating(model):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def _pruned(model: nn.Module, prunable: Prunable, options: SensitivityOptions) -> Iterator[None]:
    """One weight pruned inside, and exactly as it was outside."""
    weight = prunable.weight
    check_weight(full(weight), f"The weight of {prunable.name}")
    before = weight.detach().clone()
    try:
        if options.calibration is not None:
            prune = CALIBRATED[options.method]
            prune(model, {prunable.name: prunable}, options.calibration, lambda completed, note="": None)
        else:
            stack = prunable.view.matrices(full(weight).float().square())
            mask = prunable.view.restore(best_mask(stack, prunable.pattern))
            multiply(weight, like(mask, weight))
        yield
    finally:
        weight.copy_(before)


def _measured(loss: Loss, model: nn.Module) -> float:
    """The loss, from the same random state at each call."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return float(loss(model))


class _Journal:
    """The file of an interrupted run, if there is to be one."""

    def __init__(self, options: SensitivityOptions, model: nn.Module) -> None:
        self.path = None if options.path is None else Path(options.path)
        self.key = _key(options, model) if self.path else {}
        self.dense = math.nan

    def resume(self, dense: float) -> dict[str, dict[str, float]]:
        """The losses that were measured before; raises ValueError if the file belongs to something else."""
        self.dense = dense
        if self.path is None or not self.path.exists():
            return {}
        known = self._read(self.path)
        if not math.isclose(known.dense, dense, rel_tol=_SAME_LOSS, abs_tol=0.0):
            raise ValueError(
                f"{self.path} was measured with another data set or another loss: the dense model's loss was "
                f"{known.dense:.9g} there and is {dense:.9g} now. Remove the file, or name another."
            )
        self.dense = known.dense
        return {layer: dict(losses) for layer, losses in known.losses.items()}

    def write(self, known: Sensitivity) -> None:
        if self.path is None:
            return
        document = {"version": FILE_VERSION, "key": self.key, "sensitivity": known.document()}
        write_atomic(self.path, [json.dumps(document, indent=1).encode()])

    def _read(self, path: Path) -> Sensitivity:
        try:
            document = json.loads(path.read_text())
            version, key = document["version"], dict(document["key"])
            known = Sensitivity.from_document(document["sensitivity"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no file of sensitivities ({error}); remove it, or name another."
            ) from None
        if version != FILE_VERSION:
            raise ValueError(
                f"{path} has the version {version}, but this reads {FILE_VERSION}; remove the file."
            )
        for part, words in _PARTS.items():
            if key.get(part) != self.key[part]:
                raise ValueError(f"{path} was measured {words}. Remove the file, or name another.")
        return known


_PARTS: Mapping[str, str] = {
    "model": "on another model: its weights are not these",
    "method": "by another method",
    "calibration": "with other calibration inputs",
}


def _key(options: SensitivityOptions, model: nn.Module) -> dict[str, str]:
    calibration = options.calibration
    inputs = None if calibration is None else [list(calibration.batches), calibration.damping]
    return {"model": model_digest(model), "method": options.method, "calibration": inputs_digest(inputs)}

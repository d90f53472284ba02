"""Calibration on several workers: the observers of all of them become those of one that saw all the data."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch.distributed as dist

from openwork.quantization.observers.base import Observer


def merge_across_workers(observers: Mapping[str, Observer], group: dist.ProcessGroup | None = None) -> None:
    """Merge every observer with those of the same name on the other workers; all workers then hold the same.

    A collective: every worker of the group calls it, with the same names. One observer travels at a time, so
    memory stays within that of one observer for each worker. group: of torch.distributed; None is the default
    group. Raises ValueError if the workers' names or settings differ, saying how.
    """
    _check_names(sorted(observers), group)
    for name in sorted(observers):
        _merge_one(observers[name], group)


def _check_names(names: list[str], group: dist.ProcessGroup | None) -> None:
    everywhere: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everywhere, names, group)
    for rank, other in enumerate(everywhere):
        different = sorted(set(other) ^ set(everywhere[0]))
        if different:
            raise ValueError(
                f"Worker {rank} observes other tensors than worker 0: they differ in {', '.join(different)}. "
                "Give every worker batches that reach all layers, or make the observers before the data "
                "comes."
            )


def _merge_one(observer: Observer, group: dist.ProcessGroup | None) -> None:
    states: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(states, observer.state_dict(), group)
    one, result = deepcopy(observer), deepcopy(observer)
    # In the order of the ranks on every worker, so that all agree to the bit.
    result.load_state_dict(states[0])
    for state in states[1:]:
        one.load_state_dict(state)
        result.merge(one)
    observer.load_state_dict(result.state_dict())

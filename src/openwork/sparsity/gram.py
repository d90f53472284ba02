"""Second moments of layer inputs, gathered while a model runs on calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class GramCollector:
    """Sums X^T X over the inputs X of some linear layers; layers that read the same tensor share one sum.

    `groups` maps the first reader of an input to all its readers, in the order in which they ran; `grams`
    holds, for each first reader, the mean over the rows that counted, f32 [in, in].
    """

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self._layers = dict(layers)
        self._sums: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._leaders: dict[str, str] = {}
        self._seen: dict[int, tuple[Tensor, str]] = {}
        self._keep: Tensor | None = None

    @property
    def groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name, leader in self._leaders.items():
            groups.setdefault(leader, []).append(name)
        return groups

    @property
    def grams(self) -> dict[str, Tensor]:
        return {name: total / max(self._rows[name], 1) for name, total in self._sums.items()}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the layers while the block runs."""
        with ExitStack() as stack:
            for name, layer in self._layers.items():
                handle = layer.register_forward_pre_hook(self._hook(name))
                stack.callback(handle.remove)
            yield

    def begin(self, keep: Tensor | None) -> None:
        """Call before each forward pass. keep: which rows count, of the shape of the inputs without
        channels.
        """
        self._keep = keep
        self._seen.clear()

    def _hook(self, name: str) -> Any:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            source = inputs[0]
            # The tensor is held together with its id, so that the id cannot be given to another one in this
            # pass.
            leader = self._seen.setdefault(id(source), (source, name))[1]
            if self._leaders.setdefault(name, leader) != leader:
                raise ValueError(
                    f"Layer {name} read the input of {leader} in this pass, of {self._leaders[name]} before; "
                    "calibration needs a model whose layers are wired alike for every batch."
                )
            if leader == name:
                self._add(name, source)

        return record

    @torch.no_grad()
    def _add(self, name: str, source: Tensor) -> None:
        keep, rows = self._keep, source.detach()
        if keep is not None and keep.shape == rows.shape[:-1]:
            rows = rows[keep.bool()]
        rows = rows.flatten(0, -2)
        if name not in self._sums:
            width = source.shape[-1]
            self._sums[name], self._rows[name] = torch.zeros(width, width, device=source.device), 0
        with torch.autocast(source.device.type, enabled=False):
            rows = rows.float()
            self._sums[name].addmm_(rows.T, rows)
        self._rows[name] += len(rows)

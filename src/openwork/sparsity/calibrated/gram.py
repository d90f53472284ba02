"""Second moments of layer inputs, gathered while a model runs on calibration data."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from openwork.sparsity.calibrated.layer_inputs import InputReader

# Elements of unfolded windows that are written out at a time: 64 MiB of float32.
_PIECE = 1 << 24


class GramCollector:
    """Sums X^T X over the inputs X of some weights; readers that see the same windows share one sum.

    readers: by name. diagonal: gather the diagonal of X^T X alone, the squared norms of the columns.
    `groups` maps the first reader of an input to all its readers, in the order in which they ran; `grams`
    holds, for each first reader, the mean over the rows that counted, f32 [groups, columns, columns], or
    [groups, columns] of a diagonal.
    """

    def __init__(self, readers: Mapping[str, InputReader], diagonal: bool = False) -> None:
        self._readers = dict(readers)
        self._diagonal = diagonal
        self._sums: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._leaders: dict[str, str] = {}
        self._seen: dict[tuple[Hashable, ...], tuple[Tensor, str]] = {}
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

    def gram(self, name: str) -> Tensor | None:
        """The mean that belongs to one reader; None if its module never ran."""
        leader = self._leaders.get(name)
        return None if leader is None else self._sums[leader] / max(self._rows[leader], 1)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the layers while the block runs."""
        with ExitStack() as stack:
            for name, reader in self._readers.items():
                handle = reader.host.register_forward_pre_hook(self._hook(name, reader), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def begin(self, keep: Tensor | None) -> None:
        """Call before each forward pass. keep: which rows count, of the shape of a layer's outputs without
        channels; layers with outputs of another shape count all rows.
        """
        self._keep = keep
        self._seen.clear()

    def _hook(self, name: str, reader: InputReader) -> Any:
        def record(_: nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            source = reader.source((positional, keywords))
            # The tensor is held together with its id, so that the id cannot be given to another one in this
            # pass; its version tells whether an operation in place has changed it since.
            version = -1 if source.is_inference() else source._version
            leader = self._seen.setdefault((id(source), version, reader.layout), (source, name))[1]
            if self._leaders.setdefault(name, leader) != leader:
                raise ValueError(
                    f"Layer {name} read the input of {leader} in this pass, of {self._leaders[name]} before; "
                    "calibration needs a model whose layers are wired alike for every batch."
                )
            if leader == name:
                self._add(name, reader, source)

        return record

    @torch.no_grad()
    def _add(self, name: str, reader: InputReader, source: Tensor) -> None:
        windows = reader.windows(source.detach())
        if name not in self._sums:
            shape = (reader.groups,) + (reader.columns,) * (1 if self._diagonal else 2)
            self._sums[name], self._rows[name] = torch.zeros(shape, device=source.device), 0
        keep = self._keep
        if keep is not None and keep.shape != windows.shape[: -reader.trailing]:
            keep = None
        if keep is not None and reader.turned:
            keep = keep.flip(*range(1, keep.ndim))
        with torch.autocast(source.device.type, enabled=False):
            for rows in _rows(windows, keep, reader.trailing):
                _accumulate(self._sums[name], rows)
                self._rows[name] += rows.shape[1]


def _accumulate(total: Tensor, rows: Tensor) -> None:
    """Add the moments of `rows` [groups, n, columns] to [groups, columns (, columns)]."""
    if total.ndim == 2:
        total += rows.square().sum(dim=1)
    elif len(rows) == 1:
        total[0].addmm_(rows[0].T, rows[0])
    else:
        total.baddbmm_(rows.mT, rows)


def _rows(windows: Tensor, keep: Tensor | None, trailing: int) -> Iterator[Tensor]:
    """The windows of all positions that count, f32 [groups, n, columns], a piece at a time."""
    for piece, kept in _pieces(windows, keep, trailing):
        chosen = piece.flatten(0, -trailing - 1) if kept is None else piece[kept.bool()]
        yield chosen.flatten(2).transpose(0, 1).float()


def _pieces(windows: Tensor, keep: Tensor | None, trailing: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Cut along the first position, and along the next one where a single one is too large."""
    if len(windows) == 1 and windows.ndim > trailing + 1 and windows.numel() > _PIECE:
        yield from _pieces(windows[0], None if keep is None else keep[0], trailing)
        return
    size = max(1, _PIECE // max(1, windows[:1].numel()))
    for start in range(0, len(windows), size):
        piece, kept = windows[start : start + size], None if keep is None else keep[start : start + size]
        if size == 1 and len(windows) > 1:
            yield from _pieces(piece, kept, trailing)
        else:
            yield piece, kept

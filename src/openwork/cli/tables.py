"""The terminal tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.table import Table

from openwork.backends.backend import StepTime
from openwork.engine.inspection import Inspection
from openwork.engine.report import BuildReport

_PICKED = "Picked"


def layers(report: BuildReport) -> Table:
    """One row per linear layer: what its weights hold, what was picked, and how much faster that is.

    A column headed by a number of rows shows dense time / picked time there;
    names stand without what they share.
    """
    shared = _shared_modules([layer.name for layer in report.layers])
    rows = sorted({bucket.rows for layer in report.layers for bucket in layer.buckets})
    title = f"{report.model}: {len(report.layers)} layers with weights"
    caption = "Under each number of rows: time of dense / time of the pick." + (
        f" Names stand without '{shared}'." if shared else ""
    )
    table = _table(title, ("Layer", "N x K", "Pattern", _PICKED), ("Zeros", "Stored", *map(str, rows)))
    table.caption, table.caption_justify = caption, "left"
    for layer in report.layers:
        gains = {bucket.rows: bucket.dense / bucket.seconds[bucket.pick] for bucket in layer.buckets}
        table.add_row(
            layer.name.removeprefix(shared),
            f"{layer.n}x{layer.k}",
            layer.pattern or "-",
            " ".join(dict.fromkeys(pick.tactic for pick in layer.picks)),
            f"{layer.zeros:.0%}",
            f"{layer.bytes_stored / layer.bytes_dense:.0%}",
            *(f"{gains[count]:.2f}x" if count in gains else "" for count in rows),
        )
    return table


def reasons(report: BuildReport) -> list[str]:
    """Why layers run dense: each reason once, with the layers that it holds for."""
    grouped: dict[str, list[str]] = {}
    for layer in report.layers:
        if not layer.sparse:
            grouped.setdefault(layer.why if layer.eligible else layer.reason, []).append(layer.name)
    return [f"Dense, {len(names)} of {len(report.layers)} layers: {why}" for why, names in grouped.items()]


def ports(found: Inspection) -> Table:
    """Inputs and outputs."""
    title = f"{found.name}: {found.bytes:,} bytes, {found.steps} steps"
    table = _table(title, ("Name", "", "Type", "Shape"), ())
    for kind, infos in (("input", found.inputs), ("output", found.outputs)):
        for info in infos:
            table.add_row(info.name, kind, str(info.dtype), " x ".join(map(str, info.shape)))
    return table


def profile(steps: Sequence[StepTime]) -> Table:
    """What each step takes, per run."""
    table = _table("Profile", ("Step",), ("us per run", "Share"))
    total = sum(step.seconds for step in steps) or 1.0
    for step in steps:
        table.add_row(
            step.name, f"{1e6 * step.seconds / max(step.calls, 1):.1f}", f"{step.seconds / total:.1%}"
        )
    return table


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table that still fits 80 columns: the first column folds, and the one of the picks between them."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for number, name in enumerate((*left, *right)):
        justify: Literal["left", "right"] = "left" if number < len(left) else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=number > 0 and name != _PICKED)
    return table


def _shared_modules(names: Sequence[str]) -> str:
    """The modules that all names begin with, their dots included; nothing for fewer than two names."""
    parts = [name.split(".")[:-1] for name in names] if len(names) > 1 else []
    shared = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
    return "".join(f"{level[0]}." for level in shared)

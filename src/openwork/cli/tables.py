"""The terminal tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.table import Table

from openwork.backends.backend import StepTime
from openwork.engine.inspection import Inspection
from openwork.engine.report import Bucket, BuildReport

_PICKED = "Picked"


def layers(report: BuildReport) -> Table:
    """One row per product: what its weights hold, what was picked, and how much faster that is.

    A column shows dense time / picked time at a number of rows, or where layers have numbers of their own, as
    convolutions do, at a shape; names stand without what they share.
    """
    shared = _shared_modules([layer.name for layer in report.layers])
    heads, gains = _gains(report)
    count = len(report.layers)
    title = f"{report.model}: {count} {'layer' if count == 1 else 'layers'} with weights"
    caption = "Under each number of rows, or shape: time of dense / time of the pick." + (
        f" Names stand without '{shared}'." if shared else ""
    )
    table = _table(title, ("Layer", "N x K", "Pattern", _PICKED), ("Zeros", "Stored", *heads))
    table.caption, table.caption_justify = caption, "left"
    for layer, found in zip(report.layers, gains, strict=True):
        table.add_row(
            layer.name.removeprefix(shared),
            f"{layer.n}x{layer.k}",
            layer.pattern or "-",
            " ".join(dict.fromkeys(pick.tactic for pick in layer.picks)),
            f"{layer.zeros:.0%}",
            f"{layer.bytes_stored / layer.bytes_dense:.0%}",
            *(f"{found[head]:.2f}x" if head in found else "" for head in heads),
        )
    return table


def no_layers(report: BuildReport) -> str:
    """What stands in the place of a table without rows."""
    where = ", ".join(dict.fromkeys(part.backend for part in report.fallbacks))
    rest = f"; {where} runs what is named below" if where else ""
    return f"{report.model}: no layer with weights runs in a native step{rest}."


def _gains(report: BuildReport) -> tuple[list[str], list[dict[str, float]]]:
    """The heads of the columns, and by head what each layer gained."""
    rows = sorted({bucket.rows for layer in report.layers for bucket in layer.buckets})
    shapes = sorted(report.settings.shapes, key=math.prod)
    if len(rows) <= max(len(shapes), 1):
        heads = {count: str(count) for count in rows}
        return list(heads.values()), [
            {heads[bucket.rows]: _gain(bucket) for bucket in layer.buckets} for layer in report.layers
        ]
    names = ["x".join(map(str, shape)) or "times" for shape in shapes]
    # A layer whose rows are the same at several shapes stands under the first of them.
    return names, [dict(zip(names, map(_gain, layer.buckets), strict=False)) for layer in report.layers]


def _gain(bucket: Bucket) -> float:
    return bucket.dense / bucket.seconds[bucket.pick]


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

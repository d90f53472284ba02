"""The terminal tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from openwork.builder.inspection import Inspection
from openwork.report import BuildReport, Layer
from openwork.runtime.engine import StepTime


def layers(report: BuildReport) -> Table:
    """One row per linear layer: what it is, what its weights hold, what was picked, by how much, and why."""
    table = Table(title=f"{report.model}: {len(report.layers)} INT8 linear layers", title_justify="left")
    for name in ("Layer", "N x K", "Pattern", "Zeros", "Picked", "Dense / picked time", "Stored", "Why"):
        table.add_column(name, justify="right" if name in ("Zeros", "Stored") else "left", overflow="fold")
    for layer in report.layers:
        table.add_row(
            layer.name,
            f"{layer.n} x {layer.k}",
            layer.pattern or "-",
            f"{layer.zeros:.1%}",
            " ".join(dict.fromkeys(pick.tactic for pick in layer.picks)),
            _gains(layer),
            f"{layer.bytes_stored / layer.bytes_dense:.0%}",
            layer.why if layer.eligible else layer.reason,
        )
    return table


def _gains(layer: Layer) -> str:
    """For each number of rows, how many times as fast as dense the pick is."""
    return "  ".join(
        f"{bucket.rows}: {bucket.seconds['dense'] / bucket.seconds[bucket.pick]:.2f}x"
        for bucket in layer.buckets
    )


def ports(found: Inspection) -> Table:
    """Inputs and outputs."""
    table = Table(title=f"{found.name}: {found.bytes:,} bytes, {found.steps} steps", title_justify="left")
    for name in ("", "Name", "Type", "Shape"):
        table.add_column(name)
    for kind, infos in (("input", found.inputs), ("output", found.outputs)):
        for info in infos:
            table.add_row(kind, info.name, str(info.dtype), " x ".join(map(str, info.shape)))
    return table


def profile(steps: Sequence[StepTime]) -> Table:
    """What each step takes, per run."""
    table = Table(title="Profile", title_justify="left")
    total = sum(step.seconds for step in steps) or 1.0
    for name in ("Step", "us per run", "Share"):
        table.add_column(name, justify="left" if name == "Step" else "right")
    for step in steps:
        table.add_row(
            step.name, f"{1e6 * step.seconds / max(step.calls, 1):.1f}", f"{step.seconds / total:.1%}"
        )
    return table

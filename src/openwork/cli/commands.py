"""What each command calls and prints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from openwork.backends.library import active_isa, instruction_sets, native
from openwork.bench.latency import Options, measure, summary
from openwork.builder.builder import build as build_engine
from openwork.cli import tables
from openwork.cli.outputs import check_outputs
from openwork.engine.inspection import inspect_engine
from openwork.engine.report import BuildReport
from openwork.engine.sizes import default_shapes
from openwork.runtime.engine import load
from openwork.support.files import write_atomic
from openwork.support.machine import this_machine
from openwork.support.progress import progress_bar

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Build:
    """What `openwork build` was asked for."""

    model: Path
    output: Path
    sparsity: str
    rounding: str
    precision: str | None
    shapes: Shapes | None
    threads: int | None
    strict: bool
    native: str | None
    verify: bool
    timing_cache: Path | None


@dataclass(frozen=True)
class Bench:
    """What `openwork bench` was asked for."""

    engine: Path
    shapes: Shapes | None
    threads: int | None
    duration: float
    profile: bool


def build(request: Build, output: Path | None) -> None:
    """Build and show the report."""
    check_outputs((request.output, output), (request.model,), (request.timing_cache,))
    report = build_engine(
        request.model,
        request.output,
        sparsity=request.sparsity,
        rounding=request.rounding,
        precision=request.precision,
        shapes=request.shapes,
        threads=request.threads,
        strict=request.strict,
        native=request.native,
        verify=request.verify,
        timing_cache=request.timing_cache,
        progress=Console(stderr=True).is_terminal,
    )
    console = Console()
    _show(console, report)
    console.print(f"Wrote {request.output} ({request.output.stat().st_size:,} bytes).", highlight=False)
    _write(output, report.to_json())


def bench(request: Bench, output: Path | None) -> None:
    """Time each shape and show a summary."""
    check_outputs((output,), (request.engine,))
    engine = load(request.engine, threads=request.threads)
    shapes = request.shapes or default_shapes([port.shape for port in engine.inputs])
    feeds = {"x".join(map(str, shape)): engine.sample(shape) for shape in shapes}
    machine = this_machine()
    with progress_bar("Timing", 1.0, Console(stderr=True).is_terminal) as advance:
        runners = {name: lambda feed=feed: engine.run(feed) for name, feed in feeds.items()}
        timings = measure(runners, Options(duration=request.duration), advance)
    console = Console()
    console.print(f"{machine.line(engine.threads)}, {engine.isa}", highlight=False)
    record: dict[str, Any] = {
        "engine": request.engine.name,
        "isa": engine.isa,
        "threads": engine.threads,
        "machine": machine.record(),
        "shapes": {name: timing.record() for name, timing in timings.items()},
    }
    for name, shape in zip(feeds, shapes, strict=True):
        console.print(
            f"\n{name}", *summary(timings[name], shape[0] if shape else 1), sep="\n", highlight=False
        )
        if request.profile:
            steps = engine.profile(feeds[name])
            record["shapes"][name]["profile"] = [asdict(step) for step in steps]
            console.print(tables.profile(steps))
    _write(output, record)


def inspect(engine: Path, verify: bool, output: Path | None) -> None:
    """Show what an engine holds, and where asked check every byte of it."""
    check_outputs((output,), (engine,))
    found = inspect_engine(engine, verify=verify)
    console = Console()
    if verify:
        console.print("Every tensor has the digest that was written with it.", highlight=False)
    console.print(tables.ports(found))
    _show(console, found.report)
    _write(output, found.to_json())


def inspect_machine(output: Path | None) -> None:
    """Show what this CPU is, and which instruction sets run on it."""
    check_outputs((output,), ())
    machine = this_machine()
    console = Console()
    active, fault = active_isa()
    for line in (machine.line(machine.cores), *instruction_sets(active), *([fault] if fault else [])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    sets = [
        {"name": name, "emulated": emulated, "lacks": lacks or None}
        for name, emulated, lacks in native().instruction_sets()
    ]
    _write(output, {"machine": machine.record(), "isa": active, "instruction_sets": sets})


def _show(console: Console, report: BuildReport) -> None:
    if report.layers:
        console.print(tables.layers(report))
    else:
        console.print(tables.no_layers(report), markup=False, highlight=False, soft_wrap=True)
    for line in (*tables.reasons(report), *report.lines()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _write(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        write_atomic(path, [json.dumps(document, indent=2).encode() + b"\n"])

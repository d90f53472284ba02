"""Whole networks: this engine beside ONNX Runtime and OpenVINO, each at its best setting.

    python -m benchmarks.networks --set resnet34,resnet50 --batch 1,8 --threads 2
    python -m benchmarks.networks --set resnet34 --sweep batch=1..64 --plot batches.png
    python -m benchmarks.networks --set resnet34 --sweep size=224x224..2048x1024 --types int8,fp32
    python -m benchmarks.networks --set dlrm --batch 2048 --style openwork --patterns 4x16:0.85,2:4 --floats

Weights are random and pruned by magnitude; batch norms have the statistics of random images. Each network,
pattern and type is one ONNX file (INT8: Q/DQ, calibrated on random images), which every engine reads with the
shape fixed; the peers may choose among the styles of Q/DQ besides, and among their settings. Everybody runs
in one process, in turns; a ratio is the median of the rounds' ratios. Scores are compared in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.networks import plans, table
from benchmarks.networks.files import Files
from benchmarks.networks.measure import Cell, Settings, cells
from openwork.support.machine import Machine, this_machine

_VERSION = 1


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.networks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, how = made.add_argument, Settings()
    add("--set", default="resnet34,resnet50", help=f"'all', or of {','.join(plans.NETWORKS)}")
    add("--batch", default="1,8", help="images in a call, joined by commas, or as 1..64")
    add("--size", default="224x224", help="height x width")
    add("--sweep", help="batch=1..64, or size=224x224..2048x1024; lists with commas too")
    add("--patterns", default=",".join(plans.PATTERNS), help="joined by commas; dense is always there")
    add("--types", default="int8", help=f"of {','.join(plans.KINDS)}")
    add("--threads", type=int, default=how.threads)
    add("--style", default=how.style, choices=plans.STYLES, help="of the Q/DQ file that everybody gets")
    add("--one-style", action="store_true", help="the peers get that file alone")
    add("--floats", action="store_true", help="time the peers in FP32 too, beside INT8")
    add("--native", choices=("on", "off", "force"), help="what the builder is asked for; default its own")
    add("--compared", type=int, default=how.compared, help="images whose scores are compared, at least")
    add("--seconds", type=float, default=how.seconds, help="timed calls of each runner, in all")
    add("--rounds", type=int, default=how.rounds, help="turns of each runner, at least")
    add("--work", type=Path, help="a folder that keeps the files and the builder's timings")
    add("--json", type=Path, help="write everything there")
    add("--plot", type=Path, help="write a chart there, as PNG (needs matplotlib)")
    return made


def _shapes(given: argparse.Namespace) -> list[plans.Shape]:
    batches, image = plans.counts(given.batch), plans.image(given.size)
    if given.sweep is None:
        return [plans.Shape(batch, *image) for batch in batches]
    return plans.sweep(given.sweep).shapes(batches[0], image)


def _settings(given: argparse.Namespace) -> Settings:
    return Settings(
        threads=given.threads,
        style=given.style,
        native=given.native,
        compared=given.compared,
        seconds=given.seconds,
        rounds=given.rounds,
        styles=(given.style,) if given.one_style else plans.STYLES,
        floats=given.floats,
    )


def run(given: argparse.Namespace, folder: Path) -> list[Cell]:
    """Measure all that was asked for. Raises ValueError, before anything is made, for what is no network,
    pattern, type, batch or size.
    """
    names, patterns = plans.names(given.set), plans.patterns(given.patterns)
    kinds, shapes, how = plans.kinds(given.types), _shapes(given), _settings(given)
    found: list[Cell] = []
    with Console(stderr=True).status("") as status:
        for name in names:
            files = Files(name, plans.image(given.size), folder)
            for kind in kinds:
                for shape in shapes:
                    found += cells(files, kind, shape, patterns, how, status.update)
    return found


def write(found: list[Cell], machine: Machine, given: argparse.Namespace, path: Path) -> None:
    """The run as JSON; the file appears whole."""
    options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
    record = {
        "version": _VERSION,
        "machine": machine.record(),
        "options": options,
        "cells": [{**asdict(cell), "agrees": cell.agrees} for cell in found],
    }
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print, write; gives 1 where an engine's scores are not ONNX Runtime's."""
    parser = _parser()
    given = parser.parse_args(arguments)
    machine = this_machine(("openwork", "onnxruntime", "openvino"))
    try:
        if given.work is not None:
            given.work.mkdir(parents=True, exist_ok=True)
            found = run(given, given.work)
        else:
            with tempfile.TemporaryDirectory() as folder:
                found = run(given, Path(folder))
    except ValueError as error:
        parser.error(str(error))
    console = Console(width=None if sys.stdout.isatty() else table.WIDTH)
    console.print(machine.line(given.threads), soft_wrap=True, highlight=False)
    console.print(table.table(found))
    for line in table.settings(found):
        console.print(line, soft_wrap=True, highlight=False)
    if given.json is not None:
        write(found, machine, given, given.json)
    if given.plot is not None:
        from benchmarks.networks import chart

        chart.draw(found, machine.line(given.threads), given.plot)
    return 0 if all(cell.agrees for cell in found) else 1


if __name__ == "__main__":
    sys.exit(main())

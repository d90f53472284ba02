"""Print how closely ONNX Runtime, on the exported file, computes what torch's fake-quantized model does."""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console

from openwork.support.files import write_atomic
from openwork.support.machine import this_machine
from openwork.support.progress import progress_bar

from .cases import CASES
from .measure import WANTED, Plan, Result, compare


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_agreement", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--styles", nargs="+", default=["tensorrt", "onnxruntime"])
    parser.add_argument("--exporters", nargs="+", choices=("dynamo", "legacy"), default=["dynamo", "legacy"])
    parser.add_argument("--patterns", nargs="+", default=["dense", "2:4"], help='"dense" or a pattern')
    parser.add_argument("--observer", help="max, percentile, mse ...; default the style's")
    parser.add_argument("--count", type=int, default=8, help="images or texts to compare on")
    parser.add_argument("--exact-grid", action="store_true", help="scales that are powers of two")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(given)


def plans(given: argparse.Namespace) -> Iterator[Plan]:
    """Every combination that was asked for."""
    for style, exporter, pattern in itertools.product(given.styles, given.exporters, given.patterns):
        yield Plan(style, exporter, None if pattern == "dense" else pattern, given.observer, given.exact_grid)


def lines(result: Result) -> Iterator[str]:
    """What was found, for reading."""
    plan = result.plan
    scales = ", scales that are powers of two" if plan.exact_grid else ""
    yield f"{result.case}: {plan.style}, {plan.exporter}, {plan.pattern or 'dense'}{scales}"
    noise = result.noise
    yield f"  quantized against float       least {noise.least:.6f}  whole {noise.whole:.6f}"
    for name, found in result.agreement.items():
        verdict = "reached" if found.least >= WANTED else f"{found.below} of {found.rows} below {WANTED}"
        yield (
            f"  ONNX Runtime, optimized {name:3}   least {found.least:.6f}  whole {found.whole:.6f}  "
            f"largest difference {found.largest:.2g}  {verdict}"
        )
    yield (
        f"  each block by itself          least {result.blocks.least:.6f}  whole {result.blocks.whole:.6f}  "
        f"of {result.blocks.rows} outputs"
    )
    yield f"  residual additions in INT8 on both inputs: {result.integer_sums} of {result.sums}"
    if plan.pattern:
        yield f"  {result.weights} integer weights keep {plan.pattern}; violations: {result.violations}"


def main(given: list[str] | None = None) -> None:
    """The command."""
    arguments, console = _arguments(given), Console(highlight=False, soft_wrap=True)
    console.print(this_machine().line(1))
    wanted = [(name, plan) for name in arguments.models for plan in plans(arguments)]
    results = []
    shown = console.is_terminal
    with tempfile.TemporaryDirectory() as folder, progress_bar("Comparing", len(wanted), shown) as advance:
        for done, (name, plan) in enumerate(wanted):
            case = CASES[name](arguments.count)
            results.append(compare(case, plan, Path(folder), partial(advance, done)))
            console.print(*lines(results[-1]), sep="\n")
    if arguments.json:
        write_atomic(arguments.json, [json.dumps([asdict(r) for r in results], indent=2).encode() + b"\n"])


if __name__ == "__main__":
    main()

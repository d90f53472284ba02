"""What equalization, bias correction and scale migration gain over plain calibration, in one table.

python -m benchmarks.quantization_tuning                     a depthwise net on the digits, and MiniLM
python -m benchmarks.quantization_tuning --mobile --seeds 1  a part of it
python -m benchmarks.quantization_tuning --json gains.json

Errors are those of the outputs on data that calibration did not see.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from openwork.support.files import write_atomic

from . import minilm, mobile
from .gain import Gain, lines


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization_tuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, nets, texts = made.add_argument, mobile.Plan(), minilm.Plan()
    add("--mobile", action="store_true", help="the depthwise net; without one of the two, both")
    add("--minilm", action="store_true", help="MiniLM")
    add("--seeds", type=int, default=len(nets.seeds), help="of the depthwise net")
    add("--steps", type=int, default=nets.steps, help="of its training")
    add("--texts", type=int, default=texts.calibration, help="to calibrate MiniLM with, and to measure on")
    add("--json", type=Path, help="write the figures there as well")
    return made


def gains(given: argparse.Namespace) -> Iterator[Gain]:
    """The figures that were asked for, as they come."""
    everything = not (given.mobile or given.minilm)
    if given.mobile or everything:
        yield from mobile.run(mobile.Plan(tuple(range(given.seeds)), given.steps))
    if given.minilm or everything:
        yield from minilm.run(minilm.Plan(given.texts, given.texts))


def main(arguments: list[str] | None = None) -> None:
    """Parse, run, print, write."""
    made = parser()
    given = made.parse_args(arguments)
    if min(given.seeds, given.steps, given.texts) < 1:
        made.error("Seeds, steps and texts are at least 1.")
    found = list(gains(given))
    print("\n".join(lines(found)))
    if given.json is not None:
        write_atomic(given.json, [json.dumps([asdict(gain) for gain in found], indent=1).encode() + b"\n"])


if __name__ == "__main__":
    main()

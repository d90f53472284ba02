"""Loads a BERT-large of random weights, dense and sparse, and prints what each stage of the loading takes.

    python -m benchmarks.loading [--layers 24] [--vocabulary 30522] [--patterns dense,2:4]

The engine is written directly, so nothing is timed but the loading. Each stage is timed alone, one after
another, its threads included, and then the whole in a process of its own, whose peak of memory is what the
operating system says. `verify` is what the loading leaves out: the digest of the embedding table, which no
load reads.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.loading.encoder import Size, write_encoder
from openwork.backends.cpu.packing import Layer, pack
from openwork.backends.cpu.weights import dense_weight, pack_weights
from openwork.backends.library import chosen_isa
from openwork.engine.engine_file import EngineFile, read_engine
from openwork.engine.problem import Tactic
from openwork.runtime.engine import load
from openwork.support.cores import physical_cores
from openwork.support.machine import this_machine

_TACTICS = {None: "dense"}
_SPARSE_TACTIC = "window8"
_REPEATS = 3


def _seconds(call: Callable[[], Any]) -> float:
    """The least of some runs: what else the machine did is no part of it."""
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def _each(call: Callable[[Any], Any], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(physical_cores()) as pool:
        for _ in pool.map(call, items):
            pass


def _read_small(file: EngineFile) -> None:
    for name in file.tensors:
        file.tensors.table(name)


def stages(path: Path) -> dict[str, float]:
    """Seconds of each stage of loading an engine, by its name."""
    isa = chosen_isa(None)
    file = read_engine(path)
    linears = [step for step in file.program.steps if step.op == "linear"]
    weights = [dense_weight(file.program, step, file.tensors) for step in linears[:4]]
    tactic = Tactic.parse(linears[0].tactics[0].tactic)
    share = len(linears) / len(weights)
    return {
        "header and program": _seconds(lambda: read_engine(path)),
        "digests": _seconds(lambda: _read_small(read_engine(path))),
        "decoding": _seconds(
            lambda: _each(lambda step: dense_weight(file.program, step, file.tensors), linears)
        ),
        "packing": share * _seconds(lambda: _each(lambda weight: pack(Layer(weight, isa), tactic), weights)),
        "all weights": _seconds(lambda: pack_weights(file.program, read_engine(path).tensors, isa)),
        "whole load": _seconds(lambda: load(path)),
        "verify": _seconds(lambda: read_engine(path).tensors.verify()),
    }


def _alone(path: Path) -> str:
    """What one load takes in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loading", "--alone", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _peak_mebibytes() -> float:
    """The most memory that this process had so far; getrusage would count what it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _report_alone(path: Path) -> None:
    before = _peak_mebibytes()
    begin = time.perf_counter()
    load(path)
    seconds = time.perf_counter() - begin
    print(f"alone: {seconds:.2f} s, {_peak_mebibytes() - before:.0f} MiB more at the peak, mapped pages too")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=Size.layers)
    parser.add_argument("--vocabulary", type=int, default=Size.vocabulary)
    parser.add_argument("--patterns", default="dense,2:4")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone is not None:
        _report_alone(options.alone)
        return
    size = replace(Size(), layers=options.layers, vocabulary=options.vocabulary)
    print(this_machine().line(physical_cores()))
    with tempfile.TemporaryDirectory() as folder:
        for text in options.patterns.split(","):
            pattern = None if text == "dense" else text
            path = Path(folder) / "encoder.engine"
            write_encoder(path, size, pattern, _TACTICS.get(pattern, _SPARSE_TACTIC))
            print(f"\n{text}: {path.stat().st_size / 2**20:.0f} MiB")
            for name, seconds in stages(path).items():
                print(f"  {name:20} {1e3 * seconds:8.1f} ms")
            print(f"  {_alone(path)}")


if __name__ == "__main__":
    main()

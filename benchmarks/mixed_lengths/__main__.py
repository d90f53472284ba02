"""Texts of a real corpus in batches as they come: this engine on the padded batch, its peers at their best.

    python -m benchmarks.mixed_lengths [--patterns dense,2:4,32:64] [--threads 2] [--batches 12] [--batch 16]

MiniLM in INT8 embeds docstrings of installed packages. Nobody sorts the corpus. This engine gets each batch
padded to its longest text. Each peer is tried with every padding of `paddings.py`, on every file that it
reads, and takes part with the fastest. Everybody runs in turns in one process; a ratio is the median of the
rounds' ratios. The embeddings are compared in the same run: with those of each text alone, to the bit, and
with ONNX Runtime's on the same file, by cosine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from examples.minilm_search import texts
from examples.minilm_search.runners import Runner, with_onnxruntime
from rich.console import Console
from rich.table import Table

from benchmarks.mixed_lengths.files import DENSE, Files
from benchmarks.mixed_lengths.paddings import PADDINGS, Tokens, alone, longest
from openwork.bench.latency import Options, Timing, measure, ratio
from openwork.patterns.pattern import Pattern
from openwork.support.files import write_atomic
from openwork.support.machine import this_machine

LEAST_COSINE = 0.999
_LOOK = Options(warm_up=0.0, duration=0.1, turn=0.05, settle=0.0, minimum_rounds=2)


def drawn(files: Files, batches: int, size: int) -> list[Tokens]:
    """Documents of the corpus as they come, as token ids."""
    documents = [pair.document for pair in files.corpus.test[: batches * size]]
    ids = texts.token_ids(files.tokenizer, documents)
    return [ids[at : at + size] for at in range(0, len(ids), size)]


def calls(runner: Runner, padding: str, batches: list[Tokens]) -> Callable[[], object]:
    """All batches, one after the other."""
    return lambda: [PADDINGS[padding](runner.run, batch) for batch in batches]


def best_peers(peers: list[Runner], batches: list[Tokens]) -> dict[str, Callable[[], object]]:
    """Of each engine the fastest file and padding, by a short look at a few batches."""
    found: dict[str, tuple[float, str, Callable[[], object]]] = {}
    few = batches[:4]
    for peer in peers:
        for padding in PADDINGS:
            seconds = statistics.median(measure({"": calls(peer, padding, few)}, _LOOK)[""].samples)
            engine = peer.name.partition(",")[0]
            if engine not in found or seconds < found[engine][0]:
                found[engine] = (seconds, f"{peer.name}, {padding}", calls(peer, padding, batches))
    return {name: call for _, name, call in found.values()}


def check(ours: Runner, source: Path, batches: list[Tokens], threads: int) -> float:
    """The least cosine to ONNX Runtime on the same file. Raises AssertionError where padding changes one."""
    theirs = with_onnxruntime("", source, threads)
    cosines = []
    for batch in batches[:3]:
        made, single = longest(ours.run, batch), alone(ours.run, batch)
        assert np.array_equal(made, single), f"{ours.name}: padding changes what a text's embedding is."
        other = longest(theirs.run, batch)
        cosines.append(float((made * other).sum(1).min()))
    return min(cosines)


def report(
    timings: dict[str, Timing], own: list[Runner], cosines: dict[str, float], count: int
) -> tuple[Table, list[dict[str, object]]]:
    """Everybody's texts a second, and how many times faster ours are than the faster peer."""
    names = {runner.name for runner in own}
    fastest = min((name for name in timings if name not in names), key=lambda name: timings[name].median)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "texts a second", f"x {fastest.partition(',')[0]}", "cosine"):
        table.add_column(column, justify="left" if not column else "right")
    rows: list[dict[str, object]] = []
    for name, timing in timings.items():
        speed, times = count / timing.median * 1e3, ratio(timings[fastest], timing)
        cosine = cosines.get(name)
        table.add_row(name, f"{speed:.0f}", f"{times:.2f}", "" if cosine is None else f"{cosine:.5f}")
        rows.append({"name": name, "texts_a_second": speed, "ratio": times, "cosine": cosine})
    return table, rows


def run(given: argparse.Namespace, folder: Path) -> int:
    """Make the files, check, measure, print; gives 1 where embeddings differ from ONNX Runtime's."""
    files = Files(folder, given.threads)
    batches = drawn(files, given.batches, given.batch)
    lengths = np.array([len(text) for batch in batches for text in batch])
    width = sum(max(map(len, batch)) * len(batch) for batch in batches)
    own = [files.ours(pattern) for pattern in given.patterns.split(",")]
    cosines = {
        runner.name: check(runner, files.quantized(pattern), batches, given.threads)
        for runner, pattern in zip(own, given.patterns.split(","), strict=True)
    }
    everyone = {runner.name: calls(runner, "to the longest", batches) for runner in own}
    everyone |= best_peers(files.peers(), batches)
    how = Options(duration=given.seconds, settle=0.06, minimum_rounds=7)
    timings = measure(everyone, how)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(this_machine(("openwork", "onnxruntime", "openvino")).line(given.threads), soft_wrap=True)
    console.print(
        f"{len(lengths)} texts of {lengths.min()} to {lengths.max()} tokens, mean {lengths.mean():.0f}, in "
        f"batches of {given.batch}; {lengths.sum() / width:.0%} of the padded batches are tokens"
    )
    table, rows = report(timings, own, cosines, len(lengths))
    console.print(table)
    if given.json is not None:
        write_atomic(given.json, [json.dumps(rows, indent=1).encode() + b"\n"])
    return 0 if min(cosines.values()) >= LEAST_COSINE else 1


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixed_lengths",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--patterns", default=f"{DENSE},2:4,32:64", help="joined by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16, help="texts in a batch")
    parser.add_argument("--seconds", type=float, default=3.0, help="timed calls of each runner, in all")
    parser.add_argument("--work", type=Path, help="a folder that keeps the files and the builder's timings")
    parser.add_argument("--json", type=Path, help="write everything there")
    given = parser.parse_args()
    try:
        for pattern in given.patterns.split(","):
            if pattern != DENSE:
                Pattern.parse(pattern)
        if min(given.threads, given.batches, given.batch) < 1:
            raise ValueError("Threads, batches and texts in a batch are at least 1.")
    except ValueError as error:
        parser.error(str(error))
    if given.work is not None:
        return run(given, given.work)
    with tempfile.TemporaryDirectory() as folder:
        return run(given, Path(folder))


if __name__ == "__main__":
    sys.exit(main())

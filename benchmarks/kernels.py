"""INT8 products of MiniLM's layers: every packed form against dense, interleaved and checked before.

python -m benchmarks.kernels [--threads 1] [--isa avx2] [--repeats 41] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from openwork import Pattern
from openwork.files import write_atomic
from openwork.machine import this_machine
from openwork.runtime.packing import chosen_isa, native, pack
from openwork.sparsity import GroupPattern
from openwork.sparsity.compressed import Compressed, compress, decompress

LAYERS = {"qkv": (1152, 384), "out": (384, 384), "up": (1536, 384), "down": (384, 1536)}
ROWS = (32, 128)
PATTERNS = ("2:4", "4:8", "4:16", "4:32", "4:64")
SEED = 20


@dataclass(frozen=True)
class Rate:
    """One form of one layer; effective counts the operations that the dense layer would need."""

    layer: str
    rows: int
    pattern: str
    form: str
    median_seconds: float
    effective_gops: float
    of_dense: float


def sparse_weight(rng: np.random.Generator, n: int, k: int, pattern: GroupPattern) -> Compressed:
    """Random weights without zeros at random positions of each group."""
    weight = rng.integers(1, 128, (n, k // pattern.group, pattern.group), dtype=np.int8)
    rank = rng.random(weight.shape).argsort(-1).argsort(-1)
    kept = np.where(rank < pattern.kept, weight, 0).reshape(n, k).astype(np.int8)
    return compress(kept, pattern.kept, pattern.group)


def packed_forms(
    rng: np.random.Generator, n: int, k: int, isa: str
) -> Iterator[tuple[str, str, object, NDArray[np.int8]]]:
    """(pattern, form, packed weights, the dense integers) of every form that holds the pattern."""
    weight = rng.integers(-127, 128, (n, k), dtype=np.int8)
    yield "dense", "dense", pack(weight, "dense", isa), weight
    for text in PATTERNS:
        pattern = Pattern.parse(text)
        assert isinstance(pattern, GroupPattern)
        sparse = sparse_weight(rng, n, k, pattern)
        for form in native().forms(isa)[1:]:
            try:
                yield text, form, pack(sparse, form, isa), decompress(sparse)
            except ValueError:
                continue  # this form's window does not hold whole groups of the pattern


def verify(packed: object, weight: NDArray[np.int8], x: NDArray[np.uint8], threads: int) -> None:
    """Raise ValueError unless the kernel gives exactly the integers of a product in binary64."""
    n = len(weight)
    found = native().linear(x, packed, np.ones(n, np.float32), None, 128, "none", None, None, 0, threads)
    exact = (x.astype(np.float64) - 128) @ weight.astype(np.float64).T
    if not np.array_equal(found, exact.astype(np.float32)):
        raise ValueError("A kernel gives wrong integers; its time would mean nothing.")


def measure(layer: str, rows: int, isa: str, threads: int, repeats: int) -> list[Rate]:
    """Every form of one layer, interleaved in one run."""
    n, k = LAYERS[layer]
    rng = np.random.default_rng(SEED)
    x = rng.integers(0, 256, (rows, k), np.uint8)
    forms = list(packed_forms(rng, n, k, isa))
    for _, _, packed, weight in forms:
        verify(packed, weight, x, threads)
    seconds = np.median(
        native().time_linear([f[2] for f in forms], rows, "none", True, threads, repeats), axis=1
    )
    operations = 2e-9 * rows * n * k
    return [
        Rate(layer, rows, pattern, form, float(time), operations / time, float(seconds[0] / time))
        for (pattern, form, *_), time in zip(forms, seconds, strict=True)
    ]


def table(rates: list[Rate]) -> Table:
    """The rates as a table."""
    drawn = Table("layer", "rows", "pattern", "form", "us", "effective GOPS", "x dense")
    for r in rates:
        numbers = (f"{1e6 * r.median_seconds:.1f}", f"{r.effective_gops:.0f}", f"{r.of_dense:.2f}")
        drawn.add_row(r.layer, str(r.rows), r.pattern, r.form, *numbers)
    return drawn


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa")
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    isa, machine = chosen_isa(given.isa), this_machine()
    rates = [
        r
        for layer in LAYERS
        for rows in ROWS
        for r in measure(layer, rows, isa, given.threads, given.repeats)
    ]
    console = Console()
    console.print(f"{machine.line(given.threads)}, {isa}", soft_wrap=True, highlight=False)
    console.print(table(rates))
    if given.json:
        record = {"machine": machine.record(), "isa": isa, "rates": [asdict(r) for r in rates]}
        write_atomic(given.json, [json.dumps(record, indent=1).encode()])


if __name__ == "__main__":
    main()

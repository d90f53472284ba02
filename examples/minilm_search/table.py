"""The tables on the terminal, at most 100 columns wide."""

import re
from collections import Counter

from rich import box
from rich.table import Table
from rich.text import Text

from openwork.engine.report import Bucket, BuildReport, Layer

from .lineup import FP32, OURS
from .measuring import LABELS
from .results import Results

BLOCK = re.compile(r"layer\.(\d+)\.")


def comparison(results: Results) -> Table:
    """One row per runner: quality, median latency per shape (the fastest peer in bold), file size."""
    table = Table(
        title=f"Search quality among {results.plan.pairs:,} documents and median latency in ms",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    for name in ("NDCG@10", "of FP32", "MRR", "R@1", *LABELS, "MB"):
        table.add_column(name, justify="right")
    for name in results.names:
        table.add_row(*_row(results, name), end_section=name in (FP32, results.plan.peers[-1]))
    return table


def _row(results: Results, name: str) -> list[Text]:
    found = results.quality[name].retrieval
    quality = [
        f"{found.ndcg_at_10:.4f}",
        f"{results.kept(name):.1%}",
        f"{found.mrr:.4f}",
        f"{found.recall_at_1:.4f}",
    ]
    times = []
    for race in results.races:
        median = race.timings[name].median
        marked = name in OURS.values() or name == race.fastest(results.plan.peers)
        times.append(
            Text(f"{median:.2f}" if median < 100 else f"{median:.0f}", style="bold" if marked else "")
        )
    return [Text(name), *map(Text, quality), *times, Text(f"{results.file_bytes(name) / 1e6:.1f}")]


def layers(report: BuildReport, title: str) -> Table:
    """One row per group of layers with the same numbers: dense time -> picked time, gain, pick."""
    rows = [bucket.rows for bucket in report.layers[0].buckets]
    title = f"{title}, layer by layer: microseconds, dense -> picked"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Layer", "N x K", "Zeros", *(f"{count} rows" for count in rows), "Why"):
        table.add_column(name, justify="left" if name in ("Layer", "Why") else "right", no_wrap=True)
    numbers = {reason: number for number, reason in enumerate(_distinct(report), start=1)}
    for group in _groups(report):
        layer = group[0]
        size, gains = f"{layer.n} x {layer.k}", map(_gain, layer.buckets)
        table.add_row(_names(group), size, f"{layer.zeros:.0%}", *gains, f"({numbers[_reason(layer)]})")
    return table


def _groups(report: BuildReport) -> list[list[Layer]]:
    """Layers of the same module in different blocks, where the table would say the same about them."""
    groups: dict[tuple[object, ...], list[Layer]] = {}
    for layer in report.layers:
        said = (_within_block(layer.name), layer.n, layer.k, f"{layer.zeros:.0%}", *map(_gain, layer.buckets))
        groups.setdefault((*said, _reason(layer)), []).append(layer)
    return list(groups.values())


def _names(group: list[Layer]) -> str:
    blocks = [found[1] for layer in group if (found := BLOCK.search(layer.name))]
    name = _within_block(group[0].name)
    return f"{name}\nblock {', '.join(blocks)}" if blocks else name


def _within_block(name: str) -> str:
    found = BLOCK.search(name)
    return name[found.end() :] if found else name


def _gain(bucket: Bucket) -> str:
    dense, picked = 1e6 * bucket.seconds["dense"], 1e6 * bucket.seconds[bucket.pick]
    return f"{dense:.0f} -> {picked:.0f}\n{dense / picked:.2f}x {bucket.pick}"


def reasons(report: BuildReport) -> list[str]:
    """The numbered reasons of the last column, and the layers eligible and picked."""
    lines = [f"({number}) {reason}" for number, reason in enumerate(_distinct(report), start=1)]
    count = len(report.layers)
    return [
        *lines,
        f"(Sparsity) Layers eligible for sparse math: {len(report.eligible)} of {count}",
        f"(Sparsity) The plan picked sparse implementation for layers: "
        f"{len(report.picked_sparse)} of {count}",
    ]


def _distinct(report: BuildReport) -> list[str]:
    return list(Counter(_reason(layer) for layer in report.layers))


def _reason(layer: Layer) -> str:
    return layer.why if layer.eligible else layer.reason

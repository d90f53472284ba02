"""Every kind of layer, pattern and type: openwork's kernels against the machine's limit and other engines.

python -m benchmarks.kernels                       a few layers of every network, under three minutes
python -m benchmarks.kernels --set resnet50        every distinct layer of it
python -m benchmarks.kernels --all --json all.json --plot roofline.png

docs/benchmarks.md says how to read what comes out.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console

from openwork.backends.library import native
from openwork.support.machine import this_machine
from openwork.support.progress import progress_bar

from . import measure, options, peak, results, table
from .cases import Settings
from .results import Rate, Refusal, Run

# Of the work that threads on undisturbed cores do.
LEAST_CORES = 0.85


def run(todo: options.Work, chosen: Settings, notes: list[str], given: dict[str, object]) -> Run:
    """Time everything, with a bar."""
    rates: list[Rate] = []
    refusals: list[Refusal] = []
    peaks: dict[str, list[float]] = defaultdict(list)
    shares: list[float] = []
    levels = peak.bandwidths(chosen.isa, chosen.threads)
    with progress_bar("kernels", len(todo), sys.stderr.isatty()) as advance:
        for done, (layer, kind) in enumerate(todo):
            advance(done, f"{layer} {kind}")
            found, refused, limit = measure.measure(layer, kind, chosen)
            rates += found
            refusals += refused
            peaks[kind].append(limit)
            shares.append(limit / peak.operations(kind, chosen.isa, 1))
        advance(len(todo))
    machine = this_machine(("openwork", "numpy", *(peer.name for peer in chosen.peers)))
    return Run(
        {**machine.record(), "kernels": native().kernel_version()},
        chosen.isa,
        chosen.threads,
        chosen.patterns,
        given,
        {kind: float(np.median(found)) for kind, found in peaks.items()},
        levels,
        tuple(rates),
        tuple(refusals),
        (*notes, *disturbed(shares, chosen.threads)),
    )


def disturbed(shares: list[float], threads: int) -> list[str]:
    """A sentence where threads that touch no memory had no core each. shares: their peak over one's."""
    share = float(np.median(shares))
    if share >= LEAST_CORES * threads:
        return []
    return [
        f"On registers alone {threads} threads did {share:.2f} times the work of one: something else runs on "
        "this machine, and these times say little."
    ]


def show(found: Run, console: Console, all_forms: bool) -> None:
    """Print the machine, the table, the summary and the notes."""
    line = this_machine(("openwork", *(name for name in table.PEERS if name in found.machine["versions"])))
    console.print(f"{line.line(found.threads)}; {found.isa}", soft_wrap=True, highlight=False)
    for sentence in table.limits(found):
        console.print(sentence, soft_wrap=True, highlight=False)
    console.print(table.rates(found, all_forms))
    console.print()
    for large in (False, True):
        if results.summaries(found, large):
            console.print(table.summary(found, large))
            console.print()
    for sentence in (*table.lost(found), *table.footnotes(found)):
        console.print(sentence, soft_wrap=True, highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, print, write."""
    parser = options.parser(__doc__ or "")
    given = parser.parse_args(arguments)
    try:
        todo = options.work(given)
        chosen, notes = options.settings(given)
    except ValueError as error:
        parser.error(str(error))
    recorded = {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()}
    found = run(todo, chosen, notes, recorded)
    # A file or a pipe has no width of its own: the table is wider than the usual guess.
    show(found, Console(width=None if sys.stdout.isatty() else table.WIDTH), given.forms)
    if given.json:
        results.write(found, given.json)
    if given.plot:
        from . import roofline

        roofline.draw(found, given.plot)


if __name__ == "__main__":
    main()

"""The terminal's view of a run."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from .results import DENSE, LARGE_K, LARGE_ROWS, PeerTime, Rate, Run, Summary, slower, summaries

PEERS = {"onnxruntime": "x ORT", "openvino": "x OpenVINO"}
WIDTH = 140
MOST_NAMED = 8


def rates(run: Run, all_forms: bool) -> Table:
    """One line for each layer, type and pattern, of its best form; or of every form."""
    table = Table(box=None, header_style="bold")
    for head in ("layer", "rows x k x n", "type", "pattern", "form"):
        table.add_column(head, no_wrap=True)
    extra = [head for head, value in _EXTRA if any(value(rate) is not None for rate in run.rates)]
    for head in ("us", "GOPS", "of peak", "x dense", *extra, *(PEERS[name] for name in _peers(run))):
        table.add_column(head, justify="right")
    last = ""
    for rate in run.rates if all_forms else run.best():
        if last and rate.layer + rate.type != last:
            table.add_section()
        table.add_row(*_cells(rate, rate.layer + rate.type != last, extra, _peers(run)))
        last = rate.layer + rate.type
    return table


# Columns that only some runs have: on more than one thread, and with convolutions.
_EXTRA: tuple[tuple[str, Callable[[Rate], float | None]], ...] = (
    ("x 1 thread", lambda rate: rate.of_one),
    ("of product", lambda rate: rate.of_product),
)


def _peers(run: Run) -> list[str]:
    found = {name for rate in run.rates for name in rate.peers}
    return [name for name in PEERS if name in found]


def _cells(rate: Rate, first: bool, extra: list[str], peers: list[str]) -> list[str]:
    size = f"{rate.rows}x{rate.k}x{rate.n}"
    peak = f"{rate.of_peak:.0%}" if rate.pattern == DENSE else f"{rate.of_peak:.2f}x"
    dense = "" if rate.pattern == DENSE else f"{rate.of_dense:.2f}"
    return [
        rate.layer if first else "",
        size if first else "",
        rate.type,
        rate.pattern,
        rate.form,
        f"{1e6 * rate.seconds:.1f}",
        f"{rate.gops:.0f}",
        peak,
        dense,
        *(_number(value(rate)) for head, value in _EXTRA if head in extra),
        *(_ratio(rate.peers.get(name)) for name in peers),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratio(time: PeerTime | None) -> str:
    if time is None:
        return ""
    if time.ratio is None:
        return "?"
    return f"{time.ratio:.2f}" + ("*" if time.doubt else "")


def limits(run: Run) -> list[str]:
    """What the machine did at most in this run."""
    peaks = ", ".join(f"{kind} {rate / 1e9:.0f}" for kind, rate in run.peaks.items())
    levels = ", ".join(f"{level.name} {level.rate / 1e9:.0f}" for level in run.levels)
    return [
        f"Dot product peak, 10^9 operations a second: {peaks}.",
        f"Read bandwidth, 10^9 bytes a second: {levels}.",
    ]


def summary(run: Run, large: bool) -> Table:
    """Geometric means of each pattern over the layers, and the least of them."""
    which = f"with at least {LARGE_ROWS} rows and k of {LARGE_K}" if large else "all"
    title = f"Geometric means over the layers: {which}"
    table = Table(
        "type", "pattern", "layers", "of peak", "x dense", box=None, header_style="bold", title=title
    )
    table.title_justify = "left"
    for name in _peers(run):
        table.add_column(PEERS[name], justify="right")
    table.add_column("least")
    for line in summaries(run, large):
        table.add_row(*_summary_cells(line, _peers(run)))
    return table


def _summary_cells(line: Summary, peers: list[str]) -> list[str]:
    dense = line.pattern == DENSE
    least = f"{line.worst_value:.0%} of peak" if dense else f"{line.worst_value:.2f}x dense"
    return [
        line.type,
        line.pattern,
        str(line.layers),
        f"{line.of_peak:.0%}" if dense else f"{line.of_peak:.2f}x",
        "" if dense else f"{line.of_dense:.2f}",
        *(f"{line.peers[name]:.2f}" if name in line.peers else "" for name in peers),
        f"{least}: {line.worst}",
    ]


def lost(run: Run) -> list[str]:
    """A sentence for each engine on the dense layers that it runs faster."""
    sentences = []
    for name in _peers(run):
        rates = slower(run, name)
        named = ", ".join(f"{r.layer} {r.type} {r.peers[name].ratio:.2f}" for r in rates[:MOST_NAMED])
        more = f" and {len(rates) - MOST_NAMED} more" if len(rates) > MOST_NAMED else ""
        found = f"{len(rates)}: {named}{more}" if rates else "none"
        sentences.append(f"Dense layers that {name} runs faster (our speed over its): {found}.")
    return sentences


def footnotes(run: Run) -> list[str]:
    """What the marks of the table mean, where it has them, and the run's own notes."""
    times = [time for rate in run.rates for time in rate.peers.values()]
    notes = list(run.notes)
    if any(time.ratio is None for time in times):
        notes.append("?: the engine's call takes longer than the layer, whose own time is lost in it.")
    notes += [f"*: {doubt}" for doubt in dict.fromkeys(time.doubt for time in times if time.doubt)]
    return notes

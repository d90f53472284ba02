"""The terminal's view of a run."""

from __future__ import annotations

from rich.table import Table

from benchmarks.networks.measure import Cell
from benchmarks.networks.runners import OPENVINO, ORT

WIDTH = 150
_HEADS = (
    "ms",
    "ORT ms",
    "x ORT",
    "OpenVINO ms",
    "x OpenVINO",
    "x best",
    "x dense",
    "x FP32",
    "in step",
    "of ORT",
    "top-1",
)


def table(cells: list[Cell]) -> Table:
    """One line for each network, shape and pattern."""
    made = Table(box=None, header_style="bold")
    for head in ("network", "type", "images", "pattern"):
        made.add_column(head, no_wrap=True)
    for head in _HEADS:
        made.add_column(head, justify="right", no_wrap=True)
    made.add_column("ran")
    last = ()
    for cell in cells:
        place = (cell.network, cell.kind, f"{cell.batch} x {cell.size}")
        if last and place != last:
            made.add_section()
        made.add_row(*(("", "", "") if place == last else place), cell.pattern, *_numbers(cell))
        last = place
    return made


def _numbers(cell: Cell) -> list[str]:
    if cell.refusal:
        return [*("" for _ in _HEADS), cell.refusal]
    found = cell.agreement
    return [
        _text(cell.milliseconds),
        _text(cell.peers.get(ORT)),
        _text(cell.ratios.get(ORT)),
        _text(cell.peers.get(OPENVINO)),
        _text(cell.ratios.get(OPENVINO)),
        _text(cell.best),
        _text(cell.dense),
        _text(cell.floats),
        "" if found is None else f"{found.within:.2%}" + ("" if cell.agrees else " !"),
        "" if cell.noise is None else f"{cell.noise.within:.2%}",
        "" if found is None else f"{round(found.top1 * found.images)}/{found.images}",
        cell.note,
    ]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def settings(cells: list[Cell]) -> list[str]:
    """A line for each way in which a peer was fastest."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        for name, setting in cell.settings.items():
            where = f"{cell.network} {cell.kind} {cell.batch} x {cell.size}"
            places = found.setdefault(f"{name}: {setting}", [])
            if where not in places:
                places.append(where)
    return [f"{setting}: {', '.join(places)}" for setting, places in sorted(found.items())]

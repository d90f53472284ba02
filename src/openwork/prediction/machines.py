"""The machines that times are predicted for: what each thing that a kernel does costs there.

One JSON file of machines/ is one machine. `python -m benchmarks.cost_model` writes those that can be fitted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from openwork.support.fields import Field
from openwork.support.records import read_record

FOLDER = Path(__file__).with_name("machines")


@dataclass(frozen=True)
class FormCost:
    """Cycles of one dot product of 16 channels by four bytes in a form: `row` for each row, `tile` for each
    tile of rows, which loads the weights and what picks their bytes anew."""

    row: float
    tile: float


@dataclass(frozen=True)
class Error:
    """How far the fit is from what it was fitted to, as factors of a time (or of a gain): the median and the
    worst of `points` figures."""

    median: float
    worst: float
    points: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a core of a machine takes, in cycles.

    basis : "fitted" to times of the kernels themselves, or "counted" from instructions. source : where the
    numbers come from; sources : the same, by the name of a number. gigahertz : 10^9 cycles a second.
    forms : of each form that the machine has, by its name in native/kernels/table.inc. tile_rows : rows of a
    tile with channels in the lanes. output : of each output's epilogue. line : to copy, or interleave, 64
    bytes of a row. pick : to pick from one line of a row what a step of a shared mask keeps. expand : to
    expand 64 bytes of compressed weights. l2, l3 : bytes read in a cycle. call : of each product besides.
    error, gains : of the fit, to times and to gains over dense in the best form; None where there is none.
    """

    name: str
    cpu: str
    basis: str
    source: str
    gigahertz: float
    forms: dict[str, FormCost]
    tile_rows: int
    output: float
    line: float
    pick: float
    expand: float
    l2: float
    l3: float
    call: float
    sources: dict[str, str]
    error: Error | None
    gains: Error | None


def machine_names() -> tuple[str, ...]:
    """The machines that there are parameters of."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@cache
def machine_named(name: str) -> Machine:
    """The parameters of a machine; raises ValueError where there are none."""
    if name not in machine_names():
        raise ValueError(
            f"There is no cost model of the machine {name!r}; those that there are: "
            f"{', '.join(machine_names())}."
        )
    path = FOLDER / f"{name}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    return read_record(Machine, Field(path.name, "machine", document))

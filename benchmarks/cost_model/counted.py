"""Machines whose kernels nobody here has timed: cycles counted from instructions and their ports.

Loads run beside the products. What no count tells (the epilogue, the call, what a tile of a compressed form
or of blocks costs) is taken from a set that was fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from openwork.backends.library import native
from openwork.prediction.machines import FormCost, Machine

Cycles = Callable[[float], float]


@dataclass(frozen=True)
class Counted:
    """A machine to count.

    like : the fitted set that gives what is not counted. cycles : of a dot product of 16 channels by four
    bytes, by the shuffles that feed it (1 where each strip has its own mask, 1/2 where two share one, 0 for
    none). forms : the names of its forms. vectors : that 16 lanes are. loads : in a cycle. wide : what the
    shuffle of a window of 64 bytes takes, in shuffles of 16.
    """

    name: str
    cpu: str
    like: str
    gigahertz: float
    tile_rows: int
    l3: float
    cycles: Cycles
    why: str
    forms: tuple[str, ...]
    vectors: int
    loads: int
    wide: float = 1.0


_WINDOWS = ("dense", "window8", "window8x2", "window8packed", "window16packed")
_NARROW = ("window16", "window16x2")
_WIDE = ("window64", "window64x2")
_BLOCKS = ("blocks1", "blocks2", "blocks4")

MACHINES = (
    Counted(
        name="avx512vnni_intel",
        cpu="Intel with AVX-512 VNNI and VBMI: Ice Lake and later, where AMX is not used",
        like="avx512vnni",
        gigahertz=2.6,
        tile_rows=12,
        l3=6.7,
        cycles=lambda shuffles: (1 + shuffles) / 2,
        why="Counted: dot products take ports 0 and 5, shuffles port 5 alone, so both share two ports.",
        forms=(*_WINDOWS, "window8x4", *_WIDE, "window64x4", *_BLOCKS, "blocks8"),
        vectors=1,
        loads=2,
    ),
    Counted(
        name="avxvnni",
        cpu="Intel with AVX-VNNI: Alder Lake and later, a fast core",
        like="avx2",
        gigahertz=4.5,
        tile_rows=4,
        l3=10.0,
        cycles=lambda shuffles: max(1.0, 2 * (1 + shuffles) / 3),
        why="Counted: two instructions each, dot products on ports 0 and 1, shuffles on 1 and 5.",
        forms=(*_WINDOWS, *_NARROW, *_BLOCKS),
        vectors=2,
        loads=3,
    ),
    Counted(
        name="neon",
        cpu="64-bit Arm with the dot product: two vector pipes, as a Neoverse N1 has",
        like="avx2",
        gigahertz=2.6,
        tile_rows=4,
        l3=8.0,
        cycles=lambda shuffles: 4 * (1 + shuffles) / 2,
        why="Counted: four sdot and, of each mask, four tbl, two a cycle; a tbl of four registers as four.",
        forms=(*_WINDOWS, *_NARROW, *_WIDE, *_BLOCKS),
        vectors=4,
        loads=2,
        wide=4.0,
    ),
)


def count(machine: Counted, fitted: Machine) -> Machine:
    """The costs of a machine by its ports. fitted : the costs of the set that it names."""
    return replace(
        fitted,
        name=machine.name,
        cpu=machine.cpu,
        basis="counted",
        source=f"{machine.why} No kernel was timed on such a machine.",
        gigahertz=machine.gigahertz,
        forms={name: form_cost(machine, name, fitted) for name in machine.forms},
        tile_rows=machine.tile_rows,
        l3=machine.l3,
        sources={
            "forms": f"{machine.why} Tiles of compressed forms and of blocks: as fitted for {machine.like}.",
            "gigahertz": "A usual one of such CPUs; gains hardly depend on it.",
            "l3": "A usual one of such CPUs.",
            **dict.fromkeys(("output", "line", "call"), f"As fitted for {machine.like}."),
        },
        error=None,
        gains=None,
    )


def form_cost(machine: Counted, name: str, fitted: Machine) -> FormCost:
    """The cost of a form by ports: of blocks, loads of rows and of weights may be the limit."""
    form: Any = native().form(name)
    if form.body == "blocks":
        loads = (machine.vectors / form.share + 1) / machine.loads
        return FormCost(round(max(machine.cycles(0.0), loads), 4), fitted.forms[name].tile)
    shuffles = 1 / form.share if form.share else 0.0
    row = machine.cycles(shuffles * (machine.wide if form.reach == 64 else 1.0))
    return FormCost(round(row, 4), fitted.forms[name].tile if form.few_rows else 0.0)

"""The instruction sets of this machine: their kernels are timed, and all of their costs fitted."""

from __future__ import annotations

from collections.abc import Sequence

from openwork.backends.library import native
from openwork.prediction.cost import seconds
from openwork.prediction.machines import Machine
from openwork.support.machine import this_machine

from . import fit
from .measure import Time

# Of the register loop: operations of a dot product of 16 channels by four bytes, one a cycle on Zen 4.
OPERATIONS = 128
CLOCK_ISA = "avx512vnni"
TILE_ROWS = {"avx512vnni": 12, "avx2": 4}
COMMAND = "python -m benchmarks.cost_model"


def fit_times(isa: str, times: Sequence[Time]) -> Machine:
    """The costs of an instruction set, fitted to its times."""
    start = _start(isa, times)
    names = [f"{form}.{part}" for form in start.forms for part in ("row", "tile")]
    names += ["output", "l3", "call", *(["line"] if any(t.count.lines for t in times) else [])]

    def predicted(machine: Machine) -> list[float]:
        return [seconds(machine, time.count, time.rows, time.sizes.n) for time in times]

    return fit.fitted(start, names, predicted, [time.seconds for time in times])


def _start(isa: str, times: Sequence[Time]) -> Machine:
    forms = tuple(dict.fromkeys(time.count.form for time in times))
    machine = this_machine()
    return Machine(
        name=isa,
        cpu=machine.cpu,
        basis="fitted",
        source=f"Fitted to times of these kernels on one thread of an {machine.cpu} by `{COMMAND} {isa}`.",
        gigahertz=gigahertz(),
        forms=fit.costs(forms, 1.0, 4.0),
        tile_rows=TILE_ROWS[isa],
        output=0.5,
        line=4.0,
        pick=0.0,
        expand=0.0,
        l2=1e6,
        l3=20.0,
        call=500.0,
        sources={
            "gigahertz": "The register loop of avx512vnni: a cycle for each dot product on Zen 4.",
            "tile_rows": "The largest tile of most of its forms.",
            "l2": "No limit of its own: part of what a tile of rows costs.",
        },
        error=None,
        gains=None,
    )


def gigahertz() -> float:
    """The clock, by what the register loop does."""
    return round(float(native().peak("i8", CLOCK_ISA, 1)) / OPERATIONS / 1e9, 2)

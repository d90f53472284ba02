"""The matrix unit, which this machine may lack: fitted to gains of a plain kernel on one that has it.

Measured on one core of an Emerald Rapids virtual machine at 2.1 GHz by a plain kernel: u8 in, u8 out,
requantized; its stages (pick, multiply, convert) one after the other, its activations in tiles already.
Nothing was measured with today's kernels, which overlap the stages and copy activations into panels.
"""

from __future__ import annotations

from dataclasses import replace

from openwork.engine.problem import MatrixProduct
from openwork.prediction.cost import seconds
from openwork.prediction.counts import Count, count_forms
from openwork.prediction.machines import FormCost, Machine

from . import counted, fit

PATTERNS = ("64:128@64", "64:128@128", "64:256@64", "64:256@128")
FORMS = {"64:128@64": "tiles64", "64:128@128": "tiles128", "64:256@64": "tiles64", "64:256@128": "tiles128"}
# By rows, k and n: times of own dense over the pattern's, where both were measured.
GAINS: dict[tuple[int, int, int], tuple[float, ...]] = {
    (32, 768, 768): (1.51, 1.63, 1.81, 1.96),
    (128, 384, 1536): (1.58, 1.66),
    (128, 768, 768): (1.49, 1.69, 2.06, 2.37),
    (128, 768, 3072): (1.82, 2.12, 2.76, 3.35),
    (128, 3072, 768): (1.85, 2.09, 3.26, 3.87),
    (2048, 768, 768): (1.49, 1.78, 2.27, 2.76),
    (2048, 768, 3072): (1.64, 1.91, 2.17, 2.78),
    (2048, 3072, 768): (1.68, 2.06, 3.57, 4.13),
}
CPU = "Emerald Rapids (a virtual machine, 2.1 GHz)"
SOURCE = (
    "Fitted to gains measured on one core of an Emerald Rapids virtual machine at 2.1 GHz by a plain kernel; "
    "nothing was measured with today's kernels."
)
GIGAHERTZ = 2.1
# Cycles of one tdpbusd, whose 16 rows each make 16 dot products of 16 channels; the plain kernel reached at
# best 80% of the unit's peak.
TILE_CYCLES, TILE_PRODUCTS, REACHED = 16, 16 * 16, 0.8
# Bytes a second that a core read there.
L2, L3 = 124e9, 14e9
SOURCES = {
    "tiles": "16 cycles for a product of tiles, of which the plain kernel reached at best 80%.",
    "dense": "As counted for avx512vnni_intel, and with it all forms over windows and blocks.",
    "output": "Fitted to the gains.",
    "pick": "Fitted to the gains.",
    "line": "Counted: a load and a store of 64 bytes, and as much again for rows that lie apart.",
    "expand": "Counted: an expansion, its loads and its store, and counting the bits of the mask.",
    "l2": "Measured there: 124 GB/s.",
    "l3": "Measured there: 14 GB/s.",
    "call": "As fitted for avx512vnni.",
}


def fit_gains(vnni: Machine) -> Machine:
    """The costs of the matrix unit. vnni : the fitted costs of avx512vnni, for what no gain tells."""
    start = _start(vnni)
    points = [
        (size, p, gain) for size, found in GAINS.items() for p, gain in zip(PATTERNS, found, strict=False)
    ]
    counts = {(k, n, p): _count(n, k, p) for (_, k, n), p, _ in points}
    dense = {(k, n): _count(n, k, None) for (_, k, n), _, _ in points}

    def predicted(machine: Machine) -> list[float]:
        # The plain kernel took its turns with others on the same weights: they came from the second level.
        warm = replace(machine, l3=machine.l2, line=0.0)
        return [
            seconds(warm, dense[k, n], rows, n) / seconds(warm, counts[k, n, p], rows, n)
            for (rows, k, n), p, _ in points
        ]

    return fit.fitted(start, ("pick", "output"), predicted, [gain for *_, gain in points])


def _count(n: int, k: int, pattern: str | None) -> Count:
    (count,) = count_forms(MatrixProduct(n, k), pattern, (FORMS[pattern] if pattern else "tiles",))
    return count


def _start(vnni: Machine) -> Machine:
    tiles = FormCost(TILE_CYCLES / TILE_PRODUCTS / REACHED, 0.0)
    (ports,) = (machine for machine in counted.MACHINES if machine.name == "avx512vnni_intel")
    windows = {name: counted.form_cost(ports, name, vnni) for name in ports.forms}
    names = ("tiles", "tiles16", "tiles32", "tiles64", "tiles128", "tilespacked")
    return replace(
        vnni,
        name="amx",
        cpu=CPU,
        source=SOURCE,
        gigahertz=GIGAHERTZ,
        forms={**windows, **dict.fromkeys(names, tiles)},
        output=0.3,
        line=2.0,
        pick=2.0,
        expand=4.0,
        l2=round(L2 / GIGAHERTZ / 1e9, 1),
        l3=round(L3 / GIGAHERTZ / 1e9, 1),
        sources=SOURCES,
        gains=None,
    )

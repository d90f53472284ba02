"""The cost model: seconds of one product in a form on a machine.

    cycles = max(arithmetic, weights) + outputs + call

Arithmetic: the dot products of each row, and of each tile of rows what loads the weights; copies, picks and
expansions. Weights: their bytes once from the third level of cache, and on a matrix unit from the second
for each panel of rows. Threads divide everything but the call.
"""

from __future__ import annotations

from openwork.prediction.counts import Count
from openwork.prediction.machines import Machine

PANEL_ROWS, EXPANDED_ROWS = 32, 128
"""Rows that a matrix unit multiplies with weights that it has loaded, and with those that it has expanded."""


def seconds(machine: Machine, count: Count, rows: int, n: int, threads: int = 1) -> float:
    """Seconds of a product of so many rows and output channels in the form of `count`."""
    return cycles(machine, count, rows, n, threads) / (machine.gigahertz * 1e9)


def cycles(machine: Machine, count: Count, rows: int, n: int, threads: int = 1) -> float:
    """The same in cycles."""
    busy = max(_arithmetic(machine, count, rows), _weights(machine, count, rows))
    return (busy + machine.output * rows * n) / threads + machine.call


def _arithmetic(machine: Machine, count: Count, rows: int) -> float:
    cost = machine.forms[count.form]
    made = _up(rows, count.together) * count.together
    products = count.products * (cost.row * made + cost.tile * _up(rows, _tile_rows(machine, count)))
    of_rows = rows * (count.lines * machine.line + count.picks * machine.pick)
    return products + of_rows + count.expanded * machine.expand * _up(rows, EXPANDED_ROWS)


def _weights(machine: Machine, count: Count, rows: int) -> float:
    again = _up(rows, PANEL_ROWS) if count.body == "tiles" and not count.expanded else 1
    return max(count.bytes / machine.l3, count.bytes * again / machine.l2)


def _tile_rows(machine: Machine, count: Count) -> int:
    return {"tiles": PANEL_ROWS, "blocks": count.together}.get(count.body, machine.tile_rows)


def _up(a: int, b: int) -> int:
    return -(-a // b)

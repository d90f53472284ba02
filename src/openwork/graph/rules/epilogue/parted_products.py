"""A Linear of which every reader takes a part of the channels becomes a Linear for each part.

So what follows one part alone, as the GELU of a gate, goes into its product, and no part is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.edit import add_initializer
from openwork.graph.model import attributes, constant, consumers, dims, is_openwork
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.followed import channels
from openwork.graph.slots import rebuilt, row_of, slot
from openwork.graph.stated_patterns import carry_pattern

FEWEST_CHANNELS = 32
"""Of a part: narrower products leave lanes idle."""


@dataclass(frozen=True)
class _Parts:
    linear: ir.Node
    cuts: tuple[ir.Node, ...]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        given = map(attributes, self.cuts)
        return [(values["begin"], values["end"]) for values in given]


def _match(node: ir.Node) -> _Parts | None:
    made = node.outputs[0]
    readers, last = consumers(made), len(dims(made) or ()) - 1
    if made.is_graph_output() or len(readers) < 2:
        return None
    if not all(is_openwork(reader, "Slice") and attributes(reader)["axis"] == last for reader in readers):
        return None
    found = _Parts(node, tuple(sorted(readers, key=lambda reader: int(attributes(reader)["begin"]))))
    # Nothing is computed twice, and nothing that nobody reads.
    ends = [0, *(end for _, end in found.ranges)]
    whole = ends[-1] == channels(node) and [begin for begin, _ in found.ranges] == ends[:-1]
    return found if whole else None


def _check(found: _Parts) -> str | None:
    if slot(found.linear, "residual") is not None:
        return "a residual follows the product of which parts are taken"
    if min(end - begin for begin, end in found.ranges) < FEWEST_CHANNELS:
        return f"a part of the product has fewer than {FEWEST_CHANNELS} channels"
    return None


def _part(found: _Parts, number: int) -> ir.Node:
    begin, end = found.ranges[number]
    linear, name = found.linear, f"{found.linear.name}.{number}"
    changed: dict[str, ir.Value | None] = {}
    for entry in row_of(linear).tensors:
        array = constant(slot(linear, entry.name))
        if array is not None and entry.shape[0] == "N":
            made = add_initializer(home(linear), f"{name}.{entry.name}", array[begin:end])
            changed[entry.name] = carry_pattern([slot(linear, entry.name)], made)
    return rebuilt(linear, changed, name)


def _replace(found: _Parts) -> Replacement:
    made = [_part(found, number) for number in range(len(found.cuts))]
    values = [(cut.outputs[0], part.outputs[0]) for cut, part in zip(found.cuts, made, strict=True)]
    return Replacement(made, values)


PARTED_PRODUCT = Rule(
    "product for each part that is read", frozenset({"Linear"}), _match, _check, _replace, domain=DOMAIN
)

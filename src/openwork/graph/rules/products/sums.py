"""A product whose weight is a sum of integers, as several products and the sum of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from openwork.graph.model import Array, make

Nodes = list[ir.Node]


def summed(parts: Sequence[Array], product: Callable[[Array, str, bool], Nodes], name: str) -> Nodes:
    """The nodes of a product with each part, of which the last makes the whole.

    product : of a part, the name of its layer, and whether it is the first, which has the bias.
    """
    nodes = product(parts[0], name, True)
    for number, part in enumerate(parts[1:], start=1):
        total = nodes[-1].outputs[0]
        nodes += product(part, f"{name}.part{number}", False)
        nodes.append(make("Add", {"a": total, "b": nodes[-1].outputs[0]}, {}, f"{name}.sum{number}"))
    return nodes

"""The same elements under another shape."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import Dims, dims, know_dims, make

KEPT, REST = 0, -1


def target_shape(given: Dims | None, made: Dims | None) -> tuple[int, ...] | str:
    """The attribute `shape` of Reshape that makes one shape of another: 0 for a free size at its place, -1
    for another one; or why there is none."""
    if given is None or made is None or None in made:
        return "its shapes are not known"
    sizes = []
    for place, size in enumerate(made):
        at_its_place = place < len(given) and given[place] == size
        sizes.append(size if isinstance(size, int) else KEPT if at_its_place else REST)
    if sizes.count(REST) > 1:
        return f"it makes several free sizes anew, {list(made)} of {list(given)}"
    return tuple(sizes)


def reshaped(x: ir.Value, shape: Dims, name: str) -> ir.Node:
    """A Reshape of a value to a shape that `target_shape` has an attribute for."""
    target = target_shape(dims(x), shape)
    if isinstance(target, str):
        raise ValueError(f"{name}: {target}.")
    made = make("Reshape", [x], {"shape": list(target)}, name)
    know_dims(made.outputs[0], list(shape))
    return made

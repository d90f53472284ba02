"""Which channels of a model may change places: a walk over its exported graph.

The model is exported with `torch.export`, which leaves one flat graph of ATen operators with every
parameter by name, whatever the Python code looks like. The walk (`rules/`) gives each tensor its atoms
and collects what joins or tells apart atoms; from that follow the *classes*: channels that may be put in
any order among themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from openwork.sparsity.permutation.relations import Relations, Use
from openwork.sparsity.permutation.rules.table import apply
from openwork.sparsity.permutation.values import Source, Value
from openwork.sparsity.permutation.walk import Consumer, Walk, shape_of


@dataclass(frozen=True)
class ChannelClass:
    """Channels that may be put in any order among themselves.

    places : for each way in which a tensor counts them, i64 [times, channels]: where each channel stands,
    in the order of the flattened count. The c-th channel is the same everywhere.
    """

    places: Mapping[Use, np.ndarray]

    @property
    def channels(self) -> int:
        return int(next(iter(self.places.values())).shape[1])


@dataclass(frozen=True)
class ChannelGraph:
    """What a walk found.

    classes : the permutable classes, in the order in which the model meets them. consumers : the weights that
    channels enter, by qualified name. reasons, output_reasons : for the qualified name of a weight whose
    input or output channels, or some of them, must keep their order, a sentence. length : the terms of all
    sums in the graph together, along the longest dimension of each (for the tolerance of the check).
    lowered : whether the model casts to a lower precision. unreached : the weights that the traced
    computation does not read.
    """

    classes: tuple[ChannelClass, ...]
    consumers: Mapping[str, Consumer]
    reasons: Mapping[str, str]
    output_reasons: Mapping[str, str]
    length: int = 0
    lowered: bool = False
    unreached: tuple[str, ...] = ()


def channel_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> ChannelGraph:
    """Trace a model in evaluation mode on example inputs and find its permutable channels.

    Raises whatever `torch.export.export` raises where the model cannot be exported.
    """
    with torch.no_grad():
        exported = torch.export.export(model, args, dict(kwargs or {}), strict=False)
    signature = exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    walk = Walk()
    first = _first_names(model)
    for node in exported.graph.nodes:
        walk.known[node] = _known(walk, node, names, first)
    seen = {use.tensor for use in walk.relations.uses}
    unreached = (name for name, weight in model.named_parameters() if weight.ndim > 1 and name not in seen)
    return replace(_found(walk, exported.graph), unreached=tuple(unreached))


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name
    of the same tensor (tied weights have several).
    """
    seen: dict[int, str] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: seen.setdefault(id(tensor), name) for name, tensor in tensors}


def _known(walk: Walk, node: fx.Node, names: Mapping[str, str], first: Mapping[str, str]) -> Any:
    if node.op == "placeholder":
        name = names.get(node.name)
        if name is None or name not in first:
            return Value(None, shape_of(node), "They are the model's inputs, which keep their order.")
        return Source(first[name], shape_of(node))
    if node.op == "output":
        return walk.refuse(node, "They are the model's outputs, which keep their order.")
    return apply(walk, node) if node.op == "call_function" else None


def _found(walk: Walk, graph: fx.Graph) -> ChannelGraph:
    relations = walk.relations
    components = relations.components()
    touched = np.unique(components[relations.touched()])
    _complete(relations, components)
    signatures = relations.signatures(components)
    classes = _classes(relations, components, signatures, touched)
    nodes = list(graph.nodes)
    return ChannelGraph(
        tuple(classes),
        dict(walk.consumers),
        *_reasons(walk, components),
        sum(_terms(node) for node in nodes),
        any(_lowers(node) for node in nodes),
    )


def _complete(relations: Relations, components: np.ndarray) -> None:
    """Give the elements of stored tensors that this trace did not read their place beside those that it read.

    A table of positions is read as far as the example is long; the rest of its rows must move along. Where
    no axis explains what was read, and where a tensor is counted in two ways, its channels are fixed.
    """
    touched = relations.touched()
    ways: dict[str, set[str]] = {}
    for use in relations.uses:
        ways.setdefault(use.tensor, set()).add(use.family)
    for use, atoms in relations.uses.items():
        flat = atoms.numpy()
        if "elements" in ways[use.tensor] and len(ways[use.tensor]) > 1:
            relations.fix(atoms.flatten(), f"{use.tensor} is read in two ways.")
        elif use.family == "elements" and touched[flat].any() and not touched[flat].all():
            spread = _along_one_axis(components[flat], touched[flat])
            if spread is None:
                relations.fix(
                    atoms.flatten()[torch.as_tensor(touched[flat].ravel())],
                    f"Only parts of {use.tensor} are read.",
                )
            else:
                components[flat] = spread


def _along_one_axis(sets: np.ndarray, touched: np.ndarray) -> np.ndarray | None:
    """`sets` with the untouched elements filled in from the axis that decides the touched ones;
    None without one.
    """
    for axis in reversed(range(sets.ndim)):
        moved, seen = np.moveaxis(sets, axis, -1), np.moveaxis(touched, axis, -1)
        moved, seen = moved.reshape(-1, moved.shape[-1]), seen.reshape(-1, seen.shape[-1])
        if not seen.any(axis=0).all():
            continue
        named = moved[seen.argmax(axis=0), np.arange(moved.shape[1])]
        if (np.where(seen, moved, named) == named).all():
            shape = [1] * sets.ndim
            shape[axis] = -1
            return np.broadcast_to(named.reshape(shape), sets.shape)
    return None


def _classes(
    relations: Relations, components: np.ndarray, signatures: np.ndarray, touched: np.ndarray
) -> list[ChannelClass]:
    places: dict[np.uint64, dict[Use, np.ndarray]] = {}
    for use, atoms in relations.uses.items():
        sets = components[atoms.numpy().ravel()]
        # A stable sort by set: the k-th place of one set answers to the k-th place of another.
        order = np.argsort(sets, kind="stable")
        found, starts, times = np.unique(sets[order], return_index=True, return_counts=True)
        movable = np.flatnonzero(np.isin(found, touched))
        # Most sets of a large table stand alone, and there may be tens of thousands of them.
        alike, firsts, sizes = np.unique(signatures[found][movable], return_index=True, return_counts=True)
        for kind in sorted(np.flatnonzero(sizes > 1), key=firsts.__getitem__):
            chosen = movable[signatures[found][movable] == alike[kind]]
            rows = order[starts[chosen][None] + np.arange(int(times[chosen[0]]))[:, None]]
            places.setdefault(alike[kind], {})[use] = rows
    return [ChannelClass(uses) for uses in places.values()]


def _reasons(walk: Walk, components: np.ndarray) -> tuple[dict[str, str], dict[str, str]]:
    """Why the input channels of a weight keep their order, and why its output channels do, for the weights
    where some of them do.
    """
    first: dict[int, str] = {}
    for atoms, reason in walk.relations.reasons:
        for number in np.unique(components[atoms]).tolist():
            first.setdefault(number, reason)

    def why(use: Use) -> str:
        atoms = walk.relations.uses.get(use)
        sets = [] if atoms is None else components[atoms.numpy().ravel()].tolist()
        return next((first[number] for number in sets if number in first), "")

    inputs = {name: why(each.use) for name, each in walk.consumers.items()}
    outputs = {name: why(Use(name, "axis", each.out_axis)) for name, each in walk.consumers.items()}
    return _said(inputs), _said(outputs)


def _said(reasons: Mapping[str, str]) -> dict[str, str]:
    return {name: reason for name, reason in reasons.items() if reason}


def _lowers(node: fx.Node) -> bool:
    """Whether a float is cast to a type narrower than double precision, whatever its own type."""
    if not any(word in str(node.target) for word in ("to.dtype", "_to_copy", "aten.float", "aten.half")):
        return False
    before, after = (each.meta.get("val") for each in (node.all_input_nodes[0], node))
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    narrow = (torch.float32, torch.float16, torch.bfloat16)
    return before.is_floating_point() and after.dtype in narrow


_SUMS = ("linear", "conv", "matmul", "mm", "bmm", "norm", "attention", "mean", "sum", "softmax", "pool")


def _terms(node: fx.Node) -> int:
    """The most terms that an element of this operator's output is a sum of:
    its largest input per output element.
    """
    name = str(node.target)
    if node.op != "call_function" or not any(word in name for word in _SUMS):
        return 0
    sizes = [shape_of(each) for each in node.all_input_nodes]
    if any(word in name for word in ("conv", "linear")) and len(sizes) > 1:
        return int(np.prod(sizes[1][1:]))
    return max((max(size, default=1) for size in sizes[:2]), default=1)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by their first names."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def touched_names(classes: Sequence[ChannelClass]) -> list[str]:
    """The tensors that classes stand in, each once."""
    return list(dict.fromkeys(use.tensor for each in classes for use in each.places))

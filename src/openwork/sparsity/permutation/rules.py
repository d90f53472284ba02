"""What each operator of an exported graph does to channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from openwork.sparsity.permutation.relations import Relations, Use
from openwork.sparsity.permutation.values import (
    Source,
    Value,
    aligned,
    combined,
    compressed,
    first_reason,
    positions,
    written_out,
)

Known = Value | Source | list[Any] | None
Rule = Callable[["Walk", fx.Node], Known]
RULES: dict[str, Rule] = {}

# Operators that only move elements: they are run on the atoms themselves.
_MOVES = [
    "view",
    "reshape",
    "_unsafe_view",
    "permute",
    "transpose",
    "t",
    "numpy_T",
    "movedim",
    "swapaxes",
    "select",
    "slice",
    "narrow",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "cat",
    "concat",
    "stack",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "repeat",
    "flip",
    "roll",
    "repeat_interleave",
    "pixel_shuffle",
    "channel_shuffle",
    "index_select",
    "tile",
    "ravel",
    "view_as",
    "reshape_as",
    "tensor_split",
]
_SAME = [
    "dropout",
    "alpha_dropout",
    "feature_dropout",
    "to",
    "_to_copy",
    "type_as",
    "contiguous",
    "clone",
    "alias",
    "detach",
    "lift_fresh_copy",
    "hardswish",
    "masked_fill",
    "where",
    "float",
    "half",
    "log_softmax_backward",
    "hardtanh",
    "rrelu",
    "elu",
    "leaky_relu",
]
_EXPANSIONS = ("expand", "expand_as", "broadcast_to")
_REDUCTIONS = [
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "norm",
    "linalg_vector_norm",
    "logsumexp",
    "all",
    "any",
    "prod",
]
_POOLS = [
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_nearest1d",
    "constant_pad_nd",
    "pad",
]


@dataclass(frozen=True)
class Consumer:
    """A weight that channels enter. axis, blocks : the weight's axis of input channels and its blocks."""

    use: Use
    out_axis: int
    in_axis: int
    blocks: int = 1


@dataclass
class Walk:
    """The state of a walk over a graph: what is known of each node, and the weights met."""

    relations: Relations = field(default_factory=Relations)
    known: dict[fx.Node, Known] = field(default_factory=dict)
    consumers: dict[str, Consumer] = field(default_factory=dict)

    def value(self, node: fx.Node) -> Value:
        """What is known of a tensor, a stored one counted element by element."""
        found = self.known.get(node)
        if isinstance(found, Source):
            return found.value(self.relations)
        return found if isinstance(found, Value) else Value(None, shape_of(node))

    def source(self, node: object) -> Source | None:
        found = self.known.get(node) if isinstance(node, fx.Node) else None
        return found if isinstance(found, Source) else None

    def refuse(self, node: fx.Node, reason: str) -> Known:
        """Whatever enters `node` keeps its order."""
        for argument in node.all_input_nodes:
            self._refuse_value(self.known.get(argument), argument, reason)
        return Value(None, shape_of(node), reason) if isinstance(node.meta.get("val"), Tensor) else None

    def _refuse_value(self, found: Known, node: fx.Node, reason: str) -> None:
        for part in found if isinstance(found, list) else [found]:
            value = part.value(self.relations) if isinstance(part, Source) else part
            if isinstance(value, Value) and value.atoms is not None:
                self.relations.fix(value.atoms.flatten(), reason)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else ()


def place(node: fx.Node) -> str:
    """Where an operator stands: its name and the module it belongs to."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = stack[-1][0] if stack else ""
    return f"{name_of(node)} of {module or 'the model'}"


def name_of(node: fx.Node) -> str:
    target = node.target
    name = target._schema.name.split("::")[1] if isinstance(target, torch._ops.OpOverload) else str(target)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def apply(walk: Walk, node: fx.Node) -> Known:
    """What is known after `node`, an operator."""
    name = name_of(node)
    if name in RULES:
        return RULES[name](walk, node)
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and (
        torch.Tag.pointwise in target.tags or _inplace_twin(target)
    ):
        return pointwise(walk, node)
    if not isinstance(node.meta.get("val"), Tensor | list | tuple):
        return None
    return walk.refuse(node, f"They reach {place(node)}, which is not followed.")


def _inplace_twin(target: torch._ops.OpOverload) -> bool:
    packet = getattr(torch.ops.aten, target._schema.name.split("::")[1].rstrip("_"), None)
    twin = getattr(packet, target._overloadname, None) if packet is not None else None
    return twin is not None and torch.Tag.pointwise in twin.tags


@rule(*_SAME)
def pointwise(walk: Walk, node: fx.Node) -> Known:
    operands = [walk.value(each) for each in node.all_input_nodes]
    return combined(walk.relations, operands, shape_of(node), place(node))


@rule("getitem", "<built-in function getitem>")
def item(walk: Walk, node: fx.Node) -> Known:
    found = walk.known.get(node.args[0])  # type: ignore[arg-type]
    return found[node.args[1]] if isinstance(found, list) else None  # type: ignore[index]


@rule(*_EXPANSIONS)
def expansion(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.all_input_nodes[0])
    lead = len(shape_of(node)) - len(value.shape)
    atoms = None if value.atoms is None else value.atoms.view((1,) * lead + tuple(value.atoms.shape))
    return Value(atoms, (1,) * lead + value.shape, value.reason)


@rule(*_MOVES)
def move(walk: Walk, node: fx.Node) -> Known:
    source = walk.source(node.all_input_nodes[0])
    if source is not None and (part := _part_of(source, node)) is not None:
        return part
    values = {each: walk.value(each) for each in node.all_input_nodes}
    if all(value.atoms is None for value in values.values()):
        outputs = node.meta.get("val")
        reason = first_reason(values.values())
        if isinstance(outputs, list | tuple):
            return [Value(None, tuple(o.shape), reason) for o in outputs]
        return Value(None, shape_of(node), reason)
    written = {each: written_out(value, shape_of(each)) for each, value in values.items()}
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: written[each])
    # Atoms that were expanded have no strides for a view.
    views = name_of(node) in ("view", "_unsafe_view")
    operator: Any = torch.reshape if views else node.target
    result = operator(*args, **kwargs)
    return [compressed(part) for part in result] if isinstance(result, list | tuple) else compressed(result)


def _part_of(source: Source, node: fx.Node) -> Known:
    """A stored matrix stays one where it is transposed or parted along its first axis."""
    name = name_of(node)
    if len(source.shape) == 2 and source.rows is None and name in ("t", "numpy_T", "transpose", "permute"):
        return replace(source, swapped=not source.swapped)
    if name not in ("split", "split_with_sizes", "chunk") or source.swapped or len(source.shape) < 2:
        return None
    if argument(node, 2, "dim", 0) != 0 or source.rows is not None:
        return None
    parts, start = [], 0
    for output in node.meta["val"]:
        parts.append(replace(source, rows=range(start, start + output.shape[0])))
        start += output.shape[0]
    return parts


@rule("linear")
def linear(walk: Walk, node: fx.Node) -> Known:
    weight = walk.source(argument(node, 1, "weight"))
    if weight is None:
        return walk.refuse(node, f"They meet a weight that is computed, in {place(node)}.")
    return _product(walk, _Call(node, node.all_input_nodes[0]), weight, argument(node, 2, "bias"), out_axis=0)


@rule("matmul", "mm", "addmm", "bmm", "baddbmm")
def matmul(walk: Walk, node: fx.Node) -> Known:
    adds = name_of(node) in ("addmm", "baddbmm")
    left, right = node.args[1:3] if adds else node.args[:2]
    bias = node.args[0] if adds else None
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    weight = walk.source(right)
    if weight is not None and len(weight.shape) == 2:
        return _product(walk, _Call(node, left), weight, bias, out_axis=1)
    if adds:
        return walk.refuse(node, f"They reach {place(node)}, which is not followed.")
    return _contraction(walk, node, walk.value(left), walk.value(right))


@dataclass(frozen=True)
class _Call:
    """A product's node and the node that its channels come from."""

    node: fx.Node
    first: fx.Node


def _product(walk: Walk, call: _Call, weight: Source, bias: Any, out_axis: int) -> Known:
    node, first = call.node, call.first
    incoming = weight.axis(walk.relations, 1 - out_axis)
    enter(walk, walk.value(first), incoming, axis=-1, node=node)
    stored = 1 - out_axis if weight.swapped else out_axis
    use = Use(weight.name, "axis", 1 - stored)
    walk.consumers.setdefault(weight.name, Consumer(use, stored, 1 - stored))
    outgoing = weight.axis(walk.relations, out_axis)
    return _with_bias(walk, node, outgoing, bias, axis=len(shape_of(node)) - 1)


def _with_bias(walk: Walk, node: fx.Node, outgoing: Tensor, bias: Any, axis: int) -> Value:
    shape = shape_of(node)
    outgoing = outgoing.view([-1 if a == axis else 1 for a in range(len(shape))])
    if isinstance(bias, fx.Node):
        value = walk.value(bias)
        if value.atoms is not None:
            atoms = value.atoms.view(outgoing.shape)
            walk.relations.join(outgoing, atoms, f"They meet a bias that cannot move, in {place(node)}.")
        elif max(value.shape, default=1) > 1:
            walk.relations.fix(outgoing.flatten(), f"They meet a computed bias, in {place(node)}.")
    return Value(outgoing, shape)


def enter(walk: Walk, value: Value, incoming: Tensor, axis: int, node: fx.Node) -> None:
    """The channels along `axis` of a value are the ones that a weight's `incoming` atoms, i64 [channels],
    multiply.
    """
    axis %= len(value.shape)
    if value.atoms is None or value.atoms.shape[axis] != len(incoming):
        unknown = f"They enter {place(node)} in an order that a step before it sets."
        walk.relations.fix(incoming, value.reason or unknown)
        if value.atoms is not None:
            walk.relations.fix(
                value.atoms.flatten(), f"They enter {place(node)} beside channels that keep their order."
            )
        return
    spread = incoming.view([-1 if a == axis else 1 for a in range(value.atoms.ndim)])
    walk.relations.join(value.atoms, spread, f"They meet channels that cannot move, in {place(node)}.")
    others = [a for a in value.varying if a != axis]
    if others:
        walk.relations.tell_apart(value.atoms, positions(value.atoms, others))


def _contraction(walk: Walk, node: fx.Node, left: Value, right: Value) -> Known:
    """A product of two computed tensors [..., m, k] x [..., k, n]: heads stay, channels move within them."""
    rank = max(len(left.shape), len(right.shape))
    left, right = aligned(left, rank), aligned(right, rank)
    k_left, k_right = rank - 1, rank - 2
    batch = range(rank - 2)
    for one in (left, right):
        if one.atoms is not None:
            walk.relations.tell_apart(one.atoms, positions(one.atoms, batch))
    meets = k_left in left.varying or k_right in right.varying
    rows, columns = rank - 2 in left.varying, rank - 1 in right.varying
    if meets:
        if rows or columns or k_left not in left.varying or k_right not in right.varying:
            return walk.refuse(
                node, f"They are multiplied by values that keep their order, in {place(node)}."
            )
        assert left.atoms is not None
        assert right.atoms is not None
        walk.relations.join(
            left.atoms, right.atoms.transpose(-1, -2), f"They meet fixed channels, in {place(node)}."
        )
        return Value(None, shape_of(node))
    if rows and columns:
        return walk.refuse(node, f"Channels become both rows and columns, in {place(node)}.")
    kept = left if rows else right
    return Value(kept.atoms if rows or columns else None, shape_of(node))


@rule("scaled_dot_product_attention")
def attention(walk: Walk, node: fx.Node) -> Known:
    query, key, value = (walk.value(each) for each in node.args[:3])  # type: ignore[arg-type]
    if query.shape[:-2] != key.shape[:-2]:
        return walk.refuse(node, f"Queries and keys have different numbers of heads, in {place(node)}.")
    swapped = Value(
        None if key.atoms is None else key.atoms.transpose(-1, -2),
        (*key.shape[:-2], key.shape[-1], key.shape[-2]),
    )
    _contraction(walk, node, query, swapped)
    weights = Value(None, (*query.shape[:-1], key.shape[-2]))
    return _contraction(walk, node, weights, value)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    if value.atoms is not None:
        axis = argument(node, 1, "dim") % len(value.shape)
        walk.relations.tell_apart(
            value.atoms, positions(value.atoms, [a for a in value.varying if a != axis])
        )
    return value


@rule(*_REDUCTIONS)
def reduction(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    if value.atoms is None:
        return Value(None, shape_of(node), value.reason)
    rank, output = len(value.shape), node.meta["val"]
    if name_of(node) in ("max", "min") and not isinstance(output, Tensor):
        return walk.refuse(node, f"They reach {place(node)}, which gives their places.")
    index = 2 if name_of(node) in ("norm", "linalg_vector_norm") else 1
    dims = argument(node, index, "dim")
    dims = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    reduced = {axis % rank for axis in dims}
    atoms = value.atoms
    if reduced & set(value.varying):
        walk.relations.tell_apart(atoms, positions(atoms, [a for a in value.varying if a not in reduced]))
        return None
    keeps = output.ndim == rank
    for axis in sorted(() if keeps else reduced, reverse=True):
        atoms = atoms.squeeze(axis)
    return Value(atoms, tuple(output.shape))


@rule(*_POOLS)
def pool(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    output = node.meta["val"]
    if value.atoms is None:
        return Value(None, shape_of(node), value.reason)
    spatial = [
        a for a in value.varying if not isinstance(output, Tensor) or output.shape[a] != value.shape[a]
    ]
    if not isinstance(output, Tensor) or spatial or (value.varying and max(value.varying) > 1):
        return walk.refuse(node, f"{place(node)} works along the channels.")
    return Value(value.atoms, tuple(output.shape))


@rule("embedding")
def embedding(walk: Walk, node: fx.Node) -> Known:
    weight = walk.source(node.args[0])
    if weight is None:
        return walk.refuse(node, f"They meet a table that is computed, in {place(node)}.")
    return _with_bias(walk, node, weight.axis(walk.relations, 1), None, axis=len(shape_of(node)) - 1)

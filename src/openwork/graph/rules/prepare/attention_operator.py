"""ONNX's Attention, from opset 23 on, written out: what becomes of products and softmax becomes of it too."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import Dim, Dims, attributes, dims, needed, operand
from openwork.graph.rewrite import Replacement, Rule, home

_PAST_K, _PAST_V, _MASK = 4, 5, 3
_NEWER_INPUTS = 6
_KNOWN = frozenset(
    {
        *("is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap"),
        "softmax_precision",
    }
)


@dataclass(frozen=True)
class _Attention:
    """heads: of q and of k, and the channels of each; None where they are not known."""

    node: ir.Node
    heads: Dim
    groups: Dim
    size: Dim


def _match(node: ir.Node) -> _Attention:
    q, k = (dims(needed(node, index)) or () for index in (0, 1))
    found = attributes(node)
    if len(q) == 4 and len(k) == 4:
        return _Attention(node, q[1], k[1], q[3])
    heads, groups = found.get("q_num_heads"), found.get("kv_num_heads")
    width = q[2] if len(q) == 3 else None
    size = width // heads if isinstance(width, int) and heads else None
    return _Attention(node, heads, groups, size)


def _check(found: _Attention) -> str | None:
    node, given = found.node, attributes(found.node)
    if not all(isinstance(number, int) and number > 0 for number in (found.heads, found.groups, found.size)):
        return "its heads and their channels are not known"
    if unknown := set(given) - _KNOWN:
        return f"it has {', '.join(sorted(unknown))}, for which there is no native operator"
    if given.get("softcap", 0.0) != 0.0:
        return "it caps its scores softly, for which there is no native operator"
    if len(node.outputs) > 3 and _is_needed(node.outputs[3]):
        return "its scores are read by other nodes, or given"
    if _value_size(found) != found.size:
        return "its values have heads of another size than its queries"
    if operand(node, _NEWER_INPUTS) is not None:
        return "it takes the number of keys of each batch element; give a mask instead"
    if any(needed(node, index).dtype != ir.DataType.FLOAT for index in range(3)):
        return "its queries, keys and values are not floats"
    mask = operand(node, _MASK)
    if mask is not None and (dims(mask) is None or mask.dtype not in (ir.DataType.FLOAT, ir.DataType.BOOL)):
        return "its mask is neither floats nor booleans"
    return None


def _value_size(found: _Attention) -> Dim:
    """The channels of a head of values; None where they are not known."""
    shape = dims(needed(found.node, 2)) or ()
    width = shape[-1] if shape else None
    if len(shape) != 3:
        return width
    groups = found.groups
    return width // groups if isinstance(width, int) and isinstance(groups, int) and groups else None


@dataclass
class _Written:
    """New nodes, one after the other."""

    graph: ir.Graph
    name: str
    nodes: list[ir.Node] = field(default_factory=list)

    def add(
        self, op_type: str, inputs: list[ir.Value], shape: Dims | None, **given: int | list[int]
    ) -> ir.Value:
        number = len(self.nodes)
        typed = ir.convenience.convert_attributes(dict(given))
        node = ir.Node("", op_type, inputs, typed, name=f"{self.name}/{op_type}.{number}")
        node.outputs[0].shape = None if shape is None else ir.Shape(shape)
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        self.nodes.append(node)
        return node.outputs[0]

    def integers(self, op_type: str, inputs: list[ir.Value], shape: Dims, **given: int) -> ir.Value:
        value = self.add(op_type, inputs, shape, **given)
        value.type = ir.TensorType(ir.DataType.INT64)
        return value

    def stored(self, name: str, array: object, dtype: type = np.int64) -> ir.Value:
        return add_initializer(self.graph, f"{self.name}.{name}", np.array(array, dtype))

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """A size as an i64 []."""
        shape = self.integers("Shape", [value], (len(dims(value) or ()),))
        return self.integers("Gather", [shape, self.stored(f"axis_{axis}", axis)], (), axis=0)


def _split(w: _Written, x: ir.Value, heads: Dim, size: Dim) -> ir.Value:
    """[B, L, H] as [B, heads, L, D]; four axes as they are."""
    shape = dims(x) or ()
    if len(shape) == 4:
        return x
    split = w.add("Reshape", [x, w.stored(f"split_{heads}", [0, 0, heads, size])], (*shape[:2], heads, size))
    return w.add("Transpose", [split], (shape[0], heads, shape[1], size), perm=[0, 2, 1, 3])


def _behind(w: _Written, past: ir.Value | None, new: ir.Value) -> ir.Value:
    if past is None:
        return new
    shape = dims(new) or ()
    return w.add("Concat", [past, new], (*shape[:2], None, shape[3]), axis=2)


def _shared(w: _Written, x: ir.Value, found: _Attention) -> ir.Value:
    """Each head of [B, G, T, D] for all that share it."""
    if found.heads == found.groups:
        return x
    assert isinstance(found.heads, int)
    assert isinstance(found.groups, int)
    shape, repeats = dims(x) or (), found.heads // found.groups
    one = w.add("Unsqueeze", [x, w.stored("axis", [2])], (*shape[:2], 1, *shape[2:]))
    many = w.add(
        "Expand", [one, w.stored("repeats", [1, 1, repeats, 1, 1])], (*shape[:2], repeats, *shape[2:])
    )
    target = w.stored("heads", [0, found.heads, -1, found.size])
    return w.add("Reshape", [many, target], (shape[0], found.heads, *shape[2:]))


def _causal(w: _Written, scores: ir.Value, q: ir.Value, keys: ir.Value, past: ir.Value | None) -> ir.Value:
    """Query i sees the keys up to i and as many as the past has."""
    zero, one = w.stored("zero", 0), w.stored("one", 1)
    rows = w.integers("Range", [zero, w.size(q, 2), one], (None,))
    columns = w.integers("Range", [zero, w.size(keys, 2), one], (None,))
    last = rows if past is None else w.integers("Add", [rows, w.size(past, 2)], (None,))
    column = w.integers("Unsqueeze", [last, w.stored("column", [1])], (None, 1))
    hidden = w.add("Greater", [columns, column], (None, None))
    hidden.type = ir.TensorType(ir.DataType.BOOL)
    return w.add("Where", [hidden, w.stored("low", -np.inf, np.float32), scores], dims(scores))


def _masked(w: _Written, scores: ir.Value, mask: ir.Value | None) -> ir.Value:
    if mask is None:
        return scores
    if mask.dtype == ir.DataType.FLOAT:
        return w.add("Add", [scores, mask], dims(scores))
    return w.add("Where", [mask, scores, w.stored("dropped", -np.inf, np.float32)], dims(scores))


def _weights(w: _Written, scores: ir.Value, mask: ir.Value | None) -> ir.Value:
    """The softmax, of a query that booleans leave nothing 0."""
    weights = w.add("Softmax", [_masked(w, scores, mask)], dims(scores), axis=-1)
    if mask is None or mask.dtype != ir.DataType.BOOL:
        return weights
    none = w.add("IsNaN", [weights], dims(scores))
    none.type = ir.TensorType(ir.DataType.BOOL)
    return w.add("Where", [none, w.stored("nothing", 0, np.float32), weights], dims(scores))


def _replace(found: _Attention) -> Replacement:
    node, given, w = (
        found.node,
        attributes(found.node),
        _Written(home(found.node), found.node.name or "attention"),
    )
    past_k, past_v = operand(node, _PAST_K), operand(node, _PAST_V)
    q = _split(w, needed(node, 0), found.heads, found.size)
    k = _behind(w, past_k, _split(w, needed(node, 1), found.groups, found.size))
    v = _behind(w, past_v, _split(w, needed(node, 2), found.groups, found.size))
    each_k, each_v = _shared(w, k, found), _shared(w, v, found)
    (batch, heads, length, size), keys = dims(q) or (), (dims(k) or ())[2]
    turned = w.add("Transpose", [each_k], (batch, heads, size, keys), perm=[0, 1, 3, 2])
    scores = w.add("MatMul", [q, turned], (batch, heads, length, keys))
    assert isinstance(found.size, int)
    scale = w.stored("scale", given.get("scale", found.size**-0.5), np.float32)
    scores = w.add("Mul", [scores, scale], dims(scores))
    if given.get("is_causal", 0):
        scores = _causal(w, scores, q, k, past_k)
    weights = _weights(w, scores, operand(node, _MASK))
    y = w.add("MatMul", [weights, each_v], dims(q))
    if len(dims(needed(node, 0)) or ()) == 3:
        turned_back = w.add("Transpose", [y], (batch, length, heads, size), perm=[0, 2, 1, 3])
        joined = w.stored("joined", [0, 0, int(found.size) * int(str(heads))])
        y = w.add("Reshape", [turned_back, joined], dims(needed(node, 0)))
    made = [(old, new) for old, new in zip(node.outputs, (y, k, v), strict=False) if _is_needed(old)]
    return Replacement(w.nodes, made)


def _is_needed(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


EXPAND_ATTENTION = Rule("attention written out", frozenset({"Attention"}), _match, _check, _replace)

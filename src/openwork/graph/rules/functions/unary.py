"""Activations that ONNX has as one operator, and SiLU and HardSwish written out, as steps of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from openwork.engine.operators.attribute import LARGEST
from openwork.graph.model import attributes, make, needed, operand, producer, scalar
from openwork.graph.rewrite import Replacement, Rule


@dataclass(frozen=True)
class _Unary:
    """A node that is the function `op_type` of `x`."""

    node: ir.Node
    op_type: str
    x: ir.Value
    numbers: dict[str, float] = field(default_factory=dict)
    reason: str | None = None


def _check(found: _Unary) -> str | None:
    if found.x.dtype != ir.DataType.FLOAT:
        return "its input is not float32"
    return found.reason


def _replace(found: _Unary) -> Replacement:
    made = make(found.op_type, [found.x], found.numbers, found.node.name or "")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


def clip_ends(node: ir.Node) -> tuple[float, float] | None:
    """The ends, where they are constants in their order; the largest numbers for one that is not there or
    infinite. From opset 11 on they are inputs."""
    given = attributes(node)
    found = []
    for index, name, usual in ((1, "min", -LARGEST), (2, "max", LARGEST)):
        value = operand(node, index)
        number = given.get(name, usual) if value is None else scalar(value)
        if number is None or math.isnan(number):
            return None
        found.append(min(max(float(number), -LARGEST), LARGEST))
    low, high = found
    return (low, high) if low <= high else None


def _match_clip(node: ir.Node) -> _Unary:
    ends = clip_ends(node)
    x = needed(node, 0)
    if ends is None:
        return _Unary(node, "Clip", x, reason="its ends are not two constants in their order")
    return _Unary(node, "Clip", x, {"alpha": ends[0], "beta": ends[1]})


CLIP = Rule("clip", frozenset({"Clip"}), _match_clip, _check, _replace)

_DEFAULTS = {"LeakyRelu": {"alpha": 0.01}, "HardSigmoid": {"alpha": 0.2, "beta": 0.5}}
"""The numbers of ONNX's operators where the node does not give them."""


def _match_unary(node: ir.Node) -> _Unary:
    given = attributes(node)
    numbers = {name: float(given.get(name, usual)) for name, usual in _DEFAULTS.get(node.op_type, {}).items()}
    return _Unary(node, node.op_type, needed(node, 0), numbers)


UNARY = Rule(
    "activation of one operator",
    frozenset({"LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh"}),
    _match_unary,
    _check,
    _replace,
)


def _is_hard_swish(gate: ir.Node) -> bool:
    given = attributes(gate)
    alpha, beta = given.get("alpha", 0.2), given.get("beta", 0.5)
    return math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5


def _match_gate(node: ir.Node) -> _Unary | None:
    """x times a gate of x: the sigmoid's is SiLU, the hard one's HardSwish."""
    for x, other in ((needed(node, 0), needed(node, 1)), (needed(node, 1), needed(node, 0))):
        gate = producer(other, "Sigmoid", "HardSigmoid")
        if gate is None or needed(gate, 0) is not x:
            continue
        if gate.op_type == "Sigmoid":
            return _Unary(node, "Silu", x)
        if _is_hard_swish(gate):
            return _Unary(node, "HardSwish", x)
    return None


GATE = Rule("x times a gate of x", frozenset({"Mul"}), _match_gate, _check, _replace)

"""Random small Q/DQ graphs on rows of numbers, several of which are drawn into one model (`qdq_drawn`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from graph_models import Builder

ACTIVATIONS = ("Relu", "Gelu", "Tanh", "Sigmoid", "HardSwish", "LeakyRelu", "Clip")
TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


@dataclass
class Drawn:
    """A model of many graphs, what to feed it, and the nodes that attention may compute in fixed point."""

    model: onnx.ModelProto
    feeds: dict[str, NDArray[np.float32]]
    fixed: list[str]


@dataclass
class Value:
    """A name, a shape [rows, channels] or [batch, length, channels], and about how large its elements are."""

    name: str
    shape: tuple[int, ...]
    size: float


@dataclass
class Artist:
    """Draws graphs into one builder."""

    rng: np.random.Generator
    b: Builder = field(init=False)
    feeds: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.b = Builder(self.rng)

    def one_of(self, *choices: object) -> object:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def width(self) -> int:
        return 1 if self.chance(0.1) else int(self.rng.integers(2, 20))

    def input(self, channels: int, rank: int) -> Value:
        name, leading = f"x{len(self.feeds)}", tuple(int(n) for n in self.rng.integers(1, 5, rank - 1))
        self.feeds[name] = self.rng.standard_normal((*leading, channels)).astype(np.float32) * np.float32(2)
        self.b.input(name, (*leading, channels))
        return Value(name, (*leading, channels), 5.0)

    def grid(self, size: float) -> tuple[float, int, type]:
        """A scale, a zero point at an end, in the middle or anywhere, the type; a third of them saturate."""
        dtype = np.uint8 if self.chance(0.7) else np.int8
        low = 0 if dtype is np.uint8 else -128
        point = low + int(self.rng.integers(256)) if self.chance(0.4) else low + int(self.one_of(0, 128, 255))  # type: ignore[call-overload]
        reach = size * (self.rng.uniform(0.05, 0.5) if self.chance(0.35) else self.rng.uniform(1.0, 2.0))
        return float(np.float32(max(reach, 1e-3) / 128)), point, dtype

    def rounded(self, x: Value) -> Value:
        scale, point, dtype = self.grid(x.size)
        low = 0 if dtype is np.uint8 else -128
        reach = scale * max(point - low, low + 255 - point)
        return Value(self.b.round_trip(x.name, scale, point, dtype), x.shape, min(x.size, reach))

    def maybe_rounded(self, x: Value, share: float = 0.5) -> Value:
        return self.rounded(x) if self.chance(share) else x

    def product(self, x: Value, outputs: int | None = None, rounded: bool = True) -> Value:
        """x through a quantizer, times a quantized weight, with a bias or without; rarely in float."""
        k, n = x.shape[-1], outputs or self.width()
        read = self.rounded(x) if rounded and not self.chance(0.1) else x
        by_rows = len(x.shape) == 2 and self.chance(0.3)
        integers = self.rng.integers(-127, 128, (n, k) if by_rows else (k, n)).astype(np.int8)
        step = self.rng.uniform(0.5, 1.5, n).astype(np.float32) / np.float32(100 * np.sqrt(k))
        scale = self.b.constant(step if self.chance(0.6) else step[0])
        point = self.b.constant(np.zeros(step.shape if self.b.initializers[-1].dims else (), np.int8))
        axis = 0 if by_rows else 1
        weight = self.b.add("DequantizeLinear", self.b.constant(integers), scale, point, axis=axis)
        size = read.size * 1.5
        if by_rows:
            name = self.b.add("Gemm", read.name, weight, self.b.normal(n), transB=1)
        else:
            name = self.b.add("MatMul", read.name, weight)
            if self.chance(0.6):
                name, size = self.b.add("Add", name, self.b.normal(n)), size + 1
        return Value(name, (*x.shape[:-1], n), size)

    def activation(self, x: Value) -> Value:
        op = str(self.one_of(*ACTIVATIONS))
        if op == "Clip":
            return Value(
                self.b.add(op, x.name, self.b.number(-1.0), self.b.number(1.5)), x.shape, min(x.size, 1.5)
            )
        extra = {"alpha": 0.1} if op == "LeakyRelu" else {}
        return Value(self.b.add(op, x.name, **extra), x.shape, 1.0 if op in ("Tanh", "Sigmoid") else x.size)

    def norm(self, x: Value) -> Value:
        n = x.shape[-1]
        if n < 2:
            return x
        name = self.b.add(
            "LayerNormalization", x.name, self.b.normal(n), self.b.normal(n), epsilon=1e-3, axis=-1
        )
        return Value(name, x.shape, 4.0)

    def softmax(self, x: Value) -> Value:
        return Value(self.b.add("Softmax", x.name, axis=-1), x.shape, 1.0)

    def sum(self, x: Value) -> Value:
        """Two products of one value, or a product and the value itself, rounded or not, added."""
        first = self.maybe_rounded(self.product(x, x.shape[-1]))
        second = self.maybe_rounded(x if self.chance(0.5) else self.product(x, x.shape[-1]))
        pair = (first, second) if self.chance(0.5) else (second, first)
        return Value(self.b.add("Add", pair[0].name, pair[1].name), x.shape, first.size + second.size)

    def side_by_side(self, x: Value) -> Value:
        first, second = self.maybe_rounded(self.product(x)), self.maybe_rounded(self.product(x))
        name = self.b.add("Concat", first.name, second.name, axis=len(x.shape) - 1)
        shape = (*x.shape[:-1], first.shape[-1] + second.shape[-1])
        return Value(name, shape, max(first.size, second.size))

    def attention(self, x: Value) -> Value:
        """Self-attention of products of x, with quantizers inside in any of the places where they stand."""
        heads, size = int(self.rng.integers(1, 3)), int(self.rng.integers(1, 5))
        moved = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            part = self.maybe_rounded(self.product(x, heads * size), 0.4)
            split = self.b.add("Reshape", part.name, self.b.integers(0, 0, heads, size))
            value = Value(self.b.add("Transpose", split, perm=perm), (), part.size)
            moved.append(self.maybe_rounded(value, 0.3))
        q, k, v = moved
        scores = Value(self.b.add("MatMul", q.name, k.name), (), q.size * k.size * size**0.5)
        product = self.b.nodes[-1].name
        before = self.chance(0.3)
        scores = self.rounded(scores) if before else scores
        scores = Value(
            self.b.add("Mul", scores.name, self.b.number(size**-0.5)), (), scores.size * size**-0.5
        )
        after = not before and self.chance(0.2)
        weights = self.softmax(self.rounded(scores) if after else scores)
        softmax, inside = self.b.nodes[-1].name, self.chance(0.3)
        weights = self.rounded(Value(weights.name, (), 0.6)) if inside else weights
        mixed = self.b.add("MatMul", weights.name, v.name)
        if not (before or after or inside):
            self.fixed += [product, softmax, self.b.nodes[-1].name]
        mixed = self.maybe_rounded(Value(mixed, (), v.size), 0.3).name
        joined = self.b.add("Transpose", mixed, perm=[0, 2, 1, 3])
        return Value(
            self.b.add("Reshape", joined, self.b.integers(0, 0, heads * size)),
            (*x.shape[:-1], heads * size),
            v.size,
        )

    def output(self, x: Value) -> None:
        """The value as it is, rounded, or as integers."""
        kind, element = self.one_of("float", "rounded", "integers", "integers"), TensorProto.FLOAT
        name = x.name
        if kind == "rounded":
            name = self.rounded(x).name
        elif kind == "integers":
            scale, point, dtype = self.grid(x.size)
            name, element = (
                self.b.add("QuantizeLinear", x.name, *self.b.quantizer(scale, point, dtype)),
                TYPES[dtype],
            )
        self.outputs.append(helper.make_tensor_value_info(name, element, x.shape))

    def graph(self) -> None:
        """One chain of blocks, some of them read by an output of their own."""
        with_attention = self.chance(0.12)
        x = self.input(self.width(), 3 if with_attention or self.chance(0.3) else 2)
        blocks: list[Callable[[Value], Value]] = [
            self.product,
            self.product,
            self.sum,
            self.norm,
            self.activation,
        ]
        if with_attention:
            x = self.attention(x)
        elif self.chance(0.08):
            x = self.side_by_side(x)
        for _ in range(int(self.rng.integers(1, 4))):
            block = blocks[int(self.rng.integers(len(blocks)))] if not self.chance(0.06) else self.softmax
            x = self.maybe_rounded(block(x), 0.4)
            if self.chance(0.1) and x.name not in self.feeds:
                self.output(x)
        if x.name in self.feeds:
            x = self.product(x)
        self.output(x)

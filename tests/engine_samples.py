"""A small encoder, as a program with its tensors, that uses every native operator in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from openwork.engine.operators import DOMAIN, VERSION, Operator, row_of_step
from openwork.engine.program import Choice, Named, Program, Step, Value
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    make,
)
from openwork.patterns.stored import arrays, assemble, dense, store
from openwork.sparsity import Pattern, magnitude_mask

VOCABULARY, POSITIONS, WIDTH, INNER, HEADS = 23, 16, 16, 32, 2
BOTH: tuple[Choice, ...] = (Choice(None, "dense"),)


def quantized(zero_point: int = 128) -> dict[str, Any]:
    """Attributes of a step that makes u8."""
    return {"y_scale": 0.03125, "y_zero_point": zero_point}


def reads(zero_point: int = 128) -> dict[str, Any]:
    """Attributes of a linear step that reads u8."""
    return {"x_scale": 0.03125, "x_zero_point": zero_point}


def pruned(weight: np.ndarray, pattern: str) -> np.ndarray:
    """The weight s8 [n, k] that keeps the largest of what a pattern allows."""
    mask = magnitude_mask(torch.from_numpy(weight.astype(np.float32)), Pattern.parse(pattern))
    return weight * mask.numpy()


class Maker:
    """Collects values, tensors and steps."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.values: list[Value] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.steps: list[Step] = []

    def value(self, dtype: str, *shape: int | str) -> int:
        self.values.append(Value(dtype, shape))
        return len(self.values) - 1

    def floats(self, name: str, *shape: int, scale: float = 1.0) -> str:
        self.tensors[name] = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        return name

    def step(self, op: str, inputs: list[int | None], outputs: list[int | None], **rest: Any) -> None:
        self.steps.append(Step(op, f"{op}.{len(self.steps)}", tuple(inputs), tuple(outputs), **rest))

    def linear(self, inputs: list[int | None], output: int, n: int, k: int, **attributes: Any) -> None:
        pattern = attributes.pop("pattern", None)
        tactics = attributes.pop("tactics", BOTH)
        name = f"linear{len(self.steps)}"
        weight = self.rng.integers(-127, 128, (n, k)).astype(np.int8)
        if pattern is not None:
            self.tensors |= arrays(f"{name}.weight", store(pruned(weight, pattern), Pattern.parse(pattern)))
        else:
            self.tensors[f"{name}.weight"] = weight
        self.tensors[f"{name}.weight_scale"] = self.rng.uniform(1e-3, 2e-3, n).astype(np.float32)
        tensors = {
            "weight": f"{name}.weight",
            "weight_scale": f"{name}.weight_scale",
            "bias": self.floats(f"{name}.bias", n, scale=0.1),
        }
        self.step(
            "linear",
            inputs,
            [output],
            tensors=tensors,
            attributes={"activation": "none", **attributes},
            pattern=pattern,
            tactics=tactics,
        )

    def norm(self, source: int, target: int | None, target_q: int | None) -> None:
        tensors = {
            "gamma": self.floats(f"gamma{len(self.steps)}", WIDTH),
            "beta": self.floats(f"beta{len(self.steps)}", WIDTH),
        }
        attributes = {"epsilon": 1e-12, **(quantized() if target_q is not None else {})}
        self.step("layer_norm", [source], [target, target_q], tensors=tensors, attributes=attributes)

    def projection(self, inputs: list[int | None], output: int) -> None:
        """A product of float32 weights, an activation behind its sum."""
        weight = self.floats("projection", WIDTH, WIDTH)
        self.step(
            "linear",
            inputs,
            [output],
            tensors={"weight": weight, "bias": self.floats("projection.bias", WIDTH)},
            attributes={"activation": "silu", "activation_last": 1},
            tactics=(Choice(None, "f32:dense"),),
        )


def encoder(seed: int = 0, pattern: str | None = "2:4") -> tuple[Program, dict[str, np.ndarray]]:
    """One transformer layer with pooling, as an engine would hold it."""
    m = Maker(seed)
    ids, types, mask = (m.value("i64", "batch", "length") for _ in range(3))

    def wide(dtype: str = "f32", width: int = WIDTH) -> int:
        return m.value(dtype, "batch", "length", width)

    embedded, x, xq, qkv, mixed, summed, y, yq, inner, outer, z = (
        wide(),
        wide(),
        wide("u8"),
        wide(width=3 * WIDTH),
        wide("u8"),
        wide(),
        wide(),
        wide("u8"),
        wide("u8", INNER),
        wide(),
        wide(),
    )
    tables = {
        name: m.floats(name, rows, WIDTH)
        for name, rows in (("word", VOCABULARY), ("position", POSITIONS), ("type", 2))
    }
    m.step("embedding_sum", [ids, types, None], [embedded], tensors=tables)
    m.norm(embedded, x, xq)
    m.linear([xq, None], qkv, 3 * WIDTH, WIDTH, pattern=pattern, **reads())
    m.step(
        "attention",
        [qkv, None, None, mask, None, None, None],
        [mixed, None, None],
        attributes={"heads": HEADS, "scale": 0.25, **quantized(120)},
    )
    m.linear([mixed, x], summed, WIDTH, WIDTH, **reads(120))
    m.norm(summed, y, yq)
    m.linear(
        [yq, None], inner, INNER, WIDTH, pattern=pattern, **reads(), **quantized(7) | {"activation": "gelu"}
    )
    m.linear([inner, y], outer, WIDTH, INNER, pattern=pattern, **reads(7))
    m.norm(outer, z, None)
    projected = wide()
    m.projection([z, x], projected)
    pooled, unit = m.value("f32", "batch", WIDTH), m.value("f32", "batch", WIDTH)
    m.step("mean_pool", [projected, mask], [pooled])
    m.step("l2_normalize", [pooled], [unit], attributes={"epsilon": 1e-12})
    inputs = (Named("input_ids", ids), Named("token_type_ids", types), Named("attention_mask", mask))
    return Program(inputs, (Named("embedding", unit),), tuple(m.values), tuple(m.steps)), m.tensors


def encoder_inputs(batch: int, length: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Inputs that `encoder` takes; every row keeps at least one token."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
    return {
        "input_ids": rng.integers(0, VOCABULARY, (batch, length)),
        "token_type_ids": rng.integers(0, 2, (batch, length)),
        "attention_mask": mask,
    }


def as_model(program: Program, tensors: dict[str, np.ndarray]) -> ir.Model:
    """The program as a graph of openwork operators, for the NumPy reference; sparse weights made dense."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18, DOMAIN: VERSION}, name="sample")
    dtypes = {"u8": ir.DataType.UINT8, "f32": ir.DataType.FLOAT, "i64": ir.DataType.INT64}
    values: dict[int | None, ir.Value | None] = {None: None}
    for port in program.inputs:
        described = program.values[port.value]
        kind = ir.TensorType(dtypes[described.dtype])
        values[port.value] = ir.Value(name=port.name, shape=ir.Shape(described.shape), type=kind)
        graph.inputs.append(values[port.value])
    for step in program.steps:
        row = row_of_step(step.op)
        assert isinstance(row, Operator)
        inputs = {
            slot.name: values[index] for slot, index in zip(row.activations, step.inputs, strict=True)
        } | {
            slot: add_initializer(graph, name, dense_tensor(name, step, program, tensors))
            for slot, name in step.tensors.items()
        }
        node = make(row.name, inputs, step.attributes, step.name)
        graph.append(node)
        values.update(zip(step.outputs, node.outputs, strict=True))
        values[None] = None
    for port in program.outputs:
        values[port.value].name = port.name
        graph.outputs.append(values[port.value])
    return ir.Model(graph, ir_version=10)


def dense_tensor(name: str, step: Step, program: Program, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """A stored tensor, decompressed where it is a sparse weight."""
    if name in tensors:
        return tensors[name]
    pattern = Pattern.parse(step.pattern)
    return dense(assemble(tensors, name, pattern, program.values[step.inputs[0]].shape[-1]))

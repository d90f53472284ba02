"""A BERT-like encoder as an engine file, with random weights: written as it is, without a model or a
build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openwork.engine.engine_file import write_engine
from openwork.engine.program import Choice, Named, Program, Step, Value
from openwork.engine.report import REPORT_VERSION, BuildReport, Environment, Settings
from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.patterns.stored import arrays, store

_QUANTIZED = {"y_scale": 0.03125, "y_zero_point": 128}
_READS = {"x_scale": 0.03125, "x_zero_point": 128}


@dataclass(frozen=True)
class Size:
    """An encoder: BERT-large by default."""

    layers: int = 24
    width: int = 1024
    inner: int = 4096
    vocabulary: int = 30522
    positions: int = 512


class _Encoder:
    """Collects the values, tensors and steps of one encoder."""

    def __init__(self, size: Size, pattern: str | None, tactic: str) -> None:
        self.size, self.pattern = size, None if pattern is None else Pattern.parse(pattern)
        self.tactics = (Choice(None, tactic),)
        self.rng = np.random.default_rng(0)
        self.values: list[Value] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.steps: list[Step] = []

    def value(self, dtype: str, *shape: int | str) -> int:
        self.values.append(Value(dtype, shape))
        return len(self.values) - 1

    def hidden(self, dtype: str, width: int) -> int:
        return self.value(dtype, "batch", "length", width)

    def floats(self, name: str, *shape: int) -> str:
        self.tensors[name] = self.rng.standard_normal(shape, dtype=np.float32)
        return name

    def step(
        self, op: str, inputs: tuple[int | None, ...], outputs: tuple[int | None, ...], **rest: Any
    ) -> None:
        self.steps.append(Step(op, f"{op}.{len(self.steps)}", inputs, outputs, **rest))

    def linear(self, x: int, residual: int | None, y: int, n: int, k: int, **attributes: Any) -> None:
        name = f"linear.{len(self.steps)}"
        weight = self.rng.integers(-127, 128, (n, k), np.int8)
        if isinstance(self.pattern, GroupPattern):
            # Not the largest but the first of each group: what the weights are does not matter here.
            groups = weight.reshape(n, -1, self.pattern.group)
            groups[:, :, self.pattern.kept :] = 0
            weight = self.rng.permuted(groups, axis=2).reshape(n, k)
        self.tensors |= arrays(f"{name}.weight", store(weight, self.pattern))
        self.tensors[f"{name}.scale"] = self.rng.uniform(1e-3, 2e-3, n).astype(np.float32)
        tensors = {
            "weight": f"{name}.weight",
            "weight_scale": f"{name}.scale",
            "bias": self.floats(f"{name}.bias", n),
        }
        stored = None if self.pattern is None else str(self.pattern)
        self.step(
            "linear",
            (x, residual),
            (y,),
            tensors=tensors,
            attributes={"activation": "none", **_READS, **attributes},
            pattern=stored,
            tactics=self.tactics,
        )

    def norm(self, x: int, width: int) -> tuple[int, int]:
        y, yq = self.hidden("f32", width), self.hidden("u8", width)
        name = f"norm.{len(self.steps)}"
        tensors = {slot: self.floats(f"{name}.{slot}", width) for slot in ("gamma", "beta")}
        self.step("layer_norm", (x,), (y, yq), tensors=tensors, attributes={"epsilon": 1e-12, **_QUANTIZED})
        return y, yq

    def layer(self, y: int, yq: int, mask: int) -> tuple[int, int]:
        width, inner = self.size.width, self.size.inner
        qkv, mixed, summed = (
            self.hidden("f32", 3 * width),
            self.hidden("u8", width),
            self.hidden("f32", width),
        )
        self.linear(yq, None, qkv, 3 * width, width)
        heads = {"heads": width // 64, "scale": 0.125}
        self.step(
            "attention",
            (qkv, None, None, mask, None, None, None),
            (mixed, None, None),
            attributes={**heads, **_QUANTIZED},
        )
        self.linear(mixed, y, summed, width, width)
        y, yq = self.norm(summed, width)
        wide, outer = self.hidden("u8", inner), self.hidden("f32", width)
        self.linear(yq, None, wide, inner, width, **_QUANTIZED | {"activation": "gelu"})
        self.linear(wide, y, outer, width, inner)
        return self.norm(outer, width)

    def program(self) -> Program:
        ids, mask = (self.value("i64", "batch", "length") for _ in range(2))
        size, embedded = self.size, self.hidden("f32", self.size.width)
        rows = (("word", size.vocabulary), ("position", size.positions))
        tables = {slot: self.floats(slot, count, size.width) for slot, count in rows}
        self.step("embedding_sum", (ids, None, None), (embedded,), tensors=tables)
        y, yq = self.norm(embedded, size.width)
        for _ in range(size.layers):
            y, yq = self.layer(y, yq, mask)
        pooled = self.value("f32", "batch", size.width)
        self.step("mean_pool", (y, mask), (pooled,))
        inputs = (Named("input_ids", ids), Named("attention_mask", mask))
        return Program(inputs, (Named("embedding", pooled),), tuple(self.values), tuple(self.steps))


def write_encoder(path: Path, size: Size, pattern: str | None, tactic: str) -> None:
    """Write an engine of random weights s8 of an N:M pattern, or dense ones, that one tactic runs."""
    encoder = _Encoder(size, pattern, tactic)
    program = encoder.program()
    environment = Environment("0", "none", "none", 1, "none")
    settings = Settings("on", "exact", "fp32", "on", False, (), False)
    report = BuildReport(
        version=REPORT_VERSION,
        model="random",
        environment=environment,
        settings=settings,
        accuracy_kept=True,
        notes=(),
        layers=(),
        fusions=(),
        refusals=(),
        left_out=(),
        fallbacks=(),
        whole=(),
    )
    write_engine(path, program, report.to_json(), encoder.tensors)

"""What an export is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from openwork.graph.quantizers.tables import Tables, check_tables
from openwork.qdq.targets import TARGETS, Bias, TargetName, parse_target

Exporter = Literal["dynamo", "legacy"]

OPSET = 20
"""The first opset with Gelu as one operator, and the last that both exporters write."""

OPSETS: dict[str, tuple[int, int]] = {"dynamo": (18, 23), "legacy": (18, 20)}
"""The opsets that each exporter of torch writes itself; 18 is the first that this package promises."""

TOKENS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of token models, [batch, length]; every other input is taken as [batch, ...]."""


@dataclass(frozen=True)
class ExportOptions:
    """Names, free dimensions and promises of the exported graph, and the dialect it is written in.

    output_names: None calls the output of a token model "embedding" and every other "output", "output_1" ...
    dynamic_axes: per input, dimension number to name; None frees the batch of every input and the length of
    `TOKENS`. limits: the largest value of a named dimension, where there is one. patterns: per pruned layer
    the pattern that its weight must keep to; a layer with a mask that is not named here is checked against
    its mask and recorded with the pattern that the mask shows. target: the engine whose dialect is written,
    None for the model's own. opset, exporter: see `OPSETS`. bias: "float" or "int32", None for the target's.
    tables: "int8" stores the tables of embeddings so, each row with a scale of its own; else "float".
    """

    output_names: tuple[str, ...] | None = None
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None
    limits: Mapping[str, int] = field(default_factory=lambda: {"length": 512})
    patterns: Mapping[str, str] = field(default_factory=dict)
    target: TargetName | None = None
    opset: int = OPSET
    exporter: Exporter = "dynamo"
    bias: Bias | None = None
    tables: Tables = "float"

    def __post_init__(self) -> None:
        if self.exporter not in OPSETS:
            raise ValueError(f'An exporter is "dynamo" or "legacy", but it is {self.exporter!r}.')
        least, most = OPSETS[self.exporter]
        if not least <= self.opset <= most:
            raise ValueError(
                f"torch's {self.exporter} exporter writes opsets {least} to {most} here, but opset "
                f"{self.opset} was asked for; take {OPSET} unless an engine needs another."
            )
        if self.target is not None:
            parse_target(self.target)
        if self.bias not in (None, "float", "int32"):
            raise ValueError(f'A bias is stored as "float" or "int32", but not as {self.bias!r}.')
        check_tables(self.tables)
        if self.target == "tensorrt" and self.bias == "int32":
            raise ValueError("TensorRT wants the bias as floats, but bias='int32' was asked for with it.")

    @property
    def stored_bias(self) -> Bias:
        """How a bias is stored."""
        return self.bias or (TARGETS[self.target].bias if self.target else "float")

    def axes(self, inputs: Mapping[str, Tensor]) -> dict[str, dict[int, str]]:
        """The free dimensions of every input."""
        if self.dynamic_axes is not None:
            return {name: dict(self.dynamic_axes.get(name, {})) for name in inputs}
        return {name: {0: "batch", 1: "length"} if name in TOKENS else {0: "batch"} for name in inputs}

    def outputs(self, inputs: Mapping[str, Tensor], count: int) -> tuple[str, ...]:
        """The names of `count` outputs; raises ValueError if another number of them was named."""
        first = "embedding" if TOKENS[0] in inputs else "output"
        names = self.output_names or (first, *(f"output_{i}" for i in range(1, count)))
        if len(names) != count:
            raise ValueError(
                f"The model has {count} outputs, but {len(names)} names were given for them: "
                f"{', '.join(names)}."
            )
        return names

"""Export: a torch module to standard ONNX, its QuantLinear layers as Q/DQ around integer weights.

The graph holds MatMul and Add for every linear layer, with the weight as initializer [K, N] under the
parameter's own name: float, or s8 with a DequantizeLinear over its output channels. Q/DQ stands on the inputs
of the weighted layers only, as TensorRT wants it; layers that share an input share its Q/DQ.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from openwork.files import write_atomic
from openwork.quantization.modules import QuantLinear
from openwork.sparsity import Pattern, detect

OPSET = 20
"""The first opset with Gelu as one operator."""

PATTERN_KEY = "openwork.pattern."
MASK = "weight_mask"
ONNX_TYPE = {"s8": torch.int8, "u8": torch.uint8}


@dataclass(frozen=True)
class ExportOptions:
    """Names, free dimensions and promises of the exported graph.

    dynamic_axes: per input, dimension number to name. limits: the largest value of a named dimension, where
    there is one. patterns: per pruned layer the pattern that its weight must keep to; a layer with a mask
    that is not named here is checked against its mask and recorded with the pattern that the mask shows.
    """

    output_names: tuple[str, ...] = ("embedding",)
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(
        default_factory=lambda: {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    )
    limits: Mapping[str, int] = field(default_factory=lambda: {"length": 512})
    patterns: Mapping[str, str] = field(default_factory=dict)


def export(
    model: nn.Module, inputs: Mapping[str, Tensor], path: str | Path, options: ExportOptions | None = None
) -> Path:
    """Write the model, float or quantized, to `path` as ONNX; the file appears whole or not at all.

    inputs: example arguments by the names that `forward` gives them, every free dimension at least 2. The
    patterns of pruned layers are checked on the exported weights and stand in the file's metadata as
    `openwork.pattern.<weight>`. Raises ValueError if a weight breaks its pattern or its mask, naming layer,
    row and group, and for a pattern of a layer that is not exported.
    """
    options = options or ExportOptions()
    _check_inputs(inputs, options)
    exportable = _exportable(model)
    graph = _trace(exportable, inputs, options)
    _name(graph, options)
    proto = ir.to_proto(graph)
    _record_patterns(proto, _masks(model), options.patterns)
    onnx.checker.check_model(proto)
    write_atomic(path, [proto.SerializeToString()])
    return Path(path)


class ExportedLinear(nn.Module):
    """A linear layer as the graph shows it: weight [K, N]."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().t().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(*self._operands(x))
        return y if self.bias is None else y + self.bias

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.weight


class ExportedQuantLinear(ExportedLinear):
    """The same with Q/DQ on the input and a DequantizeLinear on the s8 weight."""

    weight_scale: Tensor
    input_scale: Tensor
    input_zero_point: Tensor
    input_multiplier: Tensor | None

    def __init__(self, layer: QuantLinear) -> None:
        super().__init__(layer.quantized_weight(), layer.bias)
        self.register_buffer("weight_scale", layer.weight_scale)
        self.register_buffer("input_multiplier", layer.input_multiplier)
        self.register_buffer("input_scale", layer.input_scale)
        self.register_buffer("input_zero_point", layer.input_zero_point.to(ONNX_TYPE[layer.activation]))

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero_point = self.input_scale, self.input_zero_point
        x = x if self.input_multiplier is None else x * self.input_multiplier
        integers = _operator("QuantizeLinear", (x, scale, zero_point), zero_point.dtype)
        rounded = _operator("DequantizeLinear", (integers, scale, zero_point), torch.float32)
        return rounded, _operator("DequantizeLinear", (self.weight, self.weight_scale), torch.float32, axis=1)


def _operator(name: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, **attributes: int) -> Tensor:
    return torch.onnx.ops.symbolic(name, inputs, {**attributes}, dtype=dtype, shape=inputs[0].shape)


def _check_inputs(inputs: Mapping[str, Tensor], options: ExportOptions) -> None:
    for name, tensor in inputs.items():
        for axis, dimension in options.dynamic_axes.get(name, {}).items():
            if axis >= tensor.ndim or tensor.shape[axis] < 2:
                raise ValueError(
                    f"The example of {name} must be at least 2 long in its free dimension {axis} "
                    f"({dimension}), but its shape is {list(tensor.shape)}; 1 is taken as fixed."
                )


def _exportable(model: nn.Module) -> nn.Module:
    root = nn.ModuleDict({"model": copy.deepcopy(model).eval()})
    for name, layer in list(root.named_modules()):
        if isinstance(layer, QuantLinear):
            root.set_submodule(name, ExportedQuantLinear(layer))
        elif isinstance(layer, nn.Linear):
            root.set_submodule(name, ExportedLinear(layer.weight, layer.bias))
    return root["model"]


def _trace(model: nn.Module, inputs: Mapping[str, Tensor], options: ExportOptions) -> ir.Model:
    names = {name for axes in options.dynamic_axes.values() for name in axes.values()}
    dimensions = {name: torch.export.Dim(name, min=1, max=options.limits.get(name)) for name in names}
    shapes = {
        name: {axis: dimensions[d] for axis, d in options.dynamic_axes.get(name, {}).items()}
        for name in inputs
    }
    with _quiet():
        program = torch.onnx.export(
            model,
            kwargs=dict(inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about itself and its notes on packages that are not needed."""
    notes = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = notes.level
    notes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        notes.setLevel(level)


def _name(model: ir.Model, options: ExportOptions) -> None:
    """Name every node and value after the module it comes from, and drop traces of where it was exported."""
    used: Counter[str] = Counter()
    for node in model.graph:
        name = f"{_scope(node)}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"
        for i, output in enumerate(node.outputs):
            output.name = node.name if i == 0 else f"{node.name}:{i}"
    for output, name in zip(model.graph.outputs, options.output_names, strict=True):
        output.name = name
    model.producer_name = "openwork"
    ClearMetadataAndDocStringPass()(model)


def _scope(node: ir.Node) -> str:
    """The dotted path of the module that a node was traced from."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['']"))
    return str(scopes[-2]) if len(scopes) > 1 else ""


def _masks(model: nn.Module) -> dict[str, np.ndarray]:
    """The masks of pruned layers, bool [N, K]; a mask that keeps everything is none."""
    masks = {
        name: mask.cpu().numpy()
        for name, module in model.named_modules()
        if (mask := dict(module.named_buffers(recurse=False)).get(MASK)) is not None
    }
    return {name: mask for name, mask in masks.items() if not mask.all()}


def _record_patterns(
    proto: onnx.ModelProto, masks: Mapping[str, np.ndarray], patterns: Mapping[str, str]
) -> None:
    """Check masks and patterns on the weights of the graph, and write the patterns into its metadata."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    found: dict[str, str] = {}
    for layer in dict.fromkeys((*masks, *patterns)):
        tensor = tensors.get(f"{layer}.weight")
        if tensor is None:
            raise ValueError(f"The pruned layer {layer} has no weight {layer}.weight in the exported graph.")
        weight = onnx.numpy_helper.to_array(tensor).T
        if layer in masks:
            _check_mask(layer, weight, masks[layer])
        pattern = Pattern.parse(patterns[layer]) if layer in patterns else detect(masks[layer])
        if pattern is not None:
            _check_pattern(layer, weight, pattern)
            found[f"{PATTERN_KEY}{layer}.weight"] = str(pattern)
    onnx.helper.set_model_props(proto, found)


def _check_mask(layer: str, weight: np.ndarray, mask: np.ndarray) -> None:
    alive = np.argwhere((weight != 0) & ~mask)
    if len(alive):
        raise ValueError(
            f"{layer}: the weight at row {alive[0][0]}, column {alive[0][1]} is not zero though its mask "
            f"drops it ({len(alive)} such weights); apply the masks, with `Pruner.apply`, before exporting."
        )


def _check_pattern(layer: str, weight: np.ndarray, pattern: Pattern) -> None:
    broken = pattern.violations(weight, limit=1)
    if broken:
        raise ValueError(
            f"{layer}: the exported weight breaks its pattern {pattern}: {broken[0]}. Prune the layer again, "
            "or export it without the pattern."
        )

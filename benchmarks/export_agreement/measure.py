"""One comparison: quantize, export, run in ONNX Runtime, hold against torch, look into the file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from openwork.export import ExportOptions, export
from openwork.export.options import Exporter
from openwork.quantization import QuantizationOptions, quantize
from openwork.sparsity import Pattern
from openwork.sparsity.masks.mask import best_mask
from openwork.sparsity.masks.view import WeightView

from .cases import Case, Inputs
from .exact_grid import move_to_exact_grid

WANTED = 0.9999
PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
OPTIMIZATIONS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "on": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclass(frozen=True)
class Plan:
    """What is compared: the style of the quantizers, the exporter, a pattern to prune to first, the observer.

    exact_grid: move the scales to powers of two, where agreement must be to the bit.
    """

    style: str = "tensorrt"
    exporter: Exporter = "dynamo"
    pattern: str | None = None
    observer: str | None = None
    exact_grid: bool = False


@dataclass(frozen=True)
class Agreement:
    """Cosines between two sets of rows: the least, of all rows as one vector, and how many miss `WANTED`.

    largest: the largest difference of two elements.
    """

    least: float
    whole: float
    below: int
    rows: int
    largest: float


@dataclass(frozen=True)
class Result:
    """One comparison.

    noise: torch quantized against float. agreement: ONNX Runtime against torch quantized. blocks: the same of
    each block of the network by itself, on the inputs that torch gives it. sums, integer_sums: residual
    additions in the file, and those with INT8 on both inputs. weights, violations: integer weights with a
    mask, and the dropped weights among them that are not zero or break the pattern.
    """

    case: str
    plan: Plan
    noise: Agreement
    agreement: dict[str, Agreement]
    blocks: Agreement
    sums: int
    integer_sums: int
    weights: int
    violations: int


def compare(case: Case, plan: Plan, folder: Path, told: Callable[[str], None] = lambda what: None) -> Result:
    """Run one comparison; the file stays in `folder`."""
    told("calibrating")
    model = _quantized(case, plan)
    told("exporting")
    target = plan.style if plan.style in ("tensorrt", "onnxruntime") else None
    options = replace(case.options, exporter=plan.exporter, target=target)  # type: ignore[arg-type]
    example = {name: tensor[:2] for name, tensor in case.calibration[0].items()}
    path = export(model, example, folder / "model.onnx", options)
    told("running torch")
    quantized, exact = _torch(model, case.batches), _torch(case.model, case.batches)
    found = {}
    for name in OPTIMIZATIONS:
        told(f"running ONNX Runtime, optimizations {name}")
        found[name] = agreement(_onnx_runtime(path, case.batches, name), quantized)
    told("comparing block by block")
    blocks = block_agreement(model, case, options, folder)
    proto, noise = onnx.load(path), agreement(quantized, exact)
    return Result(case.name, plan, noise, found, blocks, *residual_sums(proto), *violations(proto, model))


def agreement(found: list[Tensor], wanted: list[Tensor]) -> Agreement:
    """How alike two lists of rows are."""
    cosines = [_cosine(a, b) for a, b in zip(found, wanted, strict=True)]
    a, b = torch.cat(found), torch.cat(wanted)
    whole = _cosine(a, b)
    below = sum(cosine < WANTED for cosine in cosines)
    return Agreement(min(cosines), whole, below, len(cosines), float((a - b).abs().max()))


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=0))


def residual_sums(proto: onnx.ModelProto) -> tuple[int, int]:
    """The additions of two activations, and those of them that read integers on both sides.

    A bias, an attention's mask and a sum of embeddings are no residuals: one operand of theirs is stored or
    made from an input, or none of them is behind a product.
    """
    made = {output: node for node in proto.graph.node for output in node.output}
    weighted = _behind(proto, PRODUCTS)
    read = _behind(proto, (*PRODUCTS, "Gather"))
    sums = [
        node
        for node in proto.graph.node
        if node.op_type == "Add" and read.issuperset(node.input) and weighted & set(node.input)
    ]
    whole = [n for n in sums if all(made[name].op_type == "DequantizeLinear" for name in n.input)]
    return len(sums), len(whole)


def _behind(proto: onnx.ModelProto, kinds: tuple[str, ...]) -> set[str]:
    """What is computed from the output of a node of these kinds."""
    found: set[str] = set()
    for node in proto.graph.node:
        if node.op_type in kinds or found & set(node.input):
            found.update(node.output)
    return found


def violations(proto: onnx.ModelProto, model: nn.Module) -> tuple[int, int]:
    """Integer weights with a mask, and how many dropped weights in them are not zero or break the pattern."""
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    recorded = {p.key.removeprefix("openwork.pattern."): p.value for p in proto.metadata_props}
    weights = broken = 0
    for name, module in model.named_modules():
        mask, view = module._buffers.get("weight_mask"), WeightView.of(module)
        if mask is None or view is None or bool(mask.all()):
            continue
        weight = stored[f"{name}.weight"].T if view.kind == "linear" else stored[f"{name}.weight"]
        assert weight.dtype == np.int8, name
        stack = view.matrices(torch.from_numpy(weight.copy())).numpy()
        weights += 1
        broken += int((weight[~mask.numpy()] != 0).sum())
        broken += len(Pattern.parse(recorded[f"{name}.weight"]).violations(stack))
    return weights, broken


def _quantized(case: Case, plan: Plan) -> nn.Module:
    if plan.pattern:
        _prune(case.model, Pattern.parse(plan.pattern))
    options = QuantizationOptions(style=plan.style, observer=plan.observer)  # type: ignore[arg-type]
    model = quantize(case.model, case.calibration, options)
    if plan.exact_grid:
        move_to_exact_grid(model)
    return model


@torch.no_grad()
def _prune(model: nn.Module, pattern: Pattern) -> None:
    """Masks by magnitude on every convolution and linear layer with at least 16 input channels."""
    for module in model.modules():
        view = WeightView.of(module)
        if view is not None and view.stacked[2] >= 16:
            weight = module.get_parameter("weight")
            mask = view.restore(best_mask(view.matrices(weight.abs()), pattern))
            module.register_buffer("weight_mask", mask)
            weight.mul_(mask)


@torch.inference_mode()
def block_agreement(model: nn.Module, case: Case, options: ExportOptions, folder: Path) -> Agreement:
    """Each block exported and run by itself, optimized, on what torch gives it for the first batch.

    Errors of earlier blocks do not reach it, so what is left is this block's own.
    """
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    options = replace(options, dynamic_axes={}, output_names=("output",), exporter="legacy")
    for name, (inputs, output) in _block_inputs(model, case).items():
        path = export(model.get_submodule(name), inputs, folder / "block.onnx", options)
        found += _onnx_runtime(path, [inputs], "on")
        wanted += list(output.flatten(1))
    return agreement(found, wanted)


def _block_inputs(model: nn.Module, case: Case) -> dict[str, tuple[Inputs, Tensor]]:
    """The inputs by name, and the output, of every block for the first batch."""
    seen: dict[str, tuple[Inputs, Tensor]] = {}

    def remember(name: str, block: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        bound = inspect.signature(block.forward).bind(*args).arguments
        seen[name] = {key: tensor.clone() for key, tensor in bound.items()}, output.clone()

    with ExitStack() as stack:
        for name, block in model.named_modules():
            if fnmatchcase(name, case.blocks) and name.count(".") == case.blocks.count("."):
                stack.callback(block.register_forward_hook(partial(remember, name)).remove)
        model(**case.batches[0])
    return seen


@torch.inference_mode()
def _torch(model: nn.Module, batches: Iterable[Inputs]) -> list[Tensor]:
    return [row for batch in batches for row in _rows(model(**batch), batch)]


def _onnx_runtime(path: Path, batches: Iterable[Inputs], optimizations: str) -> list[Tensor]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = OPTIMIZATIONS[optimizations]
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rows: list[Tensor] = []
    for batch in batches:
        made = session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]
        rows += _rows(torch.from_numpy(made), batch)
    return rows


def _rows(output: Tensor, batch: Inputs) -> list[Tensor]:
    """Each item's output as a vector, without the states of padding."""
    mask = batch.get("attention_mask")
    if mask is None or output.ndim < 3:
        return [row.flatten() for row in output]
    return [row[kept.bool()].flatten() for row, kept in zip(output, mask, strict=True)]

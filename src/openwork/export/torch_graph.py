"""A torch module as an ONNX graph, by either of torch's exporters, its nodes named after their modules."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    RemoveUnusedNodesPass,
)
from torch import Tensor, nn

from openwork.export.options import ExportOptions

PRODUCER = "openwork"
SCALAR = 1
"""Elements of a constant that is shared where it is equal: scales and zero points, but never weights."""


def trace(model: nn.Module, inputs: Mapping[str, Tensor], options: ExportOptions) -> ir.Model:
    """The graph of the model; equal nodes and equal small constants stand in it once.

    Raises ValueError, with the cause, for a model that torch's exporter cannot write.
    """
    graph = _written(model, inputs, options)
    _drop_identities(graph.graph)
    DeduplicateInitializersPass(SCALAR)(graph)
    CommonSubexpressionEliminationPass()(graph)
    RemoveUnusedNodesPass()(graph)
    modules = {title for title, _ in model.named_modules()}
    name(graph, options.outputs(inputs, len(graph.graph.outputs)), modules)
    return graph


def _drop_identities(graph: ir.Graph) -> None:
    """Remove the Identity nodes of the graph itself. In a branch one may give what is made outside of it,
    which a branch cannot without."""
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Identity" else None
        made = node.outputs[0]
        if value is None or (
            made.is_graph_output() and (value.producer() is None or value.is_graph_output())
        ):
            continue
        made.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _written(model: nn.Module, inputs: Mapping[str, Tensor], options: ExportOptions) -> ir.Model:
    write = _dynamo if options.exporter == "dynamo" else _legacy
    try:
        with _quiet():
            return write(model, inputs, options)
    except MemoryError:
        raise
    # What a model's forward and torch's exporters raise has no class in common.
    except Exception as error:
        other = "legacy" if options.exporter == "dynamo" else "dynamo"
        raise ValueError(
            f"torch's {options.exporter} exporter cannot write this model ({_cause(error)}). Export it with "
            f'ExportOptions(exporter="{other}"), or change what the model does there.'
        ) from error


def _cause(error: BaseException) -> str:
    """The class and the first line of what an error comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def _dynamo(model: nn.Module, inputs: Mapping[str, Tensor], options: ExportOptions) -> ir.Model:
    axes = options.axes(inputs)
    names = {name for free in axes.values() for name in free.values()}
    dimensions = {name: torch.export.Dim(name, min=1, max=options.limits.get(name)) for name in names}
    with _taking(model, list(inputs)) if _takes_any(model) else contextlib.nullcontext():
        program = torch.onnx.export(
            model,
            kwargs=dict(inputs),
            dynamo=True,
            opset_version=options.opset,
            input_names=list(inputs),
            dynamic_shapes={name: {axis: dimensions[d] for axis, d in axes[name].items()} for name in inputs},
            verbose=False,
        )
    assert program is not None
    return program.model


def _takes_any(model: nn.Module) -> bool:
    """Whether `forward` takes names that it does not name, which torch.export would have in one mapping."""
    parameters = inspect.signature(model.forward).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _legacy(model: nn.Module, inputs: Mapping[str, Tensor], options: ExportOptions) -> ir.Model:
    places = list(inspect.signature(model.forward).parameters)
    names = sorted(inputs, key=lambda name: places.index(name) if name in places else len(places))
    buffer = io.BytesIO()
    with _taking(model, names), contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            model,
            tuple(inputs[name] for name in names),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            # In its evaluation mode the exporter folds normalizations into weights, and renames these.
            training=torch.onnx.TrainingMode.PRESERVE,
            opset_version=options.opset,
            input_names=names,
            dynamic_axes={name: free for name, free in options.axes(inputs).items() if free},
        )
    return ir.from_proto(onnx.load_from_string(buffer.getvalue()))


@contextlib.contextmanager
def _taking(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """While open, the model takes these arguments alone: the legacy exporter makes inputs of the defaults
    between them, and knows no argument that is given by its name alone."""
    forward, own = model.forward, model.__dict__.get("forward")

    def by_name(*values: Tensor, **named: Tensor) -> Any:
        return forward(**dict(zip(names, values, strict=False)), **named)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    by_name.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    model.forward = by_name
    try:
        yield
    finally:
        del model.forward
        if own is not None:
            model.forward = own


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings about themselves and notes on packages that are not needed."""
    notes = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = notes.level
    notes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        notes.setLevel(level)


def name(model: ir.Model, outputs: tuple[str, ...], modules: Set[str]) -> None:
    """Name every node and value after the module it comes from, and drop traces of where it was exported."""
    used: Counter[str] = Counter()
    for node in model.graph:
        title = f"{_scope(node, modules)}/{node.op_type}"
        used[title] += 1
        node.name = title if used[title] == 1 else f"{title}_{used[title]}"
        for i, output in enumerate(node.outputs):
            output.name = node.name if i == 0 else f"{node.name}:{i}"
    for value, title in zip(model.graph.outputs, outputs, strict=True):
        value.name = title
    model.producer_name, model.producer_version = PRODUCER, None
    ClearMetadataAndDocStringPass()(model)


def _scope(node: ir.Node, modules: Set[str]) -> str:
    """The dotted path of the module that a node was traced from."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if scopes is None:
        return _legacy_scope((node.name or "").split("/")[:-1], modules)
    path = ast.literal_eval(scopes)
    return str(path[-2]) if len(path) > 1 else ""


def _legacy_scope(parts: Sequence[str], modules: Set[str]) -> str:
    """The module of a node `/layer1/layer1.0/conv1/Conv`: the legacy exporter says a container twice."""
    path = ""
    for part in filter(None, parts):
        inside = f"{path}.{part}" if path else part
        again = path.rpartition(".")[0] + "." + part if "." in path else part
        path = inside if inside in modules or again not in modules else again
    return path

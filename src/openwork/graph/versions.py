"""Versions of the standard operators: which are read, and how older ones become those that the rules know."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from openwork.graph.model import ONNX_DOMAINS, ModelError
from openwork.graph.skeleton import large_tensors, refill, skeleton
from openwork.support.texts import first_line

OLDEST, NEWEST = 7, onnx.defs.onnx_opset_version()
"""The first that ONNX Runtime runs, and the last that this version of onnx knows."""
RULES_FROM, MODERN = 11, 13
"""The first version that the rules read, and the one that older models become."""
FREE_INITIALIZERS = 4
"""The first IR version in which an initializer need not be an input."""


def opset_of(model: ir.Model) -> int:
    """The version of the standard operators that a model imports; the newest where it imports none, since it
    uses none then."""
    found = (model.graph.opset_imports.get(domain) for domain in ONNX_DOMAINS)
    return next((version for version in found if version is not None), NEWEST)


def modern(model: ir.Model, version: int = MODERN) -> ir.Model:
    """The same model in a newer version of the standard operators.

    Raises ModelError where onnx's converter cannot write it so, saying why.
    """
    tensors = large_tensors(model)
    try:
        before = skeleton(model)
        # Before the fourth version every initializer had to be an input, which those of `model` are not.
        before.ir_version = max(before.ir_version, FREE_INITIALIZERS)
        after = onnx.version_converter.convert_version(before, version)
    # The converter raises ConvertError, and what its C++ side happens to raise.
    except Exception as error:
        raise ModelError(
            f"The model uses opset {opset_of(model)} and cannot be converted to opset {version} "
            f"({first_line(error)})"
        ) from error
    # Its converter takes the batch away from the inputs of the Scan of opset 8.
    ports = [(before.graph.input, after.graph.input), (before.graph.output, after.graph.output)]
    if any(_ports(old) - _ports(new) for old, new in ports):
        raise ModelError(
            f"The model uses opset {opset_of(model)} and cannot be converted to opset {version} (its inputs "
            "or outputs would change)"
        )
    result = ir.from_proto(after)
    refill(result, tensors)
    result.metadata_props.update(model.metadata_props)
    return result


def _ports(ports: Iterable[onnx.ValueInfoProto]) -> set[bytes]:
    return {port.SerializeToString(deterministic=True) for port in ports}

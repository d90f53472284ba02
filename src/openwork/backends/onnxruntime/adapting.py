"""Models that ONNX Runtime has no kernels for in one version of the operators, but has in an older one.

A new version of an operator often adds types alone, and ONNX Runtime's kernels follow it later.
"""

from __future__ import annotations

import onnx

from openwork.backends.onnxruntime.session import quiet_options
from openwork.backends.onnxruntime.stored import stored_tensors, with_stored, without_stored

FIRST_TRIED, OLDEST_TRIED = 22, 13
"""Kernels of older models than the first are there; no model is converted to a version before the last."""
_ABSENT = ("NOT_IMPLEMENTED", "Failed to find kernel")


def adapted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or the same in the newest older version of the operators in which ONNX Runtime takes it.

    The model itself where that is not its fault, or onnx's converter finds no such version.
    """
    version = next((entry.version for entry in model.opset_import if entry.domain == ""), 0)
    plain = without_stored(model) if version >= FIRST_TRIED else model
    if version < FIRST_TRIED or not _lacks_kernels(plain):
        return model
    for older in range(version - 1, OLDEST_TRIED - 1, -1):
        try:
            found = onnx.version_converter.convert_version(plain, older)
        # The converter raises ConvertError, and what its C++ side happens to raise.
        except Exception:
            return model
        if not _lacks_kernels(found):
            with_stored(found, list(stored_tensors(model)))
            return found
    return model


def _lacks_kernels(model: onnx.ModelProto) -> bool:
    try:
        import onnxruntime
    except ImportError:
        return False
    options = quiet_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions share no base class but Exception.
    except Exception as error:
        return any(text in str(error) for text in _ABSENT)
    return False

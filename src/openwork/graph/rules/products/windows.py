"""The windows of convolutions and pools as ONNX writes them: kernel, strides, dilations and pads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from openwork.engine.operators.windows import LARGEST_WINDOW, Axis
from openwork.graph.model import attributes, dims, needed


def read_window(node: ir.Node, kernel: Sequence[int]) -> dict[str, Any] | str:
    """The attributes of a window over images (`openwork.engine.operators.windows`), or why it is none.

    kernel : its sizes; one alone is that of a window over sequences, which are images of height 1.
    """
    given, count = attributes(node), len(kernel)
    if count not in (1, 2):
        return f"its window has {count} axes; those over sequences and images are run"
    strides, dilations = (list(given.get(name) or [1] * count) for name in ("strides", "dilations"))
    if any(not 1 <= size <= LARGEST_WINDOW for size in (*kernel, *strides, *dilations)):
        return f"a size of its window does not lie in 1 to {LARGEST_WINDOW}"
    plain = [Axis(*sizes) for sizes in zip(kernel, strides, dilations, strict=True)]
    pads = _pads(node, plain)
    if isinstance(pads, str):
        return pads
    if any(not 0 <= pad <= LARGEST_WINDOW for pad in pads):
        return f"its pads {pads} do not lie in 0 to {LARGEST_WINDOW}"
    before, after = pads[:count], pads[count:]
    flat = count == 1
    return {
        "kernel": [1, *kernel] if flat else list(kernel),
        "strides": [1, *strides] if flat else strides,
        "dilations": [1, *dilations] if flat else dilations,
        "pads": [0, *before, 0, *after] if flat else [*before, *after],
    }


def _pads(node: ir.Node, axes: Sequence[Axis]) -> list[int] | str:
    """The pads as ONNX lists them: all begins, then all ends."""
    given = attributes(node)
    automatic = given.get("auto_pad", "NOTSET")
    if automatic in ("NOTSET", ""):
        return list(given.get("pads") or [0] * 2 * len(axes))
    if automatic == "VALID":
        return [0] * 2 * len(axes)
    shape = dims(needed(node, 0)) or ()
    wanted = [_same(axis, size) for axis, size in zip(axes, shape[2:], strict=False)]
    known = [pad for pad in wanted if pad is not None]
    if len(known) < len(axes):
        return f"its padding is {automatic} of a free size with strides, which depends on the size"
    small, large = [pad // 2 for pad in known], [pad - pad // 2 for pad in known]
    return [*small, *large] if automatic == "SAME_UPPER" else [*large, *small]


def _same(axis: Axis, size: Any) -> int | None:
    """The padding of both sides together for ceil(size / stride) windows."""
    if axis.stride == 1:
        return axis.reach - 1
    if not isinstance(size, int):
        return None
    windows = -(-size // axis.stride)
    return max(0, (windows - 1) * axis.stride + axis.reach - size)

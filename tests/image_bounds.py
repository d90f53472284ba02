"""What operators on images may give, as `qdq_bounds` says it: convolutions, pools, borders, norms, cuts.

Windows are taken in binary64 as views of the padded image, so each of these is a sum, a mean or a maximum
along the axes of a view. Images are [batch, channels, height, width] or [batch, channels, length].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from intervals import Array, Attributes, Bounds, U

SPATIAL = 2
"""The first axis of height, width or length."""


def _pads(a: Attributes, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    """All begins, then all ends, as ONNX defines `auto_pad`."""
    automatic = bytes(a.get("auto_pad", b"NOTSET")).decode()
    if automatic not in ("SAME_UPPER", "SAME_LOWER"):
        return list(a.get("pads", [0] * 2 * len(sizes)))
    whole = [
        max(0, (-(-size // stride) - 1) * stride + far - size)
        for size, far, stride in zip(sizes, reach, strides, strict=True)
    ]
    small, large = [pad // 2 for pad in whole], [pad - pad // 2 for pad in whole]
    return [*small, *large] if automatic == "SAME_UPPER" else [*large, *small]


class Windows:
    """The windows that a node's attributes lay over images of a shape."""

    def __init__(self, shape: Sequence[int], kernel: Sequence[int], a: Attributes) -> None:
        self.sizes = shape[SPATIAL:]
        ones = [1] * len(kernel)
        self.strides, self.dilations = a.get("strides", ones), a.get("dilations", ones)
        self.reach = [(k - 1) * d + 1 for k, d in zip(kernel, self.dilations, strict=True)]
        pads = _pads(a, self.sizes, self.reach, self.strides)
        self.before, self.after = pads[: len(kernel)], pads[len(kernel) :]
        self.beyond = [self._beyond(axis) if a.get("ceil_mode") else 0 for axis in range(len(kernel))]

    def _beyond(self, axis: int) -> int:
        """Pixels behind the padding that the last window of ceil_mode needs; none begins behind the image."""
        padded = self.before[axis] + self.sizes[axis] + self.after[axis]
        last = -(-(padded - self.reach[axis]) // self.strides[axis]) * self.strides[axis]
        if last >= self.before[axis] + self.sizes[axis]:
            last -= self.strides[axis]
        return max(0, last + self.reach[axis] - padded)

    def of(self, image: Array, fill: float, counted: float | None = None) -> Array:
        """[batch, channels, made.., kernel..]; fill: of the padding, counted: of the padding that is none."""
        sides = [(0, 0)] * SPATIAL
        padded = np.pad(image, [*sides, *zip(self.before, self.after, strict=True)], constant_values=fill)
        last = fill if counted is None else counted
        padded = np.pad(padded, [*sides, *((0, more) for more in self.beyond)], constant_values=last)
        axes = tuple(range(SPATIAL, image.ndim))
        view = np.lib.stride_tricks.sliding_window_view(padded, self.reach, axes)
        steps = (slice(None), slice(None), *(slice(None, None, stride) for stride in self.strides))
        return np.asarray(view[(*steps, *(slice(None, None, d) for d in self.dilations))])


def _convolve(windows: Array, weight: Array, groups: int) -> Array:
    """[batch, outputs, made..] of windows [batch, channels, made.., kernel..]."""
    parts = []
    for part, w in zip(np.split(windows, groups, 1), np.split(weight, groups, 0), strict=True):
        over = tuple(range(2, weight.ndim))
        behind = tuple(range(part.ndim - len(over), part.ndim))
        parts.append(np.moveaxis(np.tensordot(part, w, ((1, *behind), (1, *over))), -1, 1))
    return np.concatenate(parts, 1)


def _conv(x: Bounds, w: Bounds, *rest: Any) -> Bounds:
    """As of a product (`qdq_bounds`): a sum of n products errs by (n + 1) u of their magnitudes."""
    *bias, a = rest
    windows, groups = Windows(x.low.shape, w.low.shape[2:], a), a.get("group", 1)

    def product(image: Array, weight: Array) -> Array:
        return _convolve(windows.of(image, 0.0), weight, groups)

    n = w.low[0].size
    spread = product(x.largest, w.largest)
    radius = product(x.radius, w.largest) + product(x.largest, w.radius) + 2 * (n + 8) * U * spread
    centre = product(x.centre, w.centre)
    if bias:
        shape = (1, -1, *[1] * (w.low.ndim - 2))
        centre = centre + bias[0].centre.reshape(shape)
        radius = radius + bias[0].radius.reshape(shape) + 4 * U * (spread + bias[0].largest.reshape(shape))
    return Bounds.around(centre, radius)


def _max_pool(x: Bounds, a: Attributes) -> Bounds:
    windows = Windows(x.low.shape, a["kernel_shape"], a)
    over = tuple(range(-len(a["kernel_shape"]), 0))
    return x.map(lambda end: windows.of(end, -np.inf).max(over))


def _mean(x: Bounds, sums: Callable[[Array], Array], counts: Array | int, n: int) -> Bounds:
    """Of sums of n numbers in any order, divided or multiplied by a rounded reciprocal."""
    slack = (n + 4) * U * sums(x.largest) / counts
    return Bounds(sums(x.low) / counts - slack, sums(x.high) / counts + slack)


def _average_pool(x: Bounds, a: Attributes) -> Bounds:
    kernel = a["kernel_shape"]
    windows, over = Windows(x.low.shape, kernel, a), tuple(range(-len(kernel), 0))
    counted = 1.0 if a.get("count_include_pad") else 0.0
    counts = windows.of(np.ones_like(x.low), counted, 0.0).sum(over)
    return _mean(x, lambda end: windows.of(end, 0.0).sum(over), counts, int(np.prod(kernel)))


def _over_pixels(x: Bounds) -> tuple[int, ...]:
    return tuple(range(SPATIAL, x.low.ndim))


def _global_mean(x: Bounds, a: Attributes) -> Bounds:
    return _mean_over(x, _over_pixels(x), True)


def _mean_over(x: Bounds, axes: tuple[int, ...], keep: bool) -> Bounds:
    n = int(np.prod([x.low.shape[axis] for axis in axes]))
    return _mean(x, lambda end: end.sum(axes, keepdims=keep), n, n)


def _axes(rest: Sequence[Bounds], a: Attributes) -> tuple[int, ...]:
    return tuple(int(axis) for axis in (rest[0].low.tolist() if rest else a["axes"]))


def _reduce_mean(x: Bounds, *rest: Any) -> Bounds:
    *axes, a = rest
    return _mean_over(x, _axes(axes, a), bool(a.get("keepdims", 1)))


def _reduce_max(x: Bounds, *rest: Any) -> Bounds:
    *axes, a = rest
    return x.map(lambda end: end.max(_axes(axes, a), keepdims=bool(a.get("keepdims", 1))))


def _batch_norm(x: Bounds, gamma: Bounds, beta: Bounds, mean: Bounds, var: Bounds, a: Attributes) -> Bounds:
    """As (x - mean) / root gamma + beta, or as x factor + shift of rounded numbers: eight roundings."""
    shape = (1, -1, *[1] * (x.low.ndim - 2))
    factor = (gamma.low / np.sqrt(var.low + a.get("epsilon", 1e-5))).reshape(shape)
    centre, offset = mean.low.reshape(shape), beta.low.reshape(shape)
    spread = np.abs(factor) * (x.largest + np.abs(centre)) + np.abs(offset)
    return Bounds.around((x.centre - centre) * factor + offset, x.radius * np.abs(factor) + 8 * U * spread)


def _pad(x: Bounds, pads: Bounds, *rest: Any) -> Bounds:
    *value, _ = rest
    fill = float(value[0].low.reshape(())) if value and value[0] is not None else 0.0
    sizes = pads.low.astype(int)
    sides = list(zip(sizes[: x.low.ndim], sizes[x.low.ndim :], strict=True))
    return x.map(lambda end: np.pad(end, sides, constant_values=fill))


def _slice(x: Bounds, starts: Bounds, ends: Bounds, axes: Bounds, a: Attributes) -> Bounds:
    cut = [slice(None)] * x.low.ndim
    for start, end, axis in zip(starts.low, ends.low, axes.low, strict=True):
        cut[int(axis)] = slice(int(start), int(end))
    return x.map(lambda end: end[tuple(cut)])


def _split(x: Bounds, *rest: Any) -> tuple[Bounds, ...]:
    *sizes, a = rest
    axis = a.get("axis", 0)
    where: Any = np.cumsum(sizes[0].low.astype(int))[:-1] if sizes else a["made"]
    parts = zip(np.split(x.low, where, axis), np.split(x.high, where, axis), strict=True)
    return tuple(Bounds(low, high) for low, high in parts)


def _flatten(x: Bounds, a: Attributes) -> Bounds:
    axis = a.get("axis", 1)
    return x.map(lambda end: end.reshape(int(np.prod(end.shape[:axis])), -1))


def _squeeze(x: Bounds, *rest: Any) -> Bounds:
    *axes, a = rest
    return x.map(lambda end: end.squeeze(_axes(axes, a)))


def _unsqueeze(x: Bounds, *rest: Any) -> Bounds:
    *axes, a = rest
    return x.map(lambda end: np.expand_dims(end, _axes(axes, a)))


IMAGES: Mapping[str, Callable[..., Any]] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalMaxPool": lambda x, a: x.map(lambda end: end.max(_over_pixels(x), keepdims=True)),
    "GlobalAveragePool": _global_mean,
    "ReduceMean": _reduce_mean,
    "ReduceMax": _reduce_max,
    "BatchNormalization": _batch_norm,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Identity": lambda x, a: x,
}
"""By operator; `made` among the attributes is the number of outputs."""

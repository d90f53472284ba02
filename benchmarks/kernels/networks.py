"""The layers of some networks: every distinct shape, in the order in which the network has it.

Sources: He et al. 2016, "Deep Residual Learning", table 1, with the stride in the 3x3 layer as torchvision
has it; Xie et al. 2017, "Aggregated Residual Transformations" (32x8d); Devlin et al. 2019 (BERT-base); Wang
et al. 2020 (MiniLM); Naumov et al. 2019 (DLRM) in the sizes that MLPerf trains on Criteo's terabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np

from .shapes import Convolution, Gemm, Layer, Shape

SEED = 20
IMAGE = 224
Named = Iterator[tuple[str, Shape]]


def _square(size: int, channels: int, n: int, kernel: int, stride: int = 1, groups: int = 1) -> Convolution:
    pair = (kernel, kernel)
    same = (kernel // 2, kernel // 2)
    return Convolution(1, size, size, channels, n, pair, (stride, stride), padding=same, groups=groups)


def _stem() -> Named:
    yield "stem", _square(IMAGE, 3, 64, 7, 2)


def _basic_blocks(counts: tuple[int, ...]) -> Named:
    yield from _stem()
    size, channels = IMAGE // 4, 64
    for stage, count in enumerate(counts, 1):
        n = 64 << (stage - 1)
        for block in range(count):
            stride = 2 if stage > 1 and block == 0 else 1
            yield f"{stage}.{block}.conv1", _square(size, channels, n, 3, stride)
            if stride == 2:
                yield f"{stage}.{block}.shortcut", _square(size, channels, n, 1, stride)
            size, channels = size // stride, n
            yield f"{stage}.{block}.conv2", _square(size, n, n, 3)
    yield "classifier", Gemm(1, channels, 1000)


def _bottlenecks(counts: tuple[int, ...], width: int, groups: int) -> Named:
    """width: channels of the 3x3 layers of the first stage."""
    yield from _stem()
    size, channels = IMAGE // 4, 64
    for stage, count in enumerate(counts, 1):
        inner, n = width << (stage - 1), 256 << (stage - 1)
        for block in range(count):
            stride = 2 if stage > 1 and block == 0 else 1
            yield f"{stage}.{block}.conv1", _square(size, channels, inner, 1)
            yield f"{stage}.{block}.conv2", _square(size, inner, inner, 3, stride, groups)
            if block == 0:
                yield f"{stage}.{block}.shortcut", _square(size, channels, n, 1, stride)
            size, channels = size // stride, n
            yield f"{stage}.{block}.conv3", _square(size, inner, n, 1)
    yield "classifier", Gemm(1, channels, 1000)


def _encoder(width: int, rows: Iterable[int]) -> Named:
    for count in rows:
        for name, k, n in (
            ("qkv", width, 3 * width),
            ("out", width, width),
            ("up", width, 4 * width),
            ("down", 4 * width, width),
        ):
            yield f"{name} {count}", Gemm(count, k, n)


def _towers() -> Named:
    for rows in (1, 8, 32, 128):
        for tower, sizes in (("bottom", (13, 512, 256, 128)), ("top", (479, 1024, 1024, 512, 256, 1))):
            for i, (k, n) in enumerate(pairwise(sizes)):
                yield f"{tower}.{i} {rows}", Gemm(rows, k, n)


def _small_rows() -> Named:
    for rows in (1, 2, 4, 8, 16):
        yield f"rows {rows}", Gemm(rows, 1024, 1024)


def _odd() -> Named:
    """Sizes that no tile, strip or window divides, the same ones in every run."""
    rng = np.random.default_rng(SEED)
    primes = [p for p in range(5, 800) if all(p % q for q in range(2, int(p**0.5) + 1))]
    for i in range(6):
        rows, k, n = (int(p) for p in rng.choice(primes, 3))
        yield f"product {i}", Gemm(rows, k, n)
    for i in range(6):
        ends = ((9, 60), (1, 6), (1, 4), (1, 3))
        size, kernel, stride, dilation = (int(rng.integers(*pair)) for pair in ends)
        channels, n = (int(p) for p in rng.choice(primes[:40], 2))
        same = (dilation * (kernel // 2),) * 2
        pairs = ((kernel, kernel), (stride, stride), (dilation, dilation), same)
        yield f"convolution {i}", Convolution(1, size, size + 3, channels, n, *pairs)
    yield "dilated 2", Convolution(1, 28, 28, 256, 256, (3, 3), (1, 1), (2, 2), (2, 2))
    yield "depthwise", Convolution(1, 56, 56, 144, 144, (3, 3), padding=(1, 1), groups=144)


_SETS: dict[str, Callable[[], Named]] = {
    "resnet34": lambda: _basic_blocks((3, 4, 6, 3)),
    "resnet50": lambda: _bottlenecks((3, 4, 6, 3), 64, 1),
    "resnext101": lambda: _bottlenecks((3, 4, 23, 3), 256, 32),
    "bert": lambda: _encoder(768, (128, 2048)),
    "minilm": lambda: _encoder(384, (32, 128, 2048)),
    "dlrm": _towers,
    "small": _small_rows,
    "odd": _odd,
}
SETS = tuple(_SETS)

# What a run without options shows: of each network the kinds of layers that differ most.
_REPRESENTATIVE = {
    "resnet34": ("stem", "1.0.conv1", "2.0.conv1", "2.0.conv2", "3.0.conv2", "4.0.conv2"),
    "resnet50": ("1.1.conv1", "2.0.shortcut", "3.0.conv3", "4.1.conv1"),
    "resnext101": ("1.0.conv2", "3.1.conv2"),
    "bert": ("out 128", "up 128"),
    "minilm": ("qkv 32", "down 128"),
    "dlrm": ("top.1 8", "bottom.1 128"),
    "small": ("rows 1", "rows 4", "rows 16"),
    "odd": ("product 0", "convolution 1", "dilated 2", "depthwise"),
}
FLOATS = ("resnet34 2.0.conv2", "bert out 128")
"""The layers that a run without options also times in BF16 and FP32."""


def layers(network: str) -> list[Layer]:
    """Every distinct shape of one of `SETS`. Raises ValueError for another name."""
    if network not in _SETS:
        raise ValueError(f"Expected one of the sets of layers {', '.join(SETS)}, found '{network}'.")
    first: dict[Shape, Layer] = {}
    for name, shape in _SETS[network]():
        first.setdefault(shape, Layer(network, name, shape))
    return list(first.values())


def representative() -> list[Layer]:
    """A few layers of every set."""
    return [layer for name in SETS for layer in layers(name) if layer.name in _REPRESENTATIVE[name]]

"""The sizes of a layer: a matrix product, or a convolution, which is the product of its patches."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]


@dataclass(frozen=True)
class Gemm:
    """y [rows, n] = x [rows, k] times the transpose of weight [n, k]."""

    rows: int
    k: int
    n: int

    groups = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.k, self.n) < 1:
            raise ValueError(f"A product has at least one row, input and output channel; this is {self}.")

    def __str__(self) -> str:
        return f"{self.rows}x{self.k}x{self.n}"

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.rows, self.k)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.n, self.k)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.rows, self.n)

    @property
    def taps(self) -> int:
        return 1

    @property
    def operations(self) -> int:
        """Multiplications and additions of the dense layer."""
        return 2 * self.rows * self.k * self.n


@dataclass(frozen=True)
class Convolution:
    """A 2-D convolution of NHWC images: x [batch, height, width, channels], weight [n, kh, kw, channels /
    groups], and the same padding on both ends of an axis.
    """

    batch: int
    height: int
    width: int
    channels: int
    n: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1

    def __post_init__(self) -> None:
        if self.channels % self.groups or self.n % self.groups:
            raise ValueError(f"{self.groups} groups do not divide the channels of {self}.")
        if min(self._out(0), self._out(1)) < 1:
            raise ValueError(f"The kernel does not fit into the padded image of {self}.")

    def __str__(self) -> str:
        parts = [f"{self.batch}x{self.height}x{self.width}x{self.channels}->{self.n}"]
        parts.append(_pair(self.kernel) + (f"/{_pair(self.stride)}" if self.stride != (1, 1) else ""))
        parts += [f"dilation {_pair(self.dilation)}"] if self.dilation != (1, 1) else []
        parts += [f"{self.groups} groups"] if self.groups > 1 else []
        return " ".join(parts)

    def _out(self, axis: int) -> int:
        size = (self.height, self.width)[axis] + 2 * self.padding[axis]
        return (size - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1

    @property
    def out(self) -> Pair:
        """Height and width of y."""
        return (self._out(0), self._out(1))

    @property
    def rows(self) -> int:
        """Output pixels."""
        return self.batch * self._out(0) * self._out(1)

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def k(self) -> int:
        """The length of each sum."""
        return self.taps * self.channels // self.groups

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.batch, self.height, self.width, self.channels)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.n, *self.kernel, self.channels // self.groups)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.out, self.n)

    @property
    def operations(self) -> int:
        """Multiplications and additions of the dense layer."""
        return 2 * self.rows * self.k * self.n


Shape = Gemm | Convolution


@dataclass(frozen=True)
class Layer:
    """One shape, under the name of the first layer of its network that has it."""

    network: str
    name: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.network} {self.name}"


def _pair(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"

"""Quantize and dequantize in torch, with the gradients that training needs;
docs/arithmetic.md has the formulas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that integers stand for, scale * (q - zero_point), low <= q <= high.

    scale f32 and zero_point i32: [] or [C] along `axis` of the tensor.
    """

    scale: Tensor
    zero_point: Tensor
    axis: int | None
    low: int
    high: int

    def along(self, values: Tensor, x: Tensor) -> Tensor:
        """`values` [] or [C] in a shape that multiplies `x` along the channel axis."""
        if self.axis is None:
            return values
        shape = [1] * x.dim()
        shape[self.axis] = -1
        return values.reshape(shape)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest number of the grid, in a shape that broadcasts with `x`."""
        low, high = ((limit - self.zero_point) * self.scale for limit in (self.low, self.high))
        return self.along(low, x), self.along(high, x)


def fake_quantize(x: Tensor, grid: Grid) -> Tensor:
    """The number of the grid nearest to x, f32; the gradient is torch's:
    1 where rint(x / scale) is in the limits."""
    # torch's operator has no form for compiled graphs with free dimensions.
    if grid.axis is None and not torch.compiler.is_compiling():
        return torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point, grid.low, grid.high)
    return _written_out(x, grid)


def _written_out(x: Tensor, grid: Grid) -> Tensor:
    """torch's two operators in simple ones; the one per channel cannot be compiled at all and turns the sign
    of what exceeds 2^63."""
    scale, zero_point = grid.along(grid.scale, x).detach(), grid.along(grid.zero_point, x)
    low, high = (grid.low - zero_point).to(x.dtype), (grid.high - zero_point).to(x.dtype)
    v = torch.round(x.detach() * (1 / scale))
    passing = torch.where((v >= low) & (v <= high), x, 0.0)
    # The difference is zero; it carries the gradient.
    return torch.fmin(torch.fmax(v, low), high) * scale + (passing - passing.detach())


def clipped_fake_quantize(x: Tensor, grid: Grid) -> Tensor:
    """The same values; the gradient passes where x lies between the ends of the grid,
    and to them where it does not.

    d/dx = 1 where low <= x <= high, else 0; the scale receives through the ends what x does not.
    Source: Choi et al. 2018, "PACT", equation 2; the straight-through estimator with fixed ends is the
    special case.
    """
    low, high = grid.ends(x)
    fixed = Grid(grid.scale.detach(), grid.zero_point, grid.axis, grid.low, grid.high)
    # What is NaN falls to the lower end and has no gradient.
    return fake_quantize(torch.fmin(torch.fmax(x, low), high), fixed)


def learned_step_quantize(x: Tensor, grid: Grid) -> Tensor:
    """The same values, with a gradient to the scale too.

    With v = x / scale: d/dscale = rint(v) - v inside the limits, the limit outside, times 1 / sqrt(n * high),
    n being the elements to a scale; d/dx = 1 inside, 0 outside.
    Source: Esser et al. 2020, "Learned Step Size Quantization", equations 3 to 5.
    """
    count = x.numel() // grid.scale.numel()
    part = 1 / (max(count, 1) * max(grid.high, 1)) ** 0.5
    # The value of the scale, to the bit, with a part of its gradient.
    share = grid.scale * part
    scale = grid.along(grid.scale.detach() + (share - share.detach()), x)
    zero_point = grid.along(grid.zero_point, x)
    low, high = (torch.as_tensor(limit - zero_point, dtype=x.dtype) for limit in (grid.low, grid.high))
    v = torch.fmin(torch.fmax(x * (1 / scale), low), high)
    # rint(v) - v is exact and so is its sum with v, so the value is rint(v) and the gradient that of v.
    return (v + (torch.round(v) - v).detach()) * scale


def integers(x: Tensor, grid: Grid) -> Tensor:
    """The integers of `x`, s8 where the limits are signed and u8 otherwise,
    as docs/arithmetic.md rounds them."""
    inverse, zero_point = grid.along(1 / grid.scale, x), grid.along(grid.zero_point, x)
    low, high = ((limit - zero_point).float() for limit in (grid.low, grid.high))
    v = torch.fmin(torch.fmax(torch.round(x.float() * inverse), low), high)
    return (v + zero_point).to(torch.int8 if grid.low < 0 else torch.uint8)

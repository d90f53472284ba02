"""What a fake quantizer rounds to, and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openwork.qdq.affine import RANGES, WEIGHT_LIMIT, Activation

Learned = Literal["no", "amax", "step"]
Gradient = Literal["torch", "amax"]


@dataclass(frozen=True)
class FakeQuantizeOptions:
    """What a `FakeQuantize` rounds to, and what of it is trained.

    dtype: "s8" or "u8". axis: the channel axis, None for one scale. channels: how many lie along it.
    narrow: leave -128 out, as weights do. follow: take the scale from the tensor itself in every forward
    pass, max |x| / 127, as weights that are trained do.
    learned: "amax" trains the largest magnitude (PACT), "step" the scale (LSQ), "no" neither.
    gradient: "torch" passes it where torch.fake_quantize_* does, up to half a step beyond the ends; "amax"
    between the ends only (for s8 where |x| <= amax). A learned amax has the latter always, a learned step
    where the limits allow.
    Raises ValueError for a choice that is none of these or that contradicts another.
    """

    dtype: Activation = "s8"
    axis: int | None = None
    channels: int = 1
    narrow: bool = False
    follow: bool = False
    learned: Learned = "no"
    gradient: Gradient = "torch"

    def __post_init__(self) -> None:
        for value, known in (
            (self.dtype, tuple(RANGES)),
            (self.learned, ("no", "amax", "step")),
            (self.gradient, ("torch", "amax")),
        ):
            if value not in known:
                raise ValueError(f"Expected one of {', '.join(known)}, but got {value!r}.")
        if self.follow and (self.learned != "no" or self.dtype != "s8"):
            raise ValueError(
                "A scale that follows the tensor is symmetric and not learned; choose s8 and learned='no', "
                "or do not let it follow."
            )
        if self.narrow and self.dtype != "s8":
            raise ValueError("Only s8 can leave -128 out; u8 uses all its integers.")
        if self.channels < 1:
            raise ValueError(f"A tensor has at least one channel, but channels is {self.channels}.")

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest integer."""
        # A learned amax is the end on both sides, so -128 is out of reach.
        if self.narrow or (self.dtype == "s8" and (self.learned == "amax" or self.gradient == "amax")):
            return -WEIGHT_LIMIT, WEIGHT_LIMIT
        return RANGES[self.dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the scale: () or (channels,)."""
        return () if self.axis is None else (self.channels,)

"""Fake quantization: a module that rounds a tensor to the integers of the engine and back,
while training or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from openwork.qdq.affine import (
    SMALLEST_SCALE,
    WEIGHT_LIMIT,
    Activation,
    Affine,
    choose_affines,
    weight_scales,
)
from openwork.quantization.fake_quantization.grid import (
    Grid,
    clipped_fake_quantize,
    fake_quantize,
    integers,
    learned_step_quantize,
)
from openwork.quantization.fake_quantization.options import FakeQuantizeOptions, Gradient, Learned
from openwork.quantization.observers.observer import DEFAULT_PERCENTILE, Observer, ObserverKind, make_observer

Mode = Literal["disabled", "observing", "quantizing", "frozen"]

MODES: tuple[Mode, ...] = ("disabled", "observing", "quantizing", "frozen")

__all__ = ["MODES", "FakeQuantize", "FakeQuantizeOptions", "Gradient", "Learned", "Mode"]


class FakeQuantize(nn.Module):
    """y = scale * (clamp(rint(x / scale) + zero_point, low, high) - zero_point),
    gradients passing straight through.

    State: scale f32 and zero_point i32, [] or [C], buffers; with learned="step" the scale is a parameter,
    with learned="amax" there is a parameter amax of that shape, from which the scale follows.
    mode: "disabled" (x as it is), "observing" (x as it is, its range is collected), "quantizing", and
    "frozen", which quantizes and changes nothing any more. name: the tensor, for messages.
    """

    scale: Tensor
    zero_point: Tensor
    amax: Tensor | None

    def __init__(self, name: str, options: FakeQuantizeOptions | None = None) -> None:
        super().__init__()
        self.name, self.options = name, options or FakeQuantizeOptions()
        self.observer: Observer | None = None
        self.calibrated = False
        self._mode: Mode = "disabled"
        self._enabled: Mode = "quantizing"
        shape, learned = self.options.shape, self.options.learned
        ones = torch.ones(shape, dtype=torch.float32)
        if learned == "step":
            self.scale = nn.Parameter(ones)
        else:
            self.register_buffer("scale", ones)
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))
        self.amax = nn.Parameter(ones * WEIGHT_LIMIT) if learned == "amax" else None

    @classmethod
    def for_weight(cls, name: str, weight: Tensor, axis: int = 0, learned: Learned = "no") -> Self:
        """Per output channel along `axis`, integers -127 to 127,
        the scale max |w| / 127 of each channel, quantizing.

        Unless learned, the scale follows the weight. Raises ValueError if the weight holds NaN or infinity.
        """
        axis %= weight.dim()
        options = FakeQuantizeOptions(
            axis=axis, channels=weight.shape[axis], narrow=True, follow=learned == "no", learned=learned
        )
        made = cls(name, options).to(weight.device)
        made.load_scales(torch.from_numpy(weight_scales(weight.detach().float().cpu().numpy(), name, axis)))
        made.quantize()
        return made

    @classmethod
    def for_activation(cls, name: str, dtype: Activation = "u8", learned: Learned = "no") -> Self:
        """One scale for the tensor, disabled until it is calibrated."""
        return cls(name, FakeQuantizeOptions(dtype=dtype, learned=learned))

    @property
    def mode(self) -> Mode:
        """What a forward pass does."""
        return self._mode

    @property
    def dtype(self) -> Activation:
        """ "s8" or "u8"."""
        return self.options.dtype

    @property
    def axis(self) -> int | None:
        """The channel axis, None for one scale."""
        return self.options.axis

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest integer."""
        return self.options.limits

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is always 0."""
        return self.options.dtype == "s8"

    @property
    def affine(self) -> Affine:
        """The affine map of the tensor; raises ValueError if it has one for each channel."""
        if self.axis is not None:
            raise ValueError(f"{self.name} has a scale for each channel; use scales().")
        scale, zero_point = self.scales()
        return Affine(float(scale), int(zero_point), self.dtype)

    @torch.no_grad()
    def scales(self, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The scale f32 and zero point i32 that are in use, [] or [C], as copies without gradient.

        x: the tensor as it is now, for a scale that follows it;
        without it the scale of the last forward pass.
        """
        grid = self._grid(x if self._follows else None)
        return grid.scale.detach().clone(), grid.zero_point.clone()

    @torch.no_grad()
    def integers(self, x: Tensor) -> Tensor:
        """The integers of `x` by docs/arithmetic.md: s8 or u8 of its shape."""
        return integers(x, self._grid(x if self._follows else None))

    def forward(self, x: Tensor) -> Tensor:
        """`x` rounded to the grid, or `x` itself where nothing is quantized; any floating type,
        which is kept."""
        if self._mode == "disabled":
            return x
        if self._mode == "observing":
            self._observe(x)
            return x
        return self._quantized(x.float()).to(x.dtype)

    def observe(self, kind: ObserverKind = "max", percentile: float = DEFAULT_PERCENTILE) -> None:
        """Collect the range from now on, with a new observer of that kind."""
        self.observe_with(make_observer(kind, self.name, percentile, self.symmetric, self.axis))

    def observe_with(self, observer: Observer) -> None:
        """Collect the range from now on, with an observer that others may share."""
        self.observer, self._mode = observer, "observing"

    def quantize(self) -> None:
        """Quantize from now on, what is learned being trained; after observing, with the range observed.

        Raises ValueError if nothing was observed and no scale was given, naming the tensor.
        """
        if self.observer is not None:
            self.load_ranges(*self.observer.ranges())
            self.observer = None
        if not self.options.follow:
            self._require_calibrated()
        self._mode = "quantizing"
        self._train_learned(True)

    def freeze(self) -> None:
        """Quantize with the scale as it is, which nothing changes any more; `quantize` undoes it."""
        self._require_calibrated()
        self._mode = "frozen"
        self._train_learned(False)

    def disable(self) -> None:
        """Let the tensor through as it is; `enable` undoes it."""
        if self._mode != "disabled":
            self._enabled, self._mode = self._mode, "disabled"

    def enable(self) -> None:
        """Go back to what `disable` ended; to quantizing where it never began."""
        if self._mode == "disabled":
            if self._enabled != "observing" and not self.options.follow:
                self._require_calibrated()
            self._mode = self._enabled

    def load_affine(self, affine: Affine) -> None:
        """Take over the scale and zero point of one tensor; raises ValueError for another type of integer."""
        if affine.dtype != self.dtype:
            raise ValueError(
                f"{self.name} is quantized to {self.dtype}, but the map given is of {affine.dtype}."
            )
        self.load_scales(torch.tensor(affine.scale), torch.tensor(affine.zero_point))

    def load_ranges(self, low: Tensor | float, high: Tensor | float) -> None:
        """Take the scale and zero point that just cover [low, high] and zero: numbers, or tensors [] or [C].

        Raises ValueError if the range is not finite or not in order.
        """
        bottom, top = (torch.as_tensor(end, dtype=torch.float64).cpu().numpy() for end in (low, high))
        try:
            scale, zero_point = choose_affines(bottom, top, self.dtype)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        self.load_scales(torch.from_numpy(scale), torch.from_numpy(zero_point))

    @torch.no_grad()
    def load_scales(self, scale: Tensor, zero_point: Tensor | None = None) -> None:
        """Take over scale f32 and zero point, [] or [C]; the latter is 0 where none is given.

        Raises ValueError for a scale that is not a positive normal number, a zero point outside the integers,
        or another shape.
        """
        zero_point = torch.zeros_like(scale, dtype=torch.int32) if zero_point is None else zero_point
        self._check(scale, zero_point)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        if self.amax is not None:
            self.amax.copy_(self.scale * self._reach())
        self.calibrated = True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Scales stay float32 whatever the model computes in: half precision has no room for small ones.
        return super()._apply(lambda tensor: _moved(fn, tensor), recurse)  # type: ignore[no-untyped-call, no-any-return]

    def get_extra_state(self) -> Tensor:
        """The mode and whether a scale was chosen, so that a saved model goes on as it was."""
        return torch.tensor(
            [MODES.index(self._mode), MODES.index(self._enabled), int(self.calibrated)], dtype=torch.uint8
        )

    def set_extra_state(self, state: Tensor) -> None:
        """Restore what `get_extra_state` gave; observing does not go on without its observer."""
        mode, enabled, calibrated = (int(value) for value in state)
        self._mode, self._enabled, self.calibrated = MODES[mode], MODES[enabled], bool(calibrated)
        if self._mode == "observing" and self.observer is None:
            self._mode = "disabled"
        if self._enabled == "observing" and self.observer is None:
            self._enabled = "quantizing"
        self._train_learned(self._mode != "frozen")

    def extra_repr(self) -> str:
        scale = (
            f"{float(self.scale.detach()):.4g}" if self.axis is None else f"{self.options.channels} scales"
        )
        return f"{self.name}, {self.dtype}, axis={self.axis}, {self._mode}, {scale}"

    @property
    def _follows(self) -> bool:
        return self.options.follow and self._mode != "frozen"

    def _quantized(self, x: Tensor) -> Tensor:
        grid = self._grid(x if self._follows else None)
        if self.options.learned == "step":
            return learned_step_quantize(x, grid)
        if self.options.learned == "amax" or self.options.gradient == "amax":
            return clipped_fake_quantize(x, grid)
        return fake_quantize(x, grid)

    def _grid(self, x: Tensor | None) -> Grid:
        """The grid in use; `x`: the tensor that the scale follows, which becomes the module's scale."""
        scale = self.scale
        if self.amax is not None:
            scale = self.amax.abs().clamp(min=float(SMALLEST_SCALE) * WEIGHT_LIMIT) / self._reach()
        elif self.options.learned == "step":
            scale = scale.abs().clamp(min=float(SMALLEST_SCALE))
        elif x is not None:
            scale, self.calibrated = self._scale_of(x), True
        if self.amax is not None or x is not None:
            with torch.no_grad():
                self.scale.copy_(scale)
        return Grid(scale, self.zero_point, self.axis, *self.limits)

    def _scale_of(self, x: Tensor) -> Tensor:
        """max |x| / 127, or 1 where that is too small for a scale, as `affine.weight_scales` has it."""
        magnitude = x.detach().abs()
        if self.axis is None:
            largest = magnitude.amax()
        else:
            largest = magnitude.movedim(self.axis, 0).flatten(1).amax(dim=1)
        scale = largest / WEIGHT_LIMIT
        return torch.where(scale < float(SMALLEST_SCALE), 1.0, scale)

    def _reach(self) -> Tensor:
        """How many steps lie between zero and the farther end: amax / scale."""
        low, high = self.limits
        return torch.maximum(high - self.zero_point, self.zero_point - low).float()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _observe(self, x: Tensor) -> None:
        if self.observer is None:
            raise ValueError(f"{self.name} is observing without an observer; call observe().")
        self.observer.observe(x)

    def _check(self, scale: Tensor, zero_point: Tensor) -> None:
        shape = self.options.shape
        if tuple(scale.shape) != shape or tuple(zero_point.shape) != shape:
            raise ValueError(
                f"{self.name} takes a scale and a zero point of shape {shape}, but got {tuple(scale.shape)} "
                f"and {tuple(zero_point.shape)}."
            )
        if not bool((torch.isfinite(scale) & (scale >= float(SMALLEST_SCALE))).all()):
            raise ValueError(f"{self.name} got a scale that is not a positive normal number: {scale}.")
        low, high = (0, 0) if self.symmetric else self.limits
        if bool(((zero_point < low) | (zero_point > high)).any()):
            raise ValueError(
                f"The zero point of {self.name} lies in {low} to {high}, but it is {zero_point}."
            )

    def _require_calibrated(self) -> None:
        if not self.calibrated:
            raise ValueError(
                f"{self.name} has no scale yet; run calibration batches while it observes, or load a range."
            )

    def _train_learned(self, trained: bool) -> None:
        for parameter in self.parameters(recurse=False):
            parameter.requires_grad_(trained)


def _moved(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """What `fn` makes of a tensor, in the type that it had."""
    made = fn(tensor)
    return made if made.dtype == tensor.dtype else tensor.to(made.device)

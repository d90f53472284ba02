"""What every observer shares: counting, refusing NaN and infinity, channels, merging, saving."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class Observer(ABC):
    """Watches one tensor over many batches, in bounded memory.

    name: the layer the tensor feeds, for messages. axis: the channel axis, or None for one range of all
    values. values, batches: how many elements and non-empty tensors were seen. channels: how many there are
    along `axis`, None where `axis` is or before data came.
    """

    def __init__(self, name: str, axis: int | None = None) -> None:
        self.name, self.axis = name, axis
        self.values = self.batches = 0
        self.channels: int | None = None
        self._least, self._most = torch.full((1,), math.inf), torch.full((1,), -math.inf)

    @property
    def low(self) -> float:
        """The smallest value seen; infinity before data came."""
        return float(self._least.min())

    @property
    def high(self) -> float:
        """The largest value seen; -infinity before data came."""
        return float(self._most.max())

    def observe(self, x: Tensor) -> None:
        """Take in a tensor of any shape (per channel: with as many channels as the first).

        Raises ValueError naming the layer if it holds NaN or infinity or has another number of channels.
        """
        # Under inference mode what is kept would be tensors that cannot be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._take_in(x.detach())

    def range(self) -> tuple[float, float]:
        """The range [low, high] to represent, of all channels together.

        Raises ValueError if nothing was seen, naming the layer.
        """
        low, high = self.ranges()
        return float(low.min()), float(high.max())

    def ranges(self) -> tuple[Tensor, Tensor]:
        """The range to represent: low and high, f64 [] or, per channel, [C].

        Raises ValueError if nothing was seen, naming the layer.
        """
        if self.values == 0:
            raise ValueError(
                f"No data reached the input of {self.name}, so no range can be chosen for it; "
                "calibrate with batches that run this layer, or exclude it."
            )
        low, high = (edge.double() for edge in self._ranges())
        return (low[0], high[0]) if self.axis is None else (low, high)

    def merge(self, other: Observer) -> None:
        """Take in what `other` saw: exactly as if this observer had seen the data of both.

        Raises ValueError if the two are not of one kind with the same settings and channels.
        """
        if self.settings() != other.settings():
            raise ValueError(
                f"The observer of {self.name} has the settings {self.settings()} and cannot take in one of "
                f"{other.name} with {other.settings()}."
            )
        if other.values == 0:
            return
        self._expect(other.channels)
        self._least = torch.minimum(self._least, other._least)
        self._most = torch.maximum(self._most, other._most)
        self._merge(other)
        self.values += other.values
        self.batches += other.batches

    def settings(self) -> dict[str, Any]:
        """What must agree for two observers to be merged, or a saved one to be restored."""
        return {"kind": type(self).__name__, "axis": self.axis}

    def state_dict(self) -> dict[str, Any]:
        """All that was seen, as tensors, numbers and text, bounded in size; `load_state_dict` restores it."""
        return {
            "settings": self.settings(),
            "values": self.values,
            "batches": self.batches,
            "channels": self.channels,
            "least": self._least.clone(),
            "most": self._most.clone(),
            "seen": self._state() if self.values else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; raises ValueError if it was saved by another kind or
        with other settings."""
        if state["settings"] != self.settings():
            raise ValueError(
                f"The state given to the observer of {self.name} was saved with the settings "
                f"{state['settings']}, but this one has {self.settings()}."
            )
        self.values, self.batches = 0, 0
        self._least, self._most = state["least"].clone(), state["most"].clone()
        self.channels = None
        if state["values"]:
            self._expect(state["channels"])
            self._load(state["seen"])
        self.values, self.batches = state["values"], state["batches"]

    def concerns(self) -> tuple[str, ...]:
        """What should be looked at before the range is trusted, each a sentence that names the layer."""
        if self.values == 0:
            return ()
        found = []
        if self.batches == 1:
            found.append(f"The input of {self.name} was seen in one batch only; its range may be too narrow.")
        dead = torch.nonzero((self._least == 0) & (self._most == 0)).flatten().tolist()
        if dead and self.axis is None:
            found.append(f"The input of {self.name} was zero throughout calibration; its scale is set to 1.")
        elif dead:
            shown = ", ".join(str(channel) for channel in dead[:8]) + (", ..." if len(dead) > 8 else "")
            found.append(
                f"{len(dead)} of {self.channels} channels of the input of {self.name} were zero throughout "
                f"calibration ({shown}); their scale is set to 1."
            )
        return tuple(found)

    def _take_in(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        x = x.float()
        rows = self._rows(x)
        low, high = (edge.reshape(-1).cpu() for edge in _extremes(rows))
        if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
            bad = int((~torch.isfinite(x)).sum())
            raise ValueError(
                f"The input of {self.name} holds {bad} values that are NaN or infinite, of {x.numel()}; "
                "an earlier layer or the calibration data made them, and no scale can be chosen from them."
            )
        self._least, self._most = torch.minimum(self._least, low), torch.maximum(self._most, high)
        self._take(x, rows, low, high)
        self.values += x.numel()
        self.batches += 1

    @abstractmethod
    def _take(self, x: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Take in `x`, also as `rows` f32 [1 or C, n], with each row's extremes, on the CPU."""

    @abstractmethod
    def _ranges(self) -> tuple[Tensor, Tensor]:
        """Low and high of each row."""

    @abstractmethod
    def _merge(self, other: Any) -> None: ...

    @abstractmethod
    def _state(self) -> dict[str, Any]: ...

    @abstractmethod
    def _load(self, state: dict[str, Any]) -> None: ...

    def _begin(self, channels: int | None) -> None:  # noqa: B027
        """Called once the number of channels is known, before the first data."""

    def _rows(self, x: Tensor) -> Tensor:
        if self.axis is None:
            self._expect(None)
            return x.reshape(1, -1)
        if not -x.dim() <= self.axis < x.dim():
            raise ValueError(
                f"The input of {self.name} has {x.dim()} dimensions, so it has no channel axis {self.axis}."
            )
        self._expect(x.shape[self.axis])
        return x.movedim(self.axis, 0).reshape(x.shape[self.axis], -1)

    def _expect(self, channels: int | None) -> None:
        if self.values == 0 and (self.channels is None or self.channels != channels):
            self.channels = channels
            self._begin(channels)
        if channels != self.channels:
            raise ValueError(
                f"The input of {self.name} has {channels} channels along axis {self.axis}, but "
                f"{self.channels} before."
            )


def _extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's least and largest value; NaN if there is one. Of one row torch is faster without `dim`."""
    low, high = torch.aminmax(rows) if len(rows) == 1 else torch.aminmax(rows, dim=1)
    return low, high

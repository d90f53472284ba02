"""The state of a distillation on disk: whole or not there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openwork.files import write_atomic

_FORMAT = 1


class Checkpoint:
    """Writes and reads what a run needs to go on.

    path: the file. fingerprint: a text that names what the run must share with the one that wrote the file
    (texts, recipe, pattern); reading refuses another.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self._fingerprint = Path(path), fingerprint

    def write(self, student: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
        """Store the student, the optimizer, torch's random state and `progress`."""
        state = {
            "format": _FORMAT,
            "fingerprint": self._fingerprint,
            "student": student.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "progress": progress,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.path, [buffer.getbuffer()])

    def read(self, student: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Restore what `write` stored and return its `progress`; None if there is no file yet.

        Raises ValueError if the file is damaged or belongs to another run.
        """
        if not self.path.exists():
            return None
        state = self._load()
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        random: Tensor = state["random"]
        torch.set_rng_state(random)
        return dict(state["progress"])

    def _load(self) -> dict[str, Any]:
        try:
            state = torch.load(self.path, weights_only=True)
        except Exception as error:
            raise ValueError(
                f"The checkpoint {self.path} cannot be read ({error}); delete it to start anew."
            ) from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise ValueError(
                f"The checkpoint {self.path} is not of format {_FORMAT}; delete it to start anew."
            )
        if state["fingerprint"] != self._fingerprint:
            raise ValueError(
                f"The checkpoint {self.path} was written by a run with other texts or settings "
                f"({state['fingerprint']}) than this one ({self._fingerprint}); "
                "delete it or give another path."
            )
        return state

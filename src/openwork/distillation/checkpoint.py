"""The state of a distillation on disk: whole or not there.

The file: a line that names it, the BLAKE2b digest (32 bytes) of what follows, and the state by torch.save.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openwork.sparsity.pruner.pruner import Pruner
from openwork.support.files import write_atomic

_MAGIC = b"openwork distillation 2\n"
_DIGEST_BYTES = 32


class Checkpoint:
    """Writes and reads what a run needs to go on.

    path: the file. fingerprint: a text that names what the run must share with the one that wrote the file
    (model, texts, recipe, pruning); reading refuses another. pruner: whose state goes with the student's.
    """

    def __init__(self, path: Path, fingerprint: str, pruner: Pruner | None = None) -> None:
        self.path, self._fingerprint, self._pruner = Path(path), fingerprint, pruner

    def write(self, student: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
        """Store the student, the optimizer, the pruner, torch's random state and `progress`."""
        state = {
            "fingerprint": self._fingerprint,
            "student": student.state_dict(),
            "optimizer": optimizer.state_dict(),
            "pruner": self._pruner.state_dict() if self._pruner else None,
            "random": torch.get_rng_state(),
            "progress": progress,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        write_atomic(self.path, [_MAGIC, _digest(content), content])

    def read(self, student: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Restore what `write` stored and return its `progress`; None if there is no file yet.

        To be called before the pruner is attached to the optimizer.
        Raises ValueError if the file is damaged or belongs to another run.
        """
        if not self.path.exists():
            return None
        state = torch.load(io.BytesIO(self._content()), weights_only=True)
        if state["fingerprint"] != self._fingerprint:
            raise ValueError(
                f"The checkpoint {self.path} was written by a run with another model, other texts or other "
                f"settings ({state['fingerprint']}) than this one ({self._fingerprint}); delete it or give "
                "another path."
            )
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        if self._pruner:
            self._pruner.load_state_dict(state["pruner"])
        random: Tensor = state["random"]
        torch.set_rng_state(random)
        return dict(state["progress"])

    def _content(self) -> memoryview:
        file = memoryview(self.path.read_bytes())
        start = len(_MAGIC) + _DIGEST_BYTES
        if bytes(file[: len(_MAGIC)]) != _MAGIC:
            raise ValueError(f"{self.path} is not a distillation checkpoint; delete it or give another path.")
        if bytes(file[len(_MAGIC) : start]) != _digest(file[start:]):
            raise ValueError(f"The checkpoint {self.path} is damaged; delete it to start anew.")
        return file[start:]


def _digest(content: memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()

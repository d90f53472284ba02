"""Pruning inside Hugging Face's `Trainer`, which steps its optimizer through Accelerate.

pruner = Pruner(model, "2:4", schedule="progressive:2:1000")
trainer = Trainer(model, arguments, train_dataset=data, callbacks=[PruningCallback(pruner)])
trainer.train(resume_from_checkpoint=...)
"""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

import torch

from openwork.sparsity.interop.integrations.attachments import Attachments, refuse_another_model
from openwork.sparsity.pruner.pruner import Pruner
from openwork.support.files import write_atomic

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs transformers and accelerate; install them with "
        "`pip install transformers accelerate`.",
        name=error.name,
    ) from error

logger = logging.getLogger(__name__)

STATE_FILE = "pruner.pt"
"""The pruner's state, in each checkpoint's folder beside the Trainer's files."""

REPORT_FILE = "pruning.json"
"""The report, in the Trainer's output folder when training ends."""


class PruningCallback(TrainerCallback):
    """Follows a pruner's schedule and holds its masks while a `Trainer` trains.

    Make the pruner on the model before the Trainer, so that the masks are there when a checkpoint is loaded.
    The pruner is attached when training begins, after the Trainer has made its optimizer and restored its
    state. Its own state is saved beside each of the Trainer's checkpoints and restored when training resumes;
    a resumed run ends with the weights that the unbroken one has, bit for bit, where the Trainer's own state
    allows that. When training ends, every mask is verified and the report is logged and written to
    `pruning.json`.

    pruner: of the Trainer's model. resume_from: the folder of the checkpoint that training resumes from;
    needed only where it is neither `TrainingArguments.resume_from_checkpoint` nor a folder of the output
    folder, as the Trainer tells its callbacks no other.
    """

    def __init__(self, pruner: Pruner, resume_from: str | os.PathLike[str] | None = None) -> None:
        self.pruner = pruner
        self.resume_from = None if resume_from is None else Path(resume_from)
        self._attachments = Attachments(pruner)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the pruner's state where training resumes, then attach the pruner.

        Raises ValueError if the Trainer's model is not the pruner's, FileNotFoundError if the checkpoint that
        training resumes from has no state of the pruner.
        """
        refuse_another_model(self.pruner, kwargs["model"], "Trainer")
        if state.global_step > 0:
            self.pruner.load_state_dict(_load(self._state_file(args, state.global_step), state.global_step))
        # A run that failed has left its attachments: the Trainer does not tell its callbacks of exceptions.
        self._attachments.release()
        self._attachments.attach([kwargs["optimizer"]])

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the pruner's state into the checkpoint that the Trainer has just written."""
        # Every process takes part where the weights are sharded; one writes.
        saved = {"global_step": state.global_step, "pruner": self.pruner.state_dict()}
        if args.should_save:
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            write_atomic(_checkpoint(args, state.global_step) / STATE_FILE, [buffer.getbuffer()])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let go of the optimizer, verify every mask, and report.

        Raises ValueError, naming layer, row and group, if a mask or a weight breaks its rule.
        """
        report = self._attachments.finish()
        if state.is_world_process_zero:
            logger.info("%s", report)
            write_atomic(Path(str(args.output_dir)) / REPORT_FILE, [report.json().encode()])

    def _state_file(self, args: TrainingArguments, step: int) -> Path:
        named = (self.resume_from, args.resume_from_checkpoint, _checkpoint(args, step))
        folders = [Path(folder) for folder in named if folder]
        for folder in folders:
            if (folder / STATE_FILE).is_file():
                return folder / STATE_FILE
        raise FileNotFoundError(
            f"Training resumes at step {step}, but there is no {STATE_FILE} of the pruner in "
            f"{' or '.join(str(folder) for folder in folders)}. Pass resume_from=<the checkpoint's folder> "
            "to the PruningCallback, or resume from a checkpoint that was written with it."
        )


def _checkpoint(args: TrainingArguments, step: int) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{step}"


def _load(path: Path, step: int) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if saved["global_step"] != step:
        raise ValueError(
            f"Training resumes at step {step}, but the pruner's state in {path} was saved at step "
            f"{saved['global_step']}; pass resume_from=<the checkpoint's folder> to the PruningCallback."
        )
    state: dict[str, Any] = saved["pruner"]
    return state

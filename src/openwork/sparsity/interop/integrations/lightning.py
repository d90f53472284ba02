"""Pruning inside Lightning's `Trainer`.

pruner = Pruner(module, "2:4", schedule="progressive:2:1000")
Trainer(callbacks=[PruningCallback(pruner)]).fit(module, data, ckpt_path=...)
"""

from __future__ import annotations

import logging
from typing import Any

from openwork.sparsity.interop.integrations.attachments import Attachments, refuse_another_model
from openwork.sparsity.pruner.pruner import Pruner

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs lightning; install it with `pip install lightning`.", name=error.name
    ) from error

logger = logging.getLogger(__name__)


class PruningCallback(Callback):
    """Follows a pruner's schedule and holds its masks while Lightning trains a module.

    Make the pruner on the module (or on a network inside it) before `fit`, so that the masks are there when a
    checkpoint is loaded. The pruner is attached when training starts, once the optimizers exist and are
    restored, to each optimizer that trains one of its weights. Its state lies in Lightning's checkpoints
    among the callbacks'. When training ends, every mask is verified and the report is logged.

    pruner: of the module that is trained, or of a module inside it.
    """

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner
        self._restored: dict[str, Any] | None = None
        self._attachments = Attachments(pruner)

    def state_dict(self) -> dict[str, Any]:
        """The pruner's state, for Lightning's checkpoint."""
        return self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until training starts."""
        # A strategy may shard the weights after this; the state is put where they lie when they lie there.
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the pruner's state where training resumes, then attach the pruner.

        Raises ValueError if the module does not hold the pruned layers or no optimizer trains them.
        """
        refuse_another_model(self.pruner, pl_module, "Trainer")
        if self._restored is not None:
            self.pruner.load_state_dict(self._restored)
            self._restored = None
        self._attachments.attach(trainer.optimizers)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the optimizers, verify every mask, and report.

        Raises ValueError, naming layer, row and group, if a mask or a weight breaks its rule.
        """
        report = self._attachments.finish()
        if trainer.is_global_zero:
            logger.info("%s", report)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers of a run that failed, so that another one can begin."""
        self._attachments.release()

"""The callback for Lightning, with the real package on a tiny network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity import Pruner

pytest.importorskip("lightning", reason="the tests of its callback need lightning")

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from openwork.sparsity.interop.integrations.lightning import PruningCallback

SEED, EPOCHS, BATCHES = 12, 4, 2
STEPS = EPOCHS * BATCHES

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Module(LightningModule):
    """Two halves, each with an optimizer of its own where `halves` says so."""

    def __init__(self, kind: str = "adamw", halves: bool = False) -> None:
        super().__init__()
        self.kind, self.halves = kind, halves
        self.automatic_optimization = not halves
        self.hidden = nn.Linear(16, 32)
        self.out = nn.Linear(32, 8)
        self.seen: list[bool] = []

    def loss(self, batch: Tensor) -> Tensor:
        # The forward pass sees what is masked, whatever happens between the steps.
        self.seen.append(bool((self.hidden.weight[~self.hidden.get_buffer("weight_mask")] == 0).all()))
        return (self.out(torch.relu(self.hidden(batch))) - batch[:, :8]).square().mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        if not self.halves:
            return self.loss(batch)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()
        return None

    def configure_optimizers(self) -> Any:
        if self.halves:
            return [torch.optim.Adam(half.parameters(), lr=0.01) for half in (self.hidden, self.out)]
        if self.kind == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return torch.optim.AdamW(self.parameters(), lr=0.01)

    def train_dataloader(self) -> torch.utils.data.DataLoader[Tensor]:
        generator = torch.Generator().manual_seed(SEED)
        data: Any = torch.randn(4 * BATCHES, 16, generator=generator)
        return torch.utils.data.DataLoader(data, batch_size=4)


def pruner_of(schedule: str, criterion: str = "magnitude", **given: Any) -> Pruner:
    torch.manual_seed(SEED)
    return Pruner(Module(**given), "2:4", schedule=schedule, criterion=criterion)


def trainer_of(pruner: Pruner, folder: Path, **given: Any) -> Trainer:
    kept = ModelCheckpoint(folder, filename="{step}", save_top_k=-1)
    return Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[PruningCallback(pruner), kept],
        **given,
    )


def module_of(pruner: Pruner) -> Module:
    assert isinstance(pruner.model, Module)
    return pruner.model


def same_state(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize(
    ("schedule", "criterion", "kind"),
    [
        ("one-shot", "magnitude", "adamw"),
        ("gradual:cubic:1:7", "snip-momentum", "adamw"),
        ("sr-ste:7:0.01", "magnitude", "sgd"),
    ],
)
def test_a_resumed_run_equals_the_unbroken_one(
    schedule: str, criterion: str, kind: str, tmp_path: Path
) -> None:
    whole = pruner_of(schedule, criterion, kind=kind)
    trainer_of(whole, tmp_path).fit(module_of(whole))
    assert (whole.steps, whole.zeros) == (STEPS, 0.5)
    for step in (2, 6):
        resumed = pruner_of(schedule, criterion, kind=kind)
        trainer_of(resumed, tmp_path).fit(
            module_of(resumed), ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=True
        )
        assert resumed.steps == STEPS
        assert same_state(resumed.model, whole.model), step


@pytest.mark.parametrize("schedule", ["one-shot", "sr-ste:7:0.01", "gradual:linear:1:7"])
@pytest.mark.parametrize("criterion", ["magnitude", "snip"])
def test_lightning_equals_a_plain_loop(schedule: str, criterion: str, tmp_path: Path) -> None:
    """Lightning runs forward and backward inside the optimizer's step; the masks see no difference."""
    inside = pruner_of(schedule, criterion, kind="sgd")
    trainer_of(inside, tmp_path).fit(module_of(inside))
    plain = pruner_of(schedule, criterion, kind="sgd")
    model = module_of(plain)
    optimizer = model.configure_optimizers()
    plain.attach(optimizer)
    for batch in EPOCHS * list(model.train_dataloader()):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    assert same_state(inside.model, plain.model)
    assert module_of(inside).seen == [True] * STEPS


def test_every_optimizer_that_trains_a_pruned_weight_is_held(tmp_path: Path) -> None:
    pruner = pruner_of("gradual:linear:1:7", halves=True)
    trainer_of(pruner, tmp_path).fit(module_of(pruner))
    assert (pruner.steps, pruner.zeros) == (STEPS, 0.5)
    pruner.verify()


def test_the_report_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pruner = pruner_of("one-shot")
    with caplog.at_level(logging.INFO, "openwork.sparsity"):
        trainer_of(pruner, tmp_path).fit(module_of(pruner))
    assert "2 of 2 weights pruned, 50.0% of their weights zero" in caplog.text


def test_another_module_is_refused_and_the_next_run_is_not(tmp_path: Path) -> None:
    pruner, other = pruner_of("one-shot"), pruner_of("one-shot")
    with pytest.raises(ValueError, match=r"The Trainer trains another model than the pruner's: .* hidden"):
        trainer_of(pruner, tmp_path).fit(module_of(other))
    trainer_of(pruner, tmp_path).fit(module_of(pruner))


def test_a_run_that_fails_lets_go_of_its_optimizers(tmp_path: Path) -> None:
    pruner = pruner_of("gradual:linear:1:20")
    module = module_of(pruner)

    def fail(batch: Tensor, batch_idx: int) -> Tensor:
        raise RuntimeError("out of data")

    training_step, module.training_step = module.training_step, fail  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError, match="out of data"):
        trainer_of(pruner, tmp_path).fit(module)
    module.training_step = training_step  # type: ignore[method-assign]
    trainer_of(pruner, tmp_path).fit(module)
    assert pruner.steps == STEPS

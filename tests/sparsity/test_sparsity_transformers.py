"""The callback for Hugging Face's Trainer, with the real package on a tiny network."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity import Pruner

pytest.importorskip("transformers", reason="the tests of its callback need transformers")
pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")

from transformers import Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from openwork.sparsity.interop.integrations.transformers import REPORT_FILE, STATE_FILE, PruningCallback

SEED, STEPS = 11, 8


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(16, 32)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(32, 8)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.out(self.drop(torch.relu(self.hidden(inputs))))
        return {"loss": nn.functional.mse_loss(out, labels), "logits": out}


class Data(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 * SEED + index)
        return {
            "inputs": torch.randn(16, generator=generator),
            "labels": torch.randn(8, generator=generator),
        }


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers_logging.disable_progress_bar()


def pruner_of(schedule: str, criterion: str = "magnitude") -> Pruner:
    torch.manual_seed(SEED)
    return Pruner(Network(), "2:4", schedule=schedule, criterion=criterion)


def trainer_of(
    pruner: Pruner, folder: Path, callback: PruningCallback | None = None, **given: Any
) -> Trainer:
    arguments = TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.01,
            "save_steps": 3,
            "logging_steps": 2,
            "report_to": [],
            "use_cpu": True,
            "seed": SEED,
            "dataloader_pin_memory": False,
            **given,
        }
    )
    callbacks = [callback or PruningCallback(pruner)]
    return Trainer(pruner.model, arguments, train_dataset=Data(), callbacks=callbacks)


def same_state(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize(
    ("schedule", "criterion"),
    [
        ("one-shot", "magnitude"),
        ("gradual:cubic:1:7", "snip-momentum"),
        ("progressive:2:4", "magnitude"),
        ("sr-ste:7:0.01", "magnitude"),
    ],
)
def test_a_resumed_run_equals_the_unbroken_one(schedule: str, criterion: str, tmp_path: Path) -> None:
    whole = pruner_of(schedule, criterion)
    trainer_of(whole, tmp_path / "whole").train()
    assert whole.steps == STEPS
    assert whole.zeros == 0.5
    for step in (3, 6):
        resumed = pruner_of(schedule, criterion)
        trainer_of(resumed, tmp_path / "whole").train(
            resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}")
        )
        assert resumed.steps == STEPS
        assert same_state(resumed.model, whole.model), step


def test_gradients_accumulate_and_are_clipped_between_steps(tmp_path: Path) -> None:
    pruner = pruner_of("gradual:linear:1:7", "snip")
    trainer = trainer_of(pruner, tmp_path, gradient_accumulation_steps=2, max_grad_norm=0.01)
    trainer.train()
    assert pruner.steps == STEPS
    pruner.verify()


def test_the_report_is_logged_and_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pruner = pruner_of("one-shot")
    with caplog.at_level(logging.INFO, "openwork.sparsity"):
        trainer_of(pruner, tmp_path).train()
    assert "2 of 2 weights pruned, 50.0% of their weights zero" in caplog.text
    rows = json.loads((tmp_path / REPORT_FILE).read_text())
    assert [(row["name"], row["pattern"], row["zeros"]) for row in rows] == [
        ("hidden", "2:4", 0.5),
        ("out", "2:4", 0.5),
        ("hidden.bias", None, None),
        ("out.bias", None, None),
    ]


def test_a_checkpoint_from_elsewhere_is_named(tmp_path: Path) -> None:
    first = pruner_of("progressive:2:4")
    trainer_of(first, tmp_path / "first").train()
    checkpoint = tmp_path / "first" / "checkpoint-3"
    lost = pruner_of("progressive:2:4")
    with pytest.raises(FileNotFoundError, match=r"Training resumes at step 3, but there is no pruner\.pt"):
        trainer_of(lost, tmp_path / "second").train(resume_from_checkpoint=str(checkpoint))
    lost.detach()
    told = pruner_of("progressive:2:4")
    callback = PruningCallback(told, resume_from=checkpoint)
    trainer_of(told, tmp_path / "second", callback).train(resume_from_checkpoint=str(checkpoint))
    assert same_state(told.model, first.model)


def test_a_state_of_another_step_is_refused(tmp_path: Path) -> None:
    first = pruner_of("progressive:2:4")
    trainer_of(first, tmp_path).train()
    (tmp_path / "checkpoint-6" / STATE_FILE).rename(tmp_path / "checkpoint-3" / STATE_FILE)
    with pytest.raises(ValueError, match=r"resumes at step 3, but the pruner's state in .* saved at step 6"):
        trainer_of(pruner_of("progressive:2:4"), tmp_path).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )


def test_another_model_is_refused(tmp_path: Path) -> None:
    pruner, other = pruner_of("one-shot"), pruner_of("one-shot")
    trainer = trainer_of(other, tmp_path, PruningCallback(pruner))
    with pytest.raises(
        ValueError, match=r"The Trainer trains another model than the pruner's: it lacks .* hidden"
    ):
        trainer.train()


def test_a_broken_mask_stops_the_end_of_training(tmp_path: Path) -> None:
    pruner = pruner_of("one-shot")

    class Vandal(PruningCallback):
        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            with torch.no_grad():
                pruner.model.get_submodule("out").weight.fill_(1.0)  # type: ignore[operator]
            super().on_train_end(*args, **kwargs)

    with pytest.raises(ValueError, match="The weight of out is 1 at row 0, column"):
        trainer_of(pruner, tmp_path, Vandal(pruner)).train()


def test_training_again_goes_on_from_where_it_was(tmp_path: Path) -> None:
    pruner = pruner_of("progressive:2:4:start=10")
    trainer = trainer_of(pruner, tmp_path)
    trainer.train()
    assert (pruner.steps, pruner.zeros) == (STEPS, 0.0)
    trainer.train()
    assert (pruner.steps, pruner.zeros) == (2 * STEPS, 0.5)


def test_a_plain_loop_with_accelerate(tmp_path: Path) -> None:
    from accelerate import Accelerator

    pruner = pruner_of("gradual:linear:1:3", "snip")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = torch.optim.AdamW(pruner.model.parameters(), lr=0.01)
    loader: Any = torch.utils.data.DataLoader(Data(), batch_size=8)
    model, optimizer, loader = accelerator.prepare(pruner.model, optimizer, loader)
    pruner.attach(optimizer)
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch)["loss"])
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert (pruner.steps, pruner.zeros) == (4, 0.5)
    pruner.verify()


@pytest.mark.parametrize("package", ["transformers", "lightning"])
def test_without_its_package_a_callback_says_what_to_install(package: str) -> None:
    code = f"""
import sys
sys.modules["{package}"] = None
try:
    import openwork.sparsity.interop.integrations.{package}
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"openwork.sparsity.interop.integrations.{package} needs {package}" in done.stdout
    assert "pip install" in done.stdout

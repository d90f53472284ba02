"""Distillation: the loss, the order of batches, the budget, and that a run can be stopped and resumed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openwork.distillation import (
    Budget,
    DistillationLoss,
    DistillationSettings,
    Outputs,
    TokenBatches,
    distil,
    padded_batch,
)
from openwork.distillation.training import _Trainer
from openwork.models import BertConfig, BertEncoder, SentenceEmbedder
from openwork.sparsity import Calibration, Pruner
from openwork.support.precision import bfloat16_is_faster

CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=24,
)
SETTINGS = DistillationSettings(batch_size=8, learning_rate=2e-3, warmup_steps=2, bfloat16=False)


def _texts(count: int = 60) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(3, 20, (count,), generator=generator).tolist()
    return [torch.randint(1, 60, (n,), generator=generator).tolist() for n in lengths]


def _pair(pattern: str = "2:4") -> tuple[SentenceEmbedder, SentenceEmbedder, Pruner]:
    torch.manual_seed(0)
    teacher = SentenceEmbedder(BertEncoder(CONFIG)).eval()
    student = SentenceEmbedder(BertEncoder(CONFIG)).eval()
    student.load_state_dict(teacher.state_dict())
    pruner = Pruner(student, pattern, include=["encoder.encoder.*"])
    pruner.prune("magnitude")
    return student, teacher, pruner


def _outputs(seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(3, 5, 8, generator=generator) for _ in range(4)]
    return Outputs(states, torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=1))


MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])


def test_each_part_of_the_loss_is_its_formula() -> None:
    s, t = _outputs(1), _outputs(2)
    real = [(b, i) for b in range(3) for i in range(5) if MASK[b, i]]

    def relative(layer: int) -> float:
        difference = sum(float((s.states[layer][p] - t.states[layer][p]).square().sum()) for p in real)
        return difference / sum(float(t.states[layer][p].square().sum()) for p in real)

    cosine = sum(float(s.embedding[b] @ t.embedding[b]) for b in range(3)) / 3
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    squares = [
        float(s.embedding[i] @ s.embedding[j] - t.embedding[i] @ t.embedding[j]) ** 2 for i, j in pairs
    ]
    expected = {
        "last": relative(3),
        "intermediate": (relative(1) + relative(2)) / 2,
        "embedding": 1 - cosine,
        "similarity": sum(squares) / 6,
    }
    off = dict.fromkeys(expected, 0.0)
    for name, value in expected.items():
        loss = DistillationLoss(**{**off, name: 1.0})(s, t, MASK)
        # At most 72 float32 terms of order 1.
        assert float(loss) == pytest.approx(value, rel=72 * 1.2e-7, abs=1e-6), name
    total = DistillationLoss(2.0, 3.0, 5.0, 7.0)(s, t, MASK)
    weighted = sum(w * v for w, v in zip((2, 3, 5, 7), expected.values(), strict=True))
    assert float(total) == pytest.approx(weighted, rel=1e-5)


def test_the_loss_of_a_model_against_itself_is_zero_and_padding_does_not_count() -> None:
    s = _outputs(1)
    loss = DistillationLoss(1, 1, 1, 1)
    # 1 - cosine of a vector with itself is zero up to the rounding of its norm.
    assert abs(float(loss(s, s, MASK))) < 1e-6
    changed = Outputs([torch.where(MASK[:, :, None] == 1, x, x + 9) for x in s.states], s.embedding)
    assert abs(float(loss(changed, s, MASK))) < 1e-6


def test_odd_loss_weights_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="The weights of a loss are at least 0"):
        DistillationLoss(0, 0, 0, 0)
    with pytest.raises(ValueError, match="The weights of a loss are at least 0"):
        DistillationLoss(last=-1.0)
    with pytest.raises(ValueError, match="learning_rate must be positive and finite, but it is nan"):
        DistillationSettings(learning_rate=float("nan"))
    with pytest.raises(ValueError, match="A budget gives minutes, steps or both"):
        Budget()
    with pytest.raises(ValueError, match="A budget gives minutes, steps or both"):
        Budget(minutes=-1)


def test_a_padded_batch_says_which_tokens_are_real() -> None:
    ids, mask = padded_batch([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_an_epoch_visits_each_text_once_in_batches_of_like_length() -> None:
    texts = [[i + 1] * (1 + i % 17) for i in range(320)]
    batches = TokenBatches(texts, 8, seed=1)
    assert batches.per_epoch == 40
    first = [batches[i] for i in range(40)]
    assert sorted(int(row[0]) for ids, _ in first for row in ids) == list(range(1, 321))
    padding = 1 - sum(int(mask.sum()) for _, mask in first) / sum(mask.numel() for _, mask in first)
    assert padding < 0.1
    assert any(not torch.equal(batches[i][0], batches[40 + i][0]) for i in range(3))
    assert torch.equal(TokenBatches(texts, 8, seed=1)[57][0], batches[57][0])
    assert TokenBatches(texts, 8, seed=2).digest() != batches.digest()


def test_texts_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ValueError, match="There is no text to train on"):
        TokenBatches([], 4)
    with pytest.raises(ValueError, match="Text 1 has no tokens"):
        TokenBatches([[1], []], 4)


def test_the_learning_rate_warms_up_and_follows_the_budget_to_zero() -> None:
    settings = DistillationSettings(learning_rate=1.0, warmup_steps=4)
    assert settings.rate(0, 0.0) == 0.25
    assert settings.rate(10, 0.0) == 1.0
    assert settings.rate(10, 0.5) == pytest.approx(0.5, rel=1e-12)
    assert settings.rate(10, 1.0) == 0.0
    assert Budget(minutes=2).spent(0, 60.0) == 0.5
    assert Budget(minutes=2, steps=10).spent(9, 60.0) == 0.9
    assert Budget(steps=0).spent(0, 0.0) == 1.0


def test_distilling_brings_the_student_nearer_and_keeps_masks_teacher_and_embeddings() -> None:
    student, teacher, pruner = _pair()
    ids, mask = padded_batch(_texts())

    def distance() -> float:
        with torch.inference_mode():
            return float(1 - (student(ids, mask) * teacher(ids, mask)).sum(dim=1).mean())

    before, dense = distance(), {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    report = distil(student, teacher, _texts(), Budget(steps=60), pruner, SETTINGS)
    assert report.steps == 60
    assert distance() < 0.5 * before
    pruner.verify()
    assert all(torch.equal(tensor, dense[name]) for name, tensor in teacher.state_dict().items())
    words = "encoder.embeddings.word_embeddings.weight"
    assert torch.equal(student.state_dict()[words], dense[words])
    assert all(parameter.requires_grad for parameter in student.parameters())


def _interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    step = _Trainer.step

    def interrupted(self: _Trainer, number: int, rate: float) -> float:
        if number == at:
            raise KeyboardInterrupt
        return step(self, number, rate)

    monkeypatch.setattr(_Trainer, "step", interrupted)


def test_a_resumed_run_ends_with_the_bits_of_one_that_was_never_stopped(tmp_path: Path) -> None:
    settings = DistillationSettings(batch_size=8, learning_rate=2e-3, bfloat16=False, checkpoint_seconds=0.0)
    whole, teacher, pruner = _pair()
    distil(whole, teacher, _texts(), Budget(steps=12), pruner, settings)

    path = tmp_path / "run.pt"
    student, _, pruner = _pair()
    patch = pytest.MonkeyPatch()
    _interrupt(patch, at=7)
    with pytest.raises(KeyboardInterrupt):
        distil(student, teacher, _texts(), Budget(steps=12), pruner, settings, path)
    patch.undo()
    fresh, _, pruner = _pair()
    report = distil(fresh, teacher, _texts(), Budget(steps=12), pruner, settings, path)
    assert report.steps == 12
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in whole.state_dict().items())

    again, _, pruner = _pair()
    assert distil(again, teacher, _texts(), Budget(steps=12), pruner, settings, path).steps == 12
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_another_run_s_checkpoint_is_refused(tmp_path: Path) -> None:
    student, teacher, pruner = _pair()
    path = tmp_path / "run.pt"
    distil(student, teacher, _texts(), Budget(steps=1), pruner, SETTINGS, path)
    with pytest.raises(
        ValueError, match="was written by a run with another model, other texts or other settings"
    ):
        distil(student, teacher, _texts(59), Budget(steps=1), pruner, SETTINGS, path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"run\.pt is not a distillation checkpoint"):
        distil(student, teacher, _texts(), Budget(steps=1), pruner, SETTINGS, path)


def test_a_checkpoint_with_any_byte_altered_or_missing_is_refused(tmp_path: Path) -> None:
    student, teacher, pruner = _pair()
    path = tmp_path / "run.pt"
    distil(student, teacher, _texts(), Budget(steps=1), pruner, SETTINGS, path)
    whole = path.read_bytes()
    for position in (24, 60, len(whole) // 2, len(whole) - 1):
        altered = bytearray(whole)
        altered[position] ^= 0x10
        for content in (altered, whole[:position]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="is damaged; delete it to start anew"):
                distil(student, teacher, _texts(), Budget(steps=1), pruner, SETTINGS, path)


def test_a_budget_of_nothing_changes_nothing() -> None:
    student, teacher, pruner = _pair()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    assert distil(student, teacher, _texts(), Budget(minutes=0), pruner, SETTINGS).steps == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_budget_in_minutes_ends() -> None:
    student, teacher, pruner = _pair()
    report = distil(student, teacher, _texts(), Budget(minutes=0.005), pruner, SETTINGS)
    assert report.steps >= 1
    assert report.seconds >= 0.3


def test_broken_masks_and_a_loss_that_is_not_finite_are_refused() -> None:
    student, teacher, pruner = _pair()
    with torch.no_grad():
        student.encoder.encoder.layer[0].output.dense.bias[0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(
        FloatingPointError, match="The distillation loss is nan at step 0; lower the learning rate"
    ):
        distil(student, teacher, _texts(), Budget(steps=1), pruner, SETTINGS)
    student, teacher, pruner = _pair()
    with torch.no_grad():
        next(iter(pruner.layers.values())).weight.add_(1.0)
    with pytest.raises(ValueError, match="where its mask drops it"):
        distil(student, teacher, _texts(), Budget(steps=1), pruner, SETTINGS)


def test_a_student_with_nothing_to_train_is_refused() -> None:
    student, teacher, _ = _pair()
    settings = DistillationSettings(frozen=("*",), bfloat16=False)
    with pytest.raises(ValueError, match="Nothing is left to train"):
        distil(student, teacher, _texts(), Budget(steps=1), settings=settings)


def test_the_bar_goes_to_the_standard_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    student, teacher, pruner = _pair()
    distil(student, teacher, _texts(), Budget(steps=2), pruner, SETTINGS, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "distilling" in captured.err


def test_bfloat16_products_train_too() -> None:
    assert isinstance(bfloat16_is_faster(), bool)
    student, teacher, pruner = _pair()
    settings = DistillationSettings(batch_size=8, learning_rate=2e-3, warmup_steps=2, bfloat16=True)
    first = distil(student, teacher, _texts(), Budget(steps=1), pruner, settings).loss
    assert distil(student, teacher, _texts(), Budget(steps=40), pruner, settings).loss < first


def test_a_real_encoder_is_pruned_and_distilled_end_to_end() -> None:
    """Second-order pruning on token batches, where padding must not count, then distilling from there."""
    student, teacher, pruner = _pair()
    student.load_state_dict(teacher.state_dict(), strict=False)
    batches: list[tuple[Tensor, Tensor]] = [padded_batch(_texts()[i : i + 20]) for i in (0, 20, 40)]
    errors = pruner.prune("sparsegpt", Calibration(batches, keep=lambda batch: batch[1]))
    assert len(errors) == 12
    distil(student, teacher, _texts(), Budget(steps=5), pruner, SETTINGS)
    pruner.verify()


@pytest.mark.parametrize("schedule", ["gradual:cubic:0:9:every=2", "sr-ste:9"])
def test_a_schedule_goes_on_where_it_was(tmp_path: Path, schedule: str) -> None:
    settings = DistillationSettings(batch_size=8, learning_rate=2e-3, bfloat16=False, checkpoint_seconds=0.0)

    def pair() -> tuple[SentenceEmbedder, SentenceEmbedder, Pruner]:
        torch.manual_seed(0)
        teacher = SentenceEmbedder(BertEncoder(CONFIG)).eval()
        student = copy.deepcopy(teacher)
        pruner = Pruner(student, "2:4", include=["encoder.encoder.*"], schedule=schedule)
        return student, teacher, pruner

    whole, teacher, pruner = pair()
    distil(whole, teacher, _texts(), Budget(steps=12), pruner, settings)
    assert pruner.zeros == 0.5
    student, _, pruner = pair()
    patch = pytest.MonkeyPatch()
    _interrupt(patch, at=5)
    with pytest.raises(KeyboardInterrupt):
        distil(student, teacher, _texts(), Budget(steps=12), pruner, settings, tmp_path / "run.pt")
    patch.undo()
    student, _, pruner = pair()
    distil(student, teacher, _texts(), Budget(steps=12), pruner, settings, tmp_path / "run.pt")
    assert all(torch.equal(tensor, student.state_dict()[name]) for name, tensor in whole.state_dict().items())

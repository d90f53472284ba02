"""The parts of the text-to-image example: pictures, training that goes on, sampling, and the sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from examples.text_to_image import training
from examples.text_to_image.engines import example_inputs
from examples.text_to_image.glyphs import COLOURS, GLYPHS, draw, folded, picture, unfolded
from examples.text_to_image.networks import Painter, new_classifier
from examples.text_to_image.picture import draw as draw_sheet
from examples.text_to_image.sampling import Texts, accuracy, embed, every_glyph, paint
from examples.text_to_image.training import Course, pruner_of, train

from openwork.models.unet import UNetConfig

TINY = UNetConfig((16, 32), (False, True), channels=12, context=64, groups=4, head=16)


@pytest.fixture
def painter() -> Painter:
    torch.manual_seed(0)
    return Painter(TINY)


def test_pictures_have_the_glyph_and_the_colour() -> None:
    rng = np.random.default_rng(0)
    for colour, rgb in COLOURS.items():
        pixels = picture("A", colour, rng).reshape(-1, 3)
        assert pixels.min() == 0
        assert np.abs(pixels.max(0).astype(int) - rgb).max() <= 2
    drawn = draw(5, np.random.default_rng(1))
    assert drawn.pictures.shape == (5, 3, 32, 32)
    assert torch.equal(unfolded(folded(drawn.pictures)), drawn.pictures)
    assert torch.equal(draw(5, np.random.default_rng(1)).pictures, drawn.pictures)


def test_a_stopped_training_goes_on_with_the_same_bits(
    painter: Painter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 1)
    start = {name: tensor.clone() for name, tensor in painter.state_dict().items()}
    whole = train(painter, Course(3, 2, 1e-3, tmp_path / "whole.pt", "")).state_dict()

    def stop_at_second(self: training.Run) -> None:
        save(self)
        if self.step == 2:
            raise KeyboardInterrupt

    save = training.Run.save
    monkeypatch.setattr(training.Run, "save", stop_at_second)
    torch.manual_seed(1)
    other = Painter(TINY)
    other.load_state_dict(start)
    with pytest.raises(KeyboardInterrupt):
        train(other, Course(3, 2, 1e-3, tmp_path / "cut.pt", ""))
    monkeypatch.setattr(training.Run, "save", save)
    again = train(Painter(TINY), Course(3, 2, 1e-3, tmp_path / "cut.pt", "")).state_dict()
    assert all(torch.equal(whole[name], tensor) for name, tensor in again.items())


def test_zeros_stay_in_the_training_behind_the_pruning(painter: Painter, tmp_path: Path) -> None:
    pruner = pruner_of(painter)
    assert not any(name.startswith("text.") for name in pruner.prunables)
    pruner.prune("magnitude")
    train(painter, Course(2, 2, 1e-3, tmp_path / "c.pt", "", pruner))
    pruner.verify()
    assert pruner.zeros == pytest.approx(0.5, abs=0.01)


def test_pictures_follow_their_captions_noise_and_strength(painter: Painter, tmp_path: Path) -> None:
    request = every_glyph(16)
    assert sorted(request.glyphs) == list(range(len(GLYPHS)))
    text, blank = embed(painter, request.captions), embed(painter, [""])

    def call(images: np.ndarray, times: np.ndarray, text: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(painter.unet(*map(torch.from_numpy, (images, times, text))))

    made = paint(call, Texts(text, blank, 2.0), 2)
    assert made.shape == (16, 3, 32, 32)
    assert np.array_equal(made, paint(call, Texts(text, blank, 2.0), 2))
    assert not np.array_equal(made, paint(call, Texts(text, blank, 1.0), 2))
    assert 0 <= accuracy(new_classifier().eval(), made, request) <= 1
    draw_sheet({"one": made, "other": made}, request, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_a_timed_call_has_the_sizes_of_the_unet() -> None:
    inputs = example_inputs(TINY, 3)
    assert inputs["images"].shape == (3, 12, 16, 16)
    assert inputs["text"].shape[::2] == (3, 64)

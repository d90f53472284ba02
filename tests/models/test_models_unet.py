"""The UNet, the text encoder and the sampler: sizes, names, what they refuse, and what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openwork.models.diffusion import NoiseSchedule, ddim_steps
from openwork.models.text_encoder import TextEncoder, TextEncoderConfig, caption_ids
from openwork.models.unet import UNet, UNetConfig

SMALL = UNetConfig(widths=(16, 32), attention=(False, True), context=8, groups=4, head=16)


def images(count: int, side: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["geglu", "gelu"])
@pytest.mark.parametrize("layers", [1, 2])
def test_noise_has_the_shape_of_the_images(kind: str, layers: int) -> None:
    config = UNetConfig((16, 32, 48), (True, False, True), layers, 3, 8, 4, 16, kind)
    unet = UNet(config).eval()
    text = torch.randn(2, 5, 8)
    with torch.no_grad():
        made = unet(images(2), torch.tensor([3, 900]), text)
        assert made.shape == (2, 3, 8, 8)
        assert not torch.allclose(made, unet(images(2), torch.tensor([3, 900]), 2 * text))
        assert not torch.allclose(made, unet(images(2), torch.tensor([4, 900]), text))


def test_parameters_have_the_names_of_checkpoints() -> None:
    names = {name for name, _ in UNet(SMALL).named_parameters()}
    for name in (
        "time_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.time_emb_proj.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.bias",
        "up_blocks.0.upsamplers.0.conv.weight",
        "up_blocks.1.resnets.1.conv_shortcut.weight",
        "conv_norm_out.weight",
    ):
        assert name in names


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"widths": (16, 24)}, "groups and head must divide every width"),
        ({"attention": (True,)}, "must name the same levels"),
        ({"layers": 0}, "must be positive"),
        ({"feed_forward": "relu"}, "'geglu' or 'gelu'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(given: dict[str, object], sentence: str) -> None:
    sizes = {"widths": (16, 32), "attention": (True, True), "groups": 4, "head": 16, **given}
    with pytest.raises(ValueError, match=sentence):
        UNetConfig(**sizes)  # type: ignore[arg-type]


def test_captions_are_their_characters() -> None:
    ids = caption_ids(["ab", " "], 4)
    assert ids.tolist()[1] == [0, 0, 0, 0]
    assert ids[0, 0] != ids[0, 1]
    assert ids[0, 2:].tolist() == [0, 0]
    with pytest.raises(ValueError, match="has 5 characters"):
        caption_ids(["abcde"], 4)
    with pytest.raises(ValueError, match="holds 'é'"):
        caption_ids(["é"], 4)


def test_a_text_encoder_reads_places() -> None:
    encoder = TextEncoder(TextEncoderConfig(width=16, layers=1, head=8, length=6)).eval()
    with torch.no_grad():
        first, second = encoder(caption_ids(["ab", "ba"], 6))
    assert first.shape == (6, 16)
    assert not torch.allclose(first[0], second[1], atol=1e-3)


def test_noise_grows_until_nothing_is_left() -> None:
    schedule = NoiseSchedule(100)
    assert (np.diff(schedule.kept) < 0).all()
    assert schedule.kept[0] > 0.99
    assert schedule.kept[-1] < 1e-3
    clear, noise = np.ones((2, 1, 2, 2), np.float32), np.zeros((2, 1, 2, 2), np.float32)
    made = schedule.noised(clear, noise, np.array([0, 99]))
    assert np.allclose(made[:, 0, 0, 0] ** 2, schedule.kept[[0, 99]], atol=1e-6)
    with pytest.raises(ValueError, match="1 to 100 steps"):
        schedule.sampled(101)


@pytest.mark.parametrize("count", [1, 7, 100])
def test_who_knows_the_image_finds_it(count: int) -> None:
    """The exact noise of one image leads the sampler to that image, in however many steps."""
    schedule, rng = NoiseSchedule(100), np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, 3, 4, 4)).astype(np.float32)

    def exact(noised: np.ndarray, times: np.ndarray) -> np.ndarray:
        kept = schedule.kept[times].reshape(-1, 1, 1, 1)
        return ((noised - np.sqrt(kept) * image) / np.sqrt(1 - kept)).astype(np.float32)

    start = rng.standard_normal(image.shape).astype(np.float32)
    steps = list(ddim_steps(exact, start, count, schedule))
    assert len(steps) == count
    # At the first step the image is what little is left, 1e-2 of the noise: float32 keeps it to 1e-4.
    assert np.abs(steps[-1] - image).max() < 1e-3

"""From captions to pictures, and what the classifier says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from openwork.models.diffusion import NoiseSchedule, Predictor, ddim_steps
from openwork.models.text_encoder import caption_ids
from openwork.support.progress import progress_bar

from .engines import Call, Floats
from .glyphs import COLOURS, GLYPHS, caption, unfolded
from .networks import Painter
from .settings import FOLD, SEED, SIDE, TEXT

AT_ONCE = 16
"""Pictures that are made together."""


@dataclass(frozen=True)
class Request:
    """Glyphs and colours to paint."""

    glyphs: tuple[int, ...]
    colours: tuple[str, ...]

    @property
    def captions(self) -> list[str]:
        """One for each picture."""
        pairs = zip(self.glyphs, self.colours, strict=True)
        return [caption(GLYPHS[glyph], colour) for glyph, colour in pairs]


def every_glyph(count: int) -> Request:
    """As many pictures, every glyph in its turn, in changing colours."""
    names = list(COLOURS)
    glyphs = tuple(index % len(GLYPHS) for index in range(count))
    rounds = (index // len(GLYPHS) for index in range(count))
    return Request(glyphs, tuple(names[(g + r) % len(names)] for g, r in zip(glyphs, rounds, strict=True)))


@torch.no_grad()
def embed(painter: Painter, captions: Sequence[str]) -> Floats:
    """Captions, f32 [B, L, context]."""
    made: Floats = painter.text(caption_ids(captions, TEXT.length)).numpy()
    return made


def _guided(call: Call, text: Floats, blank: Floats, strength: float) -> Predictor:
    """The noise with the captions' text and without, in one call."""
    both = np.concatenate([text, np.repeat(blank, len(text), axis=0)])

    def predict(images: Floats, times: NDArray[np.int64]) -> Floats:
        found = call(np.concatenate([images, images]), np.concatenate([times, times]), both)
        with_text, without = np.split(found, 2)
        return without + np.float32(strength) * (with_text - without)

    return predict


@dataclass(frozen=True)
class Texts:
    """Embedded captions f32 [B, L, context], an embedded blank one [1, L, context], and how strongly the
    pictures follow them."""

    captions: Floats
    blank: Floats
    strength: float


def paint(call: Call, texts: Texts, count: int, title: str = "") -> Floats:
    """Pictures f32 [B, 3, SIDE, SIDE] in [-1, 1] of captions, in `count` steps from noise that is the same
    for every runner. title : of the bar; none is shown without one."""
    side, parts = SIDE // FOLD, list[Floats]()
    rng, wanted = np.random.default_rng(SEED), texts.captions
    noise = rng.standard_normal((len(wanted), 3 * FOLD * FOLD, side, side)).astype(np.float32)
    begins = range(0, len(wanted), AT_ONCE)
    with progress_bar(title, len(begins) * count, bool(title)) as bar:
        for number, begin in enumerate(begins):
            predict = _guided(call, wanted[begin : begin + AT_ONCE], texts.blank, texts.strength)
            made = noise[begin : begin + AT_ONCE]
            for step, images in enumerate(ddim_steps(predict, made, count, NoiseSchedule())):
                bar(number * count + step + 1)
                made = images
            parts.append(unfolded(torch.from_numpy(made)).numpy())
    return np.concatenate(parts)


@torch.no_grad()
def accuracy(classifier: nn.Module, pictures: Floats, request: Request) -> float:
    """The part of the pictures in which the classifier sees the glyph of the caption."""
    found = classifier(torch.from_numpy(pictures)).argmax(1)
    return float((found == torch.tensor(request.glyphs)).float().mean())

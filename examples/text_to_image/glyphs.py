"""Captions such as "a red letter A", and pictures of them drawn with the fonts that matplotlib ships."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from openwork.models.text_encoder import caption_ids

from .settings import FOLD, SIDE, TEXT

GLYPHS = "ABCDEFHKLMPRSTXZ"
COLOURS = {
    "red": (235, 50, 45),
    "green": (50, 200, 70),
    "blue": (60, 100, 245),
    "yellow": (245, 215, 50),
    "purple": (170, 70, 215),
    "white": (240, 240, 240),
}
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf")
SIZES = (20, 27)
MOST_MOVED = 3.0
"""Pixels that a glyph stands beside the middle, at most."""


@dataclass(frozen=True)
class Drawn:
    """Pictures f32 [B, 3, SIDE, SIDE] in [-1, 1], the ids of their captions, the numbers of their glyphs."""

    pictures: Tensor
    ids: Tensor
    glyphs: Tensor


def caption(glyph: str, colour: str) -> str:
    """What a picture of a glyph is called."""
    return f"a {colour} letter {glyph}"


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def picture(glyph: str, colour: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One picture of a glyph in some font and size, somewhere about the middle: u8 [SIDE, SIDE, 3]."""
    image = Image.new("RGB", (SIDE, SIDE))
    font = _font(FONTS[rng.integers(len(FONTS))], int(rng.integers(*SIZES)))
    x, y = SIDE / 2 + rng.uniform(-MOST_MOVED, MOST_MOVED, 2)
    ImageDraw.Draw(image).text((x, y), glyph, fill=COLOURS[colour], font=font, anchor="mm")
    return np.asarray(image)


def draw(count: int, rng: np.random.Generator) -> Drawn:
    """Pictures of random glyphs and colours."""
    glyphs, names = rng.integers(len(GLYPHS), size=count), list(COLOURS)
    colours = [names[index] for index in rng.integers(len(names), size=count)]
    pairs = [(GLYPHS[glyph], colour) for glyph, colour in zip(glyphs, colours, strict=True)]
    pixels = np.stack([picture(glyph, colour, rng) for glyph, colour in pairs])
    pictures = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
    ids = caption_ids([caption(*pair) for pair in pairs], TEXT.length)
    return Drawn(pictures, ids, torch.from_numpy(glyphs))


def folded(pictures: Tensor) -> Tensor:
    """Pictures as the UNet sees them: [B, 3, SIDE, SIDE] -> [B, 3 FOLD FOLD, SIDE / FOLD, SIDE / FOLD]."""
    return functional.pixel_unshuffle(pictures, FOLD)


def unfolded(states: Tensor) -> Tensor:
    """The pictures of what the UNet sees."""
    return functional.pixel_shuffle(states, FOLD)

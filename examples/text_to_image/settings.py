"""What the example is asked for, and the numbers that it does not ask about."""

from dataclasses import dataclass
from pathlib import Path

from openwork.models.text_encoder import TextEncoderConfig
from openwork.models.unet import UNetConfig

SIDE = 32
"""Pixels of a picture along each side."""
FOLD = 2
"""The UNet sees FOLD x FOLD pixels as channels of one: a quarter of the work, and nothing is lost."""
CHANNELS = 3 * FOLD * FOLD
UNETS = {
    "small": UNetConfig((32, 64, 128), (False, True, True), channels=CHANNELS, context=64, groups=8),
    "full": UNetConfig((64, 128, 192), (True, True, True), channels=CHANNELS, context=64, groups=16),
}
"""By size: the small one trains in minutes on two cores; sparse products gain more in the full one."""
TEXT = TextEncoderConfig(width=64, layers=2, head=32, length=20)
PATTERN = "2:4"
SEED = 20


@dataclass(frozen=True)
class Settings:
    """One run of the example.

    work : the folder for everything it makes. size : of the UNet, one of UNETS. threads : of training and of
    every runner. steps, finetune : training steps before and after pruning. batch : pictures of a training
    step. weights : a checkpoint of the user's own for the dense model, in the place of training. sampling :
    steps from noise to a picture. strength : of the guidance by the caption. pictures : how many the
    classifier judges. seconds : timed calls of each runner and batch.
    """

    work: Path
    size: str = "full"
    threads: int = 2
    steps: int = 6000
    finetune: int = 2000
    batch: int = 16
    weights: Path | None = None
    sampling: int = 20
    strength: float = 2.0
    pictures: int = 256
    seconds: float = 2.0

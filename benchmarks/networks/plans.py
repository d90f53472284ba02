"""What is measured: networks, batches, sizes, patterns and types, as the command line asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from openwork import models
from openwork.patterns.pattern import Pattern

Kind = Literal["int8", "fp32"]
KINDS: tuple[Kind, ...] = ("int8", "fp32")
DENSE = "dense"
PATTERNS = (DENSE, "2:4", "32:64", "2:4@2", "32:64@2", "16:64", "8:64")
DLRM_ROWS = 20_000
STYLES = ("onnxruntime", "openwork", "tensorrt")


def _dlrm() -> nn.Module:
    """MLPerf's layers, with tables of 20,000 rows each in the place of up to 40 million."""
    return models.DLRM(models.DLRMConfig(tables=(DLRM_ROWS,) * 26))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "resnext101_32x8d": models.resnext101_32x8d,
    "xception": models.xception,
    "mobilenet_v2": models.mobilenet_v2,
    "mobilenet_v3_large": models.mobilenet_v3_large,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "efficientnet_b0": models.efficientnet_b0,
    "densenet121": models.densenet121,
    "convnext_tiny": models.convnext_tiny,
    "dlrm": _dlrm,
}

PRUNED: dict[str, str] = {"dlrm": "top_l"}
"""The part of a network that is pruned, where it is not the whole."""


@dataclass(frozen=True)
class Shape:
    """The images of one measurement, [batch, 3, height, width]."""

    batch: int
    height: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """All four dimensions."""
        return self.batch, 3, self.height, self.width

    def __str__(self) -> str:
        return f"{self.batch} x {self.height}x{self.width}"


@dataclass(frozen=True)
class Sweep:
    """A row of batches or of sizes, the rest of a shape being fixed. axis: "batch" or "size"."""

    axis: str
    batches: tuple[int, ...] = ()
    images: tuple[tuple[int, int], ...] = ()

    def shapes(self, batch: int, image: tuple[int, int]) -> list[Shape]:
        """The shapes of the sweep; batch, image: what stays where it is not swept."""
        if self.axis == "batch":
            return [Shape(one, *image) for one in self.batches]
        return [Shape(batch, *one) for one in self.images]


def names(text: str) -> list[str]:
    """Networks, joined by commas; "all" is all of them. Raises ValueError for an unknown one."""
    found = list(NETWORKS) if text == "all" else text.split(",")
    if unknown := [name for name in found if name not in NETWORKS]:
        raise ValueError(f"Expected networks of {', '.join(NETWORKS)}, found {', '.join(unknown)}.")
    return found


def patterns(text: str) -> list[str]:
    """Patterns, joined by commas; "dense" comes first. Raises ValueError for what is no pattern."""
    found = [DENSE, *(one for one in text.split(",") if one != DENSE)]
    for one in found[1:]:
        Pattern.parse(one)
    return list(dict.fromkeys(found))


def kinds(text: str) -> list[Kind]:
    """Types, joined by commas. Raises ValueError for an unknown one."""
    asked = text.split(",")
    if unknown := set(asked) - set(KINDS):
        raise ValueError(f"Expected types of {', '.join(KINDS)}, found {', '.join(sorted(unknown))}.")
    return [kind for kind in KINDS if kind in asked]


def image(text: str) -> tuple[int, int]:
    """Height and width of "224x224". Raises ValueError for another text."""
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f'Expected a size such as "224x224", height and width in pixels, found {text!r}.')
    return int(parts[0]), int(parts[1])


def counts(text: str) -> tuple[int, ...]:
    """Batches: "1,8", or "1..64" in powers of two with both ends. Raises ValueError for another text."""
    first, dots, last = text.partition("..")
    try:
        found = tuple(int(one) for one in ((first, last) if dots else text.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise ValueError(f'Expected batches such as "1,8" or "1..64", found {text!r}.')
    return tuple(_doubled(*found)) if dots else found


def sweep(text: str) -> Sweep:
    """The sweep of "batch=1..64", "size=224x224..2048x1024", or lists with commas.

    Raises ValueError for another text.
    """
    axis, _, values = text.partition("=")
    if axis == "batch":
        return Sweep(axis, batches=counts(values))
    if axis == "size":
        first, dots, last = values.partition("..")
        if not dots:
            return Sweep(axis, images=tuple(image(one) for one in values.split(",")))
        return Sweep(axis, images=tuple(_grown(image(first), image(last))))
    raise ValueError(f'Expected a sweep such as "batch=1..64" or "size=224x224..2048x1024", found {text!r}.')


def _doubled(first: int, last: int) -> list[int]:
    found = [first]
    while found[-1] * 2 < last:
        found.append(found[-1] * 2)
    return found if last <= first else [*found, last]


def _grown(first: tuple[int, int], last: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes from the first to the last with twice the pixels each, in even steps of both sides."""
    pixels = (last[0] * last[1]) / (first[0] * first[1])
    steps = max(1, round(pixels).bit_length() - 1)
    sides = [
        [round(start * (end / start) ** (step / steps) / 32) * 32 for step in range(1, steps)]
        for start, end in zip(first, last, strict=True)
    ]
    return [first, *zip(*sides, strict=True), last]

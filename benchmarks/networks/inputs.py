"""What networks are fed: random images, or dense features and the ids of a recommendation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from benchmarks.networks.plans import DLRM_ROWS, Shape

Feed = dict[str, np.ndarray]
IMAGES = "images"
_IMAGE_AXES = {IMAGES: {0: "batch", 2: "height", 3: "width"}}
_DLRM_AXES = {"dense": {0: "batch"}, "indices": {0: "batch"}}
_DENSE, _TABLES = 13, 26


def images(shape: Shape, seed: int) -> np.ndarray:
    """Random images, f32 [batch, 3, H, W]: noise of three scales, as pictures have structures of several."""
    rng = np.random.default_rng(seed)
    found = np.zeros(shape.sizes, np.float32)
    for grain in (1, 4, 16):
        sides = [-(-side // grain) for side in (shape.height, shape.width)]
        coarse = rng.standard_normal((shape.batch, 3, *sides), np.float32)
        found += coarse.repeat(grain, 2).repeat(grain, 3)[:, :, : shape.height, : shape.width]
    return found / np.float32(3**0.5)


def recommendation(batch: int, seed: int) -> Feed:
    """Dense features f32 [batch, 13] and one id for each of 26 tables, all rows alike."""
    rng = np.random.default_rng(seed)
    return {
        "dense": rng.standard_normal((batch, _DENSE), np.float32),
        "indices": rng.integers(0, DLRM_ROWS, (batch, _TABLES)),
    }


def axes(network: str) -> Mapping[str, Mapping[int, str]]:
    """The free dimensions of a network's inputs."""
    return _DLRM_AXES if network == "dlrm" else _IMAGE_AXES


def feed(network: str, shape: Shape, seed: int) -> Feed:
    """What a network is fed, by input; a shape is that of images, of which the others take the batch."""
    return recommendation(shape.batch, seed) if network == "dlrm" else {IMAGES: images(shape, seed)}


def tensors(network: str, shape: Shape, seed: int) -> dict[str, torch.Tensor]:
    """The same as torch has it."""
    return {name: torch.from_numpy(array) for name, array in feed(network, shape, seed).items()}

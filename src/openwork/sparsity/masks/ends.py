"""The ends of a network that reads images, which stay dense unless they are asked for by name.

A stem has few weights and reads every pixel, a classifier's few weights decide; sparse networks of the
literature leave both alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from openwork.sparsity.masks.view import CONVOLUTIONS, WeightView, weights_of

_IMAGE_CHANNELS = 4
_ASK = 'a glob other than "*" that fits its name, in the patterns or the inclusions, prunes it'
STEM = f"It is the first convolution, which reads the image, and is left dense; {_ASK}."
CLASSIFIER = f"It is the last layer of a network that reads images, and is left dense; {_ASK}."

EVERY = ("?*",)
"""Inclusions that ask for every layer, the ends too."""


def ends(model: nn.Module) -> dict[str, str]:
    """Why the stem and the classifier of a network that reads images stay dense, by the weights' names.

    Such a network begins with a convolution, its stem, that reads no more channels than an image has (4). Its
    classifier is its last layer with a weight, where that is a Linear. Layers count in the order of the
    model's modules; a model of one layer has no ends.
    """
    layers = [(name, module) for name, module, key in weights_of(model) if WeightView.of(module, key)]
    if len(layers) < 2:
        return {}
    (first, stem), (last, classifier) = layers[0], layers[-1]
    if not isinstance(stem, CONVOLUTIONS) or stem.in_channels > _IMAGE_CHANNELS:
        return {}
    return {first: STEM} | ({last: CLASSIFIER} if isinstance(classifier, nn.Linear) else {})


def names(layer: str, globs: Sequence[str]) -> bool:
    """Whether a glob asks for this layer, and not for all."""
    return any(glob != "*" and fnmatchcase(layer, glob) for glob in globs)

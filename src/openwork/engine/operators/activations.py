"""The activations of docs/arithmetic.md."""

from __future__ import annotations

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "relu": (),
    "clip": ("alpha", "beta"),
    "leaky_relu": ("alpha",),
    "hard_sigmoid": ("alpha", "beta"),
    "hard_swish": (),
    "gelu": (),
    "gelu_tanh": (),
    "silu": (),
    "sigmoid": (),
    "tanh": (),
}
"""Each activation, and the attributes that hold its numbers."""


def operator_of_activation(name: str) -> str:
    """The operator that is this activation alone: "leaky_relu" is "LeakyRelu"."""
    return "".join(word.capitalize() for word in name.split("_"))

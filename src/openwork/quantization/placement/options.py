"""What to quantize and how: the user's options, and the rules of each style."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from openwork.qdq.affine import Activation
from openwork.quantization.fake_quantization.fake_quant import Learned
from openwork.quantization.observers.observer import DEFAULT_PERCENTILE, ObserverKind

Style = Literal["tensorrt", "onnxruntime", "openwork"]
BatchNormChoice = Literal["fold", "keep"]
Calls = Literal["apart", "together"]
Equalize = Literal["no", "weights", "activations"]
"""Not at all; by the ranges of the weights on both sides; or by those of the tensor between, on the example
inputs, and of the weights that read it.
"""


IMAGE_AXES = 4
"""Batch, channels, height, width."""


@dataclass(frozen=True)
class Rules:
    """A style's rules.

    activation, observer: its defaults. products: quantize the operands of attention products. additions:
    quantize both inputs of residual additions of sequences; those of images are, in every style, since the
    floats of a shortcut take four times the memory of integers. embeddings: quantize what embeddings give.
    outputs: quantize the outputs of layers and products as well as their inputs.
    """

    activation: Activation
    observer: ObserverKind
    products: bool = True
    additions: bool = True
    embeddings: bool = True
    outputs: bool = False

    def adds(self, axes: int) -> bool:
        """Whether the inputs of a residual addition of so many axes are quantized."""
        return self.additions or axes == IMAGE_AXES


STYLES: Mapping[Style, Rules] = {
    "tensorrt": Rules("s8", "mse"),
    "onnxruntime": Rules("u8", "mse", outputs=True),
    "openwork": Rules("u8", "output", products=False, additions=False, embeddings=False),
}


@dataclass(frozen=True)
class QuantizationOptions:
    """How to choose the scales, and of what.

    style: "tensorrt" (symmetric s8; the inputs of layers with weights, of attention products and of residual
    additions, and what embeddings give), "onnxruntime" (u8 with zero points; outputs as well), or "openwork"
    (u8; the inputs of layers with weights, with ranges chosen by the layers' outputs: what this engine runs
    fastest). observer, activation: None for the style's own. "output" (the range that disturbs the layer's
    output least) is for the inputs of Linear layers; elsewhere it stands for "mse". percentile: of the
    values kept, for that observer. migrate: let "output" choose a multiplier for each input channel where
    that is free (see `migration`). include, exclude: globs over the names in the table; exclude wins.
    overrides: options for the names that a glob matches, None to leave them in float; the first match counts,
    and an override takes this style. learned: train the scales, by "step" (LSQ) or "amax".
    batchnorm: "fold" it into the layer before it now, or "keep" it and call `fold_batchnorm` after training.
    equalize: bring the channels between two layers to like ranges first, by the "weights" or by the
    "activations" (see `equalization`). correct_bias: take what rounding adds on average out of the biases
    after calibration, where that lessens the error of the outputs (see `bias_correction`). calls: of a
    module that one forward calls several times; "apart" gives each call activation quantizers of its own
    (weights have one for all), "together" gives all calls the same, for models that call a module as often as
    their input asks, or that are trained with checkpointed activations.
    Raises ValueError for a value that is none of these.
    """

    style: Style = "tensorrt"
    observer: ObserverKind | None = None
    activation: Activation | None = None
    percentile: float = DEFAULT_PERCENTILE
    migrate: bool = True
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    overrides: Mapping[str, QuantizationOptions | None] = field(default_factory=dict)
    learned: Learned = "no"
    batchnorm: BatchNormChoice = "fold"
    equalize: Equalize = "no"
    correct_bias: bool = False
    calls: Calls = "apart"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("style", self.style, get_args(Style)),
            ("observer", self.observer, (None, *get_args(ObserverKind))),
            ("activation", self.activation, (None, *get_args(Activation))),
            ("learned", self.learned, get_args(Learned)),
            ("batchnorm", self.batchnorm, get_args(BatchNormChoice)),
            ("equalize", self.equalize, get_args(Equalize)),
            ("calls", self.calls, get_args(Calls)),
        ):
            if value not in known:
                names = ", ".join(repr(name) for name in known if name is not None)
                raise ValueError(f"The {what} is one of {names}, but it is {value!r}.")

    @property
    def rules(self) -> Rules:
        """The style's rules."""
        return STYLES[self.style]

    def of(self, name: str) -> QuantizationOptions | str:
        """The options of one row of the table, or the reason why it stays in float."""
        if glob := next((g for g in self.exclude if fnmatchcase(name, g)), None):
            return f"excluded by {glob!r}"
        if not any(fnmatchcase(name, g) for g in self.include):
            return f"not included by {', '.join(map(repr, self.include))}"
        for glob, options in self.overrides.items():
            if fnmatchcase(name, glob):
                if options is None:
                    return f"left in float by the override {glob!r}"
                return replace(options, style=self.style)
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the scales, as plain values: what a calibration cache is bound to."""
        overrides = {glob: None if o is None else o.settings for glob, o in self.overrides.items()}
        return {
            "style": self.style,
            "observer": self.observer or self.rules.observer,
            "activation": self.activation or self.rules.activation,
            "percentile": self.percentile,
            "migrate": self.migrate,
            "include": list(self.include),
            "exclude": list(self.exclude),
            "equalize": self.equalize,
            "overrides": overrides,
        }

    def globs(self) -> tuple[str, ...]:
        """Every glob that must name something."""
        return (*(g for g in self.include if g != "*"), *self.exclude, *self.overrides)

"""Which pattern a model gains most by on a machine, predicted layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openwork.engine.problem import DENSE, Convolution
from openwork.patterns.drawn import refusal
from openwork.patterns.pattern import Pattern
from openwork.prediction.cost import seconds
from openwork.prediction.counts import count_forms, whole_forms
from openwork.prediction.layers import ProductLayer, Shape, Source, products_of
from openwork.prediction.machines import Machine, machine_named
from openwork.prediction.result import LayerPrediction, Predicted, Prediction
from openwork.support.numbers import whole_number

_MOST_THREADS = 1024


def predict(
    model: Source | Iterable[ProductLayer],
    patterns: Sequence[str],
    machine: str = "amx",
    *,
    shape: Shape | None = None,
    threads: int = 1,
) -> Prediction:
    """What INT8 products with each pattern would gain over dense ones on a machine that need not be this one.

    model : the path of an ONNX model (.onnx, quantized or float: its products count as INT8) or of an engine,
    or the layers themselves. patterns : in their text form, like "2:4" or "64:128@64". machine : one of
    `openwork.prediction.machines.machine_names()`. shape : one size per free dimension of the model's inputs;
    default the last one that a build times at. threads : what the products are divided among.

    Weights are drawn at random with each pattern's zeros; the model's own do not matter. Nothing is timed:
    every number is predicted by a cost model, whose origin the result states.
    Raises ValueError, in a sentence, for a machine, a pattern, a shape or a model that cannot be used, and
    OSError where it cannot be read; TypeError for what is no model, list or number.
    """
    known = machine_named(machine)
    threads = whole_number(threads, "The number of threads", low=1, high=_MOST_THREADS)
    texts = _texts(patterns)
    found = products_of(model, shape)
    layers = tuple(_layer(layer, texts, known, threads) for layer in found.layers)
    return Prediction(known, threads, texts, layers, found.notes)


def _texts(patterns: Sequence[str]) -> tuple[str, ...]:
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, Iterable):
        raise TypeError(f'Patterns are a list of texts, like ["2:4"], but they are {patterns!r}.')
    texts = tuple(dict.fromkeys(str(Pattern.parse(text)) for text in listed))
    if not texts:
        raise ValueError("There is no pattern to predict; give at least one, like 2:4.")
    return texts


def _layer(layer: ProductLayer, patterns: Sequence[str], machine: Machine, threads: int) -> LayerPrediction:
    """The layer's times, or the reason why a pattern or the whole layer has none."""
    grouped = isinstance(layer.sizes, Convolution) and layer.sizes.groups > 1
    if grouped:
        reason = "It is a convolution in groups, whose kernels the cost model does not know."
        return LayerPrediction(layer, None, {}, dict.fromkeys(patterns, reason))
    dense = _best(layer, None, machine, threads)
    found: dict[str, Predicted] = {}
    reasons: dict[str, str] = {}
    channels = layer.sizes.channels if isinstance(layer.sizes, Convolution) else layer.sizes.k
    for pattern in patterns:
        unfit = refusal(channels, Pattern.parse(pattern), layer.sizes.n)
        if unfit:
            reasons[pattern] = unfit
        else:
            found[pattern] = min(dense, _best(layer, pattern, machine, threads), key=lambda p: p.seconds)
    return LayerPrediction(layer, dense, found, reasons)


def _best(layer: ProductLayer, pattern: str | None, machine: Machine, threads: int) -> Predicted:
    """The fastest form: of a dense layer of those that leave no zero out."""
    forms = tuple(form for form in machine.forms if pattern is not None or form in whole_forms())
    times = {
        count.form: seconds(machine, count, layer.rows, layer.sizes.n, threads)
        for count in count_forms(layer.sizes, pattern, forms)
    }
    form = min(times, key=times.__getitem__, default=DENSE)
    return Predicted(form, times[form])

"""Which layers to leave in float for a wanted accuracy: greedily, by what each was measured to cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from openwork.quantization.errors.report import ErrorReport
from openwork.quantization.fake_quantization.quantized_layers import (
    QuantizedLayer,
    all_quantizers,
    in_float,
    quantized_layers,
)
from openwork.support.progress import Advance, progress_bar

Metric = Callable[[nn.Module], float]
"""Evaluates a model; larger is better."""


@dataclass(frozen=True)
class Step:
    """One evaluation on the way: the layer that went to float (or back to INT8), and what that gave."""

    layer: str
    in_float: bool
    accuracy: float


@dataclass(frozen=True)
class Suggestion:
    """The layers to leave in float, and what was measured.

    wanted: the accuracy asked for. accuracy: of the model with these layers in float. float_accuracy,
    quantized_accuracy: of the model wholly in float and wholly quantized. checked: the accuracy on data that
    the choice did not see, None where no such metric was given. steps: every trial.
    """

    layers: tuple[str, ...]
    wanted: float
    accuracy: float
    float_accuracy: float
    quantized_accuracy: float
    checked: float | None
    steps: tuple[Step, ...]

    @property
    def reached(self) -> bool:
        """Whether the wanted accuracy is reached."""
        return self.accuracy >= self.wanted

    def text(self) -> str:
        """The suggestion in sentences, with a line for each layer."""
        head = (
            f"Float {self.float_accuracy:.4f}, all quantized {self.quantized_accuracy:.4f}, "
            f"wanted {self.wanted:.4f}."
        )
        return "\n".join([head, *self._verdict(), *(f"  {name}" for name in self.layers)])

    def _verdict(self) -> Iterator[str]:
        if not self.layers and self.reached:
            yield "Every layer can stay quantized."
        elif self.reached:
            yield f"{self.accuracy:.4f} with {len(self.layers)} layers in float:"
        else:
            yield f"Not reached: the best found is {self.accuracy:.4f}, {len(self.layers)} layers in float:"
        if self.checked is not None:
            yield f"On data that the choice did not see: {self.checked:.4f}."
        elif self.layers:
            yield "The accuracy is the one that the layers were chosen by; on other data expect less."

    def to_json(self) -> dict[str, Any]:
        """The suggestion as plain values."""
        return {**asdict(self), "reached": self.reached}


def suggest(
    model: nn.Module,
    metric: Metric,
    wanted: float,
    report: ErrorReport | None = None,
    check: Metric | None = None,
    progress: bool = False,
) -> Suggestion:
    """Which layers of a calibrated model to leave in float so that `metric` gives at least `wanted`.

    First every layer by itself goes to float and the gain is measured; with a `report` its order is taken
    instead, which saves one evaluation for each layer. Then layers join in that order until the accuracy is
    reached; at last each of them is tried in INT8 again, since a later one may have made it needless. Layers
    that share a quantizer go together, and so do the operands of one function. The model is left as it was;
    the names are what `exclude` of `prepare` takes. metric: larger is better, the same for the same model.
    check: the like on other data, evaluated once at the end. Raises ValueError if nothing is quantized or the
    metric gives no finite number.
    """
    search = _Search(model, metric, wanted)
    with progress_bar("Trying layers in float", search.most(report is None), progress) as advance:
        return search.run(report, check, advance)


class _Search:
    def __init__(self, model: nn.Module, metric: Metric, wanted: float) -> None:
        self.model, self.metric, self.wanted = model, metric, wanted
        self.groups = _groups(quantized_layers(model))
        self.steps: list[Step] = []
        self._done = 0
        self._advance: Advance | None = None

    def most(self, measured: bool) -> int:
        """The most evaluations that the search can take."""
        return 2 + (3 if measured else 2) * len(self.groups)

    def run(self, report: ErrorReport | None, check: Metric | None, advance: Advance) -> Suggestion:
        self._advance = advance
        quantized, exact = self._evaluate([]), self._evaluate(list(self.groups))
        chosen: list[str] = []
        accuracy = quantized
        if quantized < self.wanted:
            order = self._by_error(report) if report else self._by_gain()
            chosen, accuracy = self._add(order, quantized)
            if accuracy >= self.wanted:
                chosen, accuracy = self._take_back(chosen, accuracy)
        names = tuple(dict.fromkeys(layer.place for name in chosen for layer in self.groups[name]))
        with self._floating(chosen):
            checked = None if check is None else float(check(self.model))
        return Suggestion(names, self.wanted, accuracy, exact, quantized, checked, tuple(self.steps))

    def _by_gain(self) -> list[str]:
        gains = {name: self._try([name], name, True) for name in self.groups}
        return sorted(self.groups, key=lambda name: -gains[name])

    def _by_error(self, report: ErrorReport) -> list[str]:
        """The groups in the order of the report, by the worst layer of each; those it does not know last."""
        place = {layer.name: i for i, layer in enumerate(report.worst())}
        return sorted(
            self.groups,
            key=lambda name: min(place.get(layer.name, len(place)) for layer in self.groups[name]),
        )

    def _add(self, order: Sequence[str], accuracy: float) -> tuple[list[str], float]:
        """Layers in order until the accuracy is reached; if it never is, the shortest best beginning."""
        best: tuple[float, int] = (accuracy, 0)
        for count, name in enumerate(order, 1):
            accuracy = self._try(order[:count], name, True)
            if accuracy > best[0]:
                best = accuracy, count
            if accuracy >= self.wanted:
                return list(order[:count]), accuracy
        return list(order[: best[1]]), best[0]

    def _take_back(self, chosen: list[str], accuracy: float) -> tuple[list[str], float]:
        for name in chosen[:-1]:
            fewer = [other for other in chosen if other != name]
            found = self._try(fewer, name, False)
            if found >= self.wanted:
                chosen, accuracy = fewer, found
        return chosen, accuracy

    def _try(self, names: Sequence[str], layer: str, to_float: bool) -> float:
        accuracy = self._evaluate(names)
        self.steps.append(Step(layer, to_float, accuracy))
        return accuracy

    def _evaluate(self, names: Sequence[str]) -> float:
        with self._floating(names):
            accuracy = float(self.metric(self.model))
        if accuracy != accuracy or abs(accuracy) == float("inf"):
            raise ValueError(f"The metric must give a finite number, but it gave {accuracy}.")
        self._done += 1
        if self._advance is not None:
            self._advance(self._done, f"{accuracy:.4f}")
        return accuracy

    @contextmanager
    def _floating(self, names: Iterable[str]) -> Iterator[None]:
        layers = [layer for name in names for layer in self.groups[name]]
        with in_float(all_quantizers(layers)):
            yield


def _groups(layers: Sequence[QuantizedLayer]) -> dict[str, list[QuantizedLayer]]:
    """The layers that must go to float together, by the first one's name:
    those that share a quantizer or a place.
    """
    home: dict[int | str, str] = {}
    groups: dict[str, list[QuantizedLayer]] = {}
    for layer in layers:
        homes = dict.fromkeys(home[key] for key in _keys(layer) if key in home)
        joined = [member for name in homes for member in groups.pop(name)] + [layer]
        groups[joined[0].name] = joined
        home.update({key: joined[0].name for member in joined for key in _keys(member)})
    return groups


def _keys(layer: QuantizedLayer) -> list[int | str]:
    return [layer.place, *map(id, layer.quantizers)]

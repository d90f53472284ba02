"""Schedules: how far a layer is on its way to its pattern, as a pure function of the optimizer step.

A schedule is a pure value with a text form. `schedule(step)` is the fraction, between 0 and 1, of the zeros
that the pattern itself has: 0 is dense, 1 is the pattern. Step t is the moment after t optimizer steps, and
step 0 is before the first. The grammar:

    schedule = "one-shot" [ ":" START ]
             | "progressive:" SUBSTEPS ":" INTERVAL [ ":start=" STEP ]
             | "gradual:" KIND ":" START ":" END [ ":every=" STEPS ] [ ":initial=" F ] [ ":density=" Q ]
             | "sr-ste:" FREEZE [ ":" STRENGTH ] [ ":every=" STEPS ]
    KIND     = "linear" | "cubic" | "cube" | "cosine" | "cos" | "exponential"
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from openwork.sparsity.pruner.schedule_text import Form, parse_schedule, read_number, read_whole


class Schedule(ABC):
    """How many zeros a layer has at a step; `Schedule.parse(text)` makes one
    and `str(schedule)` gives the text back.
    """

    @staticmethod
    def parse(text: str) -> Schedule:
        """The schedule that `text` writes; raises ValueError, in a sentence, if it writes none."""
        return parse_schedule(text, FAMILIES)

    @staticmethod
    def of(given: Schedule | str) -> Schedule:
        """The schedule itself, or the one that a text writes; raises ValueError for anything else."""
        if isinstance(given, Schedule):
            return given
        if not isinstance(given, str):
            raise ValueError(
                f'A schedule is a Schedule or its text, like "one-shot", but {given!r} came; leave the '
                'argument out for "one-shot".'
            )
        return Schedule.parse(given)

    def __call__(self, step: int) -> float:
        """The fraction of the pattern's zeros that a layer has after `step` optimizer steps, from 0 to 1.

        Never falls as the step grows, and is 1 from `final_step` on. Raises ValueError for a step that is no
        whole number or below 0.
        """
        return self._at(_whole("The step", step, 0))

    def updates_at(self, step: int) -> bool:
        """Whether the masks are computed anew at `step`: here, whether the fraction has changed."""
        now = self(step)
        return now != (self._at(step - 1) if step > 0 else 0.0)

    @property
    @abstractmethod
    def final_step(self) -> int:
        """The last step at which a mask changes."""

    @property
    def moving(self) -> bool:
        """Whether a dropped weight lives on, unseen, and may come back until `final_step`."""
        return False

    @property
    def regrowth(self) -> float:
        """How strongly dropped weights are drawn to zero while masks move (`SparseRefined`); else 0."""
        return 0.0

    @abstractmethod
    def _at(self, step: int) -> float: ...


@dataclass(frozen=True)
class OneShot(Schedule):
    """All zeros at once, at step `start`."""

    start: int = 0

    def __post_init__(self) -> None:
        _whole("The start of a one-shot schedule", self.start, 0)

    def __str__(self) -> str:
        return "one-shot" + (f":{self.start}" if self.start else "")

    @property
    def final_step(self) -> int:
        return self.start

    def _at(self, step: int) -> float:
        return 1.0 if step >= self.start else 0.0


@dataclass(frozen=True)
class Progressive(Schedule):
    """`substeps` equal rises, `interval` optimizer steps apart, the first at `start`.

    With n = floor((t - start) / interval) + 1, the fraction is min(n, N) / N: for 2:4 and N = 2 a quarter of
    the weights is zero at first and half of them `interval` steps later. Source: the progressive recipe of
    Tencent's Machine Learning Platform Department (NVIDIA technical blog, 2023), after Han et al. 2015.
    """

    substeps: int
    interval: int
    start: int = 0

    def __post_init__(self) -> None:
        _whole("The number of sub-steps of a progressive schedule", self.substeps, 1)
        _whole("The interval of a progressive schedule", self.interval, 1)
        _whole("The start of a progressive schedule", self.start, 0)

    def __str__(self) -> str:
        return f"progressive:{self.substeps}:{self.interval}" + (f":start={self.start}" if self.start else "")

    @property
    def final_step(self) -> int:
        return self.start + (self.substeps - 1) * self.interval

    def _at(self, step: int) -> float:
        if step < self.start:
            return 0.0
        return min((step - self.start) // self.interval + 1, self.substeps) / self.substeps


def linear(x: float) -> float:
    """x."""
    return x


def cubic(x: float) -> float:
    """1 - (1 - x)^3: fast at first (Zhu & Gupta 2017, "To prune, or not to prune", equation 1)."""
    return 1.0 - (1.0 - x) ** 3


def cube(x: float) -> float:
    """x^3: slow at first (Neural Compressor's `cube`)."""
    return x**3


def cosine(x: float) -> float:
    """(1 - cos(pi x)) / 2: slow at both ends."""
    return (1.0 - math.cos(math.pi * x)) / 2.0


def cos(x: float) -> float:
    """1 - cos(pi x / 2): slow at first (Neural Compressor's `cos`)."""
    return 1.0 - math.cos(math.pi * x / 2.0)


KINDS: dict[str, Callable[[float], float]] = {
    "linear": linear,
    "cubic": cubic,
    "cube": cube,
    "cosine": cosine,
    "cos": cos,
}
"""The shapes g of a gradual schedule by their names, each from g(0) = 0 to g(1) = 1; "exponential" has a
number of its own and stands in `Gradual`.
"""

EXPONENTIAL = "exponential"


@dataclass(frozen=True)
class Gradual(Schedule):
    """From `initial` at step `start` to 1 at step `end`, with an update every `every` steps.

    With x = (t - start) / (end - start) of the last update, the fraction is initial + (1 - initial) * g(x).
    kind: g is one of
    "linear" x; "cubic" 1 - (1 - x)^3 (Zhu & Gupta 2017); "cube" x^3, "cos" 1 - cos(pi x / 2) (both as
    Neural Compressor names them); "cosine" (1 - cos(pi x)) / 2; "exponential" (1 - q^x) / (1 - q), q =
    `density`: the weights that are kept shrink by the same factor at each update. Neural Compressor's `exp`
    for a target of Z zeros is density = 1 - Z (its target is 0.9 unless told otherwise, hence 0.1 here).
    density: between 0 and 1, only for "exponential".
    """

    kind: str
    start: int
    end: int
    every: int = 1
    initial: float = 0.0
    density: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, EXPONENTIAL):
            names = ", ".join(f'"{name}"' for name in (*KINDS, EXPONENTIAL))
            raise ValueError(f"A gradual schedule is one of {names}, but this one is {self.kind!r}.")
        _whole("The start of a gradual schedule", self.start, 0)
        _whole("The end of a gradual schedule", self.end, 0)
        _whole("The steps between two updates of a gradual schedule", self.every, 1)
        if self.end <= self.start:
            raise ValueError(
                f"A gradual schedule ends after it starts, but this one starts at step {self.start} and ends "
                f'at step {self.end}; use "one-shot" to prune at once.'
            )
        _fraction("The initial fraction of a gradual schedule", self.initial, closed_below=True)
        _fraction("The density of an exponential schedule", self.density)
        if self.kind != EXPONENTIAL and self.density != type(self).density:
            raise ValueError(
                f'Only "{EXPONENTIAL}" schedules have a density, but this one is "{self.kind}"; leave the '
                "density out."
            )

    def __str__(self) -> str:
        options = ("every", "initial", "density")
        written = [
            f":{name}={value!r}" for name in options if (value := getattr(self, name)) != _default(name)
        ]
        return f"gradual:{self.kind}:{self.start}:{self.end}" + "".join(written)

    @property
    def final_step(self) -> int:
        return self.end

    def _at(self, step: int) -> float:
        if step < self.start:
            return 0.0
        if step >= self.end:
            return 1.0
        update = (step - self.start) // self.every * self.every
        risen = self._shape(update / (self.end - self.start))
        return min(1.0, self.initial + (1.0 - self.initial) * risen)

    def _shape(self, x: float) -> float:
        if self.kind != EXPONENTIAL:
            return KINDS[self.kind](x)
        return math.expm1(x * math.log(self.density)) / math.expm1(math.log(self.density))


def _default(option: str) -> object:
    return getattr(Gradual, option)


@dataclass(frozen=True)
class SparseRefined(Schedule):
    """SR-STE: masks move every `every` steps while all weights are trained, and freeze at step `freeze`.

    The forward pass sees w * mask; the gradient with respect to it, g, goes to the dense weight w as
    g + strength * (1 - mask) * w, so that what is dropped decays unless the gradient calls it back. The
    fraction is 1 from step 0. Source: Zhou et al. 2021, "Learning N:M Fine-grained Structured Sparse Neural
    Networks From Scratch", equation 9 (strength 2e-4). With an adaptive optimizer the pull goes through its
    preconditioner and is not the paper's; the paper trains by SGD.
    """

    freeze: int
    strength: float = 2e-4
    every: int = 1

    def __post_init__(self) -> None:
        _whole("The step at which an SR-STE schedule freezes its masks", self.freeze, 0)
        _whole("The steps between two updates of an SR-STE schedule", self.every, 1)
        if not _is_real(self.strength) or not 0.0 <= self.strength < math.inf:
            raise ValueError(
                f"The strength of SR-STE is a number of at least 0, but it is {self.strength!r}."
            )

    def __str__(self) -> str:
        return f"sr-ste:{self.freeze}:{self.strength!r}" + (f":every={self.every}" if self.every != 1 else "")

    def updates_at(self, step: int) -> bool:
        """Whether the masks are chosen anew at `step`: every `every` steps, and last at `freeze`."""
        step = _whole("The step", step, 0)
        return step == self.freeze or (step < self.freeze and step % self.every == 0)

    @property
    def final_step(self) -> int:
        return self.freeze

    @property
    def moving(self) -> bool:
        return True

    @property
    def regrowth(self) -> float:
        return self.strength

    def _at(self, step: int) -> float:
        return 1.0


FAMILIES: dict[str, Form[Schedule]] = {
    "one-shot": Form(OneShot, {"start": read_whole}, 0, {}, "one-shot"),
    "progressive": Form(
        Progressive,
        {"substeps": read_whole, "interval": read_whole},
        2,
        {"start": read_whole},
        "progressive:2:1000",
    ),
    "gradual": Form(
        Gradual,
        {"kind": str, "start": read_whole, "end": read_whole},
        3,
        {"every": read_whole, "initial": read_number, "density": read_number},
        "gradual:cubic:100:1000:every=50",
    ),
    "sr-ste": Form(
        SparseRefined,
        {"freeze": read_whole, "strength": read_number},
        1,
        {"every": read_whole},
        "sr-ste:1000:2e-4",
    ),
}
"""The families of schedules by the word that their text begins with."""


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(what: str, value: object, least: int) -> int:
    """`value` as an int; ValueError unless it is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what} is a whole number of at least {least}, but it is {value!r}.")
    return value


def _fraction(what: str, value: float, closed_below: bool = False) -> None:
    inside = _is_real(value) and (0.0 < value < 1.0 or (closed_below and value == 0.0))
    if not inside:
        least = "at least 0" if closed_below else "above 0"
        raise ValueError(f"{what} is {least} and below 1, but it is {value!r}.")

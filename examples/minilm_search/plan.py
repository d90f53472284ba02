"""How much of the demo fits the machine: the pairs that are ranked, the peers, and the time to distil.

Everything but the distillation takes a time that the machine decides. It is foreseen from one measurement,
the dense model on one batch, and from what the stages took on a machine where that batch was known.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from openwork.models import SentenceEmbedder

from .settings import FULL_MINUTES, MAXIMUM_LENGTH, PATTERNS, SHARE, Settings

BATCH, REPEATS = 16, 5

DYNAMIC, STATIC = "ONNX Runtime INT8 dynamic", "ONNX Runtime INT8 Q/DQ"
OPENVINO, NNCF = "OpenVINO INT8 Q/DQ", "OpenVINO INT8 NNCF"
INT8_PEERS = (DYNAMIC, STATIC, OPENVINO, NNCF)
LEAST_PEERS = (STATIC, NNCF)
"""Where time is short: the best of each of the two, as every run so far has found them."""
CHOICES = ((2_000, INT8_PEERS), (1_000, INT8_PEERS), (1_000, LEAST_PEERS), (500, LEAST_PEERS))
"""Pairs and peers, the most wanted first."""

LEAST_MINUTES, MOST_MINUTES = 4.0, 8.0
"""To distil, all patterns together: below the one they show nothing, beyond the other they gain little."""


@dataclass(frozen=True)
class Costs:
    """Seconds of the stages on a machine where the dense model takes `batch` seconds for one batch.

    fixed: pruning, quantizing, building, tokenizing. peer: one peer's quantizer, trials and latency. pair:
    one pair in one runner's quality. own: runners besides the peers whose quality is measured.
    """

    batch: float
    fixed: float
    peer: float
    pair: float
    own: int = 2 * (1 + len(PATTERNS))

    def seconds(self, batch: float, pairs: int, peers: Sequence[str]) -> float:
        """What everything but distilling takes where a batch takes `batch` seconds."""
        ranked = self.pair * pairs * (1 + self.own + len(peers))
        return batch / self.batch * (self.fixed + self.peer * len(peers) + ranked)


MEASURED = Costs(batch=0.38, fixed=347.0, peer=17.6, pair=0.008)
"""One run's stages (AMD EPYC of Zen 4, 2 cores, shared): corpus 39 s, dense model 31, three prunings 184,
engines 26, peers 17, quality and agreement of 1,000 pairs 104, latency of nine runners 120."""


@dataclass(frozen=True)
class Plan:
    """What a run does. pairs: held out and ranked. minutes: of distilling, by pattern."""

    pairs: int
    peers: tuple[str, ...]
    minutes: dict[str, float]

    @classmethod
    def fitted(cls, settings: Settings, batch: float, costs: Costs = MEASURED) -> "Plan":
        """The largest choice that leaves LEAST_MINUTES to distil, or else the smallest one.

        batch: seconds of the dense model for one batch.
        """
        asked = _asked_minutes(settings)
        for pairs, peers in CHOICES:
            left = settings.minutes - costs.seconds(batch, pairs, peers) / 60
            if left >= (LEAST_MINUTES if asked is None else sum(asked.values())):
                break
        minutes = _shared(min(max(left, LEAST_MINUTES), MOST_MINUTES)) if asked is None else asked
        return cls(pairs, peers, minutes)

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Plan":
        """The plan that `record` wrote."""
        return cls(record["pairs"], tuple(record["peers"]), record["minutes"])

    def record(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    def sentence(self) -> str:
        """The plan in words."""
        minutes = ", ".join(f"{pattern} {value:.1f}" for pattern, value in self.minutes.items())
        return f"{self.pairs:,} pairs are ranked, {len(self.peers)} INT8 peers; minutes to distil: {minutes}"


def _asked_minutes(settings: Settings) -> dict[str, float] | None:
    """The minutes of each pattern that the user asked for, or None."""
    if settings.full:
        return dict(FULL_MINUTES)
    return None if settings.distill_minutes is None else _shared(settings.distill_minutes)


def _shared(minutes: float) -> dict[str, float]:
    """Each pattern's SHARE, in tenths of minutes."""
    return {pattern: round(SHARE[pattern] * minutes, 1) for pattern in PATTERNS}


def batch_seconds(model: SentenceEmbedder, threads: int) -> float:
    """The median time of the dense model for one batch of the longest texts."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(1000, 20_000, (BATCH, MAXIMUM_LENGTH)))
    before, taken = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for _ in range(REPEATS):
                begin = time.perf_counter()
                model(ids, torch.ones_like(ids))
                taken.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return float(np.median(taken))

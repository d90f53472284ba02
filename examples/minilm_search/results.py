"""What a run found, and its JSON form."""

from dataclasses import asdict, dataclass, field
from typing import Any

from openwork.bench.latency import STEADY_VARIATION, variation_warning
from openwork.engine.report import BuildReport
from openwork.support.machine import Machine

from .engines import DENSE
from .lineup import FP32, OURS
from .measuring import Agreement, Quality, Race, label
from .plan import Plan
from .settings import PATTERNS, Settings


@dataclass(frozen=True)
class Results:
    """Everything that the table, the JSON file and the chart are drawn from."""

    machine: Machine
    settings: Settings
    plan: Plan
    quality: dict[str, Quality]
    races: list[Race]
    reports: dict[str, BuildReport]
    seconds: dict[str, float]
    agreement: dict[str, Agreement] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The runners, in the order of the table."""
        return [FP32, *self.plan.peers, *OURS.values()]

    def kept(self, name: str) -> float:
        """NDCG@10 as a fraction of dense FP32's."""
        return self.quality[name].retrieval.ndcg_at_10 / self.quality[FP32].retrieval.ndcg_at_10

    def file_bytes(self, name: str) -> int:
        """Size of the runner's model on disk."""
        return self.races[0].runners[name].bytes

    def speedups(self) -> dict[str, dict[str, float]]:
        """Per shape, how many times faster each engine is than the fastest INT8 peer of that shape."""
        return {
            label(race.shape): {
                name: race.speedup(race.fastest(self.plan.peers), name) for name in OURS.values()
            }
            for race in self.races
        }

    def weights_ratio(self, pattern: str) -> float:
        """Stored bytes of the sparse layers' weights, as a fraction of those in the dense engine."""
        dense = {layer.name: layer.bytes_stored for layer in self.reports[DENSE].layers}
        sparse = [layer for layer in self.reports[pattern].layers if layer.pattern is not None]
        return sum(layer.bytes_stored for layer in sparse) / sum(dense[layer.name] for layer in sparse)

    def sentences(self) -> list[str]:
        """The outcome in words."""
        lines = []
        for race in self.races:
            peer = race.fastest(self.plan.peers)
            gains = ", ".join(f"{OURS[p]} {race.speedup(peer, OURS[p]):.2f}x" for p in OURS)
            lines.append(f"{label(race.shape)}: {gains} as fast as {peer} ({race.runners[peer].settings})")
        for pattern in PATTERNS:
            lines.append(
                f"{OURS[pattern]}: {self.kept(OURS[pattern]):.1%} of dense FP32's NDCG@10; weights of the "
                f"pruned layers {self.weights_ratio(pattern):.2f} of dense INT8's"
            )
        for name, found in self.agreement.items():
            lines.append(
                f"{name}: cosine to ONNX Runtime on the same Q/DQ model at least {found.least:.5f}, median "
                f"{found.median:.6f}, over {found.texts:,} held-out texts"
            )
        return lines + self._warnings()

    def _warnings(self) -> list[str]:
        timings = [timing for race in self.races for timing in race.timings.values()]
        restless = sum(variation_warning(timing) is not None for timing in timings)
        if not restless:
            return []
        return [
            f"{restless} of {len(timings)} timings vary by over {STEADY_VARIATION:.1%}: this machine was "
            "doing other things as well."
        ]

    def record(self) -> dict[str, Any]:
        """The JSON form: latencies in milliseconds, sizes in bytes, stages in seconds."""
        return {
            "machine": self.machine.record(),
            "settings": {**asdict(self.settings), "work": str(self.settings.work)},
            "plan": self.plan.record(),
            "runners": {name: self._runner_record(name) for name in self.names},
            "fastest_int8_peer": {label(race.shape): race.fastest(self.plan.peers) for race in self.races},
            "speedup_over_fastest_int8_peer": self.speedups(),
            "sparse_weights_of_dense": {pattern: self.weights_ratio(pattern) for pattern in PATTERNS},
            "agreement_with_onnxruntime": {name: asdict(found) for name, found in self.agreement.items()},
            "stages": self.seconds,
            "build_reports": {pattern: report.to_json() for pattern, report in self.reports.items()},
        }

    def _runner_record(self, name: str) -> dict[str, Any]:
        return {
            "bytes": self.file_bytes(name),
            "quality": asdict(self.quality[name]),
            "ndcg_of_fp32": self.kept(name),
            "latency": {
                label(race.shape): {
                    "settings": race.runners[name].settings,
                    "cosine_to_fp32": race.cosines[name],
                    **race.timings[name].record(),
                }
                for race in self.races
            },
        }

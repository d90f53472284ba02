"""The picture: latency at each shape, and what it costs in quality."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from .lineup import FP32, OURS
from .measuring import Race, label
from .results import Results

PEER, REFERENCE, OWN, INK = "#9aa5b1", "#cfd6dd", ("#f7d9b5", "#f2b36f", "#e07b39", "#b3471b"), "#2b2f36"
MARKERS = {True: "o^sD", False: "vXPd*"}
SIZE_INCHES = (13.0, 8.0)


def draw(results: Results, target: Path) -> None:
    """Write the chart as PNG to `target`."""
    with pyplot.rc_context(
        {"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "font.family": "DejaVu Sans"}
    ):
        figure, axes = pyplot.subplots(2, 2, figsize=SIZE_INCHES, layout="constrained")
        for axis, race in zip(axes.flat, results.races, strict=False):
            _bars(axis, race, results)
        _scatter(axes.flat[-1], results)
        figure.suptitle(
            "all-MiniLM-L6-v2 on the CPU: latency and search quality", fontsize=15, fontweight="bold"
        )
        figure.supxlabel(results.machine.line(results.settings.threads), fontsize=7.5, color="#6b7480")
        figure.savefig(target.with_suffix(".tmp.png"), dpi=140)
        pyplot.close(figure)
    target.with_suffix(".tmp.png").replace(target)


def colour(name: str) -> str:
    """Greys for what others make, warm colours for openwork."""
    own = dict(zip(OURS.values(), OWN, strict=True))
    return own.get(name, REFERENCE if name == FP32 else PEER)


def _bars(axis: Axes, race: Race, results: Results) -> None:
    names = results.names[::-1]
    medians = [race.timings[name].median for name in names]
    bars = axis.barh(names, medians, color=[colour(name) for name in names])
    best = race.fastest(results.plan.peers)
    notes = [
        f"{median:.2f} ms" + (f"  ({race.speedup(best, name):.2f}x)" if name in OURS.values() else "")
        for name, median in zip(names, medians, strict=True)
    ]
    axis.axvline(race.timings[best].median, color=INK, linewidth=0.8, linestyle=":", zorder=0)
    backing = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    axis.bar_label(bars, notes, fontsize=8.5, padding=2, bbox=backing)
    axis.set_xlim(0, 1.3 * max(medians))
    axis.set_title(f"batch x length {label(race.shape)}: median latency", loc="left", fontsize=11)
    axis.set_xlabel(f"ms; dotted: {best}, the fastest INT8 peer", fontsize=8.5)
    _plain(axis)
    axis.tick_params(axis="y", length=0)


def _scatter(axis: Axes, results: Results) -> None:
    race = results.races[-1]
    for own in (False, True):
        names = [name for name in results.names if (name in OURS.values()) == own]
        for name, marker in zip(names, MARKERS[own], strict=False):
            _point(axis, race, results, name, marker)
    dense = results.quality[FP32].retrieval.ndcg_at_10
    axis.axhline(0.97 * dense, color=INK, linewidth=0.8, linestyle=":")
    axis.annotate(
        "97% of FP32",
        (1, 0.97 * dense),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    axis.set_xlim(left=0)
    axis.set_title(f"quality against throughput at {label(race.shape)}", loc="left", fontsize=11)
    axis.set_xlabel("sentences per second")
    axis.set_ylabel("NDCG@10")
    axis.legend(fontsize=8, loc="lower left", framealpha=1.0, edgecolor="none")
    axis.grid(color="#e6e9ed", zorder=0)
    _plain(axis)


def _point(axis: Axes, race: Race, results: Results, name: str, marker: str) -> None:
    sentences = 1e3 * race.shape[0] / race.timings[name].median
    quality = results.quality[name].retrieval.ndcg_at_10
    look: dict[str, Any] = {"color": colour(name), "marker": marker, "edgecolor": INK, "linewidth": 0.7}
    axis.scatter(sentences, quality, s=110, zorder=3, label=name, **look)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)

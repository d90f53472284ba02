"""The calibration cache: what calibration chose for each tensor, in a file that people can read.

JSON, versioned, bound to one graph and one way of calibrating by digests: scales of another graph would be
wrong in silence, so such a file is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from openwork.qdq.affine import RANGES, Affine
from openwork.support.files import write_atomic

FORMAT, VERSION = "openwork.calibration", 1


class StaleCache(ValueError):
    """A calibration cache that belongs to another graph or another way of calibrating;
    the message says which.
    """


@dataclass(frozen=True)
class CacheEntry:
    """What was chosen for one tensor.

    dtype: "s8" or "u8". multiplier: of each channel, before the quantizer, where there is one (scale
    migration). low, high: the range that was chosen. values: how many numbers were seen.
    """

    dtype: str
    scale: float
    zero_point: int
    low: float
    high: float
    values: int
    multiplier: tuple[float, ...] | None = None

    @property
    def affine(self) -> Affine:
        """Scale and zero point; raises ValueError where they are none."""
        return Affine(self.scale, self.zero_point, "s8" if self.dtype == "s8" else "u8")


@dataclass(frozen=True)
class CalibrationCache:
    """What calibration chose.

    graph: a digest of the model. settings: of the calibration, plain values. tensors: by tensor name.
    """

    graph: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, CacheEntry] = field(default_factory=dict)

    def write(self, path: str | PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "graph": self.graph,
            "settings": dict(self.settings),
            "tensors": {name: asdict(entry) for name, entry in self.tensors.items()},
        }
        write_atomic(path, [json.dumps(document, indent=1).encode() + b"\n"])

    def check(self, graph: str, settings: Mapping[str, Any], tensors: Iterable[str], where: str) -> None:
        """Raise StaleCache unless the cache was made for this graph, in this way, with these tensors."""
        if self.graph != graph:
            raise StaleCache(
                f"The calibration cache {where} belongs to another model (graph {self.graph}, this one is "
                f"{graph}); calibrate again, with another file or after deleting this one."
            )
        for name in {**settings, **self.settings}:
            if self.settings.get(name) != settings.get(name):
                raise StaleCache(
                    f"The calibration cache {where} was made with {name} = {self.settings.get(name)!r}, but "
                    f"{settings.get(name)!r} is asked for; calibrate again, with another file or after "
                    "deleting this one."
                )
        missing = [name for name in tensors if name not in self.tensors]
        if missing:
            raise StaleCache(
                f"The calibration cache {where} has no entry for {missing[0]!r} ({len(missing)} are "
                "missing); calibrate again, with another file or after deleting this one."
            )


def read_cache(path: str | PathLike[str]) -> CalibrationCache:
    """The cache in a file; raises ValueError, naming file and field, if it is none or was altered."""
    try:
        document = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a calibration cache: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path} is not a calibration cache: its format is not {FORMAT!r}.")
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path} is a calibration cache of version {document.get('version')!r}, but this is version "
            f"{VERSION}; calibrate again."
        )
    try:
        tensors = {str(name): _entry(entry) for name, entry in document["tensors"].items()}
        return CalibrationCache(str(document["graph"]), dict(document["settings"]), tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is a damaged calibration cache ({error}); delete it and calibrate again."
        ) from error


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """A short digest of a graph's parts, views of bytes among them, in order."""
    state = hashlib.blake2b(digest_size=12)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def _entry(fields: Mapping[str, Any]) -> CacheEntry:
    multiplier = fields["multiplier"]
    if fields["dtype"] not in RANGES:
        raise ValueError(f"a tensor of type {fields['dtype']!r}")
    entry = CacheEntry(
        str(fields["dtype"]),
        float(fields["scale"]),
        int(fields["zero_point"]),
        float(fields["low"]),
        float(fields["high"]),
        int(fields["values"]),
        None if multiplier is None else tuple(float(value) for value in multiplier),
    )
    _ = entry.affine
    return entry

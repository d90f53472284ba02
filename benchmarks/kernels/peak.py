"""What the machine does at most, in the same run: products of registers alone, and reads of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from openwork.backends.library import native

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "": 1}
_USUAL = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


@dataclass(frozen=True)
class Level:
    """One level of memory: `read` bytes each thread went through, at `rate` bytes a second of all threads."""

    name: str
    read: int
    rate: float


def operations(kind: str, isa: str, threads: int) -> float:
    """Operations a second of the dot product of a type on registers: the best of a few short runs, now."""
    return float(native().peak(NATIVE_TYPES[kind], isa, threads))


NATIVE_TYPES = {"int8": "i8", "bf16": "bf16", "fp32": "f32"}


def bandwidths(isa: str, threads: int) -> tuple[Level, ...]:
    """The levels of memory, nearest first: half of each one's size is read; of memory four times L3's."""
    sizes = cache_sizes()
    reads = {name: size // 2 for name, size in sizes.items()}
    # Threads share the last level.
    reads["L3"] = max(sizes["L3"] // 2 // threads, sizes["L2"] + sizes["L2"] // 2)
    reads["memory"] = 4 * sizes["L3"] // threads
    return tuple(
        Level(name, size, float(native().read_bandwidth(size, isa, threads))) for name, size in reads.items()
    )


def cache_sizes(folder: Path = _CACHES) -> dict[str, int]:
    """Bytes of the first three levels of data cache, as the system tells; usual ones where it does not."""
    found = dict(_USUAL)
    for index in sorted(folder.glob("index*")):
        if (index / "type").read_text().strip() == "Instruction":
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", (index / "size").read_text().strip())
        name = "L" + (index / "level").read_text().strip()
        if match and name in found:
            found[name] = int(match[1]) * _UNITS[match[2]]
    return found

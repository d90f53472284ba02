"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

SPEED_FLAGS = ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""CPU flags that decide which kernels an INT8 or BF16 engine picks."""


@dataclass(frozen=True)
class Machine:
    """CPU, cores this process may use, its flags among `SPEED_FLAGS`, and versions of libraries."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    python: str
    versions: dict[str, str]

    def line(self, threads: int) -> str:
        """One line that says what a measurement with `threads` threads ran on."""
        flags = " ".join(self.flags) or "none of " + " ".join(SPEED_FLAGS)
        libraries = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.cpu}, {_counted(self.cores, 'core')} ({flags}), {_counted(threads, 'thread')}; "
            f"Python {self.python}, {libraries}"
        )

    def record(self) -> dict[str, object]:
        """This machine for a JSON file."""
        return asdict(self)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def this_machine(distributions: Iterable[str] = ("openwork", "numpy")) -> Machine:
    """Describe the running machine. distributions: installed distributions whose versions matter."""
    facts = _cpu_facts(Path("/proc/cpuinfo"))
    present = set(facts.get("flags", facts.get("Features", "")).split())
    return Machine(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        flags=tuple(flag for flag in SPEED_FLAGS if flag in present),
        python=platform.python_version(),
        versions={name: _version(name) for name in distributions},
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _cpu_facts(path: Path) -> dict[str, str]:
    """The `name : value` lines of the first processor in a file like /proc/cpuinfo."""
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}

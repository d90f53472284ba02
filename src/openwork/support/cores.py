"""How many threads are worth starting here."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Physical cores that this process may use: by its affinity, hyper-threads counted once,
    and its CPU quota."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core(cpu, _TOPOLOGY) for cpu in usable}
    return max(1, min(len(cores), _quota(_QUOTA)))


def _core(cpu: int, topology: Path) -> str:
    """What the hyper-threads of one core share; the CPU itself where the system does not say."""
    siblings = topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    try:
        return siblings.read_text().strip()
    except OSError:
        return str(cpu)


def _quota(path: Path) -> int:
    """Whole CPUs that the control group allows, rounded up; the machine's number where there is no limit."""
    try:
        limit, period = path.read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return os.cpu_count() or 1

"""What to run on: an instruction set and a number of threads, and what names them in a timing."""

from __future__ import annotations

from dataclasses import dataclass

from openwork.backends.library import chosen_isa, native
from openwork.engine.report import Environment
from openwork.support.cores import physical_cores
from openwork.support.machine import this_machine
from openwork.support.numbers import whole_number

MOST_THREADS = 1024
"""Of one pool of the native library (native/runtime/thread_pool.h)."""


@dataclass(frozen=True)
class Target:
    """An instruction set of the native library, and the threads of a context."""

    isa: str
    threads: int


def choose_target(isa: str | None, threads: int | None) -> Target:
    """What was asked for, or the best of this machine and the physical cores that this process may use.

    Raises ValueError for an instruction set that this machine lacks, and what `thread_count` raises.
    """
    return Target(chosen_isa(isa), physical_cores() if threads is None else thread_count(threads))


def thread_count(threads: object) -> int:
    """The number of threads; raises TypeError for what is no whole number, ValueError for fewer than one or
    more than a pool of the native library holds."""
    return whole_number(threads, "The number of threads", high=MOST_THREADS)


def environment(target: Target) -> Environment:
    """What timings here are taken on."""
    machine = this_machine()
    versions = machine.versions["openwork"]
    return Environment(versions, machine.cpu, target.isa, target.threads, str(native().kernel_version()))

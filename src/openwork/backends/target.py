"""What to run on: an instruction set and a number of threads, and what names them in a timing."""

from __future__ import annotations

from dataclasses import dataclass

from openwork.backends.library import chosen_isa, native
from openwork.engine.report import Environment
from openwork.support.cores import physical_cores
from openwork.support.machine import this_machine


@dataclass(frozen=True)
class Target:
    """An instruction set of the native library, and the threads of a context."""

    isa: str
    threads: int


def choose_target(isa: str | None, threads: int | None) -> Target:
    """What was asked for, or the best of this machine and the physical cores that this process may use.

    Raises ValueError for an instruction set that this machine lacks and for fewer threads than one.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"The number of threads is at least 1, but it is {threads}.")
    return Target(chosen_isa(isa), threads or physical_cores())


def environment(target: Target) -> Environment:
    """What timings here are taken on."""
    machine = this_machine()
    versions = machine.versions["openwork"]
    return Environment(versions, machine.cpu, target.isa, target.threads, str(native().kernel_version()))

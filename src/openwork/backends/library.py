"""The native library and its instruction sets."""

from __future__ import annotations

from typing import Any


def native() -> Any:
    """The native module; raises ImportError, saying what to do, where the package was not built."""
    try:
        from openwork import _native
    except ImportError as error:
        raise ImportError(
            f"The native part of openwork could not be loaded ({error}); install the package with 'pip "
            f"install .'."
        ) from error
    return _native


def chosen_isa(isa: str | None) -> str:
    """The instruction set to run on: `isa`, or what OPENWORK_ISA says, or the best of this machine.

    Raises ValueError where it is unknown or this machine lacks it.
    """
    if isa is None:
        return str(native().active_isa())
    if isa not in native().isas(emulated=True):
        lacks = {name: lacks for name, _, lacks in native().instruction_sets()}.get(isa)
        why = "is unknown" if lacks is None else f"does not run here, as this machine has no {lacks}"
        raise ValueError(f"The instruction set '{isa}' {why}; usable here: {', '.join(native().isas())}.")
    return isa


def active_isa() -> tuple[str | None, str]:
    """The instruction set that runs, or None and why OPENWORK_ISA cannot be followed, a sentence."""
    try:
        return str(native().active_isa()), ""
    except ValueError as error:
        return None, str(error)


def instruction_sets(active: str | None) -> list[str]:
    """A line for each instruction set of this build: which run, which is active, and what this machine
    lacks for the others."""
    lines = []
    for name, emulated, lacks in native().instruction_sets():
        state = f"not here: this machine has no {lacks}" if lacks else "runs"
        if emulated and not lacks:
            state = f"runs where OPENWORK_ISA={name} asks for it: a matrix unit in plain code, for tests"
        lines.append(f"{name}: {state}{', and is the one in use' if name == active else ''}")
    return lines

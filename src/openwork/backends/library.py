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
    usable = native().isas()
    if isa not in usable:
        raise ValueError(
            f"The instruction set '{isa}' is unknown or this machine lacks it; usable here: "
            f"{', '.join(usable)}."
        )
    return isa

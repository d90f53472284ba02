"""Public names of a package that are loaded when they are first used, so that importing it stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose public names are loaded late.

    homes: by name, the full name of the module that has it. The result raises AttributeError for any other
    name, and ModuleNotFoundError, with what to install, for one that needs torch where that is missing.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"The module {package!r} has no attribute {name!r}.")
        try:
            return getattr(import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ModuleNotFoundError(
                f"{package}.{name} needs torch; install it with `pip install openwork[train]`.", name="torch"
            ) from error

    return load

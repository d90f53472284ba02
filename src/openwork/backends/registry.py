"""The back ends by name, in the order in which they are asked for a node."""

from __future__ import annotations

from collections.abc import Sequence

from openwork.backends.backend import Backend
from openwork.backends.cpu.backend import Cpu
from openwork.backends.onnxruntime.backend import OnnxRuntime

_BACKENDS: dict[str, Backend] = {}


def register(backend: Backend) -> None:
    """Make a back end known by its name, asked after those that are known already."""
    _BACKENDS[backend.name] = backend


def unregister(name: str) -> None:
    """Forget a back end; raises ValueError where there is none of this name."""
    backend_named(name)
    del _BACKENDS[name]


def backend_named(name: str) -> Backend:
    """The back end of this name; raises ValueError, naming those that are known."""
    if name not in _BACKENDS:
        raise ValueError(f"There is no back end '{name}'; known are {', '.join(_BACKENDS)}.")
    return _BACKENDS[name]


def backends(names: str | Sequence[str] | None = None) -> tuple[Backend, ...]:
    """The back ends of these names in this order, or of one name, or all.

    Raises ValueError for an unknown name, or none, and TypeError for what is no name.
    """
    chosen = tuple(_BACKENDS) if names is None else tuple(dict.fromkeys(_names(names)))
    if not chosen:
        raise ValueError(f"A build needs at least one back end; known are {', '.join(_BACKENDS)}.")
    return tuple(backend_named(name) for name in chosen)


def _names(names: object) -> list[str]:
    given = [names] if isinstance(names, str) else names
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"The back ends are a list of names, like ['cpu'], but they are {names!r}.")
    return list(given)


for _backend in (Cpu(), OnnxRuntime()):
    register(_backend)

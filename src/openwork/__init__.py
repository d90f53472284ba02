"""Trained networks made sparse and INT8, and run faster than dense ones on the same machine.

The names below are loaded when they are first used, so importing the package is quick and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openwork.support.late_names import late_names

if TYPE_CHECKING:
    from openwork.builder.builder import build
    from openwork.engine.report import BuildReport
    from openwork.patterns.detection import detect
    from openwork.patterns.pattern import Pattern
    from openwork.prediction.predict import predict
    from openwork.runtime.engine import Context, Engine, load
    from openwork.support.fields import EngineFileError

_HOMES = {
    "BuildReport": "openwork.engine.report",
    "Context": "openwork.runtime.engine",
    "Engine": "openwork.runtime.engine",
    "EngineFileError": "openwork.support.fields",
    "Pattern": "openwork.patterns.pattern",
    "build": "openwork.builder.builder",
    "detect": "openwork.patterns.detection",
    "load": "openwork.runtime.engine",
    "predict": "openwork.prediction.predict",
}

__all__ = [
    "BuildReport",
    "Context",
    "Engine",
    "EngineFileError",
    "Pattern",
    "__version__",
    "build",
    "detect",
    "load",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("openwork")
    return late_names(__name__, _HOMES)(name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""The text of a traced forward, and the class that runs it in the place of a module's own.

Classes made here can be pickled and copied: what is stored is the text and the class it was made from.
"""

from __future__ import annotations

import functools
import importlib
import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import fx, nn


@dataclass(frozen=True)
class _Imported:
    """A module by its name, which unlike the module itself can be pickled."""

    name: str


@dataclass(frozen=True)
class Source:
    """A function `forward` as Python text, and the names that it reads."""

    text: str
    names: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, graph: fx.Graph) -> Source:
        """The text of a graph's forward."""
        code = graph.python_code("self")
        used = {key: v for key, v in code.globals.items() if re.search(rf"\b{re.escape(key)}\b", code.src)}
        names = ((k, _Imported(v.__name__) if isinstance(v, ModuleType) else v) for k, v in used.items())
        return cls(code.src, tuple(sorted(names, key=lambda pair: pair[0])))

    def forward(self) -> Callable[..., Any]:
        """The function itself."""
        names: dict[str, Any] = {
            key: importlib.import_module(value.name) if isinstance(value, _Imported) else value
            for key, value in self.names
        }
        # So that a traceback shows the line, and compilers find the text.
        place = f"<traced forward {abs(hash(self.text)):x}>"
        linecache.cache[place] = (len(self.text), None, self.text.splitlines(True), place)
        exec(compile(self.text, place, "exec"), names)
        forward: Callable[..., Any] = names["forward"]
        return forward


_CLASSES: dict[tuple[type[nn.Module], tuple[Source, ...]], type[nn.Module]] = {}


def rewritten(original: type[nn.Module], sources: tuple[Source, ...]) -> type[nn.Module]:
    """The subclass of `original` with the first source as its forward, in training mode with the second, if
    there is one; the same class for the same text.
    """
    if (original, sources) not in _CLASSES:
        _CLASSES[original, sources] = _class_of(original, sources)
    return _CLASSES[original, sources]


def _class_of(original: type[nn.Module], sources: tuple[Source, ...]) -> type[nn.Module]:
    forwards = [source.forward() for source in sources]
    body = {
        "forward": forwards[0] if len(forwards) == 1 else _by_mode(*forwards),
        "__reduce_ex__": _reduce,
        "__module__": original.__module__,
        "__doc__": original.__doc__,
        "unquantized_class": original,
        "sources": sources,
    }
    return type(f"Quantized{original.__name__}", (original,), body)


def is_rewritten(module: nn.Module) -> bool:
    """Whether the module's forward is a traced one."""
    return "unquantized_class" in vars(type(module))


def _by_mode(evaluation: Callable[..., Any], training: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(evaluation)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (training if self.training else evaluation)(self, *args, **kwargs)

    return forward


def _reduce(self: Any, protocol: int) -> tuple[Any, ...]:
    cls = type(self)
    return _rebuild, (cls.unquantized_class, cls.sources), self.__getstate__()


def _rebuild(original: type[nn.Module], sources: tuple[Source, ...]) -> nn.Module:
    cls = rewritten(original, sources)
    return cls.__new__(cls)

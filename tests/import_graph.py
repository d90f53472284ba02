"""Which file of a package imports which, read from the sources; nothing is executed.

Imports inside functions and under TYPE_CHECKING count, and so do the names of modules in strings, which is
how a package writes down the names that it loads late. A name that the `__init__` of a package takes from
another file leads to that file.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

PACKAGE = "openwork"
Edges = Mapping[str, set[str]]


@dataclass(frozen=True)
class Import:
    """A file (as a module) that takes something from another one, or from a library.

    written: the module as the line names it, where the name that it takes comes from another one.
    """

    importer: str
    imported: str
    written: str
    line: int


@dataclass(frozen=True)
class Sources:
    """The Python files below a folder by the names of their modules."""

    files: Mapping[str, Path]

    @staticmethod
    def below(root: Path) -> Sources:
        """The files of `root`, which holds the package's folder."""
        files = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return Sources(files)

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}

    @cached_property
    def named(self) -> frozenset[str]:
        """The modules that a string may name; the bare name of the package is a word."""
        return frozenset(self.files) - {PACKAGE}

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import of every file, of libraries too."""
        return tuple(found for name in self.files for found in self._of(name))

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """By file, the files that it imports; a package's `__init__` goes by the package's name."""
        edges: dict[str, set[str]] = {name: set() for name in self.files}
        for found in self.imports:
            if found.imported in self.files and found.imported != found.importer:
                edges[found.importer].add(found.imported)
        return edges

    def _of(self, name: str) -> Iterator[Import]:
        for node in ast.walk(self.trees[name]):
            for target, written in self._targets(self._absolute(node, name)):
                yield Import(name, target, written, getattr(node, "lineno", 0))

    def _absolute(self, node: ast.AST, name: str) -> ast.AST:
        """A relative import as the absolute one that it stands for in the file `name`."""
        if not isinstance(node, ast.ImportFrom) or not node.level:
            return node
        parts = name.split(".")
        package = parts if self.files[name].name == "__init__.py" else parts[:-1]
        base = package[: len(package) - node.level + 1]
        module = ".".join([*base, *([node.module] if node.module else [])])
        return ast.ImportFrom(module, node.names, 0, lineno=node.lineno)

    def _targets(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module, inside = node.module or "", f"{node.module}.{alias.name}"
                home = self.home(module, alias.name)
                yield home, inside if home == inside else module
        elif isinstance(node, ast.Constant) and node.value in self.named:
            yield node.value, node.value

    def home(self, module: str, name: str) -> str:
        """The file that a name imported from `module` comes from."""
        if f"{module}.{name}" in self.files:
            return f"{module}.{name}"
        if module == PACKAGE and name == "_native":
            return f"{PACKAGE}._native"
        return self._exports(module).get(name, module)

    def _exports(self, module: str) -> dict[str, str]:
        """What the `__init__` of a package takes from its files, and from which."""
        if module not in self.files or self.files[module].name != "__init__.py":
            return {}
        return {
            alias.asname or alias.name: self.home(node.module or "", alias.name)
            for node in ast.walk(self.trees[module])
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }


def between_siblings(edges: Edges) -> dict[str, set[str]]:
    """The imports between neighbours: where the paths of two files part, the two packages or files there.

    A package and what lies inside it are no neighbours, so a package's own `__init__` is left aside.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for importer, targets in edges.items():
        for target in targets:
            one, other = importer.split("."), target.split(".")
            shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
            if shared is not None:
                found[".".join(one[: shared + 1])].add(".".join(other[: shared + 1]))
    return found


def cycles(edges: Edges) -> list[str]:
    """Every ring of imports that a search meets, as "a -> b -> a"; empty if there is none."""
    done: set[str] = set()
    found: list[str] = []
    for start in edges:
        _search(start, edges, done, found)
    return found


def _search(start: str, edges: Edges, done: set[str], found: list[str]) -> None:
    path: list[str] = []
    pending = [(start, False)]
    while pending:
        node, left = pending.pop()
        if left:
            done.add(path.pop())
        elif node in path:
            found.append(" -> ".join((*path[path.index(node) :], node)))
        elif node not in done:
            path.append(node)
            pending.append((node, True))
            pending.extend((target, False) for target in sorted(edges.get(node, ())))


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the Markdown table under a heading, without the table's own head."""
    lines = text[text.index(heading) :].splitlines()[1:]
    table: list[list[str]] = []
    for before, line in pairwise(["", *lines]):
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif before.startswith("|"):
            break
    return table[2:]

"""What pip would put into an isolated build environment, taken from the environment that runs this."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

# scikit-build-core asks for these two by itself where the system has none.
_OF_THE_BACKEND = ("cmake", "ninja")


def link(folder: Path, pyproject: Path) -> None:
    """Fill `folder`, for PYTHONPATH, with what pyproject.toml's [build-system] requires and nothing else.

    They are links, by which scikit-build-core finds itself at the same place for every Python and keeps the
    build folder, with the kernels in it. Raises PackageNotFoundError where one is not installed.
    """
    folder.mkdir(parents=True)
    requires = tomllib.loads(pyproject.read_text(encoding="utf-8"))["build-system"]["requires"]
    for name in _with_dependencies([*requires, *_OF_THE_BACKEND]):
        found = distribution(name)
        tops = {path.parts[0] for path in found.files or () if path.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            (folder / top).symlink_to(Path(str(found.locate_file(top))).resolve())


def _with_dependencies(requirements: Iterable[str]) -> set[str]:
    names: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in names:
            names.add(requirement.name)
            waiting += map(Requirement, distribution(requirement.name).requires or ())
    return names

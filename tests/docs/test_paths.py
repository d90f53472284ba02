"""Every path that a page names exists: of a file, of a folder, of a program that is run by its module."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))
SOURCE = (".py", ".cc", ".h", ".inc", ".md", ".toml")
FOLDERS = ("src", "native", "tests", "docs", "benchmarks", "examples")
TREE = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for path in (
        *ROOT.iterdir(),
        *(
            path
            for folder in FOLDERS
            for path in (ROOT / folder).rglob("*")
            if "__pycache__" not in path.parts
        ),
    )
]
ROOMS = {*FOLDERS, *(path.name for path in (ROOT / "src" / "openwork").iterdir() if path.is_dir())}
"""Folders that a path with no ending of a source file is known by."""


def named(text: str) -> set[str]:
    """The paths between backticks or in blocks of code: of source files, and below a folder of this tree."""
    words = {word for span in re.findall(r"`+([^`]+)`+", text) for word in re.findall(r"[\w./*~$-]+", span)}
    return {word for word in words if _is_path(word)}


def _is_path(word: str) -> bool:
    if word.startswith(("/", ".", "-", "~", "$")) or word.endswith("."):
        return False
    return word.endswith(SOURCE) or ("/" in word and word.split("/")[0] in ROOMS)


def run(text: str) -> set[str]:
    """The modules of this tree in commands `python -m module`."""
    return {name for name in re.findall(r"python -m ([\w.]+)", text) if name.split(".")[0] in ROOMS}


def exists(path: str) -> bool:
    """Whether the tree has a file or folder of this path, or whose path ends so."""
    pattern = f"*/{path.rstrip('/')}"
    return any(fnmatchcase(place, pattern) for place in TREE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_paths_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert sorted(path for path in named(text) if not exists(path)) == []
    programs = {name: name.replace(".", "/") for name in run(text)}
    places = {name: (f"{path}.py", f"{path}/__main__.py") for name, path in programs.items()}
    assert sorted(name for name, ways in places.items() if not any(map(exists, ways))) == []


def test_the_paths_of_a_text_are_found() -> None:
    text = "`graph/model.py`, `mask.py`, a block:\n```\ntests/qdq/ python -m benchmarks.loading\n```\n"
    text += "but not `u8/s8`, `model.onnx` or `~/openwork/hosts.py`, and `native/kernels` is a folder."
    assert named(text) == {"graph/model.py", "mask.py", "tests/qdq/", "native/kernels"}
    assert run(text) == {"benchmarks.loading"}


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("graph/model.py", True),
        ("graph/absent.py", False),
        ("src/openwork/graph/", True),
        ("native/kernels/*.cc", True),
        ("native/kernels/*.rs", False),
        ("table.inc", True),
        ("absent.inc", False),
        ("test_*.py", True),
        ("quantization/absent", False),
    ],
)
def test_a_path_that_leads_nowhere_is_seen(path: str, there: bool) -> None:
    assert exists(path) is there

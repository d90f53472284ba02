"""Pins of development and what the trials of the wheel look for. `make wheel-test` makes the trials."""

from __future__ import annotations

import os
import sys
import tomllib
import zipfile
from pathlib import Path

import contents
import pytest
import pythons
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYPROJECT = ROOT / "pyproject.toml"


def stated() -> list[Requirement]:
    """Every requirement of pyproject.toml, and the tools that scikit-build-core adds."""
    file = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = file["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    texts = [*file["build-system"]["requires"], "cmake", "ninja", *project["dependencies"], *extras]
    return [each for each in map(Requirement, texts) if each.name != project["name"]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_each_direct_dependency_is_pinned_within_its_bounds_and_nothing_else_is() -> None:
    pinned = pins()
    assert sorted(pinned) == sorted({each.name for each in stated()})
    outside = [f"{each} {pinned[each.name]}" for each in stated() if pinned[each.name] not in each.specifier]
    assert not outside


def wheel(folder: Path, *names: str, requires: str = "") -> Path:
    path = folder / "openwork-0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, "")
        file.writestr("openwork-0.dist-info/METADATA", f"Metadata-Version: 2.4\nName: openwork\n{requires}")
    return path


WHOLE = (
    "openwork/__init__.py",
    "openwork/py.typed",
    "openwork/_native.cpython-311-x86_64-linux-gnu.so",
    "openwork/_native.pyi",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "openwork"
    package.mkdir(parents=True)
    for name in ("__init__.py", "py.typed"):
        (package / name).touch()
    return package.parent


def test_a_wheel_with_the_package_and_its_native_module_is_whole(source: Path, tmp_path: Path) -> None:
    contents.check(wheel(tmp_path, *WHOLE), source)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*WHOLE, "tests/test_tiny.py"], r"holds what is not the package: \['tests/test_tiny.py'\]"),
        ([*WHOLE, "openwork/native/kernels/neon.cc"], r"holds what is not the package: \['openwork/native"),
        ([name for name in WHOLE if name != "openwork/py.typed"], "lacks py.typed, so type checkers ignore"),
        (WHOLE[1:], r"lacks files of the package: \['openwork/__init__.py'\]"),
        (WHOLE[:-1], "Expected _native and its stub"),
    ],
)
def test_a_wheel_with_more_or_less_is_refused(
    source: Path, tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        contents.check(wheel(tmp_path, *names), source)


def test_the_lowest_versions_are_the_lower_bounds_of_what_no_extra_asks_for(tmp_path: Path) -> None:
    requires = "".join(
        f"Requires-Dist: {text}\n"
        for text in ("numpy>=1.26,<9", "rich>=13.8", "torch>=2.8; extra == 'train'")
    )
    written = contents.lowest(wheel(tmp_path, requires=requires), tmp_path / "lowest.txt")
    assert written.read_text(encoding="utf-8") == "numpy==1.26\nrich==13.8\n"


def test_a_dependency_without_a_lower_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Expected one lower bound for numpy"):
        contents.lowest(wheel(tmp_path, requires="Requires-Dist: numpy\n"), tmp_path / "lowest.txt")


def test_the_package_states_the_python_that_runs_this() -> None:
    own = f"3.{sys.version_info.minor}"
    assert own in pythons.stated_versions(PYPROJECT)
    assert pythons.find(own).path or "lacks" in pythons.find(own).missing


def test_a_python_that_is_not_there_or_does_not_answer_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pythons.find("3.99") == pythons.Python("3.99", missing="no python3.99 on PATH that answers")
    shim = tmp_path / "python3.99"
    shim.write_text(f"#!{os.path.realpath('/bin/sh')}\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    assert pythons.find("3.99") == pythons.Python("3.99", missing="no python3.99 on PATH that answers")

"""What is in a wheel, and what it asks for."""

from __future__ import annotations

import re
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement

NATIVE = re.compile(r"openwork/_native\.(pyi|cpython-3\d+-[\w-]+\.so)")


def check(wheel: Path, source: Path) -> None:
    """Raise AssertionError unless the wheel holds the package of the folder `source`, its native module with
    the stub, and no more."""
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    kinds = (".py", ".typed", ".json")
    package = {str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in kinds}
    native = set(filter(NATIVE.fullmatch, held))
    assert len(native) == 2, f"Expected _native and its stub in {wheel.name}, found {sorted(native)}."
    assert "openwork/py.typed" in held, f"{wheel.name} lacks py.typed, so type checkers ignore its types."
    assert not package - held, f"{wheel.name} lacks files of the package: {sorted(package - held)}."
    foreign = held - package - native
    assert not foreign, f"{wheel.name} holds what is not the package: {sorted(foreign)}."


def dependencies(wheel: Path) -> list[Requirement]:
    """What the wheel needs without any of its extras."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(file.read(name).decode())
    every = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [each for each in every if each.marker is None or "extra" not in str(each.marker)]


def lowest(wheel: Path, constraints: Path) -> Path:
    """Write constraints that hold each dependency of the wheel at its lower bound; returns their file."""
    lines = []
    for each in dependencies(wheel):
        bounds = [bound.version for bound in each.specifier if bound.operator == ">="]
        assert len(bounds) == 1, f"Expected one lower bound for {each.name} in pyproject.toml, found {each}."
        lines.append(f"{each.name}=={bounds[0]}\n")
    constraints.write_text("".join(lines), encoding="utf-8")
    return constraints

"""Builds the wheel for each Python of this machine and tries it in empty environments.

    make wheel-test

Each Python tries it with the versions of constraints.txt, the oldest one also with the lowest that the
wheel's metadata allow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import build_tools
import contents
import pythons

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).with_name("inside.py")


@dataclass(frozen=True)
class Trials:
    """The folder that they happen in, and the settings that pip hands to scikit-build-core."""

    folder: Path
    settings: tuple[str, ...]

    @property
    def tools(self) -> Path:
        return self.folder / "tools"

    def at(self, python: pythons.Python) -> Path:
        return self.folder / python.version


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    """Run a command in an environment without Python's own variables; raises CalledProcessError."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(list(map(str, command)), check=True, cwd=cwd, env=kept | variables)


def pip(python: Path, *arguments: str | Path, **variables: str) -> None:
    run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, **variables)


def empty_environment(python: pythons.Python, folder: Path) -> Path:
    """A new virtual environment with pip alone; its interpreter."""
    run(python.path, "-m", "venv", "--clear", folder)
    return folder / "bin" / "python"


def build(python: pythons.Python, trials: Trials) -> Path:
    """The wheel that `pip wheel .` makes for a Python."""
    folder = trials.at(python) / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    environment = empty_environment(python, trials.at(python) / "building")
    settings = [part for setting in trials.settings for part in ("--config-settings", setting)]
    where = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    pip(environment, "wheel", *where, *settings, ROOT, PYTHONPATH=str(trials.tools))
    (wheel,) = folder.glob("openwork-*.whl")
    contents.check(wheel, ROOT / "src")
    return wheel


def attempt(python: pythons.Python, wheel: Path, constraints: Path, trials: Trials) -> None:
    """Install the wheel with what it depends on, and nothing else, and let it build and run an engine."""
    print(f"Python {python.version}, versions of {constraints.name}: ", end="", flush=True)
    environment = empty_environment(python, trials.at(python) / "empty")
    pip(environment, "install", "--constraint", constraints, wheel)
    run(environment, "-I", INSIDE, cwd=trials.at(python))


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/wheels", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="for environments and wheels")
    parser.add_argument("--setting", action="append", default=[], help="for scikit-build-core: name=value")
    arguments = parser.parse_args()
    trials = Trials(arguments.folder.resolve(), tuple(arguments.setting))
    shutil.rmtree(trials.tools, ignore_errors=True)
    build_tools.link(trials.tools, ROOT / "pyproject.toml")

    found = [pythons.find(version) for version in pythons.stated_versions(ROOT / "pyproject.toml")]
    usable = [python for python in found if python.path]
    for number, python in enumerate(usable):
        wheel = build(python, trials)
        if number == 0:
            attempt(python, wheel, contents.lowest(wheel, trials.folder / "lowest.txt"), trials)
        attempt(python, wheel, ROOT / "constraints.txt", trials)
    for python in found:
        if python.missing:
            print(f"Python {python.version} was not covered: {python.missing}.")


if __name__ == "__main__":
    main()

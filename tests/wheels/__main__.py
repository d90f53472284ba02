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


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    """Run a command in an environment without Python's own variables; raises CalledProcessError."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(list(map(str, command)), check=True, cwd=cwd, env=kept | variables)


def pip(python: Path, *arguments: str | Path, **variables: str) -> None:
    """pip of an environment; it prints errors only."""
    run(python, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments, **variables)


def empty_environment(python: pythons.Python, folder: Path) -> Path:
    """A new virtual environment with pip alone; its interpreter."""
    run(python.path, "-m", "venv", "--clear", folder)
    return folder / "bin" / "python"


def build(environment: Path, folder: Path, trials: Trials) -> Path:
    """The wheel that `pip wheel .` makes, put into `folder`; nothing is installed."""
    shutil.rmtree(folder, ignore_errors=True)
    settings = [part for setting in trials.settings for part in ("--config-settings", setting)]
    where = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    pip(environment, "wheel", *where, *settings, ROOT, PYTHONPATH=str(trials.tools))
    (wheel,) = folder.glob("openwork-*.whl")
    contents.check(wheel, ROOT / "src")
    return wheel


def attempt(environment: Path, wheel: Path, constraints: Path) -> None:
    """Install the wheel with what it depends on, and nothing else, and let it build and run an engine."""
    print(f"{wheel.name}, versions of {constraints.name}: ", end="", flush=True)
    pip(environment, "install", "--no-compile", "--constraint", constraints, wheel)
    run(environment, "-I", INSIDE, cwd=environment.parent)


def cover(python: pythons.Python, oldest: bool, trials: Trials) -> None:
    """Build the wheel for one Python and try it; for the oldest, also with the lowest versions it allows."""
    folder = trials.folder / python.version
    environment = empty_environment(python, folder / "empty")
    wheel = build(environment, folder / "dist", trials)
    if oldest:
        attempt(environment, wheel, contents.lowest(wheel, folder / "lowest.txt"))
        environment = empty_environment(python, folder / "empty")
    attempt(environment, wheel, ROOT / "constraints.txt")


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
    for python in usable:
        cover(python, python is usable[0], trials)
    for python in found:
        if python.missing:
            print(f"Python {python.version} was not covered: {python.missing}.")


if __name__ == "__main__":
    main()

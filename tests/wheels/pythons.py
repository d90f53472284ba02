"""The Pythons that the package says it runs on, and where this machine has them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLASSIFIER = "Programming Language :: Python :: 3."
# A module is compiled with Python's headers, an environment made with ensurepip.
_PROBE = (
    "import ensurepip, pathlib, sys, sysconfig; "
    "sys.exit(not pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists())"
)


@dataclass(frozen=True)
class Python:
    """An interpreter of one version, or the reason why there is none."""

    version: str
    path: str = ""
    missing: str = ""


def stated_versions(pyproject: Path) -> list[str]:
    """The versions that the classifiers of pyproject.toml name, oldest first, such as "3.11"."""
    classifiers = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["classifiers"]
    minors = [text.removeprefix(CLASSIFIER) for text in classifiers if text.startswith(CLASSIFIER)]
    return [f"3.{minor}" for minor in sorted(minors, key=int)]


def find(version: str) -> Python:
    """The first interpreter of the version that can compile a module and make environments."""
    reason = f"no python{version} on PATH that answers"
    for path in _candidates(version):
        if not _answers(path, f"import sys; sys.exit(sys.version_info[:2] != (3, {version[2:]}))"):
            continue
        if _answers(path, _PROBE):
            return Python(version, path)
        reason = f"{path} lacks its headers or the module ensurepip"
    return Python(version, missing=reason)


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    if named := shutil.which(f"python{version}"):
        yield named
    # Under pyenv the name on PATH answers for the chosen versions only, though others are installed.
    if pyenv := shutil.which("pyenv"):
        prefix = subprocess.run([pyenv, "prefix", version], capture_output=True, text=True)
        if prefix.returncode == 0:
            yield f"{prefix.stdout.strip()}/bin/python{version}"


def _answers(path: str, code: str) -> bool:
    try:
        return subprocess.run([path, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False

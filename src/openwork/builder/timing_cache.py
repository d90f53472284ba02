"""Timings of earlier builds, kept as JSON between runs."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openwork.support.fields import EngineFileError, Field, parse_json
from openwork.support.files import resolved, write_atomic

log = logging.getLogger(__name__)

CACHE_VERSION = 1

Timings = dict[str, dict[str, float]]

_MEMBERS = frozenset({"version", "timings"})
_BEGINNING = re.compile(rb'\s*\{\s*"(timings|version)"')
_NOTHING = (b"", b"{", b"{}")
_HEAD = 4096


def default_path() -> Path:
    """`openwork/timings.json` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "openwork" / "timings.json"


@dataclass
class TimingCache:
    """Seconds of each tactic (form), by a key that names CPU, instruction set, threads, kernels and
    problem."""

    path: Path
    timings: Timings

    @classmethod
    def open(cls, path: Path) -> TimingCache:
        """Read the cache; one that is missing is empty, one that is damaged is ignored with a logged
        reason."""
        return cls(path, _read(path))

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> TimingCache:
        """The cache in a file that the caller names, which may be missing.

        Raises OSError for what cannot be a file, and ValueError for one that holds something else: saving
        would replace it.
        """
        target = resolved(path)
        if target.exists() and not _was_cache(target):
            raise ValueError(
                f"The timing cache '{os.fspath(path)}' would replace a file that is no timing cache; "
                "name another file, or remove it."
            )
        return cls.open(target)

    def get(self, key: str, tactics: tuple[str, ...]) -> dict[str, float] | None:
        """The times of all of `tactics`, or None where any is missing."""
        known = self.timings.get(key, {})
        return {tactic: known[tactic] for tactic in tactics} if all(t in known for t in tactics) else None

    def put(self, key: str, seconds: Mapping[str, float]) -> None:
        """Remember times; `save` writes them."""
        self.timings.setdefault(key, {}).update(seconds)

    def save(self) -> None:
        """Write the cache, keeping what another build has added meanwhile; a failure is logged, not
        raised."""
        merged = {**_read(self.path), **self.timings}
        text = json.dumps({"version": CACHE_VERSION, "timings": merged}, indent=1, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, [text.encode()])
        except OSError as error:
            log.warning("The timing cache was not written: %s.", str(error).rstrip("."))


def _read(path: Path) -> Timings:
    try:
        return _parse(parse_json(str(path), "timing cache", path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, EngineFileError) as error:
        log.warning("The timing cache is ignored: %s", error)
        return {}


def _was_cache(path: Path) -> bool:
    """Whether a file is empty, a timing cache, or one that was damaged: by its members, or where it cannot be
    parsed by how it begins."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if _BEGINNING.match(head) is None:
        return len(head) < _HEAD and head.strip() in _NOTHING
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return True
    return isinstance(document, dict) and document.keys() <= _MEMBERS


def _parse(document: Field) -> Timings:
    members = document.object(_MEMBERS)
    members["version"].integer(CACHE_VERSION, CACHE_VERSION)
    return {
        key: {tactic: seconds.number(1e-12, 1e6) for tactic, seconds in entry.members().items()}
        for key, entry in members["timings"].members().items()
    }

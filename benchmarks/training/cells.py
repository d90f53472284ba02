"""Results on disk, one file for each cell of a table, so that a run goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openwork.support.files import write_atomic

Settings = Mapping[str, Any]
Result = dict[str, Any]


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON to `path`, all or nothing."""
    write_atomic(path, [json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"])


class Cells:
    """A folder of finished cells. A cell that was interrupted has no file and is made anew.

    folder: made if it is not there. fresh: make every cell anew, whatever is stored.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.fresh = folder, fresh
        self._made: set[str] = set()

    def get(self, name: str, settings: Settings) -> Result | None:
        """The stored result of a cell, or None where there is none or it was made with other settings.

        Raises ValueError for a file that is no cell.
        """
        path = self.path(name)
        if not path.exists() or (self.fresh and name not in self._made):
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            made_with, result = stored["settings"], stored["result"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} is not a stored result ({error!r}); delete it to make it anew."
            ) from error
        return dict(result) if made_with == _plain(settings) else None

    def result(self, name: str, settings: Settings, make: Callable[[], Result]) -> Result:
        """The stored result of a cell, or what `make` returns, which is then stored."""
        stored = self.get(name, settings)
        if stored is not None:
            return stored
        made = make()
        write_json(self.path(name), {"cell": name, "settings": settings, "result": made})
        self._made.add(name)
        return dict(_plain(made))

    def path(self, name: str) -> Path:
        """The file of a cell: its name with a short digest, as names may hold what file names may not."""
        digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.{digest}.json"


def _plain(value: Any) -> Any:
    """The value as it comes back from JSON."""
    return json.loads(json.dumps(value))

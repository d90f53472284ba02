"""The work folder: what is there from an earlier run, and of the same settings, is not made again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openwork.support.files import write_atomic


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON to `path`, all or nothing."""
    write_atomic(path, [json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"])


class Store:
    """Files in a folder, each with the key of the settings that it was made with in `keys.json`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._keys_path = folder, folder / "keys.json"
        self._keys: dict[str, str] = {}
        if self._keys_path.exists():
            self._keys = json.loads(self._keys_path.read_text(encoding="utf-8"))

    def file(self, name: str, key: Mapping[str, Any], make: Callable[[Path], object]) -> Path:
        """The path of file `name`; `make` writes it where it is missing or was made with another key."""
        path, digest = self.folder / name, _digest(key)
        if path.exists() and self._keys.get(name) == digest:
            return path
        path.unlink(missing_ok=True)
        make(path)
        self._keys[name] = digest
        write_json(self._keys_path, self._keys)
        return path


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()

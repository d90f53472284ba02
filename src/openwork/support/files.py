"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

StrPath = str | os.PathLike[str]


def write_atomic(
    path: StrPath, chunks: Iterable[bytes | memoryview], check: Callable[[Path], None] | None = None
) -> None:
    """Write `chunks` to a temporary file beside `path`, flush it to the disk, then rename it to `path`.

    A reader sees the old file or the new one, never a part. A symbolic link stays one: what it leads to is
    written.
    check : is given the temporary file before it is renamed; what it raises leaves nothing behind.
    Raises what `output_file` raises, and OSError and leaves nothing behind where writing fails.
    """
    target = output_file(path)
    # Not the whole name, which may be as long as names can be.
    temporary = target.with_name(f".{target.name[:32]}.{secrets.token_hex(6)}.tmp")
    descriptor = _create(temporary, target)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def output_file(path: StrPath) -> Path:
    """The regular file that writing to `path` makes or replaces: the path with its links resolved.

    Long work asks this first, so that nothing is made that cannot be written.
    Raises TypeError for what is no path, and OSError, in a sentence, where there can be no file: an empty
    path, a folder, a device, a pipe, or a folder that is missing or may not be written to.
    """
    target = resolved(path)
    folder = target.parent
    if not folder.is_dir():
        found = "is no folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"The file '{os.fspath(path)}' cannot be written, since the folder '{folder}' {found}; make it, "
            "or write elsewhere."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"The file '{os.fspath(path)}' cannot be written, since the folder '{folder}' may not be written "
            "to; change its permissions, or write elsewhere."
        )
    return target


def resolved(path: StrPath) -> Path:
    """Where a path leads, which is a regular file or does not exist yet, in a folder that may be missing.

    Raises TypeError for what is no path, and OSError, in a sentence, for a path that leads to anything else.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"The path of a file to write is a str or a pathlib.Path, but it is of the type "
            f"{type(path).__name__}."
        )
    if not os.fspath(path):
        raise FileNotFoundError("The path of a file to write is empty; name the file.")
    target = Path(os.path.realpath(path))
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"'{os.fspath(path)}' is a folder; name a file to write.")
    if not stat.S_ISREG(mode):
        raise OSError(
            f"'{os.fspath(path)}' exists and is no regular file, and writing would replace it; name a file."
        )
    return target


def keep_apart(outputs: Iterable[StrPath | None], inputs: Iterable[StrPath | None] = ()) -> None:
    """Refuse, with a ValueError, an output that would replace an input or another output of the same work."""
    kept = [path for path in inputs if path is not None]
    for output in outputs:
        if output is None:
            continue
        if any(_same(output, other) for other in kept):
            raise ValueError(
                f"'{os.fspath(output)}' is to be written, but it is also what is read, or another output, "
                "and would be lost; name another file."
            )
        kept.append(output)


def _same(one: StrPath, other: StrPath) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _create(temporary: Path, target: Path) -> int:
    """A new file's descriptor; an error names the file that was asked for, not the hidden one beside it."""
    try:
        return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

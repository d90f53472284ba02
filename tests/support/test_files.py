"""Writing files: only regular ones are made or replaced, and what stands in the way is said in a sentence."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from openwork.support.files import keep_apart, output_file, write_atomic


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "target").write_bytes(b"old")
    for name, target in (("link", "far/target"), ("dangling", "far/new"), ("twice", "link")):
        (tmp_path / name).symlink_to(target)
        write_atomic(tmp_path / name, [b"new ", name.encode()])
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_bytes() == b"new " + name.encode()
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["new", "target"]


def test_a_pipe_is_refused_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=rf"{name}' exists and is no regular file, and writing would"):
            write_atomic(tmp_path / name, [b"new"])
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_places_where_no_file_can_be_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for path, message in {
        "": r"^The path of a file to write is empty; name the file\.$",
        ".": r"^'\.' is a folder; name a file to write\.$",
        str(tmp_path): "is a folder; name a file to write",
        "no/such/x.engine": rf"^The file 'no/such/x\.engine' cannot .* '{tmp_path}/no/such' does not exist",
        "file/x.engine": rf"the folder '{tmp_path}/file' is no folder; make it, or write elsewhere\.$",
        "x" * 256: "File name too long",
    }.items():
        for act in (output_file, lambda path: write_atomic(path, [b"new"])):
            with pytest.raises(OSError, match=message) as raised:
                act(path)
            assert ".tmp" not in str(raised.value)
    for odd in (None, 3, b"x.engine"):
        with pytest.raises(TypeError, match=r"a str or a pathlib\.Path, but it is of the type"):
            output_file(odd)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write_atomic(tmp_path / name, [b"new"])
        assert (tmp_path / name).read_bytes() == b"new"


def test_an_output_does_not_replace_an_input_or_another_output(tmp_path: Path) -> None:
    model, link, other = tmp_path / "m.onnx", tmp_path / "link", tmp_path / "other"
    model.write_bytes(b"model")
    link.symlink_to(model)
    os.link(model, other)
    for output in (model, link, other, tmp_path / "x" / ".." / "m.onnx"):
        with pytest.raises(ValueError, match="is to be written, but it is also what is read"):
            keep_apart((output,), (model,))
    with pytest.raises(ValueError, match="name another file"):
        keep_apart((tmp_path / "new", None, tmp_path / "new"))
    keep_apart((tmp_path / "new", tmp_path / "newer"), (model, None))

"""What `build` refuses before any work: options of the wrong kind, and files that it would destroy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from openwork.builder import draft, tactics
from openwork.builder.builder import build
from openwork.builder.timing_cache import TimingCache
from openwork.engine.engine_file import read_engine
from openwork.graph import ModelError
from qdq_models import two_layers

SHAPES = [[3], [20]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that reads its model has begun to work."""

    def read(source: object) -> None:
        raise AssertionError("The build began to work.")

    monkeypatch.setattr(draft, "read", read)


def built(folder: Path, **options: object) -> None:
    chosen = {"model": two_layers(), "output": folder / "m.engine", "threads": 1, "shapes": SHAPES}
    cache = {"timing_cache": folder / "timings.json", "progress": False}
    build(**(chosen | cache | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "shapes", "threads"),
    [
        ({"shapes": [[np.int64(3)]]}, ((3,),), 1),
        ({"shapes": np.array([[3], [20]])}, ((3,), (20,)), 1),
        ({"shapes": (np.array([3]), (20,))}, ((3,), (20,)), 1),
        ({"threads": np.int64(1)}, ((3,), (20,)), 1),
    ],
)
def test_whole_numbers_of_numpy_are_taken(
    tmp_path: Path, options: dict[str, object], shapes: tuple[tuple[int, ...], ...], threads: int
) -> None:
    built(tmp_path, **options)
    report = read_engine(tmp_path / "m.engine").report.members()
    assert report["settings"].value["shapes"] == [list(shape) for shape in shapes]
    assert report["environment"].value["threads"] == threads


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 1.5}, r"^The number of threads is a whole number, but it is 1\.5, of the type float\.$"),
        ({"threads": "2"}, "a whole number, but it is '2', of the type str"),
        ({"strict": 1}, "The option strict is True or False, but it is 1"),
        ({"verify": "no"}, "The option verify is True or False, but it is 'no'"),
        ({"threads": True}, "a whole number, but it is True, of the type bool"),
        ({"threads": 1 << 40}, "threads is at most 1024, but it is 1099511627776"),
        ({"shapes": "1x32"}, "The shapes are a list of shapes, .* but one is '1x32', of the type str"),
        ({"shapes": 3}, "The shapes are a list of shapes"),
        ({"shapes": [3]}, "A shape is a list of sizes, .* but one is 3, of the type int"),
        ({"shapes": ["3"]}, "A shape is a list of sizes, .* but one is '3', of the type str"),
        ({"shapes": [["a"]]}, "A size of a shape is a whole number, but it is 'a', of the type str"),
        ({"shapes": [[2.5]]}, r"a whole number, but it is 2\.5, of the type float"),
        ({"shapes": [[True]]}, "a whole number, but it is True, of the type bool"),
        ({"shapes": [[1 << 40]]}, "A size of a shape is at most 2147483647, but it is 1099511627776"),
        ({"shapes": np.array([[1.0]])}, r"a whole number, but it is np.float64\(1.0\)|but it is 1\.0"),
        ({"shapes": []}, "There are no shapes to time at"),
        ({"shapes": np.zeros((0, 1), int)}, "There are no shapes to time at"),
        ({"backends": 3}, r"The back ends are a list of names, like \['cpu'\], but they are 3"),
        ({"backends": [1]}, r"The back ends are a list of names, .* but they are \[1\]"),
        ({"backends": "gpu"}, "There is no back end 'gpu'; known are cpu"),
        ({"model": b"bytes"}, r"path of an ONNX file or an onnx\.ModelProto, but it is of the type bytes"),
        ({"model": None}, "of the type NoneType"),
        ({"model": onnx.GraphProto()}, "of the type GraphProto"),
        ({"output": None}, "The path of a file to write is a str"),
        ({"output": ""}, "is empty; name the file"),
        ({"output": "."}, r"'\.' is a folder"),
        ({"output": "no/such/x.engine"}, "no/such' does not exist; make it"),
        ({"timing_cache": "."}, r"'\.' is a folder"),
        ({"timing_cache": "m.engine"}, "is also what is read, or another output"),
    ],
)
@pytest.mark.usefixtures("idle")
def test_what_cannot_be_used_is_refused_before_any_work(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises((TypeError, ValueError, OSError), match=message):
        built(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_shape_whose_values_are_too_large_is_refused_untimed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"up to 2147483647 elements, but 1000000000 makes one of \d+, "):
        built(tmp_path, shapes=[[10**9]])
    assert not (tmp_path / "m.engine").exists()


def test_one_back_end_may_be_named_alone(tmp_path: Path) -> None:
    built(tmp_path, backends="cpu")
    assert {step.backend for step in read_engine(tmp_path / "m.engine").program.steps} == {"cpu"}


def _model(path: Path) -> None:
    onnx.save(two_layers(), path)


def _report(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "timings": {}, "model": "m"}))


OTHERS: dict[str, Callable[[Path], object]] = {
    "a model": _model,
    "a report": _report,
    "a text": lambda path: path.write_text("timings of my own\n"),
    "a list": lambda path: path.write_text("[]"),
    "blanks first": lambda path: path.write_text(" " * 5000 + "a text"),
    "a word in braces": lambda path: path.write_text("{timings}"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("idle")
def test_a_timing_cache_replaces_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / "victim"
    OTHERS[name](path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="victim' would replace a file that is no timing cache; name"):
        built(tmp_path, timing_cache=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", " \n", "{", "{}", '{\n "timings": {"a', '{"version": 2, "timings": {}}']
)
def test_an_empty_or_damaged_cache_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "timings.json").write_text(content)
    built(tmp_path)
    assert TimingCache.open(tmp_path / "timings.json").timings


@pytest.mark.usefixtures("idle")
def test_a_pipe_is_no_timing_cache(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is no regular file"):
        built(tmp_path, timing_cache=tmp_path / "pipe")


@pytest.mark.usefixtures("idle")
def test_an_engine_does_not_replace_its_model(tmp_path: Path) -> None:
    _model(tmp_path / "m.onnx")
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    before = (tmp_path / "m.onnx").read_bytes()
    for model, output in (("m.onnx", "m.onnx"), ("link.onnx", "m.onnx"), ("m.onnx", "link.onnx")):
        with pytest.raises(ValueError, match="is also what is read"):
            built(tmp_path, model=tmp_path / model, output=tmp_path / output)
    assert (tmp_path / "m.onnx").read_bytes() == before


@pytest.mark.parametrize("ending", ["json", "textproto", "onnxtxt", "txtpb", "onnx"])
def test_a_model_is_read_by_its_content_whatever_its_name(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"bad.{ending}").write_text("garbage")
    with pytest.raises(ModelError, match=rf"bad\.{ending} is not a whole ONNX model"):
        built(tmp_path, model=tmp_path / f"bad.{ending}")
    (tmp_path / f"good.{ending}").write_bytes(two_layers().SerializeToString())
    built(tmp_path, model=tmp_path / f"good.{ending}")
    assert read_engine(tmp_path / "m.engine").program.steps

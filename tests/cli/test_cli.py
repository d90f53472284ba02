"""The command line: what it prints and writes, and one sentence with exit code 2 for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from openwork.builder import tactics
from openwork.cli import app
from openwork.cli.options import parse_shapes
from openwork.engine.report import read_report
from openwork.support.fields import Field
from qdq_models import Net, magnitude_pruned, two_layers

runner = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a cache folder of its own, and timings that take no time."""
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    onnx.save(two_layers(), tmp_path / "m.onnx")
    onnx.save(two_layers(exotic="Sin"), tmp_path / "sin.onnx")
    return tmp_path


@pytest.fixture
def built(folder: Path) -> Path:
    run("build", folder / "m.onnx", "-o", folder / "m.engine", "--shapes", "8,64")
    return folder / "m.engine"


def run(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + result.stderr
    return result.stdout if code == 0 else result.stderr


def written(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_build_shows_the_layers_and_writes_the_report(folder: Path) -> None:
    out = run(
        "build", folder / "m.onnx", "-o", folder / "m.engine", "--shapes", "8,64", "--json", folder / "r.json"
    )
    assert "m.onnx: 2 layers with weights" in out
    assert "96x64" in out
    assert "Dense, 1 of 2 layers: The weights hold no pattern that a sparse kernel runs.\n" in out
    assert "(Sparsity) Layers eligible for sparse math: first\n" in out
    assert f"Wrote {folder / 'm.engine'} ({(folder / 'm.engine').stat().st_size:,} bytes)" in out.replace(
        "\n", ""
    )
    report = read_report(Field("r.json", "report", written(folder / "r.json")))
    assert report.settings.shapes == ((8,), (64,))
    assert (folder / "cache" / "openwork" / "timings.json").exists()


def test_build_options_reach_the_build(folder: Path) -> None:
    options = (
        "--sparsity",
        "force",
        "--rounding",
        "relaxed",
        "--precision",
        "bf16",
        "--threads",
        "1",
        "--timing-cache",
        folder / "t.json",
        "--json",
        folder / "r.json",
    )
    out = run("build", folder / "sin.onnx", "-o", folder / "m.engine", "--shapes", "4", *options)
    assert "(Fallback) fallback.1 runs in ONNX Runtime. Sin 'sin6'" in out
    assert "pruned 1 layer to 2:4 by magnitude" in out
    assert (folder / "t.json").exists()
    assert written(folder / "r.json")["environment"]["threads"] == 1
    assert written(folder / "r.json")["settings"]["precision"] == "bf16"


def test_bench_times_each_shape(built: Path, folder: Path) -> None:
    out = run(
        "bench",
        built,
        "--shapes",
        "1,16",
        "--threads",
        "1",
        "--duration",
        "0.01",
        "--profile",
        "--json",
        folder / "b.json",
    )
    assert out.count("=== Performance summary ===") == 2
    assert "Throughput:" in out
    assert "quantizelinear0" in out
    record = written(folder / "b.json")
    assert list(record["shapes"]) == ["1", "16"]
    assert record["threads"] == 1
    assert record["shapes"]["16"]["median"] > 0
    assert [step["name"] for step in record["shapes"]["1"]["profile"]] == [
        "quantizelinear0",
        "first",
        "second",
    ]


def test_bench_has_default_shapes(built: Path) -> None:
    assert run("bench", built, "--duration", "0.01").count("=== Performance summary ===") == 2


def test_inspect_shows_what_an_engine_holds(built: Path, folder: Path) -> None:
    out = run("inspect", built, "--json", folder / "i.json")
    assert "batch x 64" in out
    assert "(Sparsity) Layers eligible for sparse math: first" in out
    found = written(folder / "i.json")
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 64]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["batch", 32]}]
    assert [step["op"] for step in found["steps"]] == ["quantize", "linear", "linear"]
    assert found["bytes"] == built.stat().st_size
    assert found["report"]["layers"][0]["pattern"] == "2:4"


def test_inspect_shows_the_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = run("inspect", "--machine", "--json", folder / "machine.json")
    document = json.loads((folder / "machine.json").read_text())
    sets = {each["name"]: each for each in document["instruction_sets"]}
    assert sets[document["isa"]]["lacks"] is None
    assert f"{document['isa']}: runs, and is the one in use" in out
    assert all(
        f"not here: this machine has no {each['lacks']}" in out for each in sets.values() if each["lacks"]
    )
    assert "runs where OPENWORK_ISA=amx_emulated asks for it" in out
    monkeypatch.setenv("OPENWORK_ISA", "none-such")
    assert '"none-such" of the environment variable OPENWORK_ISA is unknown' in run("inspect", "--machine")
    for wrong in ((), ("m.engine", "--machine")):
        assert "one of the two" in run("inspect", *wrong, code=2)
    assert "--verify reads an engine file" in run("inspect", "--machine", "--verify", code=2)


def test_inspect_finds_altered_bytes_where_asked(built: Path, folder: Path) -> None:
    said = "Every tensor has the digest that was written with it."
    assert said not in run("inspect", built)
    assert said in run("inspect", built, "--verify")
    content = bytearray(built.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header] ^= 1
    (folder / "altered.engine").write_bytes(content)
    run("inspect", folder / "altered.engine")
    error = run("inspect", folder / "altered.engine", "--verify", code=2)
    assert "expected the bytes that were written" in error


def test_every_pattern_is_shown_within_80_columns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    net = Net(np.random.default_rng(0))
    patterns = ("2:4@2", "4x1:0.8", "4x16:0.85", "1x1:0.9")
    for number, pattern in enumerate(patterns):
        net.linear(f"encoder.layer.{number}.dense", 192, 192, relu=True, prune=magnitude_pruned(pattern))
    onnx.save(net.model(192, 192), folder / "s.onnx")
    built = run("build", folder / "s.onnx", "-o", folder / "s.engine", "--shapes", "1,64,1024")
    shown = run("inspect", folder / "s.engine", "--json", folder / "s.json")
    for out in (built, shown):
        lines = [line for line in out.splitlines() if "192x192" in line]
        assert [line.split()[2] for line in lines] == list(patterns)
        assert all(len(line) <= 80 and line.split()[-1].endswith("x") for line in lines)
        assert any(line.split()[-5:] == ["Zeros", "Stored", "1", "64", "1024"] for line in out.splitlines())
    report = written(folder / "s.json")["report"]
    assert [layer["pattern"] for layer in report["layers"]] == list(patterns)
    assert all(layer["work"] for layer in report["layers"])


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no model": (("build", "none.onnx", "-o", "x.engine"), "none.onnx is not a file"),
    "no onnx": (("build", "broken", "-o", "x.engine"), "broken"),
    "no folder": (("build", "m.onnx", "-o", "none/x.engine"), "none' does not exist; make it"),
    "bad shapes": (
        ("build", "m.onnx", "-o", "x.engine", "--shapes", "1y32"),
        "Shapes are written like 1x32,1x128",
    ),
    "other shapes": (("build", "m.onnx", "-o", "x.engine", "--shapes", "1x32"), "(batch), but one is 1x32."),
    "bad mode": (("build", "m.onnx", "-o", "x.engine", "--sparsity", "very"), "one of off, on, force"),
    "bad rounding": (("build", "m.onnx", "-o", "x.engine", "--rounding", "no"), "'exact' or 'relaxed'"),
    "bad precision": (("build", "m.onnx", "-o", "x.engine", "--precision", "fp16"), "fp32, bf16, int8"),
    "strict": (("build", "sin.onnx", "-o", "x.engine", "--strict"), "The build is strict, but"),
    "no engine": (("bench", "none.engine"), "none.engine: No such file or directory."),
    "not an engine": (("bench", "m.onnx"), "'m.onnx' is no engine file; build one with `openwork build`."),
    "a folder": (("inspect", "."), ".: expected a file, found something else."),
    "broken engine": (("inspect", "broken"), "'broken' is no engine file; build one with"),
    "bench shapes": (("bench", "m.engine", "--shapes", "1x2"), "(batch), but one is 1x2."),
    "json nowhere": (("inspect", "m.engine", "--json", "none/x.json"), "none' does not exist; make it"),
    "json over the model": (
        ("build", "m.onnx", "-o", "x.engine", "--json", "m.onnx"),
        "'m.onnx' is to be written, but it is also what is read",
    ),
    "json over the engine that is made": (
        ("build", "m.onnx", "-o", "x.engine", "--json", "x.engine"),
        "'x.engine' is to be written, but it is also what is read, or another output",
    ),
    "json over the engine that is read": (
        ("bench", "m.engine", "--json", "m.engine"),
        "is to be written, but",
    ),
    "inspect over itself": (
        ("inspect", "m.engine", "--json", "m.engine"),
        "is to be written, but it is also",
    ),
    "json nowhere, after a build": (
        ("build", "m.onnx", "-o", "x.engine", "--json", "none/x.json"),
        "none' does not exist; make it",
    ),
    "a folder to write": (("build", "m.onnx", "-o", "."), "'.' is a folder; name a file to write."),
    "cache over the model": (
        ("build", "m.onnx", "-o", "x.engine", "--timing-cache", "m.onnx"),
        "'m.onnx' is to be written, but it is also what is read",
    ),
    "quantize nowhere": (("quantize", "m.onnx", "-o", "none/q.onnx"), "none' does not exist; make it"),
    "quantize over the model": (
        ("quantize", "m.onnx", "-o", "m.onnx"),
        "is to be written, but it is also what",
    ),
    "scales nowhere to be told of": (
        ("quantize", "m.onnx", "-o", "q.onnx", "--json", "none/x.json"),
        "none' does not exist; make it",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(
    name: str, built: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "broken").write_bytes(b"\xff" * 100)
    before = sorted(path.name for path in folder.iterdir())
    arguments, message = BAD[name]
    err = run(*arguments, code=2)
    assert message in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == before


def test_an_instruction_set_that_is_not_here_is_refused(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWORK_ISA", "sse9")
    assert "sse9" in run("bench", built, code=2)


def test_wrong_usage_is_exit_code_2() -> None:
    for arguments in (("build",), ("bench",), ("fly",), ("bench", "x", "--threads", "0")):
        run(*arguments, code=2)


def test_the_program_runs_as_a_module(built: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "openwork", "inspect", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "batch x 64" in done.stdout


@pytest.mark.parametrize("text", ["", "1x", "x", "1,", "-1", "1.5", "1x2y", "٣", "9999999999"])
def test_shapes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Shapes are written like"):
        parse_shapes(text)


def test_shapes_are_parsed() -> None:
    assert parse_shapes("1x32, 16x128") == ((1, 32), (16, 128))
    assert parse_shapes("7") == ((7,),)
    assert parse_shapes(None) is None

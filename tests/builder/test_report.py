"""The build report: its JSON goes out and comes back, is checked, and is what docs/build_report.md says."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from openwork.engine import report as reports
from openwork.engine.report import (
    REPORT_VERSION,
    Bucket,
    BuildReport,
    Environment,
    FallbackPart,
    Fusion,
    Layer,
    LeftOut,
    Pick,
    Refusal,
    Settings,
    WholeTime,
    read_report,
)
from openwork.support.fields import EngineFileError, Field

DOCUMENT = Path(__file__).parents[2] / "docs" / "build_report.md"


def layer(name: str, pattern: str | None, tactic: str) -> Layer:
    buckets = (Bucket(32, {"dense": 2e-5, "window8": 1e-5}, tactic, False),)
    return Layer(
        name=name,
        n=8,
        k=16,
        element="i8",
        activation="none",
        output="f32",
        pattern=pattern,
        zeros=0.5,
        eligible=pattern is not None,
        reason="A reason.",
        work={} if pattern is None else {"window8": 0.7},
        buckets=buckets,
        picks=(Pick(64, tactic), Pick(None, "dense")),
        why="A sentence.",
        bytes_dense=128,
        bytes_stored=80,
    )


def report() -> BuildReport:
    return BuildReport(
        version=REPORT_VERSION,
        model="m.onnx",
        environment=Environment("0.1", "a CPU", "avx2", 2, "k1"),
        settings=Settings("on", "exact", "fp32", "on", True, ((1, 32),), False),
        accuracy_kept=True,
        notes=("A note.",),
        layers=(layer("a", "2:4", "window8"), layer("b", "2:4", "dense"), layer("c", None, "dense")),
        fusions=(Fusion("relu", "Relu 'r'"),),
        refusals=(Refusal("gelu", "Erf 'e'", "why"),),
        left_out=(LeftOut("Dequantize 'd'", "A sentence."),),
        fallbacks=(FallbackPart("f", "ONNX Runtime", ("Sin 's'",), "Sin 's': no rule."),),
        whole=(WholeTime((1, 32), {"native": 1e-3, "onnxruntime": 2e-3}),),
    )


def parsed(document: Any) -> BuildReport:
    return read_report(Field("x.engine", "report", json.loads(json.dumps(document))))


def test_it_comes_back_from_json() -> None:
    assert parsed(report().to_json()) == report()


def test_the_lines_that_users_look_for() -> None:
    assert report().lines() == [
        "(Sparsity) Layers eligible for sparse math: a, b",
        "(Sparsity) The plan picked sparse implementation for layers: a",
        "(Fallback) f runs in ONNX Runtime. Sin 's': no rule.",
        "(Whole) 1x32: native 1 ms, onnxruntime 2 ms",
        "(Rounding) 1 rounding between float operators left out, as asked; the report lists them.",
        "A note.",
    ]
    assert replace(report(), layers=()).lines()[0] == "(Sparsity) Layers eligible for sparse math: none"


def test_a_long_fallback_is_cut_in_the_log() -> None:
    part = FallbackPart("f", "ONNX Runtime", tuple("abcde"), "long")
    assert (
        str(part) == "f runs in ONNX Runtime: a, b, c and 2 more nodes; the report has the reason for each."
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 1, "expected a build report of version 5"),
        (("accuracy_kept",), 1, "'report.accuracy_kept': expected true or false, found 1"),
        (("environment", "threads"), "2", "'report.environment.threads': expected an integer"),
        (("layers", 1, "zeros"), "x", "'report.layers[1].zeros': expected a number"),
        (("layers", 0, "buckets", 0, "seconds", "dense"), None, "seconds.dense': expected a number"),
        (
            ("layers", 0, "extra"),
            None,
            "'report.layers[0]': expected an object without the unknown member 'extra'",
        ),
        (("layers",), {}, "'report.layers': expected an array"),
        (("notes", 0), 3, "'report.notes[0]': expected a string"),
        (("settings",), [], "'report.settings': expected an object"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[str | int, ...], value: Any, message: str) -> None:
    document: Any = json.loads(json.dumps(report().to_json()))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(EngineFileError, match=r"x\.engine") as raised:
        parsed(document)
    assert message in str(raised.value)


def test_a_missing_field_is_named() -> None:
    document = report().to_json()
    del document["layers"][0]["why"]
    with pytest.raises(EngineFileError, match="with the member 'why'"):
        parsed(document)


RECORDS = {"Report": BuildReport} | {
    kind.__name__: kind
    for kind in (Environment, Settings, Layer, Bucket, Pick, Fusion, Refusal, FallbackPart)
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_document_lists_exactly_the_fields(name: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert section is not None, name
    rows = [line.split("|")[1] for line in section[1].splitlines() if line.startswith("| `")]
    documented = [field for row in rows for field in re.findall(r"`(\w+)`", row)]
    assert documented == [field.name for field in fields(RECORDS[name])]
    assert getattr(reports, RECORDS[name].__name__) is RECORDS[name]


def test_the_base_is_the_fastest_that_leaves_no_zero_out() -> None:
    def base(**seconds: float) -> str:
        return Bucket(8, {name.replace("_", ":"): s for name, s in seconds.items()}, "dense", False).base

    assert base(dense=2.0, window8=1.0) == "dense"
    assert base(dense=2.0, tiles=1.5, tiles64=1.0, tilespacked=0.5) == "tiles"
    assert base(window8=2.0, tiles16=1.0) == "window8"
    # Another element type is no other way to run the same numbers.
    assert base(f32_dense=2.0, bf16_dense=1.0, bf16_tiles=0.5) == "f32:dense"

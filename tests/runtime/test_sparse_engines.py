"""Whole engines over weights of every kind of pattern: built, stored, read, and the dense engine's bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import openwork
from engine_files import rewritten
from openwork import _native
from openwork.backends.cpu.packing import for_few_rows
from openwork.builder import tactics
from openwork.builder.builder import build
from openwork.engine.engine_file import read_engine, write_engine
from openwork.engine.program import Choice, Program
from openwork.graph import read, reduce
from openwork.graph.reference import run as reference
from openwork.patterns.bitmap import compress
from openwork.sparsity import GroupPattern, Pattern
from openwork.support.fields import EngineFileError
from qdq_models import Net, magnitude_pruned

ISAS = tuple(_native.isas())
PATTERNS = ("2:4@2", "2:4@4", "4:16@4", "4x1:0.8", "4x16:0.85", "1x1:0.9")
ROWS = (1, 7, 33)
K, INNER, N = 128, 144, 48


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time each tactic only a few times, whatever else runs."""
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
    monkeypatch.setattr(tactics, "DISTURBED", np.inf)


def model_of(pattern: str) -> onnx.ModelProto:
    """128 -> 144 (ReLU) -> 48, both layers pruned."""
    net = Net(np.random.default_rng(3))
    net.linear("first", INNER, K, relu=True, prune=magnitude_pruned(pattern))
    net.linear("second", N, INNER, prune=magnitude_pruned(pattern))
    return net.model(K, N)


def built(pattern: str, folder: Path, **options: Any) -> Path:
    path = folder / f"{options.get('sparsity', 'on')}.engine"
    options = {"shapes": [[1], [40]], "threads": 1, "timing_cache": folder / "t.json"} | options
    build(model_of(pattern), path, progress=False, **options)
    return path


def with_tactics(path: Path, *chosen: Choice) -> Path:
    """The engine with other tactics for every linear step."""
    file = read_engine(path)
    steps = tuple(
        replace(step, tactics=chosen) if step.op == "linear" else step for step in file.program.steps
    )
    program = Program(file.program.inputs, file.program.outputs, file.program.values, steps)
    write_engine(path.with_suffix(".other"), program, file.report.value, file.tensors)
    return path.with_suffix(".other")


def inputs(rows: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, K)).astype(np.float32)}


def bits(path: Path, isa: str, rows: int) -> np.ndarray:
    return openwork.load(path, threads=1, isa=isa).run(inputs(rows))["y"].view(np.uint32)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sparse_engines_have_the_bits_of_dense_ones(pattern: str, tmp_path: Path) -> None:
    dense, sparse = built(pattern, tmp_path, sparsity="off"), built(pattern, tmp_path)
    reduced, _, _ = reduce(read(model_of(pattern)))
    for rows in ROWS:
        expected = reference(reduced, inputs(rows))["y"].view(np.uint32)
        np.testing.assert_array_equal(bits(dense, ISAS[0], rows), expected)
        for isa in ISAS:
            np.testing.assert_array_equal(bits(sparse, isa, rows), expected, err_msg=f"{isa}, {rows} rows")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pattern", ["2:4@2", "4x16:0.85"])
def test_every_tactic_has_the_same_bits(pattern: str, isa: str, tmp_path: Path) -> None:
    path = built(pattern, tmp_path)
    forms = [form.name for form in _native.forms(isa) if form.name != "depthwise"]
    expected = bits(with_tactics(path, Choice(None, "dense")), isa, 33)
    for form in forms:
        path_of_form = with_tactics(path, Choice(8, "dense"), Choice(None, form))
        np.testing.assert_array_equal(bits(path_of_form, isa, 33), expected, err_msg=form)


@pytest.mark.parametrize("isa", ISAS)
def test_a_build_for_each_instruction_set_runs_on_all(
    isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bits(built("1x1:0.9", tmp_path, sparsity="off"), ISAS[-1], 7)
    monkeypatch.setenv("OPENWORK_ISA", isa)
    path = built("1x1:0.9", tmp_path)
    report = openwork.load(path, threads=1).report
    assert report.environment.isa == isa
    assert all(set(layer.work) <= {form.name for form in _native.forms(isa)} for layer in report.layers)
    for other in ISAS:
        np.testing.assert_array_equal(bits(path, other, 7), expected, err_msg=other)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_report_and_the_file_say_the_pattern(pattern: str, tmp_path: Path) -> None:
    file = read_engine(built(pattern, tmp_path))
    report = openwork.load(tmp_path / "on.engine", threads=1).report
    kind = "indices" if isinstance(Pattern.parse(pattern), GroupPattern) else "bitmap"
    for layer in report.layers:
        assert (layer.pattern, layer.eligible, layer.reason) == (
            pattern,
            True,
            f"The weights hold {pattern}.",
        )
        stored = [file.tensors[f"{layer.name}.weight.{part}"] for part in ("values", kind)]
        assert layer.bytes_stored == sum(array.nbytes for array in stored) < layer.bytes_dense
        assert min(layer.work.values()) < 1
        for bucket in layer.buckets:
            packed = [form for form in bucket.seconds if for_few_rows(form)]
            assert "dense" in bucket.seconds
            assert bool(packed) == (bucket.rows <= 32 and any(map(for_few_rows, layer.work)))
            assert len(bucket.seconds) - len(packed) <= 6
    assert all(step.pattern == pattern for step in file.program.steps if step.op == "linear")


def test_shared_forms_are_timed_where_weights_share_masks(tmp_path: Path) -> None:
    def timed(pattern: str) -> set[str]:
        report = openwork.load(built(pattern, tmp_path), threads=1).report
        return {form for layer in report.layers for form in layer.buckets[-1].seconds}

    shared = {
        form.name for form in _native.forms(_native.active_isa()) if form.body == "windows" and form.share > 1
    }
    assert not timed("2:4") & {name for name in shared if _native.form(name).reach == 8}
    assert timed("2:4@2") & shared


def test_force_leaves_found_patterns_alone(tmp_path: Path) -> None:
    report = openwork.load(built("4x1:0.8", tmp_path, sparsity="force"), threads=1).report
    assert report.accuracy_kept
    assert {layer.pattern for layer in report.layers} == {"4x1:0.8"}


def test_the_cache_of_another_layout_of_zeros_is_not_used(tmp_path: Path) -> None:
    built("4x1:0.8", tmp_path)
    known = json.loads((tmp_path / "t.json").read_text())["timings"]
    assert {key.split("; ")[4].split()[1] for key in known} == {"4x1:0.8"}
    assert all("; work " in key for key in known)
    again = openwork.load(built("4x1:0.8", tmp_path), threads=1).report
    assert all(bucket.cached for layer in again.layers for bucket in layer.buckets)
    other = openwork.load(built("1x1:0.9", tmp_path), threads=1).report
    assert not any(bucket.cached for layer in other.layers for bucket in layer.buckets)


def test_a_tactic_of_another_machine_is_replaced_by_the_least_work(tmp_path: Path) -> None:
    path = built("2:4@2", tmp_path)
    expected = bits(with_tactics(path, Choice(None, "dense")), "scalar", 7)
    other = with_tactics(path, Choice(4, "window4096packed"), Choice(None, "window4096x2"))
    for isa in ISAS:
        np.testing.assert_array_equal(bits(other, isa, 7), expected)


def weight_of(path: Path) -> tuple[str, Program, dict[str, np.ndarray]]:
    file = read_engine(path)
    name = next(step.tensors["weight"] for step in file.program.steps if step.op == "linear")
    return name, file.program, dict(file.tensors)


def rewrite(path: Path, change: Callable[[str, dict[str, np.ndarray]], None]) -> Path:
    name, program, tensors = weight_of(path)
    change(name, tensors)
    write_engine(path, program, read_engine(path).report.value, tensors)
    return path


def cut(name: str, tensors: dict[str, np.ndarray]) -> None:
    tensors[f"{name}.values"] = tensors[f"{name}.values"][:-1]


def narrower(name: str, tensors: dict[str, np.ndarray]) -> None:
    tensors[f"{name}.bitmap"] = tensors[f"{name}.bitmap"][:, :-1]


def zeroed(name: str, tensors: dict[str, np.ndarray]) -> None:
    values = tensors[f"{name}.values"].copy()
    values[5] = 0
    tensors[f"{name}.values"] = values


def fuller(name: str, tensors: dict[str, np.ndarray]) -> None:
    full = compress(np.ones((INNER, K), np.int8))
    tensors |= {f"{name}.values": full.values, f"{name}.bitmap": full.bits}


def signed(name: str, tensors: dict[str, np.ndarray]) -> None:
    tensors[f"{name}.bitmap"] = tensors[f"{name}.bitmap"].view(np.int8)


def swapped(name: str, tensors: dict[str, np.ndarray]) -> None:
    parts = [tensors[f"{name}.values"], tensors[f"{name}.bitmap"]]
    tensors[f"{name}.bitmap"], tensors[f"{name}.values"] = parts


def fewer_rows(name: str, tensors: dict[str, np.ndarray]) -> None:
    less = compress(np.eye(INNER - 1, K, dtype=np.int8))
    tensors |= {f"{name}.values": less.values, f"{name}.bitmap": less.bits}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "bits set and so as many values, but"),
        (narrower, "expected a bitmap [n, 16] for 128 input channels"),
        (zeroed, "a zero among its values, at 5"),
        (fuller, "breaks its pattern 4x1:0.8: 4608 blocks are non-zero where 4x1:0.8 allows 922"),
        (signed, "s8, bf16 or f32 values [bits set] and a u8 bitmap"),
        (swapped, "s8, bf16 or f32 values [bits set] and a u8 bitmap"),
        (fewer_rows, "in agreement with the other shapes"),
    ],
)
def test_lying_bitmaps_are_refused(
    change: Callable[[str, dict[str, np.ndarray]], None], message: str, tmp_path: Path
) -> None:
    path = rewrite(built("4x1:0.8", tmp_path), change)
    with pytest.raises(EngineFileError, match=r"on\.engine: field 'program") as e:
        openwork.load(path, threads=1)
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("4x1:0.95", "breaks its pattern 4x1:0.95"),
        ("999999999x999999999:0.5", "expected blocks within a weight of [144, 128]"),
        ("1x129:0.5", "expected blocks within a weight of [144, 128]"),
        ("2:4", "expected the name of a tensor of the file"),
        ("4y1", "expected the name of a pattern"),
        (None, "expected the name of a tensor of the file"),
    ],
)
def test_lying_patterns_are_refused(pattern: str | None, message: str, tmp_path: Path) -> None:
    path = built("4x1:0.8", tmp_path)

    def lie(header: dict[str, Any], program: dict[str, Any]) -> None:
        next(step for step in program["steps"] if step["op"] == "linear")["pattern"] = pattern

    path.write_bytes(rewritten(path, lie))
    with pytest.raises(EngineFileError) as error:
        openwork.load(path, threads=1)
    assert message in str(error.value)

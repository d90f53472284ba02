"""Engines whose every field may lie, with right digests: they load and run, or are refused in a sentence."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openwork
from engine_files import REPORT, rewritten
from engine_samples import dense_tensor, encoder, encoder_inputs, pruned
from openwork.engine.engine_file import write_engine
from openwork.engine.program import Choice, Program
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import arrays, store
from openwork.support import bf16
from openwork.support.fields import EngineFileError

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 255, 256, 2**31, 2**63, 2**70, 0.0, -0.5, 1e-300, 1e300)
TEXTS = (
    "",
    "x",
    "u8",
    "f32",
    "i64",
    "batch",
    "length",
    "dense",
    "window64x2",
    "blocks4",
    "bf16",
    "BF16",
    "bf16:dense",
)
PATTERNS = ("2:4", "1:4", "4:16", "2:4@2", "1x1:0.5", "4x4:0.5", "4x1:0.99", "99999999x9999999:0.5")
NAMES = ("linear", "attention", "word")
STRUCTURES: tuple[Any, ...] = ([], {}, [0], [1, 2], {"a": 1}, ["batch", "length"], ["batch", "length", 16])
VALUES: tuple[Any, ...] = (None, True, False, *NUMBERS, *TEXTS, *PATTERNS, *NAMES, *STRUCTURES)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every member and element of a JSON document."""
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document if isinstance(document, list) else [])
    )
    return [inner for key, item in items for inner in [(*path, key), *places(item, (*path, key))]]


def mutate(document: Any, rng: np.random.Generator) -> None:
    """Change one place: another value, a copy of another place, removed, or repeated."""
    paths = places(document)
    path = paths[rng.integers(len(paths))]
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    kind = rng.integers(4)
    if kind == 0:
        parent[path[-1]] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    elif kind == 1:
        value = document
        for key in paths[rng.integers(len(paths))]:
            value = value[key]
        parent[path[-1]] = copy.deepcopy(value)
    elif kind == 2:
        del parent[path[-1]]
    elif isinstance(parent, list):
        parent.insert(path[-1], copy.deepcopy(parent[path[-1]]))
    else:
        parent[f"{path[-1]}2"] = copy.deepcopy(parent[path[-1]])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("pattern", ["2:4", "4x1:0.5"])
def test_lies_are_refused_or_harmless(seed: int, pattern: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    good, path = tmp_path / "good.engine", tmp_path / "lie.engine"
    program, tensors = encoder(pattern=pattern)
    write_engine(good, program, REPORT.to_json(), tensors)
    refused = 0
    for _ in range(60):
        content = lied(good, rng)
        if content is None:
            continue
        path.write_bytes(content)
        message = outcome(path)
        assert message is None or message.startswith(f"{path}: "), message
        refused += message is not None
    assert refused > 30, f"seed {seed}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pattern", ["2:4", "4:16@2", "4x1:0.5", "1x1:0.5"])
def test_lying_weights_are_refused_or_other_weights(seed: int, pattern: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "lie.engine"
    program, tensors = encoder(pattern=pattern)
    truth = weights(program, tensors)
    compressed = [name for name in tensors if name.endswith((".values", ".indices", ".bitmap"))]
    refused = 0
    for _ in range(40):
        lying = {**tensors}
        name = compressed[rng.integers(len(compressed))]
        lying[name] = distorted(tensors[name], rng)
        write_engine(path, program, REPORT.to_json(), lying)
        message = outcome(path)
        assert message is None or message.startswith(f"{path}: "), message
        refused += message is not None
        if message is None and not np.array_equal(lying[name], tensors[name]):
            assert weights(program, lying) != truth, f"seed {seed}: {name}"
    assert refused > 5, f"seed {seed}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", [None, "2:4", "1x1:0.5"])
def test_lies_about_weights_of_bf16_are_refused_or_harmless(
    seed: int, pattern: str | None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    good, path = tmp_path / "good.engine", tmp_path / "lie.engine"
    program, tensors, names = with_bf16(pattern)
    write_engine(good, program, REPORT.to_json(), tensors)
    assert outcome(good) is None
    refused = 0
    for count in range(60):
        if count % 2:
            name = names[rng.integers(len(names))]
            write_engine(path, program, REPORT.to_json(), {**tensors, name: distorted(tensors[name], rng)})
        elif (content := lied(good, rng)) is not None:
            path.write_bytes(content)
        message = outcome(path)
        assert message is None or message.startswith(f"{path}: "), message
        refused += message is not None
    assert refused > 20, f"seed {seed}"


def with_bf16(pattern: str | None) -> tuple[Program, dict[str, np.ndarray], list[str]]:
    """The encoder with its product of floats in BF16, and the names of that weight's arrays."""
    program, tensors = encoder()
    place = next(n for n, step in enumerate(program.steps) if step.tensors.get("weight") == "projection")
    whole = tensors.pop("projection")
    halves = bf16.weights(whole if pattern is None else pruned(whole, pattern).astype(np.float32))
    assert halves is not None
    kept = {"projection": halves}
    if pattern is not None:
        kept = arrays("projection", store(halves, Pattern.parse(pattern)))
    step = replace(program.steps[place], pattern=pattern, tactics=(Choice(None, "bf16:dense"),))
    steps = (*program.steps[:place], step, *program.steps[place + 1 :])
    return replace(program, steps=steps), {**tensors, **kept}, list(kept)


def weights(program: Program, tensors: dict[str, np.ndarray]) -> list[bytes]:
    """Every integer layer's dense weight."""
    steps = [step for step in program.steps if "weight_scale" in step.tensors]
    return [dense_tensor(step.tensors["weight"], step, program, tensors).tobytes() for step in steps]


def distorted(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some bytes altered, or the last row or column cut off or repeated."""
    kind = rng.integers(5)
    if kind < 2:
        other = array.copy()
        places = rng.integers(other.size, size=rng.integers(1, 4))
        other.reshape(-1).view(np.uint8)[places] = rng.choice([0, 1, 128, 255], len(places))
        return other
    axis = -1 if kind < 4 else 0
    if kind % 2 and array.shape[axis] > 1:
        return np.ascontiguousarray(np.delete(array, -1, axis))
    return np.append(array, np.take(array, [-1], axis), axis)


def lied(good: Path, rng: np.random.Generator) -> bytes | None:
    """The engine with one lie in its program, header or report; None where the digests lost their place."""
    target = rng.integers(10)

    def lie(header: dict[str, Any], program: dict[str, Any]) -> None:
        if target < 7:
            mutate(program, rng)
        elif target < 9:
            mutate(header, rng)
        else:
            report = json.loads(header["__metadata__"]["report"])
            mutate(report, rng)
            header["__metadata__"]["report"] = json.dumps(report)

    try:
        return rewritten(good, lie)
    except (KeyError, TypeError, AttributeError):
        return None


def outcome(path: Path) -> str | None:
    """Why the engine is refused, or None where it loads; then it runs, or refuses its input in a sentence."""
    try:
        engine = openwork.load(path, threads=1)
    except EngineFileError as error:
        return str(error)
    feed = encoder_inputs(2, 5)
    try:
        engine.run({info.name: feed.get(info.name, feed["attention_mask"]) for info in engine.inputs})
    except (ValueError, TypeError) as error:
        return f"{path}: {error}"
    return None

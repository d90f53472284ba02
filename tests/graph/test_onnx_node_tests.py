"""Every node test of onnx: the right numbers, or a refusal in a sentence; nothing wrong, nothing raw."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from openwork import build, load

SHARDS = 8

DEVIATES = {
    # ONNX Runtime alone, on the same file, gives the same numbers as the engine and not those of the test.
    "test_attention_4d_causal_fp16": "rounds FP16 at other places",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal": "masks with its lowest number",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal": "masks with its lowest number",
    "test_maxunpool_export_with_output_shape": "takes the indices as those of the output's shape",
    "test_resize_downsample_scales_linear_align_corners": "aligns corners by the rounded size",
    "test_resize_downsample_scales_cubic_align_corners": "aligns corners by the rounded size",
}
RANDOM = re.compile("test_(bernoulli|training_dropout)")
REFUSALS = re.compile(
    r"is a (sequence|optional), but an engine takes and gives tensors alone"
    r"|No back end runs ai\.onnx\.preview[.\w]* '"
    r"|cannot be loaded, so it was not kept: .*ONNX Runtime refuses the model of the step"
    r"|uses opset [1-6], but this reader knows opsets 7 to"
    r"|ONNX Runtime could not run the step",
    re.DOTALL,
)
LEAST_RIGHT = 0.9
"""Of the tests; which of them ONNX Runtime has kernels for depends on its version."""


def plain(value: Any) -> Any:
    """What an engine takes and gives for a value of a test: types that NumPy lacks as what carries them."""
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    if not hasattr(value, "dtype"):
        return value
    name = value.dtype.name
    if name == "bfloat16" or name.startswith(("float8", "float4")):
        return value.astype(np.float32)
    if name in ("int4", "int2", "uint4", "uint2"):
        return value.astype(np.uint8 if name[0] == "u" else np.int8)
    return value


def agree(made: Any, expected: Any, case: Any) -> bool:
    expected = np.asarray(expected)
    if made.shape != expected.shape:
        return False
    if expected.dtype.kind in "OSU":
        return bool((made.astype(str) == expected.astype(str)).all())
    if made.dtype != expected.dtype:
        return False
    a, b = made.astype(np.float64), expected.astype(np.float64)
    largest = np.abs(np.where(np.isfinite(b), b, 0)).max(initial=0)
    return np.allclose(a, b, rtol=case.rtol, atol=max(case.atol, 1e-6 * largest), equal_nan=True)


def outcome(case: Any, folder: Path) -> tuple[str, str]:
    """("right" | "wrong" | "refused", what was said)."""
    engine_path = folder / "m.engine"
    try:
        build(case.model, engine_path, progress=False, timing_cache=folder / "t.json", threads=1)
        engine = load(engine_path, threads=1)
        for inputs, outputs in case.data_sets:
            feed = {p.name: plain(v) for p, v in zip(case.model.graph.input, inputs, strict=True)}
            made = engine.run(feed)
            for port, expected in zip(case.model.graph.output, outputs, strict=True):
                if not agree(made[port.name], plain(expected), case):
                    return "wrong", port.name
    except (ValueError, TypeError) as error:
        return "refused", str(error)
    return "right", ""


@cache
def every_case() -> list[Any]:
    """In the order of their names; onnx makes them once in a process, with numbers that overflow."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(collect_testcases(None), key=lambda case: case.name)


def cases(shard: int) -> Iterator[Any]:
    return iter(every_case()[shard::SHARDS])


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_case_is_right_or_refused_in_a_sentence(shard: int, tmp_path: Path) -> None:
    outcomes = {case.name: outcome(case, tmp_path) for case in cases(shard)}
    wrong = {name for name, (kind, _) in outcomes.items() if kind == "wrong"}
    assert not {name for name in wrong if name not in DEVIATES and not RANDOM.match(name)}
    odd = {
        name: said
        for name, (kind, said) in outcomes.items()
        if kind == "refused" and not REFUSALS.search(said)
    }
    assert not odd
    right = sum(kind == "right" for kind, _ in outcomes.values())
    assert right >= LEAST_RIGHT * len(outcomes)

"""The builder: what it decides, stores and reports, against ONNX Runtime on the same model."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import openwork
from openwork.backends.cpu.rivals import rivals
from openwork.builder import tactics
from openwork.builder.builder import build
from openwork.builder.eligibility import FORCED, judge, prune
from openwork.builder.lower import BuildError, Dims
from openwork.builder.tactics import choices, explain, fastest, settle, timing_key
from openwork.builder.timing_cache import TimingCache
from openwork.engine.engine_file import read_engine
from openwork.engine.problem import MatrixProduct, Problem, Tactic
from openwork.engine.program import Choice
from openwork.engine.report import Bucket, BuildReport, Environment, read_report
from openwork.engine.sizes import default_shapes
from openwork.graph import ModelError
from openwork.patterns.metadata import PATTERN_KEY
from qdq_models import Net, keep_two_of_four, two_layers

SHAPES = [[3], [20]]
A, B, C = (Tactic(form) for form in "abc")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time each tactic only a few times, whatever else runs."""
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
    monkeypatch.setattr(tactics, "DISTURBED", np.inf)


pytestmark = pytest.mark.usefixtures("quick")


def built(model: onnx.ModelProto, folder: Path, **options: object) -> BuildReport:
    options = {"shapes": SHAPES, "threads": 1, "timing_cache": folder / "timings.json"} | options
    return build(model, folder / "m.engine", progress=False, **options)


def onnx_runtime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def random_input(rows: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)


# One unit of the hidden layer's u8 (ONNX divides by the scale where docs/arithmetic.md multiplies by its
# reciprocal) times the largest weight of the second layer, 127 * 1.5 / (80 sqrt(96)), in at most 2 places.
ONE_UNIT = 2 * (1 / 32) * 127 * 1.5 / (80 * np.sqrt(96))


@pytest.mark.parametrize("sparsity", ["on", "off"])
@pytest.mark.parametrize("exotic", [None, "Sin"])
def test_an_engine_gives_what_onnx_runtime_gives(tmp_path: Path, sparsity: str, exotic: str | None) -> None:
    model = two_layers(exotic=exotic)
    built(model, tmp_path, sparsity=sparsity)
    x = random_input(37)
    found = openwork.load(tmp_path / "m.engine", threads=1).run({"x": x})["y"]
    np.testing.assert_allclose(found, onnx_runtime(model, x), rtol=0, atol=ONE_UNIT)


def test_a_profile_names_fallback_steps_too(tmp_path: Path) -> None:
    built(two_layers(exotic="Sin"), tmp_path)
    steps = openwork.load(tmp_path / "m.engine", threads=1).profile({"x": random_input(5)}, repeats=4)
    assert [step.name for step in steps] == [
        "quantizelinear0",
        "first",
        "fallback.1",
        "quantizelinear7",
        "second",
    ]
    assert all(step.calls == 4 and step.seconds > 0 for step in steps)


def test_the_report_says_what_was_found_and_picked(tmp_path: Path) -> None:
    report = built(two_layers(), tmp_path)
    first, second = report.layers
    assert (first.name, first.n, first.k, first.activation, first.output) == ("first", 96, 64, "relu", "u8")
    assert (first.pattern, first.zeros, first.eligible) == ("2:4", 0.5, True)
    assert (first.bytes_dense, first.bytes_stored) == (96 * 64, 96 * 64 * 5 // 8)
    assert first.reason == "The weights hold 2:4."
    assert (second.pattern, second.eligible, second.output) == (None, False, "f32")
    assert second.reason == "The weights hold no pattern that a sparse kernel runs."
    assert (second.bytes_dense, second.bytes_stored) == (32 * 96, 32 * 96)
    assert second.why == "The only tactic for this layer is dense."
    for layer in report.layers:
        assert [bucket.rows for bucket in layer.buckets] == [3, 20]
        assert layer.picks[-1].max_rows is None
        for bucket in layer.buckets:
            assert "dense" in bucket.seconds
            assert all(seconds > 0 for seconds in bucket.seconds.values())
    assert set(first.buckets[0].seconds) > {"dense"}
    assert report.accuracy_kept
    assert report.eligible == ("first",)
    assert {fusion.rule for fusion in report.fusions} >= {"linear", "bias into product"}
    assert not report.fallbacks


def test_the_report_travels_in_the_engine(tmp_path: Path) -> None:
    report = built(two_layers(), tmp_path)
    file = read_engine(tmp_path / "m.engine")
    assert read_report(file.report) == report
    assert openwork.load(tmp_path / "m.engine", threads=1).report == report
    assert {"first.weight.values", "first.weight.indices", "second.weight"} <= file.tensors.keys()
    assert "first.weight" not in file.tensors


def test_sparsity_off_times_dense_only(tmp_path: Path) -> None:
    report = built(two_layers(), tmp_path, sparsity="off")
    assert report.eligible == ()
    assert report.layers[0].pattern == "2:4"
    assert report.layers[0].reason == "Sparse kernels are switched off for this build."
    # Compressed is smaller, so that is how it is stored; loading packs it dense.
    assert report.layers[0].bytes_stored == report.layers[0].bytes_dense * 5 // 8
    assert "first.weight.values" in read_engine(tmp_path / "m.engine").tensors
    assert all(set(bucket.seconds) == {"dense"} for layer in report.layers for bucket in layer.buckets)


def test_sparsity_force_prunes_and_says_that_accuracy_is_not_kept(tmp_path: Path) -> None:
    report = built(two_layers(), tmp_path, sparsity="force")
    assert report.eligible == ("first", "second")
    assert not report.accuracy_kept
    assert report.notes[0].startswith("This build pruned 1 layer to 2:4 by magnitude, without any training")
    assert report.layers[1].reason == "The weights hold 2:4, pruned by this build."
    assert built(two_layers(), tmp_path).accuracy_kept


def test_the_log_has_the_two_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="openwork")
    report = built(two_layers(), tmp_path)
    assert "(Sparsity) Layers eligible for sparse math: first" in caplog.messages
    assert report.lines()[1] in caplog.messages


def test_what_is_not_native_falls_back_with_its_reason(tmp_path: Path) -> None:
    report = built(two_layers(exotic="Sin"), tmp_path)
    (part,) = report.fallbacks
    assert part.nodes == ("Sin 'sin6'",)
    assert "openwork does not run Sin 'sin6'" in part.reason
    assert any(
        line.startswith("(Fallback) fallback.1 runs in ONNX Runtime. Sin 'sin6': ") for line in report.lines()
    )
    with pytest.raises(BuildError, match=r"The build is strict, but .* openwork does not run Sin 'sin6'"):
        built(two_layers(exotic="Sin"), tmp_path, strict=True)


def test_a_refused_build_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        built(two_layers(exotic="Sin"), tmp_path, strict=True)
    (tmp_path / "not.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"not\.onnx"):
        build(tmp_path / "not.onnx", tmp_path / "m.engine", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": "maybe"}, "The sparsity mode is one of off, on, force, but it is 'maybe'"),
        ({"rounding": "fast"}, r"^The rounding is 'exact' or 'relaxed', but it is 'fast'\.$"),
        ({"threads": 0}, "The number of threads is at least 1, but it is 0"),
        ({"shapes": []}, "There are no shapes to time at"),
        ({"shapes": [[1, 2]]}, r"each free dimension of the inputs \(batch\), but one is 1x2"),
        ({"shapes": [[0]]}, r"at least 1 .* but one is 0"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(two_layers(), tmp_path, **options)


def test_two_fallbacks_and_values_that_pass_them_by(tmp_path: Path) -> None:
    net = Net(np.random.default_rng(5))
    net.linear("first", 64, 64, relu=True)
    early = net.top
    net.top = net.node("Sin", net.top)
    net.linear("second", 64, 64)
    net.top = net.node("Add", net.node("Cos", net.top), early)
    net.linear("third", 16, 64)
    model = net.model(64, 16)
    report = built(model, tmp_path)
    assert [part.nodes for part in report.fallbacks] == [("Sin 'sin6'",), ("Cos 'cos12'",)]
    x = random_input(9)
    found = openwork.load(tmp_path / "m.engine", threads=1).run({"x": x})["y"]
    # Each unit of difference in a u8 activation passes through weights of at most 127 * 1.5 / (80 sqrt(64)).
    tolerance = 4 * (1 / 32) * 127 * 1.5 / (80 * np.sqrt(64))
    np.testing.assert_allclose(found, onnx_runtime(model, x), rtol=0, atol=tolerance)


def test_the_cache_spares_the_timing(tmp_path: Path) -> None:
    first, second = built(two_layers(), tmp_path), built(two_layers(), tmp_path)
    assert not any(bucket.cached for layer in first.layers for bucket in layer.buckets)
    assert all(bucket.cached for layer in second.layers for bucket in layer.buckets)
    assert [layer.picks for layer in first.layers] == [layer.picks for layer in second.layers]
    other = built(two_layers(), tmp_path, threads=2)
    assert not any(bucket.cached for layer in other.layers for bucket in layer.buckets)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 2, "timings": {}}', '{"version": 1, "timings": {"a": 1}}']
)
def test_a_damaged_cache_is_ignored_with_a_reason(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "timings.json"
    path.write_text(content)
    cache = TimingCache.open(path)
    assert cache.timings == {}
    assert any(
        "The timing cache is ignored" in message and str(path) in message for message in caplog.messages
    )
    cache.put("key", {"dense": 1e-6})
    cache.save()
    assert json.loads(path.read_text()) == {"version": 1, "timings": {"key": {"dense": 1e-6}}}


def test_a_cache_keeps_what_another_build_added(tmp_path: Path) -> None:
    first, second = TimingCache.open(tmp_path / "t.json"), TimingCache.open(tmp_path / "t.json")
    first.put("a", {"dense": 1.0})
    second.put("b", {"dense": 2.0})
    first.save()
    second.save()
    cache = TimingCache.open(tmp_path / "t.json")
    assert cache.get("a", ("dense",)) == {"dense": 1.0}
    assert cache.get("b", ("dense", "window8")) is None


def test_a_cache_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    TimingCache(tmp_path / "file" / "timings.json", {}).save()
    assert any("The timing cache was not written" in message for message in caplog.messages)


def test_disturbed_timings_are_used_noted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tactics, "DISTURBED", 0.0)
    first, second = built(two_layers(), tmp_path), built(two_layers(), tmp_path)
    for report in (first, second):
        assert report.accuracy_kept
        assert report.notes[0].startswith("Something else was running during 4 timings")
        assert not any(bucket.cached for layer in report.layers for bucket in layer.buckets)


def test_equal_layers_are_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tactics, "DISTURBED", 0.0)
    net = Net(np.random.default_rng(2))
    for name in ("first", "second", "third"):
        net.linear(name, 64, 64, sparse=True, relu=name != "third")
    report = built(net.model(64, 64), tmp_path)
    first, second, third = (layer.buckets for layer in report.layers)
    assert first == second
    assert first != third


def test_the_fastest_and_dense_only_where_sparse_is_slower() -> None:
    assert fastest({"dense": 2.0, "window8": 1.0, "window64": 1.5}) == "window8"
    assert fastest({"dense": 1.0, "window8": 1.1}) == "dense"
    assert fastest({"dense": 1.0, "window8": 1.0}) == "window8"
    assert fastest({"dense": 1.0}) == "dense"


def bucket(rows: int, **seconds: float) -> Bucket:
    return Bucket(rows, seconds, fastest(seconds), False)


def test_borders_between_buckets() -> None:
    buckets = [
        bucket(32, dense=1.0, window8=2.0),
        bucket(128, dense=3.0, window8=2.0),
        bucket(2048, dense=30.0, window8=20.0),
    ]
    assert choices(buckets) == (Choice(64, "dense"), Choice(None, "window8"))
    assert choices(buckets[:1]) == (Choice(None, "dense"),)
    assert choices(buckets[1:]) == (Choice(None, "window8"),)


def test_negligible_differences_give_one_pick() -> None:
    near = [
        bucket(32, dense=2.0, window8=1.0, window16=1.01),
        bucket(128, dense=2.0, window8=1.5, window16=1.0),
    ]
    assert [b.pick for b in near] == ["window8", "window16"]
    assert [b.pick for b in settle(near)] == ["window16", "window16"]
    far = [
        bucket(32, dense=2.0, window8=1.0, window16=1.2),
        bucket(128, dense=2.0, window8=1.5, window16=1.0),
    ]
    assert [b.pick for b in settle(far)] == ["window8", "window16"]
    few = [bucket(4, dense=2.0, window8=1.01, window8packed=1.0), bucket(128, dense=2.0, window8=1.0)]
    assert [b.pick for b in few] == ["window8packed", "window8"]
    assert [b.pick for b in settle(few)] == ["window8", "window8"]
    apart = [bucket(4, dense=2.0, window8packed=1.0), bucket(128, dense=2.0, window8=1.0)]
    assert [b.pick for b in settle(apart)] == ["window8packed", "window8"]
    over_dense = [
        bucket(32, dense=1.0, window8=1.0, window16=1.01),
        bucket(128, dense=2.0, window8=1.5, window16=1.0),
    ]
    assert [b.pick for b in settle(over_dense)] == ["window8", "window16"]


def test_picks_are_explained() -> None:
    sentence = explain([bucket(1, dense=1.0, window8=2.0), bucket(128, dense=3.0, window8=2.0)])
    assert sentence == (
        "At 1 row dense, since window8 takes 2.00 times as long; at 128 rows window8, 1.50 times as fast as "
        "dense."
    )


def test_pruning_keeps_the_largest_of_each_group() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (7, 22)).astype(np.int8)
    pruned = prune(weight, FORCED)
    assert FORCED.holds(pruned)
    full = np.count_nonzero(weight[:, :20].reshape(7, 5, 4), axis=2).min() >= 2
    assert full
    kept = np.abs(pruned[:, :20].astype(int)).reshape(7, 5, 4).sum(axis=2)
    largest = np.sort(np.abs(weight[:, :20].astype(int)).reshape(7, 5, 4), axis=2)[:, :, 2:].sum(axis=2)
    np.testing.assert_array_equal(kept, largest)
    np.testing.assert_array_equal(pruned[:, 20:], weight[:, 20:])
    np.testing.assert_array_equal(
        prune(keep_two_of_four(weight[:, :20]), FORCED), keep_two_of_four(weight[:, :20])
    )


def test_a_pattern_that_no_kernel_holds_is_refused_with_the_reason() -> None:
    weight = keep_two_of_four(np.random.default_rng(1).integers(1, 100, (8, 16)).astype(np.int8))
    found = judge(
        weight, "on", lambda *_: {Tactic("windowx"): "It has no windows.", Tactic("windowy"): "Nor has it."}
    )
    assert found.work == {}
    assert found.reason == (
        "The weights hold 2:4, but no kernel here runs it: windowx: It has no windows. windowy: Nor has it."
    )
    assert judge(weight, "on", lambda *_: {}).reason == (
        "The weights hold 2:4, but no kernel here runs it: this instruction set has none."
    )


def test_the_name_in_the_metadata_is_used_where_the_zeros_hold_it(tmp_path: Path) -> None:
    model = two_layers()
    assert [layer.pattern for layer in built(model, tmp_path).layers] == ["2:4", None]
    for stated, pattern in (("4:8", "4:8"), ("32:64", "32:64"), ("1:4", "2:4"), ("nothing", "2:4")):
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {PATTERN_KEY + "first.weight": stated})
        first = built(model, tmp_path).layers[0]
        assert first.pattern == pattern
        assert read_engine(tmp_path / "m.engine").program.steps[1].pattern == pattern
        assert first.reason == f"The weights hold {pattern}" + (
            " and not 1:4, which the model's metadata name." if stated == "1:4" else "."
        )
        x = random_input(3)
        found = openwork.load(tmp_path / "m.engine", threads=1).run({"x": x})["y"]
        np.testing.assert_allclose(found, onnx_runtime(model, x), rtol=0, atol=ONE_UNIT)


def test_a_pattern_that_costs_more_than_dense_is_refused_with_its_work() -> None:
    weight = keep_two_of_four(np.random.default_rng(1).integers(1, 100, (8, 16)).astype(np.int8))
    found = judge(weight, "on", lambda *_: {A: 1.5, B: 1.416, C: "It holds nothing."})
    assert found.work == {}
    assert found.reason == (
        "The weights hold 2:4, but b, the sparse kernel with the least work here, is expected to take 1.42 "
        "times as much as dense; up to 1.35 times is timed."
    )
    near = judge(weight, "on", lambda *_: {A: 1.5, B: 1.3, C: "It holds nothing."})
    assert (near.work, near.reason) == ({B: 1.3}, "The weights hold 2:4.")


def test_forms_near_the_best_are_timed() -> None:
    work = {
        "w1": 0.7,
        "w2": 0.6,
        "w3": 0.55,
        "w4": 0.9,
        "w5": 0.65,
        "w6": 0.72,
        "window8packed": 1.2,
        "window16packed": 1.4,
    }
    assert rivals(work, 33) == ("w3", "w2", "w5", "w1")
    assert rivals(work, 32) == ("w3", "w2", "w5", "w1", "window8packed")
    assert rivals({"w1": 1.3, "w2": 1.36}, 100) == ("w1",)
    assert rivals({}, 1) == ()


def test_forms_with_rows_in_the_lanes_pay_for_whole_vectors() -> None:
    work = {"blocks1": 0.2, "blocks2": 0.38, "blocks4": 0.6, "blocks8": 0.8, "w1": 0.4, "w2": 0.41}
    assert rivals(work, 1) == ("w1", "w2")
    assert rivals(work, 15) == rivals(work, 16) == rivals(work, 48) == ("blocks1", "blocks2", "w1", "w2")
    assert rivals(work, 5) == ("w1", "w2")
    assert rivals({"blocks4": 0.9, "w1": 1.3, "w2": 1.4}, 16) == ("blocks4", "w1")
    assert rivals({"blocks4": 0.9, "w2": 1.4}, 16) == ("blocks4",)


def test_other_forms_are_timed_beside_those_with_rows_in_the_lanes() -> None:
    work = {"blocks1": 0.2, "blocks2": 0.2, "blocks4": 0.2, "blocks8": 0.24}
    work |= {"w1": 0.21, "w2": 0.22, "w3": 0.23, "w4": 0.24}
    assert rivals(work, 16) == ("blocks4", "blocks2", "w1", "w2", "w3")


def test_the_cache_knows_zeros_apart() -> None:
    here = Environment("0", "a cpu", "avx2", 2, "abc")
    dense, a, b, packed = (Tactic(form) for form in ("dense", "window8", "window16x2", "window8packed"))
    work = {a: 0.704, b: 0.6, packed: 0.7}
    problem = Problem(MatrixProduct(96, 64), "i8", "relu", "u8", "1x1:0.8", work)
    assert timing_key(problem, (dense, b, a), 40, here) == (
        "a cpu; avx2; 2 threads; kernels abc; 96x64 1x1:0.8 relu u8; "
        "work window16x2 0.60, window8 0.70; 40 rows"
    )
    assert timing_key(problem, (dense, packed), 4, here).endswith("window8packed 0.70; 4 rows")
    other = replace(problem, work={**work, a: 0.72})
    assert timing_key(problem, (dense, a), 40, here) != timing_key(other, (dense, a), 40, here)
    plain = Problem(MatrixProduct(96, 64), "i8", "none", "f32")
    assert timing_key(plain, (dense,), 1, here) == (
        "a cpu; avx2; 2 threads; kernels abc; 96x64 dense none f32; 1 rows"
    )
    floats = replace(plain, element="f32")
    assert timing_key(floats, (floats.base,), 1, here).endswith("; f32 96x64 dense none f32; 1 rows")


def test_equated_dimensions() -> None:
    dims = Dims()
    assert dims.same("batch", "b2")
    assert dims.same("b2", "b3")
    assert dims.root("b3") == "batch"
    assert dims.same("b3", 4)
    assert dims.root("batch") == 4
    assert dims.same("b2", 4)
    assert not dims.same("b2", 5)
    assert dims.same(7, "other")
    assert dims.root("other") == 7


def test_default_shapes_fit_any_number_of_dimensions() -> None:
    assert default_shapes([("n", "l")]) == ((1, 32), (1, 128), (16, 128))
    assert default_shapes([("n", 3, 8, 8)]) == ((1,), (16,))
    assert default_shapes([("n", "l"), ("n", "m")]) == ((1, 32, 1), (1, 128, 1), (16, 128, 1))
    assert default_shapes([(3, 4)]) == ((),)


def test_default_shapes_of_images_are_large_enough_for_networks() -> None:
    assert default_shapes([("n", 3, "h", "w")]) == ((1, 224, 224), (16, 224, 224))
    assert default_shapes([(1, 3, "h", "w")]) == ((224, 224),)
    # Masks of attention have four axes too.
    assert default_shapes([("n", "l"), ("n", 1, "l", "m")]) == ((1, 32, 1), (1, 128, 1), (16, 128, 1))
    assert default_shapes([("n", 1, "l", "l")]) == ((1, 32), (1, 128), (16, 128))
    assert default_shapes([("n", 1, 1, "l")]) == ((1, 32), (1, 128), (16, 128))


def rounded_between(seed: int = 0) -> onnx.ModelProto:
    """A product whose rounded output a float operator reads: scale 0.05, so -6.4 to 6.35."""
    net = Net(np.random.default_rng(seed))
    net.linear("first", 32, 64)
    net.top = net.node("Tanh", net.quantized(net.top, 0.05))
    return net.model(64, 32)


def test_roundings_are_kept_unless_fewer_are_asked_for(tmp_path: Path) -> None:
    model, x = rounded_between(), random_input(5)
    report = built(model, tmp_path)
    assert (report.settings.rounding, report.left_out) == ("exact", ())
    steps = [step.op for step in read_engine(tmp_path / "m.engine").program.steps]
    assert steps == ["quantize", "linear", "dequantize", "tanh"]
    found = openwork.load(tmp_path / "m.engine").run({"x": x})["y"]
    # A tie moves the product by a step of 0.05; tanh is nowhere steeper than 1; each errs by 1e-6.
    assert np.abs(found - onnx_runtime(model, x)).max() <= 0.05 + 4e-6
    integers = np.arctanh(np.clip(found.astype(np.float64), -0.99, 0.99)) / 0.05
    inner = np.abs(found) < 0.9
    assert np.abs(integers - np.rint(integers))[inner].max() < 1e-3


def test_what_relaxed_rounding_leaves_out_is_reported(tmp_path: Path) -> None:
    model, x = rounded_between(), random_input(5)
    report = built(model, tmp_path, rounding="relaxed")
    assert report.settings.rounding == "relaxed"
    (left,) = report.left_out
    assert "to steps of 0.05 is left out; its clamps at -6.4 and 6.35 stay." in left.what
    assert "(Rounding) 1 rounding between float operators left out, as asked" in "\n".join(report.lines())
    file = read_engine(tmp_path / "m.engine")
    assert read_report(file.report) == report
    assert [step.op for step in file.program.steps] == ["quantize", "linear", "tanh"]
    assert file.program.steps[1].attributes["activation"] == "clip"
    found = openwork.load(tmp_path / "m.engine").run({"x": x})["y"]
    # Half a step that is not rounded, and a whole one at a tie of the input.
    assert np.abs(found - onnx_runtime(model, x)).max() <= 0.05 + 4e-6


@pytest.mark.parametrize("names", [["onnxruntime"], ["onnxruntime", "cpu"]])
def test_onnx_runtime_asked_first_gets_the_whole_model(names: list[str], tmp_path: Path) -> None:
    model, x = two_layers(), random_input(7)
    report = built(model, tmp_path, backends=names, strict=True)
    assert (report.layers, report.fusions, report.fallbacks) == ((), (), ())
    (made,) = openwork.load(tmp_path / "m.engine", threads=1).run({"x": x}).values()
    np.testing.assert_array_equal(made, onnx_runtime(model, x))

"""The benchmark of the kernels: its layers, its numbers, its engines, and a small run from end to end."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.kernels import __main__ as program
from benchmarks.kernels import networks, options, ours, peak, peers, problem, results, table, weights
from benchmarks.kernels.results import DENSE, PeerTime, Rate, Run
from benchmarks.kernels.shapes import Convolution, Gemm, Layer
from PIL import Image

from openwork import Pattern
from openwork.backends.library import native

SEED = 7
EVERY_LAYER = [layer for name in networks.SETS for layer in networks.layers(name)]
SMALL = (
    Gemm(5, 48, 20),
    Convolution(2, 7, 6, 12, 10, (3, 2), (2, 1), (1, 2), (1, 0)),
    Convolution(1, 5, 5, 16, 8, (3, 3), padding=(1, 1), groups=4),
)


def _problem(shape: Gemm | Convolution, kind: str, pattern: str = DENSE) -> problem.Problem:
    return problem.make(Layer("test", "layer", shape), kind, pattern, SEED)


@pytest.mark.parametrize("layer", EVERY_LAYER, ids=str)
def test_shapes_are_those_of_torch(layer: Layer) -> None:
    shape = layer.shape
    x = torch.empty(shape.x_shape, device="meta")
    weight = torch.empty(shape.weight_shape, device="meta")
    if isinstance(shape, Convolution):
        image, kernel = x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2)
        rest = (shape.stride, shape.padding, shape.dilation, shape.groups)
        y = torch.nn.functional.conv2d(image, kernel, None, *rest).permute(0, 2, 3, 1)
    else:
        y = torch.nn.functional.linear(x, weight)
    assert tuple(y.shape) == shape.y_shape
    assert np.prod(shape.y_shape) == shape.rows * shape.n
    assert np.prod(shape.weight_shape) == shape.n * shape.k


# Multiplications and additions of a forward pass as torchvision's documentation gives them, in 10^9.
@pytest.mark.parametrize(
    ("name", "published"), [("resnet34", 3.66), ("resnet50", 4.09), ("resnext101", 16.41)]
)
def test_networks_do_the_operations_that_are_published(name: str, published: float) -> None:
    whole = sum(shape.operations for _, shape in networks._SETS[name]()) / 2e9
    assert whole == pytest.approx(published, abs=0.006)


def test_each_set_has_each_shape_once() -> None:
    for name in networks.SETS:
        shapes = [layer.shape for layer in networks.layers(name)]
        assert len(set(shapes)) == len(shapes) > 0
    assert len({str(layer) for layer in EVERY_LAYER}) == len(EVERY_LAYER)
    assert {layer.network for layer in networks.representative()} == set(networks.SETS)
    assert set(networks.FLOATS) <= {str(layer) for layer in networks.representative()}


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Expected one of the sets of layers resnet34, .*, found 'vgg'\.$"):
        networks.layers("vgg")


def test_a_convolution_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^The kernel does not fit into the padded image of 1x2x2x4->4 3x3\.$"
    ):
        Convolution(1, 2, 2, 4, 4, (3, 3))
    with pytest.raises(
        ValueError, match=r"^3 groups do not divide the channels of 1x8x8x4->4 1x1 3 groups\.$"
    ):
        Convolution(1, 8, 8, 4, 4, groups=3)


@pytest.mark.parametrize("shape", SMALL, ids=str)
@pytest.mark.parametrize("pattern", ["2:4", "2:4@2", "4:8@4", "4x1:0.8", "2x4:0.5", "1x1:0.9"])
def test_random_weights_hold_their_pattern(shape: Gemm | Convolution, pattern: str) -> None:
    if weights.refusal(shape, pattern):
        assert shape.k // shape.taps < 8
        return
    kept = weights.mask(np.random.default_rng(SEED), shape, pattern)
    assert kept.shape == (shape.n, shape.taps, shape.k // shape.taps)
    parsed = Pattern.parse(pattern)
    if "x" in pattern:  # the share of zeros is the layer's, not the tap's
        assert parsed.holds(kept.reshape(shape.n, -1))
    else:
        assert all(parsed.holds(kept[:, tap]) for tap in range(shape.taps))
        assert kept.mean() >= parsed.density


@pytest.mark.parametrize("kind", problem.TYPES)
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_the_exact_product_is_that_of_torch(shape: Gemm | Convolution, kind: str) -> None:
    stated = _problem(shape, kind)
    x = torch.from_numpy(stated.x.astype(np.float64)) - (problem.X_ZERO_POINT if kind == "int8" else 0)
    weight = torch.from_numpy(stated.weight.astype(np.float64))
    if isinstance(shape, Convolution):
        rest = (shape.stride, shape.padding, shape.dilation, shape.groups)
        y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), None, *rest)
        y = y.permute(0, 2, 3, 1)
    else:
        y = x @ weight.T
    truth = problem.exact(stated)
    # binary64 of at most 96 terms of magnitude 127 * 128: 96 * 2^-53 * 96 * 127 * 128 < 2e-8
    np.testing.assert_allclose(truth.sums, truth.taken(y.numpy()), rtol=0, atol=2e-8)


def test_bf16_rounds_to_the_nearest_even() -> None:
    values = np.random.default_rng(SEED).standard_normal(1000).astype(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    assert np.array_equal(problem.from_bf16(problem.to_bf16(values)), expected)


@pytest.mark.parametrize("kind", problem.TYPES)
def test_a_wrong_result_is_refused(kind: str) -> None:
    stated = _problem(SMALL[0], kind)
    truth = problem.exact(stated)
    right = problem.quantized(stated, truth) if kind == "int8" else truth.sums + stated.bias
    problem.verify(stated, truth, right, "It")
    wrong = right.copy()
    wrong[2, 3] += 2
    with pytest.raises(ValueError, match="wrong") as refused:
        problem.verify(stated, truth, wrong, "It")
    where = f"test layer (5x48x20, {kind}, dense)"
    sentence = f"It gives 1 wrong numbers of 100 for {where}; its time would mean nothing."
    assert str(refused.value) == sentence


@pytest.mark.parametrize("kind", problem.TYPES)
@pytest.mark.parametrize("shape", SMALL, ids=str)
@pytest.mark.parametrize("pattern", [DENSE, "2:4"])
def test_own_kernels_give_the_product(shape: Gemm | Convolution, kind: str, pattern: str) -> None:
    stated = _problem(shape, kind, pattern)
    truth = problem.exact(stated)
    found = dict(ours.packed_forms(stated, native().active_isa()))
    ran = {form: packed for form, packed in found.items() if not isinstance(packed, str)}
    assert ran
    for packed in ran.values():
        ours.verify(stated, truth, packed, 1)
    seconds = ours.seconds(stated, list(ran.values()), 1, 1)
    assert seconds.shape == (len(ran),)
    assert (seconds > 0).all()


@pytest.mark.parametrize("peer", [peers.OnnxRuntime(), peers.OpenVino()], ids=lambda peer: peer.name)
@pytest.mark.parametrize(
    "shape", [Gemm(32, 64, 48), Convolution(1, 9, 9, 32, 48, (3, 3), padding=(1, 1))], ids=str
)
def test_engines_run_the_layer_alone_in_int8(peer: peers.Peer, shape: Gemm | Convolution) -> None:
    pytest.importorskip(peer.name)
    stated = _problem(shape, "int8", "2:4")
    prepared = peer.prepare(stated, 1)
    assert isinstance(prepared, peers.Prepared)
    assert prepared.doubt is None
    np.copyto(prepared.x, stated.x)
    prepared.run()
    problem.verify(stated, problem.exact(stated), prepared.output(), peer.name)


def test_a_missing_engine_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise peers.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(peers.metadata, "version", none)
    found, missing = peers.installed()
    assert found == []
    assert missing[0] == ("onnxruntime is not installed: its column stays empty ('pip install onnxruntime').")


def test_caches_are_read_from_the_system(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [
            ("1", "Data", "48K"),
            ("1", "Instruction", "32K"),
            ("2", "Unified", "2M"),
            ("3", "Unified", "16384K"),
        ]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    assert peak.cache_sizes(tmp_path) == {"L1": 48 << 10, "L2": 2 << 20, "L3": 16 << 20}
    assert peak.cache_sizes(tmp_path / "none") == {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


def test_the_limits_of_the_machine_are_positive() -> None:
    isa = native().active_isa()
    assert all(peak.operations(kind, isa, 1) > 0 for kind in problem.TYPES)
    assert native().read_bandwidth(4096, isa, 1) > 0
    with pytest.raises(ValueError, match=r"^Expected at least 512 bytes to read, found 8\.$"):
        native().read_bandwidth(8, isa, 1)


RATE = Rate(
    "a b", "4x8x16", 4, 8, 16, "int8", DENSE, "dense", 1e-6, 1.024, 0.5, 1.0, None, None, 640, 0.0, False, {}
)  # fmt: skip


def test_the_fastest_form_of_a_pattern_is_the_best() -> None:
    slow, fast = replace(RATE, pattern="2:4", form="x"), replace(RATE, pattern="2:4", form="y", seconds=5e-7)
    assert [rate.best for rate in results.mark_best([RATE, slow, fast])] == [True, False, True]


def _run(*rates: Rate) -> Run:
    return Run(
        {"cpu": "c", "versions": {}},
        "i",
        1,
        (DENSE,),
        {},
        {"int8": 2e9},
        (peak.Level("L1", 1, 1e9),),
        rates,
        (),
        (),
    )


def test_a_doubtful_time_stays_out_of_the_summary() -> None:
    fair = PeerTime(1e-6, 2e-6, 4.0, "k", None)
    rates = [
        replace(RATE, layer=name, best=True, of_peak=share, peers={"openvino": time})
        for name, share, time in (
            ("a", 0.5, fair),
            ("b", 0.125, replace(fair, ratio=9.0)),
            ("c", 0.25, replace(fair, doubt="It runs something else.")),
        )
    ]
    (line,) = results.summaries(_run(*rates))
    assert line.of_peak == pytest.approx(0.25, rel=1e-12)
    assert line.peers == {"openvino": pytest.approx(6.0, rel=1e-12)}
    assert (line.worst, line.worst_value) == ("b", 0.125)
    assert table.footnotes(_run(*rates)) == ["*: It runs something else."]


def test_a_run_beside_other_work_is_doubted() -> None:
    assert program.disturbed([1.9, 1.0, 1.98], 2) == []
    (sentence,) = program.disturbed([1.0, 1.9, 1.1], 2)
    assert sentence.startswith("On registers alone 2 threads did 1.10 times the work of one: something else")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--types", "int4"], "Expected types of int8, bf16, fp32, found int4."),
        (["--layer", "nothing"], "No layer's name contains 'nothing'."),
        (["--patterns", "4:2"], "did you mean"),
        (["--isa", "mmx"], "The instruction set 'mmx' is unknown"),
        (["--batch", "0"], "Expected at least 1 image in a batch, found 0."),
        (["--rows", "0", "--set", "bert"], "A product has at least one row"),
        (["--threads", "0"], "Repeats and threads are at least 1."),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main(arguments)
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_all_and_types_choose_the_work() -> None:
    given = options.parser("").parse_args(["--all"])
    assert len(options.work(given)) == len(EVERY_LAYER) * len(problem.TYPES)
    given = options.parser("").parse_args(["--set", "small", "--types", "bf16"])
    assert [kind for _, kind in options.work(given)] == ["bf16"] * len(networks.layers("small"))


def test_rows_and_batch_replace_those_of_the_layers() -> None:
    given = options.parser("").parse_args(
        ["--set", "minilm", "--set", "resnet34", "--rows", "1,64", "--batch", "8", "--types", "int8"]
    )
    shapes = [layer.shape for layer, _ in options.work(given)]
    # Four products of MiniLM and the classifier, at two numbers of rows each.
    assert sorted(s.rows for s in shapes if isinstance(s, Gemm)) == [1] * 5 + [64] * 5
    assert {s.batch for s in shapes if isinstance(s, Convolution)} == {8}
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize(
    "kind", [Run, Rate, PeerTime, results.Refusal, peak.Level], ids=lambda kind: kind.__name__
)
def test_the_documentation_names_every_field(kind: type) -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text().split("## The JSON")[1]
    assert [field.name for field in fields(kind) if f"`{field.name}`" not in text] == []


def test_a_small_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, picture = tmp_path / "r.json", tmp_path / "r.png"
    arguments = ["--set", "small", "--layer", "rows 4", "--patterns", "2:4", "--repeats", "1"]
    program.main([*arguments, "--json", str(record), "--plot", str(picture)])
    printed = capsys.readouterr().out
    assert "small rows 4" in printed
    assert "Dot product peak" in printed
    found = json.loads(record.read_text())
    assert set(found) == {"version", "summary", "summary_large", *(field.name for field in fields(Run))}
    assert found["version"] == results.VERSION
    assert set(found["rates"][0]) == {"intensity", *(field.name for field in fields(Rate))}
    best = [rate for rate in found["rates"] if rate["best"]]
    assert [rate["pattern"] for rate in best] == [DENSE, "2:4"]
    assert all(rate["seconds"] > 0 and rate["gops"] > 0 for rate in found["rates"])
    assert [level["name"] for level in found["levels"]] == ["L1", "L2", "L3", "memory"]
    with Image.open(picture) as image:
        assert image.format == "PNG"

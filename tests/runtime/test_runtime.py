"""Running engines: the reference's bits on every instruction set, and wrong input refused in a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openwork
from engine_files import REPORT, rewritten
from engine_samples import as_model, encoder, encoder_inputs
from openwork import _native
from openwork.backends.cpu.packing import Layer, available
from openwork.builder.lower import lower
from openwork.engine.engine_file import write_engine
from openwork.engine.problem import Tactic
from openwork.engine.program import Choice, Program
from openwork.graph.reference import run as reference
from openwork.runtime.engine import Engine
from openwork.support import cores
from openwork.support.fields import EngineFileError

ISAS = tuple(_native.isas())


def written(path: Path, program: Program, tensors: dict[str, np.ndarray]) -> Path:
    write_engine(path, program, REPORT.to_json(), tensors)
    return path


def with_tactic(program: Program, tactic: str) -> Program:
    """The program with one tactic wherever a weight is sparse."""
    steps = tuple(
        step if step.pattern is None else type(step)(**{**vars(step), "tactics": (Choice(None, tactic),)})
        for step in program.steps
    )
    return Program(program.inputs, program.outputs, program.values, steps)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("engine") / "sample.engine", *encoder())


@pytest.fixture(scope="module")
def engine(path: Path) -> Engine:
    return openwork.load(path, threads=2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("pattern", "tactic"),
    [
        ("2:4", "dense"),
        ("2:4", "window8"),
        ("2:4", "window16"),
        ("2:4", "window64"),
        ("2:4@4", "window8x4"),
        ("4x4:0.5", "blocks4"),
        ("1x1:0.5", "window16packed"),
    ],
)
def test_an_engine_has_the_bits_of_the_reference(
    isa: str, threads: int, pattern: str, tactic: str, tmp_path: Path
) -> None:
    program, tensors = encoder(pattern=pattern)
    program = with_tactic(program, tactic)
    loaded = openwork.load(written(tmp_path / "x.engine", program, tensors), threads=threads, isa=isa)
    assert loaded.isa == isa
    model = as_model(program, tensors)
    for batch, length in ((1, 1), (1, 7), (3, 16)):
        feed = encoder_inputs(batch, length)
        expected = reference(model, feed)["embedding"]
        np.testing.assert_array_equal(loaded.run(feed)["embedding"].view(np.uint32), expected.view(np.uint32))


def test_lowering_the_sample_gives_it_back() -> None:
    program, tensors = encoder(pattern=None)
    lowered = lower(as_model(program, tensors))
    assert lowered.program == program
    assert lowered.tensors.keys() == tensors.keys()


def test_inputs_and_outputs_are_described(engine: Engine) -> None:
    assert [str(info) for info in engine.inputs] == [
        "'input_ids' int64 [batch, length]",
        "'token_type_ids' int64 [batch, length]",
        "'attention_mask' int64 [batch, length]",
    ]
    assert [str(info) for info in engine.outputs] == ["'embedding' float32 [batch, 16]"]
    assert engine.free_dimensions == ("batch", "length")
    assert engine.threads == 2
    assert engine.report == REPORT


def changed(**changes: Callable[[np.ndarray], Any] | None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def apply(feed: dict[str, Any]) -> dict[str, Any]:
        return {
            name: changes[name](array) if name in changes else array
            for name, array in feed.items()
            if changes.get(name, True) is not None
        }

    return apply


EXPECTED = (
    r"this engine takes 'input_ids' int64 \[batch, length\], 'token_type_ids' int64 \[batch, length\], "
    r"'attention_mask' int64 \[batch, length\]\."
)
WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], type[Exception], str]] = {
    "missing": (changed(input_ids=None), ValueError, r"The input 'input_ids' is missing; " + EXPECTED),
    "extra": (
        lambda feed: feed | {"ids": feed["input_ids"]},
        ValueError,
        r"There is no input 'ids'; " + EXPECTED,
    ),
    "no mapping": (
        lambda feed: list(feed.values()),
        TypeError,
        r"takes a mapping of names to arrays, but .* list",
    ),
    "no array": (
        changed(input_ids=lambda a: a.tolist()),
        TypeError,
        r"The input 'input_ids' int64 \[batch, length\] takes a plain NumPy array, but list came\.",
    ),
    "a mask that would be dropped": (
        changed(input_ids=lambda a: np.ma.masked_equal(a, 0)),
        TypeError,
        r"takes a plain NumPy array, but MaskedArray came\.",
    ),
    "type": (
        changed(input_ids=lambda a: a.astype(np.int32)),
        TypeError,
        r"'input_ids' .* takes int64, but int32 came; convert it with \.astype\(numpy\.int64\)\.",
    ),
    "rank": (
        changed(input_ids=lambda a: a[0]),
        ValueError,
        r"'input_ids' .* takes an array of 2 dimensions, but one of the shape \[7\] came\.",
    ),
    "mismatch": (
        changed(attention_mask=lambda a: a[:, :5]),
        ValueError,
        r"'attention_mask' .* takes 7 in dimension 1, since 'length' is 7 in 'input_ids', "
        r"but one of the shape \[3, 5\] came\.",
    ),
    "empty": (
        lambda feed: {name: array[:0] for name, array in feed.items()},
        ValueError,
        r"'input_ids' .* takes an array that is not empty, but one of the shape \[0, 7\] came\.",
    ),
    "id too large": (changed(input_ids=lambda a: a + 1000), ValueError, r"(?i)embedding_sum\.0.*\."),
    "id negative": (changed(input_ids=lambda a: a - 1000), ValueError, r"(?i)embedding_sum\.0.*\."),
    "type id": (changed(token_type_ids=lambda a: a + 2), ValueError, r"(?i)embedding_sum\.0.*\."),
    "too long": (
        lambda feed: {name: np.repeat(array, 3, axis=1) for name, array in feed.items()},
        ValueError,
        r"(?i)embedding_sum\.0.*\.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_and_the_engine_goes_on(engine: Engine, name: str) -> None:
    change, error, message = WRONG[name]
    feed = encoder_inputs(3, 7)
    before = engine.run(feed)["embedding"]
    with pytest.raises(error) as raised:
        engine.run(change(feed))
    assert re.search(message, str(raised.value)), str(raised.value)
    np.testing.assert_array_equal(engine.run(feed)["embedding"], before)


def test_any_memory_order_gives_the_same_bits(engine: Engine) -> None:
    feed = encoder_inputs(4, 8)
    expected = engine.run(feed)["embedding"]
    strided = {name: np.repeat(array, 2, axis=1)[:, ::2] for name, array in feed.items()}
    swapped = {name: array.astype(array.dtype.newbyteorder()) for name, array in feed.items()}
    for other in ({name: np.asfortranarray(array) for name, array in feed.items()}, strided, swapped):
        np.testing.assert_array_equal(engine.run(other)["embedding"], expected)


def test_outputs_belong_to_the_caller(engine: Engine) -> None:
    first = engine.run(encoder_inputs(2, 5))["embedding"]
    kept = first.copy()
    engine.run(encoder_inputs(2, 5, seed=9))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(engine.run(encoder_inputs(2, 5))["embedding"], kept)


def test_a_row_does_not_depend_on_its_batch(engine: Engine) -> None:
    feed = encoder_inputs(5, 9)
    whole = engine.run(feed)["embedding"]
    for row in range(5):
        one = engine.run({name: array[row : row + 1] for name, array in feed.items()})["embedding"]
        np.testing.assert_array_equal(one[0], whole[row])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("batch", "length"), [(300, 1), (40, 16), (100, 7), (17, 15)])
def test_slices_of_a_large_batch_have_the_bits_of_single_rows(
    path: Path, threads: int, batch: int, length: int
) -> None:
    feed = encoder_inputs(batch, length)
    engine, alone = openwork.load(path, threads=threads), openwork.load(path, threads=1)
    found = engine.run(feed)
    for row in range(batch):
        single = alone.run({name: array[row : row + 1] for name, array in feed.items()})
        for name, expected in single.items():
            assert found[name][row : row + 1].tobytes() == expected.tobytes(), (name, row)


def test_a_wrong_id_in_a_late_slice_is_refused_by_its_place(engine: Engine) -> None:
    feed = encoder_inputs(40, 16)
    name = next(iter(feed))
    feed[name][39, 15] = 10**6
    with pytest.raises(ValueError, match="1000000"):
        engine.run(feed)


def test_contexts_and_one_shared_engine_run_at_the_same_time(engine: Engine) -> None:
    shapes = [(1 + i % 3, 1 + 5 * i % 16) for i in range(12)]
    expected = {shape: engine.run(encoder_inputs(*shape))["embedding"] for shape in shapes}
    wrong: list[object] = []

    def work(run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], first: int) -> None:
        for i in range(40):
            shape = shapes[(first + i) % len(shapes)]
            found = run(encoder_inputs(*shape))["embedding"]
            if not np.array_equal(found, expected[shape]):
                wrong.append(shape)

    runners = [engine.context(1).run, engine.context(2).run, engine.run, engine.run]
    threads = [threading.Thread(target=work, args=(run, i)) for i, run in enumerate(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_profile_names_every_step_in_order(engine: Engine) -> None:
    steps = engine.profile(encoder_inputs(2, 8), repeats=3)
    assert [step.name for step in steps] == [step.name for step in encoder()[0].steps]
    assert all(step.calls == 3 and step.seconds >= 0 for step in steps)
    with pytest.raises(ValueError, match="repeats of a profile is at least 1, but it is 0"):
        engine.profile(encoder_inputs(2, 8), repeats=0)


def test_samples_are_accepted(engine: Engine) -> None:
    feed = engine.sample((3, 11), seed=4)
    assert {array.shape for array in feed.values()} == {(3, 11)}
    assert len(np.unique(feed["input_ids"])) > 5
    assert np.isfinite(engine.run(feed)["embedding"]).all()
    with pytest.raises(ValueError, match=r"\(batch, length\), but one is 3"):
        engine.sample((3,))


def test_a_tactic_that_is_not_here_is_replaced() -> None:
    sparse = np.tile(np.array([1, 0, 0, 2], np.int8), (16, 16))
    for isa in ISAS:
        forms = {form.name for form in _native.forms(isa) if form.sparse}
        unknown, dense = Tactic("window1000"), Tactic()
        assert available(unknown, Layer(sparse, isa)).form in forms
        assert available(dense, Layer(sparse, isa)) == dense
        assert available(unknown, Layer(np.ones((16, 64), np.int8), isa)) == dense


@pytest.mark.parametrize("isa", ISAS)
def test_a_form_that_does_not_hold_a_convolution_is_replaced(isa: str) -> None:
    narrow = Layer(np.ones((16, 3, 3, 2), np.int8), isa, groups=8)
    found = available(Tactic(), narrow)
    assert not narrow.refusal(found.form)
    assert found.run == narrow.run(found.form)
    each = Layer(np.ones((16, 3, 3, 1), np.int8), isa, groups=16)
    assert available(Tactic(), each) == Tactic("depthwise", run="tap")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("2:4", "2:4@2"), ("2:4", "2:4t"), ("1x1:0.5", "4:8"), ("1x1:0.5", "4:8@2"), ("1x1:0.5", "7:16t")],
)
def test_a_weight_that_breaks_the_pattern_it_is_named_by_is_refused(
    tmp_path: Path, pattern: str, said: str
) -> None:
    def relabel(header: dict[str, Any], program: dict[str, Any]) -> None:
        for step in program["steps"]:
            if step.get("pattern"):
                step["pattern"] = said

    path = written(tmp_path / "s.engine", *encoder(pattern=pattern))
    openwork.load(path)
    path.write_bytes(rewritten(path, relabel))
    with pytest.raises(EngineFileError, match=rf"breaks its pattern {said}: (row|column) \d+, group \d+"):
        openwork.load(path)


@pytest.mark.parametrize("threads", [0, -1, 2.5, "a", True, 2**40, 1025])
def test_the_number_of_threads_is_refused_alike_everywhere(
    path: Path, engine: Engine, threads: object
) -> None:
    asks: list[Callable[[Any], object]] = [engine.context, lambda given: openwork.load(path, threads=given)]
    for ask in asks:
        with pytest.raises((TypeError, ValueError), match=r"^The number of threads is (a whole|at) "):
            ask(threads)


def test_threads_may_be_a_whole_number_of_numpy(path: Path, engine: Engine) -> None:
    assert openwork.load(path, threads=np.int64(2)).threads == 2
    assert engine.context(np.int64(1)).run(encoder_inputs(1, 2))["embedding"].shape[0] == 1


def test_sizes_of_a_sample_are_whole_numbers(engine: Engine) -> None:
    for sizes in ([2.5, 1], ["a", 1], [True, 1], [1 << 40, 1], 4, "11"):
        with pytest.raises((TypeError, ValueError), match=r"^A (size of a )?shape is "):
            engine.sample(sizes)
    assert engine.sample(np.array([2, 3]))["input_ids"].shape == (2, 3)


def test_an_unknown_instruction_set_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"'sse9' is unknown; usable here: .*scalar\."):
        openwork.load(path, isa="sse9")
    with pytest.raises(ValueError, match=r"The number of threads is at least 1, but it is 0\."):
        openwork.load(path, threads=0)


@pytest.mark.parametrize("isa", [*ISAS, "sse9"])
def test_the_environment_forces_an_instruction_set(path: Path, isa: str) -> None:
    code = "import sys, openwork; print(openwork.load(sys.argv[1], threads=1).isa)"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env={"OPENWORK_ISA": isa} | _environment(), capture_output=True, text=True)
    if isa in ISAS:
        assert (done.returncode, done.stdout.strip()) == (0, isa), done.stderr
    else:
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ValueError: ")
        assert "sse9" in last


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name != "OPENWORK_ISA"}


def test_importing_is_quick_and_needs_no_torch_and_no_graph() -> None:
    code = (
        "import sys, openwork; assert 'numpy' not in sys.modules; openwork.load; "
        "print(sorted({'torch', 'onnx', 'onnx_ir', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    assert all(getattr(openwork, name) is not None for name in openwork.__all__ if name != "__version__")
    assert dir(openwork) == sorted(openwork.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        openwork.nothing  # noqa: B018


def test_a_weight_that_the_kernels_refuse_names_the_file(tmp_path: Path) -> None:
    program, tensors = encoder(pattern=None)
    name = next(step.tensors["weight"] for step in program.steps if step.op == "linear")
    tensors[name] = np.full_like(tensors[name], -128)
    path = written(tmp_path / "low.engine", program, tensors)
    with pytest.raises(
        EngineFileError, match=r"low\.engine: field 'program': expected steps that can run here"
    ):
        openwork.load(path)


def test_indices_outside_their_group_are_refused(tmp_path: Path) -> None:
    program, tensors = encoder()
    name = next(name for name in tensors if name.endswith(".indices"))
    for tactic in ("dense", "window8"):
        tensors[name] = np.zeros_like(tensors[name])
        path = written(tmp_path / "flat.engine", with_tactic(program, tactic), tensors)
        with pytest.raises(EngineFileError, match=r"flat\.engine"):
            openwork.load(path, isa="scalar")


def test_cores_are_counted_once_and_within_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(cores, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert cores.physical_cores() == 4
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 4})
    assert cores.physical_cores() == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 40})
    assert cores.physical_cores() == 4
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cores.physical_cores() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.physical_cores() == 4

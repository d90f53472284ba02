"""Networks that recommend as engines: what ONNX Runtime gives, ids at the borders, tables that are mapped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from graph_models import Builder
from openwork import build, load
from openwork.engine.engine_file import read_engine
from openwork.export import ExportOptions, export
from openwork.export.options import Exporter
from openwork.graph.quantizers.tables import Tables
from openwork.models import DLRM, DLRMConfig
from openwork.quantization import QuantizationOptions, quantize
from openwork.runtime.engine import Engine
from openwork.sparsity import Pruner

SMALL = DLRMConfig(bottom=(13, 32, 16), tables=(40, 50, 7), top=(64, 32, 1))
Feed = dict[str, np.ndarray]


def feed_of(batch: int, each: int | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, 3) if each is None else (batch, 3, each)
    return {
        "dense": torch.randn(batch, 13, generator=generator),
        "indices": torch.randint(0, 7, shape, generator=generator),
    }


def arrays(feed: dict[str, torch.Tensor]) -> Feed:
    return {name: value.numpy() for name, value in feed.items()}


def built(path: Path) -> Engine:
    build(path, path.with_suffix(".engine"), shapes=[[2], [200]], progress=False)
    return load(path.with_suffix(".engine"))


def expected(path: Path, feed: Feed) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    found: np.ndarray = onnxruntime.InferenceSession(path, options).run(None, feed)[0]
    return found


def only(engine: Engine, feed: Feed) -> np.ndarray:
    (made,) = engine.run(feed).values()
    return made


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("each", [None, 2])
@pytest.mark.parametrize("tables", ["float", "int8"])
def test_a_network_is_wholly_native(
    tmp_path: Path, exporter: Exporter, each: int | None, tables: Tables
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "m.onnx"
    export(DLRM(SMALL).eval(), feed_of(4, each), path, ExportOptions(exporter=exporter, tables=tables))
    engine = built(path)
    steps = [step.op for step in engine._program.steps]
    assert steps.count("embedding_bag") == 3
    assert steps.count("interaction") == 1
    assert "fallback" not in steps
    stored = read_engine(path.with_suffix(".engine")).tensors.mapped
    assert [array.dtype.name for name, array in stored.items() if name.endswith(".table")] == [
        "uint8" if tables == "int8" else "float32"
    ] * 3
    # 300 is cut into slices of the batch, on each thread.
    for batch in (1, 5, 300):
        feed = arrays(feed_of(batch, each))
        # Sums of at most 64 products of numbers about 1, in another order, through five layers.
        np.testing.assert_allclose(only(engine, feed), expected(path, feed), atol=5 * 64 * 2**-24)


@pytest.mark.parametrize("pattern", [None, "4x16:0.85", "2:4"])
def test_a_quantized_network_is_within_a_step(tmp_path: Path, pattern: str | None) -> None:
    torch.manual_seed(0)
    model, path = DLRM(SMALL).eval(), tmp_path / "m.onnx"
    if pattern is not None:
        Pruner(model.top_l, pattern).prune("magnitude")
    options = QuantizationOptions(style="openwork")
    quantized = quantize(model, [feed_of(32), feed_of(33)], options)
    export(quantized, feed_of(4), path, ExportOptions(exporter="legacy", tables="int8"))
    engine = built(path)
    assert "fallback" not in [step.op for step in engine._program.steps]
    steps = {step.name: step for step in engine._program.steps}
    assert "y_scale" in next(step for step in steps.values() if step.op == "interaction").attributes
    feed = arrays(feed_of(500))
    made, wanted = only(engine, feed), expected(path, feed)
    step = (wanted.max() - wanted.min()) / 255
    # A product of the interaction at a tie is rounded to either neighbour, which a network as narrow as this
    # one shows: one more or less of 19 numbers.
    assert (np.abs(made - wanted) <= step).mean() >= 0.99


def bags_by_offsets(tmp_path: Path, last: bool = False) -> Path:
    torch.manual_seed(0)
    model = torch.nn.EmbeddingBag(40, 8, mode="mean", include_last_offset=last)
    path = tmp_path / "bags.onnx"
    torch.onnx.export(
        model.eval(), (torch.arange(6), torch.tensor([0, 3, 6])), path, dynamo=False, opset_version=18,
        input_names=["ids", "offsets"], dynamic_axes={"ids": {0: "t"}, "offsets": {0: "n"}},
    )  # fmt: skip
    return path


@pytest.mark.filterwarnings("ignore")
def test_empty_bags_are_zero_as_in_torch(tmp_path: Path) -> None:
    engine = built_of_two(bags_by_offsets(tmp_path))
    torch.manual_seed(0)
    model = torch.nn.EmbeddingBag(40, 8, mode="mean")
    for ids, offsets in (([1, 39, 0], [0, 0, 2, 3]), ([5], [0, 1]), ([4, 4], [0])):
        feed = {"ids": np.array(ids), "offsets": np.array(offsets)}
        wanted = model(torch.tensor(ids), torch.tensor(offsets)).detach().numpy()
        np.testing.assert_allclose(only(engine, feed), wanted, rtol=2**-22)


@pytest.mark.filterwarnings("ignore")
def test_the_last_offset_may_end_the_last_bag(tmp_path: Path) -> None:
    engine = built_of_two(bags_by_offsets(tmp_path, last=True))
    made = only(engine, {"ids": np.array([3, 4, 5]), "offsets": np.array([0, 2, 3])})
    table = onnx.numpy_helper.to_array(onnx.load(tmp_path / "bags.onnx").graph.initializer[0])
    np.testing.assert_allclose(made, [table[3:5].mean(0), table[5]], rtol=2**-22, atol=2**-24)
    with pytest.raises(
        ValueError, match="expected at least two offsets, because the last one ends the last bag"
    ):
        engine.run({"ids": np.array([3]), "offsets": np.array([0])})


def built_of_two(path: Path) -> Engine:
    build(path, path.with_suffix(".engine"), shapes=[[6, 3]], progress=False)
    return load(path.with_suffix(".engine"))


WRONG_OFFSETS = {
    "falling": ([0, 3, 2], r"found 2 at \[2\] behind 3\."),
    "negative": ([-1, 3], r"found -1 at \[0\]\."),
    "behind the ids": ([0, 7], r"found 7 at \[1\] behind 0\."),
}


@pytest.mark.filterwarnings("ignore")
def test_offsets_that_cut_no_bags_are_refused(tmp_path: Path) -> None:
    engine = built_of_two(bags_by_offsets(tmp_path))
    for offsets, said in WRONG_OFFSETS.values():
        sentence = rf"expected offsets that never fall, from 0 to the number of ids, 6, in input 1, {said}"
        with pytest.raises(ValueError, match=sentence):
            engine.run({"ids": np.arange(6), "offsets": np.array(offsets)})


@pytest.fixture(scope="module", params=[np.int64, np.int32])
def columns(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, type, np.ndarray]:
    """An engine of two tables of 9 and 5 rows, by two columns of ids of one type, and what they hold."""
    b = Builder(np.random.default_rng(0))
    kind = TensorProto.INT64 if request.param is np.int64 else TensorProto.INT32
    fed, tables = b.input("ids", ["batch", 2], kind), []
    for index, rows in enumerate((9, 5)):
        tables.append(b.normal(rows, 4, name=f"table.{index}"))
        tables[-1] = b.add("Gather", tables[-1], b.add("Gather", fed, b.constant(np.array(index)), axis=1))
    path = tmp_path_factory.mktemp("columns") / "m.onnx"
    onnx.save(b.model(y=b.add("Concat", *tables, axis=1)), path)
    stored = [onnx.numpy_helper.to_array(t) for t in b.initializers if t.name.startswith("table.")]
    build(path, path.with_suffix(".engine"), shapes=[[2]], progress=False)
    return load(path.with_suffix(".engine")), request.param, np.array(stored, dtype=object)


def test_ids_reach_from_the_first_row_to_the_last(columns: tuple[Engine, type, np.ndarray]) -> None:
    engine, dtype, (first, second) = columns
    made = only(engine, {"ids": np.array([[0, 4], [8, 0]], dtype)})
    np.testing.assert_array_equal(
        made, [np.concatenate([first[0], second[4]]), np.concatenate([first[8], second[0]])]
    )


@pytest.mark.parametrize(
    ("row", "said"), [([0, 5], (4, 5, 5, 1)), ([-1, 0], (8, 9, -1, 0)), ([9, 9], (8, 9, 9, 0))]
)
def test_ids_beyond_a_table_are_refused(
    columns: tuple[Engine, type, np.ndarray], row: list[int], said: tuple[int, int, int, int]
) -> None:
    engine, dtype, _ = columns
    last, rows, found, column = said
    sentence = (
        rf'Step "table\.{column}" \(embedding_bag\): expected ids from 0 to {last} in input 0, because its '
        rf"table has {rows} rows, found {found} at \[1, {column}\]\."
    )
    with pytest.raises(ValueError, match=sentence):
        engine.run({"ids": np.array([[0, 0], row], dtype)})


MEMORY = """
import sys, numpy as np
from openwork import load
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
before = resident()
engines = [load(sys.argv[1], threads=1) for _ in range(3)]
contexts = [engine.context() for engine in engines for _ in range(2)]
ids = np.array([[5], [2**17 - 1]])
made = [context.run({"ids": ids}) for context in contexts]
print(resident() - before)
"""


def test_tables_are_mapped_once_and_read_where_ids_point(tmp_path: Path) -> None:
    rows, width = 2**17 + 64, 128
    b = Builder(np.random.default_rng(0))
    table = b.constant(np.ones((rows, width), np.float32))
    ids = b.input("ids", ["batch", 1], TensorProto.INT64)
    picked = b.add("Gather", table, ids)
    path = tmp_path / "large.onnx"
    onnx.save(b.model(y=b.add("ReduceSum", picked, b.integers(1), keepdims=0)), path)
    build(path, tmp_path / "large.engine", shapes=[[2]], progress=False)
    megabytes = rows * width * 4 / 2**20
    assert megabytes > 64
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "large.engine")],
        capture_output=True,
        text=True,
        check=True,
    )
    # Three engines and six contexts hold less than a quarter of the one table.
    assert float(done.stdout) < megabytes / 4

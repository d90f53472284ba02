"""Rows of tables: bags in every spelling of the exporters, lookups, pairwise products, and refusals."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from graph_models import Builder, Reduced, assert_close, reduced
from openwork.graph import read, reduce

EXPORTERS = ("legacy", "dynamo")
MODES = ("sum", "mean", "max")
ROWS, WIDTH = 23, 6


class Bags(nn.Module):
    """nn.EmbeddingBag by ids [B, P], or by ids [T] and offsets; with weights or without."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.rows = nn.EmbeddingBag(ROWS, WIDTH, **options)

    def forward(self, ids: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        made: Tensor = self.rows(ids, offsets, weights)
        return made


class Rows(nn.Module):
    """Rows of nn.Embedding, reduced."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.rows, self.mode = nn.Embedding(ROWS, WIDTH), mode

    def forward(self, ids: Tensor, weights: Tensor | None = None) -> Tensor:
        found = self.rows(ids)
        found = found if weights is None else found * weights.unsqueeze(-1)
        return {"sum": found.sum(1), "mean": found.mean(1), "max": found.amax(1)}[self.mode]


def exported(model: nn.Module, feed: Mapping[str, Tensor], exporter: str) -> onnx.ModelProto:
    """The model with its first dimensions free, one name for those of one size."""
    torch.manual_seed(0)
    names = {name: {0: f"d{len(array)}"} for name, array in feed.items()}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "legacy":
            order = [name for name in ("ids", "offsets", "weights") if name in feed]
            values = tuple(feed.get(name) for name in ("ids", "offsets", "weights"))
            torch.onnx.export(
                model.eval(), values[: 3 if isinstance(model, Bags) else 2], buffer, dynamo=False,
                input_names=order, dynamic_axes=names, opset_version=18,
            )  # fmt: skip
            return onnx.load_from_string(buffer.getvalue())
        free = {text: torch.export.Dim(text) for axes in names.values() for text in axes.values()}
        shapes = {name: {0: free[axes[0]]} for name, axes in names.items()}
        program = torch.onnx.export(
            model.eval(),
            kwargs=dict(feed),
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=18,
            verbose=False,
        )
        assert program is not None
        return program.model_proto


def arrays(feed: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in feed.items()}


def ids(*shape: int) -> Tensor:
    return torch.randint(0, ROWS, shape, generator=torch.Generator().manual_seed(1))


def attributes(found: Reduced) -> dict[str, Any]:
    (node,) = found.nodes
    return {name: attribute.value for name, attribute in node.attributes.items()}


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("each", [1, 3])
def test_bags_of_one_length(exporter: str, mode: str, each: int) -> None:
    feed = {"ids": ids(4, each)}
    found = reduced(exported(Bags(mode=mode), feed, exporter), arrays(feed))
    assert found.operators == ["EmbeddingBag"]
    # The sum of one row is its mean and its maximum.
    assert attributes(found) == {"mode": mode if each > 1 else "sum", "begin": 0, "end": each}
    assert_close(found, 1e-6)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("last", [False, True])
def test_bags_between_offsets(exporter: str, mode: str, last: bool) -> None:
    feed = {"ids": ids(9), "offsets": torch.tensor([0, 2, 3, 6, 9] if last else [0, 2, 3, 6])}
    found = reduced(exported(Bags(mode=mode, include_last_offset=last), feed, exporter), arrays(feed))
    assert found.operators == ["EmbeddingBag"]
    assert attributes(found) == {"mode": mode, **({"include_last": 1} if last else {})}
    assert_close(found, 1e-6)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("offsets", [False, True])
def test_weighted_bags(exporter: str, offsets: bool) -> None:
    feed = {"ids": ids(9), "offsets": torch.tensor([0, 2, 3, 6])} if offsets else {"ids": ids(4, 3)}
    feed["weights"] = torch.rand(feed["ids"].shape, generator=torch.Generator().manual_seed(2))
    found = reduced(exported(Bags(mode="sum"), feed, exporter), arrays(feed))
    assert found.operators == ["EmbeddingBag"]
    assert len([value for value in found.nodes[0].inputs if value is not None]) == len(feed) + 1
    assert_close(found, 1e-6)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("mode", MODES)
def test_rows_that_are_looked_up_and_reduced(exporter: str, mode: str) -> None:
    feed = {"ids": ids(4, 3)}
    found = reduced(exported(Rows(mode), feed, exporter), arrays(feed))
    assert found.operators == ["EmbeddingBag"]
    assert attributes(found)["mode"] == mode
    assert_close(found, 1e-6)


def test_rows_that_are_weighed_and_summed() -> None:
    feed = {"ids": ids(4, 3), "weights": torch.rand(4, 3)}
    found = reduced(exported(Rows("sum"), feed, "dynamo"), arrays(feed))
    assert found.operators == ["EmbeddingBag"]
    assert_close(found, 1e-6)
    left = reduced(exported(Rows("max"), feed, "dynamo"), arrays(feed))
    assert "EmbeddingBag" not in left.operators
    assert any("weighs the rows of a max" in reason for reason in left.left)


def test_an_empty_bag_is_zero() -> None:
    feed = {"ids": ids(5), "offsets": torch.tensor([0, 2, 2, 5])}
    model = Bags(mode="sum")
    found = reduced(exported(model, feed, "legacy"), arrays(feed))
    assert found.operators == ["EmbeddingBag"]
    (made,) = found.after.values()
    assert not made[1].any()
    assert not made[3].any()
    np.testing.assert_allclose(made, model(**feed).detach().numpy(), rtol=1e-6)


def refused_loop(proto: onnx.ModelProto) -> bool:
    """Whether a loop stays, with its reason; the reference runs none."""
    graph, _, refusals = reduce(read(proto), thorough=True)
    said = "but no sum, mean or maximum of bags of them"
    return any(node.op_type == "Loop" for node in graph.graph) and any(said in one.reason for one in refusals)


def test_bags_that_leave_an_id_out_stay() -> None:
    # Of many rows a few are tried; the one that is left out is none of them.
    model = Bags(mode="sum", padding_idx=ROWS - 1)
    model.rows = nn.EmbeddingBag(500, WIDTH, mode="sum", padding_idx=499)
    feed = {"ids": torch.tensor([[3, 499], [499, 7], [1, 2]])}
    assert refused_loop(exported(model, feed, "dynamo"))


def test_a_loop_that_does_something_else_with_rows_stays() -> None:
    feed = {"ids": ids(9), "offsets": torch.tensor([0, 2, 3, 6])}
    proto = exported(Bags(mode="sum"), feed, "legacy")
    loop = next(node for node in proto.graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    reduction = next(node for node in body.node if node.op_type == "ReduceSum")
    reduction.op_type = "ReduceProd"
    assert refused_loop(proto)


def columns(b: Builder, form: str, dtype: int = TensorProto.INT64) -> str:
    """The second of three columns of ids [batch, 3], or of the two ids each of [batch, 3, 2]."""
    shape: list[int | str] = ["batch", 3, 2] if form == "pairs" else ["batch", 3]
    fed = b.input("ids", shape, dtype)
    if form in ("column", "pairs"):
        return b.add("Gather", fed, b.constant(np.array(1)), axis=1)
    cut = b.add("Slice", fed, b.integers(1), b.integers(2), b.integers(1))
    return b.add("Squeeze", cut, b.integers(1)) if form == "squeezed" else cut


@pytest.mark.parametrize("form", ["column", "pairs", "slice", "squeezed"])
def test_ids_may_be_columns_of_what_is_fed(form: str) -> None:
    b = Builder(np.random.default_rng(0))
    picked = b.add("Gather", b.normal(ROWS, WIDTH), columns(b, form))
    y = picked if form in ("column", "squeezed") else b.add("ReduceSum", picked, b.integers(1), keepdims=0)
    shape = (4, 3, 2) if form == "pairs" else (4, 3)
    found = reduced(b.model(y=y), {"ids": b.rng.integers(0, ROWS, shape)})
    assert found.operators == (["Reshape", "EmbeddingBag"] if form == "pairs" else ["EmbeddingBag"])
    values = {name: attribute.value for name, attribute in found.nodes[-1].attributes.items()}
    assert (values["begin"], values["end"]) == ((2, 4) if form == "pairs" else (1, 2))
    assert_close(found, 1e-6)


def test_ids_of_int32_are_made_int64_once() -> None:
    b = Builder(np.random.default_rng(0))
    picked = columns(b, "column", TensorProto.INT32)
    tables = [b.add("Gather", b.normal(ROWS, WIDTH), picked) for _ in range(2)]
    found = reduced(b.model(y=b.add("Add", *tables)), {"ids": np.array([[1, 2, 3], [4, 5, 6]], np.int32)})
    assert found.operators == ["onnx.Cast", "EmbeddingBag", "EmbeddingBag", "Add"]
    assert_close(found, 1e-6)


def test_computed_ids_may_count_from_the_end_and_stay() -> None:
    b = Builder(np.random.default_rng(0))
    ids_ = b.add("Sub", b.input("ids", ["batch", 2], TensorProto.INT64), b.integers(5))
    y = b.add("ReduceSum", b.add("Gather", b.normal(ROWS, WIDTH), ids_), b.integers(1), keepdims=0)
    found = reduced(b.model(y=y), {"ids": np.array([[1, 2], [7, 9]])})
    assert "EmbeddingBag" not in found.operators
    assert any("are computed" in reason for reason in found.left)
    assert_close(found, 1e-6)


def table_of_bytes(b: Builder, dtype: type, scales: int) -> str:
    rows = b.constant(
        b.rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (ROWS, WIDTH)).astype(dtype)
    )
    scale = b.constant(
        b.rng.uniform(0.01, 0.1, scales).astype(np.float32).reshape(scales if scales > 1 else ())
    )
    shape = () if scales == 1 else scales
    zero = b.constant(b.rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape).astype(dtype))
    return b.add("DequantizeLinear", rows, scale, zero, axis=0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("scales", [1, ROWS])
def test_tables_of_bytes_stay_bytes(dtype: type, scales: int) -> None:
    b = Builder(np.random.default_rng(0))
    picked = b.add(
        "Gather", table_of_bytes(b, dtype, scales), b.input("ids", ["batch", 3], TensorProto.INT64)
    )
    y = b.add("ReduceMean", picked, b.integers(1), keepdims=0)
    found = reduced(b.model(y=y), {"ids": b.rng.integers(0, ROWS, (4, 3))})
    assert found.operators == ["EmbeddingBag"]
    stored = [value.const_value for value in found.nodes[0].inputs if value is not None and value.const_value]
    assert [np.asarray(tensor.numpy()).dtype.name for tensor in stored] == ["uint8", "float32", "uint8"]
    assert_close(found, 1e-6)


def triangle(b: Builder, products: str, count: int, form: str) -> str:
    """The strict lower triangle of products [batch, count, count]."""
    row, column = np.tril_indices(count, -1)
    if form == "flat":
        flat = b.add("Reshape", products, b.integers(0, -1))
        return b.add("Gather", flat, b.integers(*(row * count + column)), axis=1)
    turned = b.add("Transpose", products, perm=[1, 2, 0])
    pairs = b.constant(np.stack([row, column], 1))
    return b.add("Transpose", b.add("GatherND", turned, pairs), perm=[1, 0])


@pytest.mark.parametrize("form", ["flat", "pairs"])
@pytest.mark.parametrize("stacked", ["unsqueezed", "reshaped", "whole"])
def test_products_of_all_pairs(form: str, stacked: str) -> None:
    b, count = Builder(np.random.default_rng(0)), 4
    parts = [b.add("Tanh", b.input(f"x{i}", ["batch", WIDTH])) for i in range(count)]
    if stacked == "unsqueezed":
        vectors = b.add("Concat", *(b.add("Unsqueeze", part, b.integers(1)) for part in parts), axis=1)
    else:
        vectors = b.add("Reshape", b.add("Concat", *parts, axis=1), b.integers(0, count, WIDTH))
    products = b.add("MatMul", vectors, b.add("Transpose", vectors, perm=[0, 2, 1]))
    first = parts[0] if stacked != "whole" else b.add("Gather", vectors, b.constant(np.array(0)), axis=1)
    y = b.add("Concat", first, triangle(b, products, count, form), axis=1)
    feed = {f"x{i}": b.rng.standard_normal((3, WIDTH)).astype(np.float32) for i in range(count)}
    found = reduced(b.model(y=y), feed)
    assert found.operators == ["Tanh"] * count + ["Interaction"]
    assert_close(found, 1e-5)


@pytest.mark.parametrize(("places", "same"), [((1, 2, 5), True), ((5, 2, 1), False), ((3, 4, 7), False)])
def test_products_in_another_order_stay(places: tuple[int, ...], same: bool) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["batch", 3, WIDTH])
    products = b.add("MatMul", x, b.add("Transpose", x, perm=[0, 2, 1]))
    flat = b.add("Reshape", products, b.integers(0, -1))
    first = b.add("Gather", x, b.constant(np.array(0)), axis=1)
    y = b.add("Concat", first, b.add("Gather", flat, b.integers(*places), axis=1), axis=1)
    feed = {"x": b.rng.standard_normal((2, 3, WIDTH)).astype(np.float32)}
    graph, _, refusals = reduce(read(b.model(y=y)), thorough=True)
    # Above the diagonal stand the same numbers as below it.
    assert same == any(node.op_type == "Interaction" for node in graph.graph)
    assert same != any("strict lower triangle" in one.reason for one in refusals)
    if same:
        assert_close(reduced(b.model(y=y), feed), 1e-5)


def test_a_quantizer_goes_into_the_products() -> None:
    b, count = Builder(np.random.default_rng(0)), 3
    x = b.input("x", ["batch", count, WIDTH])
    products = b.add("MatMul", x, b.add("Transpose", x, perm=[0, 2, 1]))
    first = b.add("Gather", x, b.constant(np.array(0)), axis=1)
    y = b.add("Concat", first, triangle(b, products, count, "flat"), axis=1)
    made = b.add("QuantizeLinear", y, *b.quantizer(0.05, 120))
    found = reduced(b.model(y=made), {"x": b.rng.standard_normal((4, count, WIDTH)).astype(np.float32)})
    assert found.operators == ["Interaction"]
    assert_close(found, 1)

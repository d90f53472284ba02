"""The driver: order, fixpoint, stopping after a change, refusals, and a rule that breaks the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_models import Builder, runtime
from openwork.graph import RULES, Change, ModelError, Refusal, lowerable, read, reduce, run
from openwork.graph.model import make, needed
from openwork.graph.rewrite import Driver, Replacement, Rule


def layered(depth: int = 3) -> tuple[onnx.ModelProto, dict[str, Any]]:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 8])
    for _ in range(depth):
        x = b.add("Relu", b.add("Add", b.add("MatMul", x, b.normal(8, 8)), b.normal(8)))
    return b.model(y=x), {"x": b.rng.standard_normal((3, 8)).astype(np.float32)}


def test_every_prefix_of_the_changes_means_the_same() -> None:
    """What bisection needs: the graph after any number of changes is whole and computes the same."""
    proto, feeds = layered()
    wanted = runtime(proto, feeds)["y"]
    _, all_changes, _ = reduce(read(proto))
    assert [change.number for change in all_changes] == list(range(1, len(all_changes) + 1))
    for count in range(len(all_changes) + 1):
        model, changes, _ = reduce(read(proto), stop_after=count)
        assert changes == all_changes[:count]
        found = run(model, feeds)["y"]
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), count


def test_changes_say_what_they_did() -> None:
    _, changes, refusals = reduce(read(layered(1)[0]))
    assert [change.rule for change in changes] == [
        "linear in float",
        "bias into product",
        "relu",
        "activation into product",
    ]
    assert changes[0] == Change(1, "linear in float", "MatMul 'MatMul_0'", ("openwork.Linear 'MatMul_0'",))
    assert refusals == []


def test_stop_after_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="stop_after must be at least 0 or None, but it is -1"):
        reduce(read(layered(1)[0]), stop_after=-1)


def rule(name: str, replace: Any, check: Any = lambda node: None, anchors: str = "Relu") -> Rule:
    return Rule(name, frozenset({anchors}), lambda node: node, check, replace)


def dangling(node: ir.Node) -> Replacement:
    """A replacement that reads a value of no graph."""
    stray = ir.Value(name="stray", shape=ir.Shape([3, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    made = make("Relu", [stray], {}, "bad")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


def test_a_rule_that_breaks_the_graph_is_named_with_its_change() -> None:
    with pytest.raises(ModelError, match=r"Change 1 \(bad at Relu 'Relu_2'\) broke the graph: .*'stray'"):
        Driver(read(layered(1)[0]), [rule("bad", dangling)]).run()


def test_rules_that_undo_each_other_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(node: ir.Node) -> Replacement:
        made = ir.Node("", "Relu", [needed(node, 0)], name=node.name)
        made.outputs[0].shape, made.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        return Replacement([made], [(node.outputs[0], made.outputs[0])])

    monkeypatch.setattr("openwork.graph.rewrite.MAX_CHANGES", 50)
    with pytest.raises(ModelError, match="made 50 changes without coming to an end; a rule undoes another"):
        Driver(read(layered(1)[0]), [rule("same", same)]).run()


def test_refusals_are_kept_with_the_node() -> None:
    model = read(layered(1)[0])
    outcome = Driver(model, [rule("never", dangling, check=lambda node: "it is a test")]).run()
    assert outcome.changes == []
    assert outcome.refusals == [Refusal("never", "Relu 'Relu_2'", "it is a test")]
    assert ("Relu 'Relu_2'", "never: it is a test") in [
        (f"{n.op_type} {n.name!r}", why) for n, why in lowerable(model)
    ]


def test_the_rules_have_distinct_names_apart_from_repeated_ones() -> None:
    assert len({entry.name for entry in RULES}) == len(set(RULES))

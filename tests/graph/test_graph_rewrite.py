"""The driver: order, fixpoint, stopping after a change, refusals, and a rule that breaks the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_models import Builder, runtime
from openwork.graph import PHASES, RULES, Change, ModelError, Refusal, lowerable, read, reduce, run
from openwork.graph.driver import Driver
from openwork.graph.model import make, needed
from openwork.graph.phase import Condition, Phase
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.functions.activations import RELU


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
        model, changes, _ = reduce(read(proto), stop_after=count, thorough=True)
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


def phase(*rules: Rule, **conditions: Any) -> Phase:
    return Phase("test", rules, **conditions)


def dangling(node: ir.Node) -> Replacement:
    """A replacement that reads a value of no graph."""
    stray = ir.Value(name="stray", shape=ir.Shape([3, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    made = make("Relu", [stray], {}, "bad")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


def test_a_rule_that_breaks_the_graph_is_named_with_its_change() -> None:
    with pytest.raises(ModelError, match=r"Change 1 \(bad at Relu 'Relu_2'\) broke the graph: .*'stray'"):
        Driver(read(layered(1)[0]), [phase(rule("bad", dangling))]).run()


def test_rules_that_undo_each_other_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(node: ir.Node) -> Replacement:
        made = ir.Node("", "Relu", [needed(node, 0)], name=node.name)
        made.outputs[0].shape, made.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        return Replacement([made], [(node.outputs[0], made.outputs[0])])

    monkeypatch.setattr("openwork.graph.driver.MAX_CHANGES", 50)
    with pytest.raises(ModelError, match="made 50 changes without coming to an end; a rule undoes another"):
        Driver(read(layered(1)[0]), [phase(rule("same", same))]).run()


def test_refusals_are_kept_with_the_node() -> None:
    model = read(layered(1)[0])
    outcome = Driver(model, [phase(rule("never", dangling, check=lambda node: "it is a test"))]).run()
    assert outcome.changes == []
    assert outcome.refusals == [Refusal("never", "Relu 'Relu_2'", "it is a test")]
    assert ("Relu 'Relu_2'", "never: it is a test") in [
        (f"{n.op_type} {n.name!r}", why) for n, why in lowerable(model)
    ]


def test_the_rules_have_distinct_names_apart_from_repeated_ones() -> None:
    assert len({entry.name for entry in RULES}) == len(set(RULES))


def test_refused_numbers_leave_the_graph_as_it_was() -> None:
    """What a rule reads from the model may be no number that an operator takes: a reason, not a defect."""
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 8])
    y = b.add("LayerNormalization", x, b.normal(8), b.normal(8), epsilon=-1.0)
    model, changes, refusals = reduce(read(b.model(y=y)), thorough=True)
    assert changes == []
    expected = "the epsilon of LayerNorm must be a number from 1.4013e-45 to 3.40282e+38, but it is -1.0"
    assert [refusal.reason for refusal in refusals] == [expected]
    assert [node.op_type for node in model.graph] == ["LayerNormalization"]


BREAKS: dict[str, tuple[Any, str]] = {}


def breaks(message: str) -> Any:
    def keep(replace: Any) -> Any:
        BREAKS[replace.__name__] = (replace, message)
        return replace

    return keep


@breaks("reads '.*' as its input 0, but nothing makes that value before it")
def late_value(node: ir.Node) -> Replacement:
    """A node that reads what the anchor's successor makes."""
    made = make("Gelu", [node.outputs[0]], {}, "late")
    return Replacement([made], [(needed(node, 0), made.outputs[0])])


@breaks("The value 'x' is made more than once")
def taken_name(node: ir.Node) -> Replacement:
    made = make("Gelu", [needed(node, 0)], {}, "taken")
    made.outputs[0].name = "x"
    follower = make("Gelu", [made.outputs[0]], {}, "follower")
    return Replacement([made, follower], [(node.outputs[0], follower.outputs[0])])


@breaks("Gelu 'inner': 'y' must be f32 .* but it is i64")
def another_type(node: ir.Node) -> Replacement:
    """A new node whose output is not what its row gives."""
    inner = make("Gelu", [needed(node, 0)], {}, "inner")
    inner.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    outer = make("Gelu", [inner.outputs[0]], {}, "outer")
    return Replacement([inner, outer], [(node.outputs[0], outer.outputs[0])])


@pytest.mark.parametrize("name", sorted(BREAKS))
@pytest.mark.parametrize("depth", [1, 3])
def test_a_change_is_verified_by_itself(name: str, depth: int) -> None:
    replace, message = BREAKS[name]
    with pytest.raises(ModelError, match=rf"Change 1 \(bad at Relu 'Relu_2'\) broke the graph: .*{message}"):
        Driver(read(layered(depth)[0]), [phase(rule("bad", replace))]).run()


def test_a_change_is_verified_where_it_is_read() -> None:
    """A node of ours that stood before reads another type than it did."""

    def cast(node: ir.Node) -> Replacement:
        made = ir.Node("", "Cast", [needed(node, 0)], {"to": ir.AttrInt64("to", 7)}, name="cast")
        made.outputs[0].shape, made.outputs[0].type = node.outputs[0].shape, ir.TensorType(ir.DataType.INT64)
        return Replacement([made], [(node.outputs[0], made.outputs[0])])

    with pytest.raises(
        ModelError, match=r"Change 2 .*openwork\.Relu 'Relu_2': 'x' .* must be f32 .* but it is i64"
    ):
        Driver(read(layered(1)[0]), [phase(RELU), phase(rule("bad", cast, anchors="Add"))]).run()


def test_changes_at_one_place_keep_the_order() -> None:
    """More insertions at one place than there is room for between two numbers."""
    model = read(layered(2)[0])
    count = 0

    def insert(node: ir.Node) -> Replacement:
        nonlocal count
        count += 1
        made = ir.Node("", "Abs", [needed(node, 0)], name=f"abs{count}")
        made.outputs[0].shape, made.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        node.replace_input_with(0, made.outputs[0])
        return Replacement([made], [])

    endless = Rule(
        "abs", frozenset({"Relu"}), lambda node: node if count < 200 else None, lambda node: None, insert
    )
    Driver(model, [phase(endless)]).run()
    assert [node.op_type for node in model.graph].count("Abs") == 200


def test_what_a_phase_leaves_is_checked(caplog: pytest.LogCaptureFixture) -> None:
    none = Condition("there is no Relu", lambda node: node.op_type == "Relu")
    expected = "The phase test has ended, but not all of this holds: there is no Relu; against it stand Relu"
    with pytest.raises(ModelError, match=expected):
        Driver(read(layered(1)[0]), [phase(leaves=(none,))], thorough=True).run()
    Driver(read(layered(1)[0]), [phase(leaves=(none,))]).run()
    assert expected in caplog.text
    with pytest.raises(ModelError, match="The phase test begins, but not all of this holds"):
        Driver(read(layered(1)[0]), [phase(requires=(none,))], thorough=True).run()
    refusing = rule("never", dangling, check=lambda node: "it is a test")
    Driver(read(layered(1)[0]), [phase(refusing, leaves=(none,))], thorough=True).run()


def test_phases_rely_on_what_earlier_ones_leave() -> None:
    left: set[Condition] = set()
    for each in PHASES:
        assert set(each.requires) <= left, each.name
        left |= set(each.leaves)

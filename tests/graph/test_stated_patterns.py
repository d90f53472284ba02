"""The patterns that a model's metadata names: they follow the weights through the rules, transposed and
packed."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import pytest

from openwork.graph.edit import add_initializer
from openwork.graph.stated_patterns import attach_patterns, carry_pattern, stated_patterns
from openwork.patterns.metadata import PATTERN_KEY
from openwork.patterns.pattern import Pattern


def model(**stated: str) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="g")
    for name in "abc":
        add_initializer(graph, name, np.ones((4, 4), np.float32))
    found = ir.Model(graph, ir_version=10)
    found.metadata_props.update({PATTERN_KEY + name: text for name, text in stated.items()})
    attach_patterns(found)
    return found


def test_they_are_noted_by_name() -> None:
    assert stated_patterns(model(a="2:4", c="4x1:0.5").graph) == {
        "a": Pattern.parse("2:4"),
        "c": Pattern.parse("4x1:0.5"),
    }


def test_a_weight_made_of_several_keeps_what_all_have() -> None:
    graph = model(a="2:4", b="2:4", c="4:8").graph
    a, b, c = (graph.initializers[name] for name in "abc")
    for sources, expected in (
        ([a, b], "2:4"),
        ([a, c], None),
        ([a, None], None),
        ([c], "4:8"),
        ([None], None),
    ):
        made = carry_pattern(sources, add_initializer(graph, "made", np.ones((8, 4), np.float32)))
        found = stated_patterns(graph).get(str(made.name))
        assert found == (None if expected is None else Pattern.parse(expected))


def test_a_text_that_is_no_pattern_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert stated_patterns(model(a="4:2", b="2:4").graph) == {"b": Pattern.parse("2:4")}
    assert "say nothing about the weight 'a'" in caplog.text

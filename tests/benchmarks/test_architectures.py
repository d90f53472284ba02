"""The benchmark of architectures: one network goes the whole road."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.architectures.measure import cell, export
from benchmarks.architectures.networks import NETWORKS, Scale


def test_every_network_has_its_inputs() -> None:
    assert len({network.name for network in NETWORKS}) == len(NETWORKS) >= 20
    bert = next(network for network in NETWORKS if network.name == "bert")
    assert [len(names) for names in bert.variants()] == [1, 2, 2, 3]


@pytest.mark.parametrize("name", ["distilbert", "vit"])
def test_a_network_is_exported_quantized_built_and_compared(name: str, tmp_path: Path) -> None:
    network = next(network for network in NETWORKS if network.name == name)
    names = list(network.variants())[-1]
    path = export(network, names, "legacy", tmp_path, Scale(width=32, layers=1))
    found = cell(network, "legacy", names, path, threads=1)
    assert found.cosine >= 0.999
    assert found.native > 5
    assert found.speed > 0 < found.control

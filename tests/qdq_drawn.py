"""Models of random small Q/DQ graphs by seed: several side by side, which costs less than a model each."""

from __future__ import annotations

import numpy as np
from onnx import helper

from qdq_graphs import Artist, Drawn
from qdq_images import Painter

IMAGES = 0.4
"""The share of graphs on images."""


def draw(seed: int, graphs: int) -> Drawn:
    """A model of this many graphs side by side, and random inputs for it."""
    artist = Artist(np.random.default_rng(seed))
    for _ in range(graphs):
        (Painter(artist) if artist.chance(IMAGES) else artist).graph()
    known = {info.name: info for info in artist.outputs}
    graph = helper.make_graph(
        artist.b.nodes, f"seed {seed}", artist.b.inputs, list(known.values()), artist.b.initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return Drawn(model, artist.feeds, artist.fixed)

"""What can be asked for on the command line, and what it comes to."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from openwork import Pattern
from openwork.backends.library import chosen_isa, native

from . import measure, networks, peers, problem
from .cases import Settings
from .results import DENSE
from .shapes import Convolution, Layer, Shape

PATTERNS = ("2:4", "2:4@2", "2:4@4", "4:16", "4:32", "4:64", "4x1:0.8", "4x16:0.85", "1x1:0.9")
Work = list[tuple[Layer, str]]


def parser(description: str) -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--set", action="append", choices=networks.SETS, dest="sets", help="every layer of one; repeatable")
    add("--all", action="store_true", help="every layer of every set, in every type")
    add("--layer", help="only layers whose name contains this")
    add("--rows", help="of every matrix product, joined by commas, in the place of its own")
    add("--batch", type=int, default=1, help="images in every convolution")
    add("--patterns", default=",".join(PATTERNS), help="separated by commas; dense is always timed")
    add("--types", help=f"of {','.join(problem.TYPES)}; without it INT8, and the others on a few layers")
    add("--threads", type=int, default=1)
    add("--isa", help="force an instruction set; the other engines are then left out")
    add("--repeats", type=int, default=21, help=f"calls of each runner, in {measure.ROUNDS} rounds")
    add("--no-peers", action="store_true", help="leave the other engines out")
    add("--forms", action="store_true", help="time and print every packed form, not the best of each pattern")
    add("--seed", type=int, default=networks.SEED)
    add("--json", type=Path, help="write everything there")
    add("--plot", type=Path, help="write a roofline there, as PNG (needs matplotlib)")
    return made


def work(given: argparse.Namespace) -> Work:
    """The layers to time, each with its type. Raises ValueError where nothing is left."""
    types = given.types.split(",") if given.types else None
    if unknown := set(types or ()) - set(problem.TYPES):
        raise ValueError(f"Expected types of {', '.join(problem.TYPES)}, found {', '.join(sorted(unknown))}.")
    names = networks.SETS if given.all else given.sets
    layers = [layer for name in names or () for layer in networks.layers(name)] or networks.representative()
    if given.layer:
        layers = [layer for layer in layers if given.layer in str(layer)]
    if not layers:
        raise ValueError(f"No layer's name contains '{given.layer}'.")
    layers = _resized(layers, given)
    if types or given.all:
        return [(layer, kind) for kind in types or problem.TYPES for layer in layers]
    few = [layer for layer in layers if str(layer) in networks.FLOATS]
    return [(layer, problem.TYPES[0]) for layer in layers] + [
        (x, kind) for kind in problem.TYPES[1:] for x in few
    ]


def _resized(layers: list[Layer], given: argparse.Namespace) -> list[Layer]:
    """The layers with the rows and images that were asked for, each shape of a network once. Raises
    ValueError for sizes below 1."""
    rows = [int(text) for text in given.rows.split(",")] if given.rows else None
    if given.batch < 1:
        raise ValueError(f"Expected at least 1 image in a batch, found {given.batch}.")
    found: dict[tuple[str, Shape], Layer] = {}
    for layer in layers:
        shapes: list[Shape] = [layer.shape]
        if isinstance(layer.shape, Convolution):
            shapes = [replace(layer.shape, batch=given.batch)]
        elif rows is not None:
            shapes = [replace(layer.shape, rows=count) for count in rows]
        for shape in shapes:
            found.setdefault((layer.network, shape), replace(layer, shape=shape))
    return list(found.values())


def settings(given: argparse.Namespace) -> tuple[Settings, list[str]]:
    """What each layer is timed with, and sentences on what is not. Raises ValueError for a wrong option."""
    texts = [text for text in given.patterns.split(",") if text not in ("", DENSE)]
    patterns = tuple(str(Pattern.parse(text)) for text in texts)
    isa = chosen_isa(given.isa)
    if given.repeats < 1 or given.threads < 1:
        raise ValueError("Repeats and threads are at least 1.")
    engines, notes = ([], []) if given.no_peers else peers.installed()
    if engines and isa != native().isas()[0]:
        engines, notes = (
            [],
            [f"Other engines take no word on instruction sets; under {isa} they are left out."],
        )
    calls, patterns = -(-given.repeats // measure.ROUNDS), (DENSE, *patterns)
    chosen = Settings(isa, given.threads, calls, given.seed, patterns, tuple(engines), given.forms)
    return chosen, notes

"""What ONNX Runtime's busily waiting threads cost an engine that alternates between it and openwork's
kernels.

    python -m benchmarks.fallback_threads [--threads 2] [--rows 64] [--runs 300]

The engine has INT8 layers with an operator between them that has no native step. Two copies of it are loaded,
one whose ONNX Runtime threads spin when they have nothing to do (its default) and one whose threads sleep
(what openwork sets), and run in turns of a tenth of the runs each, since both copies' threads live side by
side.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import openwork
from openwork.backends.onnxruntime import session
from openwork.runtime.engine import Engine
from openwork.support.machine import this_machine

WIDTH, LAYERS, TURNS = 512, 6, 10


def model() -> onnx.ModelProto:
    """Q/DQ products of 512 x 512 with an Elu behind each, which ONNX Runtime does with all of its threads."""
    rng = np.random.default_rng(0)
    nodes, tensors = [], []

    def constant(name: str, array: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(array, name))
        return name

    step = [constant("x_scale", np.float32(1 / 32)), constant("x_zero", np.uint8(128))]
    top = "x"
    for i in range(LAYERS):
        weight = constant(f"w{i}", rng.integers(-127, 128, (WIDTH, WIDTH), np.int8))
        scale = constant(f"s{i}", np.full(WIDTH, 1e-3, np.float32))
        zero = constant(f"z{i}", np.zeros(WIDTH, np.int8))
        nodes += [
            helper.make_node("QuantizeLinear", [top, *step], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", *step], [f"d{i}"]),
            helper.make_node("DequantizeLinear", [weight, scale, zero], [f"e{i}"], axis=1),
            helper.make_node("MatMul", [f"d{i}", f"e{i}"], [f"p{i}"]),
            helper.make_node("Elu", [f"p{i}"], [f"y{i}"]),
        ]
        top = f"y{i}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in ("x", top)]
    graph = helper.make_graph(nodes, "mixed", ports[:1], ports[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@contextmanager
def spinning(allowed: bool) -> Iterator[None]:
    """Engines that are loaded inside have ONNX Runtime's threads spin, or not."""
    before = dict(session.AMONG_OTHERS)
    session.AMONG_OTHERS.update(dict.fromkeys(before, str(int(allowed))))
    try:
        yield
    finally:
        session.AMONG_OTHERS.update(before)


def loaded(path: Path, threads: int) -> dict[str, Engine]:
    """The engine with threads that spin and with threads that sleep."""
    found = {}
    for name, allowed in (("spin", True), ("sleep", False)):
        with spinning(allowed):
            found[name] = openwork.load(path, threads=threads)
    return found


def measure(engines: dict[str, Engine], feed: dict[str, np.ndarray], runs: int) -> dict[str, np.ndarray]:
    """Seconds of each run, on the clock and of all threads, [runs, 2], in turns; the outputs of both must be
    equal."""
    expected = [engine.run(feed) for engine in engines.values()]
    assert all(np.array_equal(expected[0][name], other[name]) for other in expected for name in other)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for _ in range(TURNS):
        for name, engine in engines.items():
            for _ in range(-(-runs // TURNS)):
                begin, spent = time.perf_counter(), time.process_time()
                engine.run(feed)
                seconds[name].append((time.perf_counter() - begin, time.process_time() - spent))
    return {name: np.array(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--runs", type=int, default=300)
    options = parser.parse_args()
    print(this_machine().line(options.threads))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixed.engine"
        cache = Path(folder) / "t.json"
        openwork.build(
            model(),
            path,
            shapes=[[options.rows]],
            threads=options.threads,
            timing_cache=cache,
            progress=False,
        )
        engines = loaded(path, options.threads)
        feed = engines["sleep"].sample((options.rows,))
        found = measure(engines, feed, options.runs)
    for name, seconds in found.items():
        quick, middle = 1e3 * np.quantile(seconds[:, 0], (0.25, 0.5))
        threads = 1e3 * seconds[:, 1].mean()
        print(f"{name:6} lower quartile {quick:.3f} ms, median {middle:.3f} ms, all threads {threads:.3f} ms")
    ratio = np.median(found["spin"], axis=0) / np.median(found["sleep"], axis=0)
    print(f"spin / sleep, medians: {ratio[0]:.2f} on the clock, {ratio[1]:.2f} of all threads")


if __name__ == "__main__":
    main()

"""Twenty and more architectures of `transformers`, by both exporters, with and without each optional input.

    python -m benchmarks.architectures [--only bert,vit] [--exporters legacy,dynamo] [--threads 1,2]

Each is exported in FP32 with random weights, quantized as `openwork quantize` does, built, loaded, compared
with ONNX Runtime without optimizations on the same file, and timed beside ONNX Runtime on the same file, in
turns, at one and two rows. A cell gives the least cosine and the least ratio of times over the shapes; the
column "control" is the ratio of a second session of ONNX Runtime: what the machine makes of a ratio of 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.architectures.measure import EXPORTERS, Cell, CellError, cell, export
from benchmarks.architectures.networks import NETWORKS, Network, Scale
from openwork.support.machine import this_machine

AGREE = 0.999


def main() -> int:
    """Print the table; gives 1 where an engine does not agree with ONNX Runtime."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("--only", help="names of architectures, joined by commas")
    parser.add_argument("--exporters", default=",".join(EXPORTERS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--layers", type=int, default=Scale.layers)
    parser.add_argument("--width", type=int, default=Scale.width)
    parser.add_argument("--json", type=Path, help="writes the cells here")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    threads = [int(count) for count in asked.threads.split(",")]
    chosen = [network for network in NETWORKS if asked.only is None or network.name in asked.only.split(",")]
    print(this_machine().line(max(threads)))
    columns = f"{'threads':>8}{'cosine':>10}{'x ORT':>8}{'control':>9}  runs"
    print(f"{'network':14}{'exporter':9}{'inputs':44}{columns}")
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(asked.width, asked.layers)
        for network in chosen:
            for exporter in asked.exporters.split(","):
                cells += _row(network, exporter, threads, Path(folder), scale)
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(one) for one in cells], indent=2) + "\n")
    wrong = [one for one in cells if not one.cosine >= AGREE]
    slow = [one for one in cells if one.speed < 1]
    print(
        f"{len(cells)} engines, {len(wrong)} below a cosine of {AGREE}, {len(slow)} slower than ONNX Runtime"
    )
    return 1 if wrong else 0


def _row(network: Network, exporter: str, threads: list[int], folder: Path, scale: Scale) -> list[Cell]:
    cells = []
    for names in network.variants():
        place = f"{network.name:14}{exporter:9}{' '.join(names):44}"
        try:
            path = export(network, names, exporter, folder, scale)
            for count in threads:
                one = cell(network, exporter, names, path, count)
                cells.append(one)
                ran = f"{one.native} native steps, {one.fallbacks} nodes in ONNX Runtime"
                print(
                    f"{place}{count:8}{one.cosine:10.5f}{one.speed:8.2f}{one.control:9.2f}  {ran}", flush=True
                )
        except CellError as error:
            print(f"{place} {error}", flush=True)
    return cells


if __name__ == "__main__":
    sys.exit(main())

"""What `openwork predict` calls and prints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from openwork.cli.options import parse_shapes
from openwork.cli.outputs import check_outputs
from openwork.prediction.predict import predict as predict_gains
from openwork.support.files import write_atomic


@dataclass(frozen=True)
class Request:
    """What `openwork predict` was asked for."""

    model: Path
    patterns: str
    machine: str
    shape: str | None
    threads: int


def predict(request: Request, output: Path | None) -> None:
    """Predict and show the table; with an output, write the JSON."""
    check_outputs((output,), (request.model,))
    shapes = parse_shapes(request.shape)
    if shapes is not None and len(shapes) != 1:
        raise ValueError(f"A prediction is for one shape, but {request.shape!r} has {len(shapes)}.")
    patterns = [text.strip() for text in request.patterns.split(",") if text.strip()]
    found = predict_gains(
        request.model, patterns, request.machine, shape=shapes and shapes[0], threads=request.threads
    )
    Console().print(found.table(), markup=False, highlight=False, soft_wrap=True)
    if output is not None:
        write_atomic(output, [json.dumps(found.to_json(), indent=2).encode() + b"\n"])

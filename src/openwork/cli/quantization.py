"""What `openwork quantize` calls and prints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from openwork.cli.outputs import check_outputs
from openwork.support.files import write_atomic

if TYPE_CHECKING:
    from openwork.quantization import QuantizationOptions
    from openwork.quantization.float_onnx import QuantizedOnnx


@dataclass(frozen=True)
class Choice:
    """How `openwork quantize` was asked to go about it."""

    target: str | None
    observer: str | None
    percentile: float
    exclude: tuple[str, ...]
    batch: int
    cache: Path | None
    tables: str


def quantize(model: Path, data: Path | None, output: Path, choice: Choice, record: Path | None) -> None:
    """Quantize, write, show what became INT8 and how to go on. Raises ValueError where torch is missing."""
    try:
        from openwork.quantization.float_onnx import OnnxCalibration, quantize_onnx
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Quantizing needs {error.name}; install it with `pip install openwork[train]`."
        ) from error
    check_outputs((output, record), (model, data), (choice.cache,))
    console = Console()
    tables: Any = choice.tables
    progress = Console(stderr=True).is_terminal
    how = OnnxCalibration(choice.target, choice.batch, choice.cache, progress, tables)
    quantized = quantize_onnx(model, data, _options(choice), how)
    quantized.write(output)
    console.print(_table(quantized))
    _show_end(console, quantized, output, choice)
    if record is not None:
        write_atomic(record, [json.dumps(_record(quantized), indent=1).encode() + b"\n"])


def _options(choice: Choice) -> QuantizationOptions:
    from openwork.qdq.targets import parse_target
    from openwork.quantization import QuantizationOptions

    # A target is checked as one: the styles, which the options would list, are one more than the targets.
    style: Any = "openwork" if choice.target is None else parse_target(choice.target).name
    observer: Any = choice.observer
    return QuantizationOptions(
        style=style, observer=observer, percentile=choice.percentile, exclude=choice.exclude
    )


def _table(quantized: QuantizedOnnx) -> Table:
    table = Table("layer", "kind", "type", "how, or why not")
    for row in quantized.choices:
        table.add_row(row.name, row.kind, "INT8" if row.quantized else "float", row.reason)
    return table


def _show_end(console: Console, quantized: QuantizedOnnx, output: Path, choice: Choice) -> None:
    from openwork.qdq.targets import next_steps, openwork_steps

    done = sum(row.quantized for row in quantized.choices)
    lines = [f"{done} of {len(quantized.choices)} layers are INT8."]
    if quantized.folded:
        lines.append(f"{len(quantized.folded)} normalizations were folded into the convolutions before them.")
    if quantized.cached:
        lines.append(f"The scales came from {choice.cache}; no data were run.")
    lines.append(f"Wrote {output} ({output.stat().st_size:,} bytes). To go on:\n")
    lines.append(next_steps(output, choice.target) if choice.target else openwork_steps(output))
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _record(quantized: QuantizedOnnx) -> dict[str, Any]:
    return {
        "layers": [asdict(choice) for choice in quantized.choices],
        "tensors": {name: asdict(entry) for name, entry in quantized.entries.items()},
        "folded": list(quantized.folded),
        "cached": quantized.cached,
    }

"""The commands and their options."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from openwork.cli import commands, prediction, quantization
from openwork.cli.failure import one_sentence
from openwork.cli.options import parse_shapes
from openwork.cli.quantization import Choice

app = typer.Typer(
    name="openwork",
    help="Quantize models; build, time and inspect sparse INT8 inference engines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file, as JSON.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; default the physical cores.")]
Shapes = Annotated[
    str | None,
    typer.Option(
        help="One size per free dimension of the inputs: 1x32,1x128 are batch 1 at length 32 and 128."
    ),
]


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is being done, and why.")
    ] = False,
) -> None:
    """Options before the command."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")


@app.command()
def build(
    model: Annotated[Path, typer.Argument(help="An ONNX model: float, or quantized with Q/DQ.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine to write.")],
    sparsity: Annotated[str, typer.Option(help="on, off, or force (prune to 2:4; accuracy is lost).")] = "on",
    rounding: Annotated[
        str, typer.Option(help="exact, or relaxed (fewer roundings between float operators; clamps stay).")
    ] = "exact",
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32 (the default), bf16 (float layers that are faster so), or int8 (a quantized model)."
        ),
    ] = None,
    shapes: Shapes = None,
    threads: Threads = None,
    strict: Annotated[bool, typer.Option(help="Refuse a model that needs ONNX Runtime for a part.")] = False,
    native: Annotated[
        str | None,
        typer.Option(help="on (where the whole gains over ONNX Runtime; the default), off, or force."),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Load and run what was written, and compare it with ONNX Runtime.")
    ] = True,
    timing_cache: Annotated[Path | None, typer.Option(help="Where timings are kept between builds.")] = None,
    json: Json = None,
) -> None:
    """Build an engine from an ONNX model."""
    with one_sentence():
        request = commands.Build(
            model,
            output,
            sparsity,
            rounding,
            precision,
            parse_shapes(shapes),
            threads,
            strict,
            native,
            verify,
            timing_cache,
        )
        commands.build(request, json)


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="A float ONNX model, opset 7 or newer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The Q/DQ model to write.")],
    data: Annotated[
        Path | None, typer.Option(help="Calibration data: a .npz or .npy file, or a folder of them.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="tensorrt or onnxruntime; without it, what openwork runs fastest.")
    ] = None,
    observer: Annotated[
        str | None,
        typer.Option(help="output, max, moving, percentile, entropy or mse; default the target's."),
    ] = None,
    percentile: Annotated[float, typer.Option(help="Of the values kept, for that observer.")] = 99.99,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Globs of node names to leave in float; may be repeated.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Samples in a batch, where one array holds them all.")
    ] = 8,
    cache: Annotated[Path | None, typer.Option(help="Where the scales are kept between runs.")] = None,
    tables: Annotated[
        str, typer.Option(help="float or int8: how tables of embeddings are stored.")
    ] = "float",
    json: Json = None,
) -> None:
    """Quantize a float ONNX model with calibration data."""
    with one_sentence():
        chosen = Choice(target, observer, percentile, tuple(exclude or ()), batch, cache, tables)
        quantization.quantize(model, data, output, chosen, json)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="An ONNX model (.onnx) or an engine file.")],
    patterns: Annotated[str, typer.Option(help="Patterns between commas: 2:4,16:64,64:128@64.")],
    machine: Annotated[str, typer.Option(help="The machine to predict for, this one or another.")] = "amx",
    shape: Annotated[
        str | None, typer.Option(help="One size per free dimension of the inputs; default the largest usual.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that share each product.")] = 1,
    json: Json = None,
) -> None:
    """Predict what patterns would gain on a CPU that need not be this one. Nothing is timed."""
    with one_sentence():
        prediction.predict(prediction.Request(model, patterns, machine, shape, threads), json)


@app.command()
def bench(
    engine: Annotated[Path, typer.Argument(help="An engine file.")],
    shapes: Shapes = None,
    threads: Threads = None,
    duration: Annotated[float, typer.Option(min=0.01, help="Seconds to time each shape for.")] = 3.0,
    profile: Annotated[bool, typer.Option("--profile", help="Also show what each step takes.")] = False,
    json: Json = None,
) -> None:
    """Time an engine."""
    with one_sentence():
        commands.bench(commands.Bench(engine, parse_shapes(shapes), threads, duration, profile), json)


@app.command()
def inspect(
    engine: Annotated[Path | None, typer.Argument(help="An engine file.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also read every tensor and check its digest.")
    ] = False,
    machine: Annotated[
        bool, typer.Option("--machine", help="Show this machine: which instruction sets run, or why not.")
    ] = False,
    json: Json = None,
) -> None:
    """Show an engine's inputs, outputs and layers, and what its build report says about them; or this
    machine."""
    with one_sentence():
        if machine == (engine is not None):
            raise ValueError("Inspect takes an engine file or --machine, one of the two.")
        if engine is None:
            if verify:
                raise ValueError("--verify reads an engine file; a machine has no digests.")
            commands.inspect_machine(json)
        else:
            commands.inspect(engine, verify, json)


def main() -> None:
    """The program `openwork`."""
    app()

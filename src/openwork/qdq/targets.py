"""Targets: which engine an exported Q/DQ file is for, what that engine wants, and how to go on there.

Sources: the developer guides of TensorRT 10 and 11 on explicit quantization and trtexec (11 has strongly
typed networks only: `--int8`, `--fp16` and `--best` are gone, the types stand in the graph); ONNX Runtime's
page "Quantize ONNX models".
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from openwork.qdq.affine import Activation

TargetName = Literal["tensorrt", "onnxruntime"]
Bias = Literal["float", "int32"]


@dataclass(frozen=True)
class Target:
    """An engine and its dialect of Q/DQ.

    activation, symmetric: the type of the integers of activations, and whether their zero point stands in the
    middle (0 for s8). outputs: whether the outputs of weighted layers are quantized besides their inputs.
    bias: how a bias is stored, as floats or as INT32 with a DequantizeLinear.
    """

    name: TargetName
    title: str
    activation: Activation
    symmetric: bool
    outputs: bool
    bias: Bias
    dialect: str


TARGETS: dict[str, Target] = {
    "tensorrt": Target(
        "tensorrt", "TensorRT", "s8", True, False, "float",
        "symmetric s8 on the inputs of weighted layers and of residual additions, float bias",
    ),
    "onnxruntime": Target(
        "onnxruntime", "ONNX Runtime", "u8", False, True, "int32",
        "u8 with a zero point on inputs and outputs of weighted layers, INT32 bias",
    ),
}  # fmt: skip

HELP = "; ".join(f"{target.name}: {target.dialect}" for target in TARGETS.values()) + "."
"""One line on both dialects, for the help of a `--target` option."""


@dataclass(frozen=True)
class FreeDimension:
    """The sizes to build an engine for in one free dimension: the least, the usual, the most."""

    least: int = 1
    usual: int = 8
    most: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.usual <= self.most:
            raise ValueError(
                "The sizes of a free dimension rise from the least (1 at least) over the usual to the most, "
                f"but they are {self.least}, {self.usual}, {self.most}."
            )


DEFAULT_DIMENSIONS: Mapping[str, FreeDimension] = {
    "batch": FreeDimension(),
    "length": FreeDimension(1, 128, 512),
}


def parse_target(text: str) -> Target:
    """The target that `text` names; raises ValueError, naming the targets, for another."""
    name = text.strip().lower().replace("_", "").replace("-", "")
    if name not in TARGETS:
        raise ValueError(f"A target is {' or '.join(map(repr, TARGETS))}, but it is {text!r}. {HELP}")
    return TARGETS[name]


def next_steps(
    path: str | Path, target: str | Target, free: Mapping[str, FreeDimension] | None = None
) -> str:
    """The exact commands to go on with, for reading and for pasting.

    path: the exported file; it is read for its inputs. free: sizes of its free dimensions by name, in the
    place of `DEFAULT_DIMENSIONS`; a dimension named nowhere takes `FreeDimension()`.
    Raises ValueError for an unknown target or a name in `free` that no input has.
    """
    target = parse_target(target) if isinstance(target, str) else target
    inputs = _inputs(Path(path))
    sizes = {**DEFAULT_DIMENSIONS, **(free or {})}
    _check_free(free or {}, inputs)
    blocks = _tensorrt(Path(path), inputs, sizes) if target.name == "tensorrt" else _onnxruntime(Path(path))
    return _joined(*blocks, _openwork(Path(path)))


def openwork_steps(path: str | Path) -> str:
    """The commands that build and time an engine of the exported file here."""
    return _joined(_openwork(Path(path)))


def _joined(*blocks: tuple[str, str]) -> str:
    return "\n\n".join(f"# {title}\n{body}" for title, body in blocks)


Inputs = Mapping[str, Sequence[int | str]]
"""The shape of every input: a number, or the name of a free dimension."""


def _inputs(path: Path) -> Inputs:
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    return {
        value.name: [
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?"
            for d in value.type.tensor_type.shape.dim
        ]
        for value in graph.input
        if value.name not in stored
    }


def _check_free(free: Mapping[str, FreeDimension], inputs: Inputs) -> None:
    known = {size for shape in inputs.values() for size in shape if isinstance(size, str)}
    for name in free:
        if name not in known:
            raise ValueError(
                f"No input has a free dimension named {name!r}; the free dimensions are: "
                f"{', '.join(sorted(known)) or 'none'}."
            )


def _tensorrt(path: Path, inputs: Inputs, sizes: Mapping[str, FreeDimension]) -> tuple[tuple[str, str], ...]:
    common = ["trtexec", f"--onnx={path}", f"--saveEngine={path.with_suffix('.plan')}", "--sparsity=enable"]
    shapes = _shape_flags(inputs, sizes)
    return (
        ("TensorRT 10: --int8 lets Q/DQ run in INT8, --fp16 the rest in FP16",
         shlex.join([*common, "--int8", "--fp16", *shapes])),
        ("TensorRT 11: types come from the graph alone; --int8, --fp16 and --best are gone",
         shlex.join([*common, *shapes])),
    )  # fmt: skip


def _shape_flags(inputs: Inputs, sizes: Mapping[str, FreeDimension]) -> list[str]:
    free = {name: shape for name, shape in inputs.items() if any(isinstance(size, str) for size in shape)}
    if not free:
        return []
    return [
        f"--{flag}Shapes=" + ",".join(f"{name}:{_shape(shape, sizes, field)}" for name, shape in free.items())
        for flag, field in (("min", "least"), ("opt", "usual"), ("max", "most"))
    ]


def _shape(shape: Sequence[int | str], sizes: Mapping[str, FreeDimension], field: str) -> str:
    default = FreeDimension()
    return "x".join(
        str(size if isinstance(size, int) else getattr(sizes.get(size, default), field)) for size in shape
    )


def _onnxruntime(path: Path) -> tuple[tuple[str, str], ...]:
    lines = (
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({str(path)!r}, providers=['CPUExecutionProvider'])",
        "outputs = session.run(None, feeds)  # feeds: {input name: numpy array}",
    )
    return (("ONNX Runtime, in Python", "\n".join(lines)),)


def _openwork(path: Path) -> tuple[str, str]:
    engine = path.with_suffix(".engine")
    build = shlex.join(["openwork", "build", str(path), "-o", str(engine)])
    return "openwork, on this CPU", f"{build}\n{shlex.join(['openwork', 'bench', str(engine)])}"

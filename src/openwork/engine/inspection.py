"""Looking into an engine file without loading it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openwork.engine.engine_file import read_engine
from openwork.engine.ports import TensorInfo, inputs_of, outputs_of
from openwork.engine.program import Program
from openwork.engine.report import BuildReport, read_report


@dataclass(frozen=True)
class Inspection:
    """An engine's name, size, program and report."""

    name: str
    bytes: int
    program: Program
    report: BuildReport

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the engine takes."""
        return inputs_of(self.program)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the engine gives."""
        return outputs_of(self.program)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.program.steps)

    def to_json(self) -> dict[str, Any]:
        """Name, size, inputs, outputs, steps and the whole report."""
        return {
            "engine": self.name,
            "bytes": self.bytes,
            "inputs": [_port(info) for info in self.inputs],
            "outputs": [_port(info) for info in self.outputs],
            "steps": self.program.to_json()["steps"],
            "report": self.report.to_json(),
        }


def inspect_engine(path: str | os.PathLike[str], *, verify: bool = False) -> Inspection:
    """Read and check an engine file; raises what `openwork.engine.engine_file.read_engine` raises.

    verify : also read all of its tensors and check their digests.
    """
    file = read_engine(path)
    if verify:
        file.tensors.verify()
    return Inspection(Path(path).name, Path(path).stat().st_size, file.program, read_report(file.report))


def _port(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "dtype": str(info.dtype), "shape": list(info.shape)}

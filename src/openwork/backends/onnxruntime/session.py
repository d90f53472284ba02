"""Running a part of a program through ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.engine.program import Step

Array = NDArray[Any]


class FallbackSession:
    """One fallback step, loaded; safe to run from several threads."""

    def __init__(self, step: Step, model: NDArray[np.uint8], threads: int) -> None:
        """Raises ImportError where ONNX Runtime is not installed, ValueError where it refuses the model."""
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f"The step '{step.name}' of this engine runs in ONNX Runtime, which could not be loaded "
                f"({error}); "
                "install the package onnxruntime, or build with strict to be told what needs it."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model.tobytes(), options, providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's exceptions share no base class but Exception.
        except Exception as error:
            raise ValueError(f"ONNX Runtime refuses the model of the step '{step.name}': {error}") from error
        self.name = step.name
        self._names = [port.name for port in self._session.get_inputs()]
        if (len(self._names), len(self._session.get_outputs())) != (len(step.inputs), len(step.outputs)):
            raise ValueError(
                f"The model of the step '{step.name}' has {len(self._names)} inputs and "
                f"{len(self._session.get_outputs())} outputs, but the step {len(step.inputs)} and "
                f"{len(step.outputs)}."
            )

    def run(self, inputs: list[Array]) -> list[Array]:
        """The model's outputs, in order, for its inputs in order."""
        try:
            return list(self._session.run(None, dict(zip(self._names, inputs, strict=True))))
        except Exception as error:
            raise ValueError(f"ONNX Runtime could not run the step '{self.name}': {error}") from error

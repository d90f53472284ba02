"""Running a part of a program through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from openwork.engine.program import MODEL, Step, Value

Array = NDArray[Any]

SETTINGS = {
    # A protobuf message can be written so that it also looks like ONNX Runtime's own format, which nothing
    # checks.
    "session.load_model_format": "ONNX",
}
AMONG_OTHERS = {
    # Threads that wait busily here would take the cores from the pool of the native steps around this one.
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
}
"""What a session needs besides where it is not alone."""


class FallbackSession:
    """One fallback step, loaded; contexts share it, and it is safe to run from several threads."""

    def __init__(
        self,
        step: Step,
        values: tuple[Value, ...],
        tensors: Mapping[str, Array],
        threads: int,
        alone: bool = False,
    ) -> None:
        """Check the bytes of a step's model, then let ONNX Runtime load it.

        values : of the program. tensors : of the engine. threads : of each run. alone : whether the step is
        the whole program.
        Raises ImportError where ONNX Runtime is not installed, ValueError where the model is none that may
        run, or ONNX Runtime refuses it.
        """
        self.name = step.name
        checked = checked_model(step, values, tensors)
        settings = SETTINGS if alone else SETTINGS | AMONG_OTHERS
        # ONNX Runtime reads the stored tensors where they lie, as long as the session lives.
        self._stored = _stored(step, checked, tensors)
        self._session = _session(step, checked, threads, settings, self._stored)
        self._names = [port.name for port in self._session.get_inputs()]

    def run(self, inputs: list[Array]) -> list[Array]:
        """The model's outputs, in order, for its inputs in order."""
        try:
            return list(self._session.run(None, dict(zip(self._names, inputs, strict=True))))
        # ONNX Runtime's exceptions share no base class but Exception.
        except Exception as error:
            raise ValueError(f"ONNX Runtime could not run the step '{self.name}': {error}") from error


def quiet_options(threads: int) -> Any:
    """Options of a session of so many threads: what fails is raised, and needs no line of its own besides."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return options


def checked_model(step: Step, values: tuple[Value, ...], tensors: Mapping[str, Array]) -> Any:
    """The parsed model of a fallback step (onnx.ModelProto), safe for ONNX Runtime; raises ValueError
    otherwise."""
    # Here, since engines without such a step need no onnx.
    from openwork.backends.onnxruntime.model_checks import ModelFault, check_model
    from openwork.backends.onnxruntime.stored import contents

    inputs = [values[index] for index in step.inputs if index is not None]
    outputs = [values[index] for index in step.outputs if index is not None]
    try:
        stored = [tensors[name].nbytes for name in contents(step.tensors)]
        return check_model(tensors[step.tensors[MODEL]].data, inputs, outputs, stored)
    except ModelFault as fault:
        raise ValueError(f"The model of the step '{step.name}': {fault}.") from None


def _stored(step: Step, model: Any, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of the model's tensors that stand in the engine, by their names."""
    from openwork.backends.onnxruntime.stored import contents, placed, stored_tensors, view

    names = contents(step.tensors)
    return {t.name: view(t, tensors[names[placed(t) or 0]]) for t in stored_tensors(model)}


def _session(
    step: Step, model: Any, threads: int, settings: Mapping[str, str], stored: Mapping[str, Array]
) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f"The step '{step.name}' of this engine runs in ONNX Runtime, which could not be loaded "
            f"({error}); install the package onnxruntime, or build with strict to be told what needs it."
        ) from error
    options = quiet_options(threads)
    for name, setting in settings.items():
        options.add_session_config_entry(name, setting)
    if stored:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in stored.values()]
        options.add_external_initializers(list(stored), values)
    try:
        # Written anew: ONNX Runtime reads what was checked, not what another parser might find in the bytes.
        content = model.SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"ONNX Runtime refuses the model of the step '{step.name}': {error}") from error

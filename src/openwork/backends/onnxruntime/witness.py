"""A whole model in ONNX Runtime, as it is written and without any optimization: what an engine is checked
against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from openwork.backends.onnxruntime.session import SETTINGS, quiet_options

Array = NDArray[Any]

_FOLDER = "session.model_external_initializers_file_folder_path"


class Witness:
    """A session of the model; raises ValueError where ONNX Runtime does not take or run it, ImportError where
    it is not installed."""

    def __init__(self, source: Path | onnx.ModelProto, threads: int, also: Sequence[str] = ()) -> None:
        """also : names of values that are given besides the model's outputs."""
        import onnxruntime

        options = quiet_options(threads)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        for name, setting in SETTINGS.items():
            options.add_session_config_entry(name, setting)
        content: str | bytes = str(source)
        if isinstance(source, onnx.ModelProto) or also:
            model = _with_outputs(source, also)
            if not isinstance(source, onnx.ModelProto):
                options.add_session_config_entry(_FOLDER, str(source.resolve().parent))
            content = model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        # ONNX Runtime's exceptions share no base class but Exception.
        except Exception as error:
            raise ValueError(f"ONNX Runtime does not take the model as it is written: {error}") from error
        self.inputs = {port.name: tuple(port.shape) for port in self._session.get_inputs()}
        """Of each input its shape: a size, a name, or None where it has none, for each axis."""
        ports = self._session.get_outputs()
        self.names = [port.name for port in ports]
        self._stated = {port.name: port.shape for port in ports}

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The model's outputs by name, and the other values that were asked for."""
        try:
            made = self._session.run(None, dict(feed))
        except Exception as error:
            raise ValueError(f"ONNX Runtime does not run the model on samples: {error}") from error
        return dict(zip(self.names, made, strict=True))

    def as_stated(self, made: Mapping[str, Array]) -> bool:
        """Whether outputs have the shapes that the model states, as far as it states any."""
        return all(_agrees(self._stated[name], array.shape) for name, array in made.items())


def _agrees(stated: Sequence[object] | None, shape: Sequence[int]) -> bool:
    """stated : an integer for each axis that has a fixed size."""
    if stated is None:
        return True
    return len(stated) == len(shape) and all(
        dim == size for dim, size in zip(stated, shape, strict=True) if isinstance(dim, int)
    )


def _with_outputs(source: Path | onnx.ModelProto, also: Sequence[str]) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    else:
        model = onnx.load(str(source), "protobuf", load_external_data=False)
    known = {port.name for port in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in also if name not in known)
    return model

"""The INT8 models that the peers' own tools make, and the settings at which they are fastest."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import openvino
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from openwork.bench.latency import Options, measure

from .runners import Runner, with_openvino
from .texts import Batch, IntArray

PRECISIONS = ("f32", "bf16")
TRIAL = Options(warm_up=0.05, duration=0.25, turn=0.05, minimum_rounds=5)


def dynamic_by_onnxruntime(source: Path, target: Path) -> None:
    """ONNX Runtime's dynamic quantization: INT8 weights, activations quantized as they come."""
    with _whole(target) as temporary:
        quantize_dynamic(
            source, temporary, weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True}
        )


def static_by_onnxruntime(source: Path, target: Path, data: Sequence[Batch]) -> None:
    """ONNX Runtime's static quantization as it is fastest on x86: u8 activations, every operator it knows."""
    with _whole(target) as temporary:
        quantize_static(
            onnx.load(source),
            temporary,
            _Reader(data),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
        )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches in the form in which ONNX Runtime takes them."""

    def __init__(self, data: Sequence[Batch]) -> None:
        self._left = iter([_feed(batch) for batch in data])

    def get_next(self) -> dict[str, IntArray] | None:
        return next(self._left, None)


def by_nncf(source: Path, target: Path, data: Sequence[Batch]) -> None:
    """OpenVINO's own quantizer with its settings for transformers."""
    import nncf  # Takes seconds to import, and is needed here only.

    nncf.set_log_level(logging.ERROR)
    model = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset([_feed(batch) for batch in data]),
        model_type=nncf.ModelType.TRANSFORMER,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(data),
    )
    openvino.save_model(model, target)


def _feed(batch: Batch) -> dict[str, Any]:
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A temporary name that becomes `target` when the block ends well."""
    temporary = target.with_suffix(f".tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def openvino_candidates(
    name: str, paths: Sequence[Path], threads: int, shape: tuple[int, int] | None
) -> list[Runner]:
    """OpenVINO with every model and precision; at a fixed shape, where one is given."""
    return [
        with_openvino(name, path, threads, precision, shape) for path in paths for precision in PRECISIONS
    ]


def fastest(candidates: Sequence[Runner], inputs: tuple[IntArray, IntArray]) -> Runner:
    """The candidate with the lowest median in a short interleaved trial on `inputs`."""
    if len(candidates) == 1:
        return candidates[0]
    calls = {str(i): lambda runner=runner: runner.run(*inputs) for i, runner in enumerate(candidates)}
    medians = {name: timing.median for name, timing in measure(calls, TRIAL).items()}
    return candidates[int(min(medians, key=medians.__getitem__))]

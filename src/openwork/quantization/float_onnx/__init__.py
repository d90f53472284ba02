"""Quantization after training of float ONNX models."""

from openwork.quantization.float_onnx.ptq import OnnxCalibration, QuantizedOnnx, quantize_onnx

__all__ = ["OnnxCalibration", "QuantizedOnnx", "quantize_onnx"]

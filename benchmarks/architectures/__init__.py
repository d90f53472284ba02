"""Architectures of `transformers`: exported, quantized, built, compared with ONNX Runtime on the same file."""

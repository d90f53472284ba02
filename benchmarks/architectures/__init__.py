"""Architectures of `transformers`, from the exporter to the engine, beside ONNX Runtime on the same file."""

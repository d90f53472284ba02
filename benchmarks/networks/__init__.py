"""Whole networks beside ONNX Runtime and OpenVINO: by pattern, batch, size and type."""

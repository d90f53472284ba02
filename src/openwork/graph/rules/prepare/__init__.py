"""Rules that tidy an ONNX graph and read its quantizers."""

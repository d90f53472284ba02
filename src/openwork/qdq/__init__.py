"""Affine arithmetic, and what QuantizeLinear and DequantizeLinear look like in an ONNX graph."""

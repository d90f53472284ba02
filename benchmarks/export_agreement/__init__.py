"""How closely ONNX Runtime computes what torch's fake-quantized model does."""

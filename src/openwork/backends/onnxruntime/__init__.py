"""What has no native kernel, run through ONNX Runtime."""

"""Running engines: load, bind to kernels, split around what ONNX Runtime runs."""

"""Fits the cost models of `openwork.prediction` to times of the kernels."""

"""Calibration data, wherever it lies, as batches."""

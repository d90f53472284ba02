"""Pruning by calibration inputs, without training."""

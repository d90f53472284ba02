"""Calibration of a torch model."""

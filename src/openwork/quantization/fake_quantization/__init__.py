"""Modules that round as the engine will, while a model is calibrated or trained."""

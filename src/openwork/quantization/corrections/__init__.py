"""Exact and measured changes of a float model that make it easier to quantize."""

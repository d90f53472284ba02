"""Latency of several callables, measured side by side."""

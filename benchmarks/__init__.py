"""Benchmarks: each verifies what it times in the same run, on random data."""

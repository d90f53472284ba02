"""Arithmetic in NumPy with the bits of docs/arithmetic.md."""

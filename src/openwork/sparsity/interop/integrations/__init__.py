"""Pruning inside other packages' training loops; each module needs its package and is imported by name."""

"""Where an ONNX model says which pattern each of its weights was pruned to."""

PATTERN_KEY = "openwork.pattern."
"""In front of a weight's name: a key of the model's metadata whose value is the pattern's text."""

"""Rules that make products with constant weights."""

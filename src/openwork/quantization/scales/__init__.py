"""From what was observed to a scale."""

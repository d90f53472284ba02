"""Patterns, masks and pruning. `Pattern` and `detect` need no torch; what needs it is imported when first asked for."""

from openwork.sparsity.pattern import BlockPattern, GroupPattern, Pattern, Violation, detect

__all__ = ["BlockPattern", "GroupPattern", "Pattern", "Violation", "detect"]

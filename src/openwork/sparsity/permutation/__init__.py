"""Channel permutation: an order of channels in which N:M patterns keep more of the weights."""

from openwork.sparsity.permutation.permutation import PermutationOptions, permute
from openwork.sparsity.permutation.problem import Effort, Problem
from openwork.sparsity.permutation.report import ClassOutcome, LayerOutcome, PermutationReport
from openwork.sparsity.permutation.search import search

__all__ = [
    "ClassOutcome",
    "Effort",
    "LayerOutcome",
    "PermutationOptions",
    "PermutationReport",
    "Problem",
    "permute",
    "search",
]

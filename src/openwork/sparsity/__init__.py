"""Patterns, masks and pruning.

What needs torch or NumPy is imported when it is first asked for, so that patterns are there without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openwork.sparsity.detection import detect
from openwork.sparsity.pattern import BlockPattern, GroupPattern, Pattern, Violation
from openwork.sparsity.schedule import Gradual, OneShot, Progressive, Schedule, SparseRefined
from openwork.sparsity.sensitivity import Sensitivity

if TYPE_CHECKING:
    from openwork.sparsity.allocation import Allocation, allocate
    from openwork.sparsity.criterion import Criterion
    from openwork.sparsity.eligibility import LayerEligibility, layer_table
    from openwork.sparsity.mask import magnitude_mask
    from openwork.sparsity.measuring import SensitivityOptions, measure_sensitivity
    from openwork.sparsity.oneshot import Calibration
    from openwork.sparsity.options import PrunerOptions
    from openwork.sparsity.permutation import PermutationOptions, PermutationReport, permute
    from openwork.sparsity.pruner import Pruner
    from openwork.sparsity.reconstruction import Reconstructed, adapt_to_mask, output_error, reconstruct
    from openwork.sparsity.regularizer import GradientPruning, GroupLasso
    from openwork.sparsity.report import PruningReport
    from openwork.sparsity.sensitivity_plot import plot_sensitivity
    from openwork.sparsity.wanda import wanda_mask

__all__ = [
    "Allocation",
    "BlockPattern",
    "Calibration",
    "Criterion",
    "GradientPruning",
    "Gradual",
    "GroupLasso",
    "GroupPattern",
    "LayerEligibility",
    "OneShot",
    "Pattern",
    "PermutationOptions",
    "PermutationReport",
    "Progressive",
    "Pruner",
    "PrunerOptions",
    "PruningReport",
    "Reconstructed",
    "Schedule",
    "Sensitivity",
    "SensitivityOptions",
    "SparseRefined",
    "Violation",
    "adapt_to_mask",
    "allocate",
    "detect",
    "layer_table",
    "magnitude_mask",
    "measure_sensitivity",
    "output_error",
    "permute",
    "plot_sensitivity",
    "reconstruct",
    "wanda_mask",
]

_LATE = {
    "Allocation": "allocation",
    "GradientPruning": "regularizer",
    "GroupLasso": "regularizer",
    "SensitivityOptions": "measuring",
    "measure_sensitivity": "measuring",
    "plot_sensitivity": "sensitivity_plot",
    "Calibration": "oneshot",
    "Criterion": "criterion",
    "LayerEligibility": "eligibility",
    "PermutationOptions": "permutation",
    "PermutationReport": "permutation",
    "permute": "permutation",
    "Pruner": "pruner",
    "PrunerOptions": "options",
    "PruningReport": "report",
    "Reconstructed": "reconstruction",
    "layer_table": "eligibility",
    "magnitude_mask": "mask",
    "adapt_to_mask": "reconstruction",
    "allocate": "allocation",
    "output_error": "reconstruction",
    "reconstruct": "reconstruction",
    "wanda_mask": "wanda",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_LATE[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs torch; install it with `pip install openwork[train]`.", name="torch"
        ) from error
    return getattr(module, name)

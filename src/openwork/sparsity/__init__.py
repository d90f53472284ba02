"""Patterns, masks and pruning.

What needs torch or NumPy is imported when it is first asked for, so that patterns are there without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from openwork.patterns.detection import detect
from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern, Violation
from openwork.sparsity.allocation.sensitivity import Sensitivity
from openwork.sparsity.pruner.schedule import Gradual, OneShot, Progressive, Schedule, SparseRefined

if TYPE_CHECKING:
    from openwork.sparsity.allocation.allocation import Allocation, allocate
    from openwork.sparsity.allocation.sensitivity_measurement import SensitivityOptions, measure_sensitivity
    from openwork.sparsity.allocation.sensitivity_plot import plot_sensitivity
    from openwork.sparsity.calibrated.oneshot import Calibration
    from openwork.sparsity.calibrated.reconstruction import (
        Reconstructed,
        adapt_to_mask,
        output_error,
        reconstruct,
    )
    from openwork.sparsity.calibrated.wanda import wanda_mask
    from openwork.sparsity.masks.eligibility import LayerEligibility, layer_table
    from openwork.sparsity.masks.mask import magnitude_mask
    from openwork.sparsity.permutation import PermutationOptions, PermutationReport, permute
    from openwork.sparsity.pruner.criterion import Criterion
    from openwork.sparsity.pruner.options import PrunerOptions
    from openwork.sparsity.pruner.pruner import Pruner
    from openwork.sparsity.pruner.regularizer import GradientPruning, GroupLasso
    from openwork.sparsity.pruner.report import PruningReport

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
    "Allocation": "allocation.allocation",
    "GradientPruning": "pruner.regularizer",
    "GroupLasso": "pruner.regularizer",
    "SensitivityOptions": "allocation.sensitivity_measurement",
    "measure_sensitivity": "allocation.sensitivity_measurement",
    "plot_sensitivity": "allocation.sensitivity_plot",
    "Calibration": "calibrated.oneshot",
    "Criterion": "pruner.criterion",
    "LayerEligibility": "masks.eligibility",
    "PermutationOptions": "permutation",
    "PermutationReport": "permutation",
    "permute": "permutation",
    "Pruner": "pruner.pruner",
    "PrunerOptions": "pruner.options",
    "PruningReport": "pruner.report",
    "Reconstructed": "calibrated.reconstruction",
    "layer_table": "masks.eligibility",
    "magnitude_mask": "masks.mask",
    "adapt_to_mask": "calibrated.reconstruction",
    "allocate": "allocation.allocation",
    "output_error": "calibrated.reconstruction",
    "reconstruct": "calibrated.reconstruction",
    "wanda_mask": "calibrated.wanda",
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

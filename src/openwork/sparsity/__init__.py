"""Patterns, masks and pruning.

What needs torch or NumPy is imported when it is first asked for, so that patterns are there without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openwork.patterns.detection import detect
from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern, Violation
from openwork.sparsity.allocation.sensitivity import Sensitivity
from openwork.sparsity.pruner.schedule import Gradual, OneShot, Progressive, Schedule, SparseRefined
from openwork.support.late_names import late_names

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
    from openwork.sparsity.permutation import Effort, PermutationOptions, PermutationReport, permute
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
    "Effort",
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

_HOMES = {
    "Allocation": "openwork.sparsity.allocation.allocation",
    "Calibration": "openwork.sparsity.calibrated.oneshot",
    "Criterion": "openwork.sparsity.pruner.criterion",
    "GradientPruning": "openwork.sparsity.pruner.regularizer",
    "GroupLasso": "openwork.sparsity.pruner.regularizer",
    "LayerEligibility": "openwork.sparsity.masks.eligibility",
    "Effort": "openwork.sparsity.permutation",
    "PermutationOptions": "openwork.sparsity.permutation",
    "PermutationReport": "openwork.sparsity.permutation",
    "Pruner": "openwork.sparsity.pruner.pruner",
    "PrunerOptions": "openwork.sparsity.pruner.options",
    "PruningReport": "openwork.sparsity.pruner.report",
    "Reconstructed": "openwork.sparsity.calibrated.reconstruction",
    "SensitivityOptions": "openwork.sparsity.allocation.sensitivity_measurement",
    "adapt_to_mask": "openwork.sparsity.calibrated.reconstruction",
    "allocate": "openwork.sparsity.allocation.allocation",
    "layer_table": "openwork.sparsity.masks.eligibility",
    "magnitude_mask": "openwork.sparsity.masks.mask",
    "measure_sensitivity": "openwork.sparsity.allocation.sensitivity_measurement",
    "output_error": "openwork.sparsity.calibrated.reconstruction",
    "permute": "openwork.sparsity.permutation",
    "plot_sensitivity": "openwork.sparsity.allocation.sensitivity_plot",
    "reconstruct": "openwork.sparsity.calibrated.reconstruction",
    "wanda_mask": "openwork.sparsity.calibrated.wanda",
}


__getattr__ = late_names(__name__, _HOMES)

"""Removing weights one by one, each with its exact effect on the others: the plain loop behind both tests of
reconstruction.
"""

from __future__ import annotations

import numpy as np


def eliminated(
    weight: np.ndarray, hessian: np.ndarray, spans: list[tuple[int, int]], kept: int, shared: int
) -> np.ndarray:
    """Group after group, remove the position that costs least until N are left; its group is then fixed."""
    result = weight.astype(np.float64).copy()
    for top in range(0, len(result), shared):
        rows = result[top : top + shared]
        for left, right in spans:
            free = list(range(left, len(hessian)))
            for _ in range(right - left - kept):
                inverse = np.linalg.inv(hessian[np.ix_(free, free)])
                cost = [
                    (rows[:, p] ** 2).sum() / inverse[i, i] if p < right else np.inf
                    for i, p in enumerate(free)
                ]
                i = int(np.argmin(cost))
                rows[:, free] -= np.outer(rows[:, free[i]] / inverse[i, i], inverse[i])
                rows[:, free[i]] = 0.0
                del free[i]
    return result

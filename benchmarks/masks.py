"""How long masks take, and how near the best transposable ones are.

python -m benchmarks.masks                  processor time for all masks of ResNet-50, one thread
python -m benchmarks.masks --transposable   what N:Mt keeps, as a share of the optimum by linear programming

Scores are random squares of normal numbers. The fraction of zeros of each mask is checked in the same run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from openwork.models.resnet import resnet50
from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.sparsity.masks.partial import mask_at
from openwork.sparsity.masks.transposable import transposable_mask
from openwork.sparsity.masks.view import WeightView
from openwork.support.machine import this_machine

PATTERNS = ("2:4", "4:8", "4:16", "2:4@2", "2:4t", "4x1:0.8", "1x1:0.9")
TRANSPOSABLE = ((1, 4), (2, 4), (2, 8), (4, 8), (4, 16), (8, 16), (8, 32))
# Roundings down to whole groups and blocks, and edges that are cut.
_OFF = 0.005


def scores_of_resnet50(seed: int = 0) -> list[Tensor]:
    """Random scores of the shapes of ResNet-50's weights but the first convolution, as stacks."""
    generator = torch.Generator().manual_seed(seed)
    views = [WeightView.of(module) for module in resnet50().modules()]
    shapes = [view.stacked for view in views if view is not None][1:]
    return [torch.randn(shape, generator=generator).square() for shape in shapes]


def seconds(stacks: list[Tensor], pattern: Pattern, part: float, repeats: int) -> float:
    """Processor time of all masks with `part` of the pattern's zeros, the least of `repeats`."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        masks = [mask_at(stack, pattern, part * pattern.zeros) for stack in stacks]
        taken.append(time.process_time() - start)
    zeros = 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    if abs(zeros - part * pattern.zeros) > _OFF:
        raise RuntimeError(f"{pattern} at {part:g} has {zeros:.4f} zeros.")
    return min(taken)


def shares(kept: int, group: int, blocks: int) -> list[float]:
    """What each of some random blocks keeps, as a share of its optimum."""
    scores = torch.randn(1, blocks * group, group, generator=torch.Generator().manual_seed(0)).square()
    mask = transposable_mask(scores, GroupPattern(kept, group, transposable=True))
    pairs = zip(scores.view(blocks, group, group), mask.view(blocks, group, group), strict=True)
    return [float(block[chosen].sum()) / _best(block.double().numpy(), kept) for block, chosen in pairs]


def _best(block: np.ndarray, kept: int) -> float:
    side = len(block)
    rows, columns = np.kron(np.eye(side), np.ones(side)), np.kron(np.ones(side), np.eye(side))
    exactly = np.full(2 * side, kept)
    return -linprog(-block.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=exactly, bounds=(0, 1)).fun


def _times(repeats: int) -> None:
    stacks = scores_of_resnet50()
    weights = sum(stack.numel() for stack in stacks)
    print(f"{weights / 1e6:.1f} million weights, milliseconds of processor time, {this_machine().cpu}")
    print(f"{'pattern':10}{'final':>8}{'half way':>10}{'at 0.8':>8}")
    for text in PATTERNS:
        pattern = Pattern.parse(text)
        row = [1e3 * seconds(stacks, pattern, part, repeats) for part in (1.0, 0.5, 0.8)]
        print(f"{text:10}{row[0]:8.0f}{row[1]:10.0f}{row[2]:8.0f}")


def _shares() -> None:
    print(f"{'pattern':10}{'mean':>8}{'least':>8}  of the optimum of a block")
    for kept, group in TRANSPOSABLE:
        found = shares(kept, group, 200 if group <= 8 else 40)
        print(f"{f'{kept}:{group}t':10}{np.mean(found):8.4f}{min(found):8.4f}")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transposable", action="store_true", help="compare with the optimum instead")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.transposable:
        _shares()
    else:
        _times(arguments.repeats)


if __name__ == "__main__":
    main()

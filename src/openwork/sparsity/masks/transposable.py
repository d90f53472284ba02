"""Masks that keep N of every M consecutive inputs and of every M consecutive outputs at once.

Such a mask stays N:M when the weight is transposed, so the product of the backward pass may be sparse too
(Hubara et al. 2021, "Accelerated Sparse Neural Training"). It falls into M x M blocks that do not touch, and
the best mask of a block is a transportation problem. For M of at most 4 all legal blocks are listed (90 for
2:4) and scored by one product: exact. For larger M a greedy choice is completed and then improved by
exchanges between two rows until none helps.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import torch
from torch import Tensor
from torch.nn import functional

from openwork.patterns.pattern import GroupPattern

_LISTED_GROUP = 4
# Sums of all legal blocks that are made at a time: 2 MiB of float64, which stay in the cache.
_LISTED_CHUNK = 1 << 18
# Scores of the blocks that are searched at a time: 16 MiB of float32.
_CHUNK = 1 << 22
# Rounds of exchanges that a block may take: random ones of up to 32 x 32 need 7, and rounding must not let
# equal sums chase each other for ever.
_SWEEPS = 32


def transposable_mask(scores: Tensor, pattern: GroupPattern) -> Tensor:
    """A mask, N:M along the inputs and along the outputs, that keeps a large sum of `scores`.

    The largest sum for M <= 4 (on a tie the first positions), else a local optimum. Where M does not divide
    a side, the rest counts as padded with zeros. scores: f32 [stack, out, in], finite. Returns bool of the
    same shape. Raises ValueError for another number of dimensions, an empty tensor, or a pattern with shared
    masks.
    """
    _check(scores, pattern)
    rows, columns = scores.shape[1:]
    # What lies beyond the edge must not win against a real weight, whatever the sign of its score.
    raised = scores - scores.min().clamp(max=0.0)
    blocks = _blocks(raised, pattern.group)
    flat = blocks.reshape(-1, pattern.group, pattern.group)
    kept = _listed(flat, pattern.kept) if pattern.group <= _LISTED_GROUP else _searched(flat, pattern.kept)
    tiled = kept.view(blocks.shape).transpose(2, 3).reshape(len(scores), -1, blocks.shape[2] * pattern.group)
    return tiled[:, :rows, :columns].contiguous()


def legal_blocks(kept: int, group: int) -> Tensor:
    """Every M x M block with exactly N kept in each row and column: bool [count, M, M],
    first positions first.
    """
    rows = [tuple(int(i in chosen) for i in range(group)) for chosen in combinations(range(group), kept)]
    legal = [
        block
        for block in product(rows, repeat=group)
        if all(sum(column) == kept for column in zip(*block, strict=True))
    ]
    return torch.tensor(legal, dtype=torch.bool)


def _check(scores: Tensor, pattern: GroupPattern) -> None:
    if scores.ndim != 3 or scores.numel() == 0:
        raise ValueError(
            "The scores of a transposable mask are a non-empty stack [stack, out, in], but their shape is "
            f"{list(scores.shape)}."
        )
    if pattern.shared != 1:
        raise ValueError(f"{pattern} shares masks among rows; a transposable mask cannot.")


def _blocks(scores: Tensor, group: int) -> Tensor:
    """[stack, out, in] padded and cut into [stack, out blocks, in blocks, M, M]."""
    stack, rows, columns = scores.shape
    padded = functional.pad(scores, (0, -columns % group, 0, -rows % group))
    high, wide = padded.shape[1] // group, padded.shape[2] // group
    return padded.reshape(stack, high, group, wide, group).transpose(2, 3)


@cache
def _legal(kept: int, group: int) -> Tensor:
    return legal_blocks(kept, group).flatten(1)


def _listed(blocks: Tensor, kept: int) -> Tensor:
    """The best legal block for each of blocks [b, M, M]."""
    legal = _legal(kept, blocks.shape[-1]).to(blocks.device)
    # In double the sums of so few float32 numbers of like size are exact, and so are ties; and no setting of
    # torch (TF32, bfloat16) rounds the product.
    weights = legal.T.double()
    chunks = torch.split(blocks.flatten(1), _LISTED_CHUNK // len(legal))
    best = [(chunk.double() @ weights).argmax(dim=1) for chunk in chunks]
    return legal[torch.cat(best)].view(blocks.shape)


def _searched(blocks: Tensor, kept: int) -> Tensor:
    """A good legal block for each of blocks [b, M, M]."""
    size = max(1, _CHUNK // blocks[0].numel())
    parts = torch.split(blocks, size)
    return torch.cat([_improved(part, _completed(part, _greedy(part, kept), kept)) for part in parts])


def _greedy(blocks: Tensor, kept: int) -> Tensor:
    """Keep entries from the largest down wherever neither their row nor their column is full.

    At least half of the best sum (Hubara et al. 2021, section 3.2).
    """
    count, group, _ = blocks.shape
    order = blocks.flatten(1).argsort(dim=1, descending=True, stable=True).T.contiguous()
    mask = torch.zeros(count, group * group, dtype=torch.bool, device=blocks.device)
    free = torch.full((count * 2 * group,), kept, dtype=torch.int32, device=blocks.device)
    base = torch.arange(count, device=blocks.device) * (2 * group)
    for entry in order:
        row, column = base + entry // group, base + group + entry % group
        take = (free[row] > 0) & (free[column] > 0)
        free[row] -= take.int()
        free[column] -= take.int()
        mask.scatter_(1, entry[:, None], take[:, None])
    return mask.view(blocks.shape)


def _completed(blocks: Tensor, mask: Tensor, kept: int) -> Tensor:
    """Fill the rows and columns that `_greedy` left short, each time at the least loss.

    Where row r and column c are short, (r, c) itself is kept already (greedy would have taken it). Then a
    kept (i, j) with (r, j) and (i, c) dropped gives way to those two. One exists: i may be any full row that
    drops (i, c), and a full row keeps more columns than the short row r does, so one of them that r drops.
    """
    while True:
        short = (mask.sum(dim=2) < kept).any(dim=1).nonzero().flatten()
        if not len(short):
            return mask
        mask[short] = _augmented(blocks[short], mask[short], kept)


def _augmented(blocks: Tensor, mask: Tensor, kept: int) -> Tensor:
    index = torch.arange(len(blocks), device=blocks.device)
    row = (mask.sum(dim=2) < kept).int().argmax(dim=1)
    column = (mask.sum(dim=1) < kept).int().argmax(dim=1)
    across, down = blocks[index, row], blocks[index, :, column]
    gain = across[:, None, :] + down[:, :, None] - blocks
    open_ = ~mask[index, row][:, None, :] & ~mask[index, :, column][:, :, None] & mask
    best = gain.masked_fill(~open_, -torch.inf).flatten(1).argmax(dim=1)
    i, j = best // mask.shape[2], best % mask.shape[2]
    mask[index, i, j] = False
    mask[index, row, j] = True
    mask[index, i, column] = True
    return mask


def _improved(blocks: Tensor, mask: Tensor) -> Tensor:
    """Divide what two rows keep alone between them anew, for all pairs of rows, until nothing changes."""
    pairs = _rounds(blocks.shape[1], blocks.device)
    active = torch.arange(len(blocks), device=blocks.device)
    for _ in range(_SWEEPS):
        scores, before = blocks[active], mask[active]
        after = before.clone()
        for first, second in pairs:
            _exchange(scores, after, first, second)
        changed = (after != before).flatten(1).any(dim=1)
        mask[active[changed]] = after[changed]
        active = active[changed]
        if not len(active):
            break
    return mask


def _rounds(group: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Every pair of rows once, as rounds of pairs without a common row (a round-robin tournament)."""
    players = [*range(group), *([None] if group % 2 else [])]
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        met = zip(players[:half], reversed(players[half:]), strict=True)
        pairs = [(a, b) for a, b in met if a is not None and b is not None]
        rounds.append(tuple(torch.tensor(side, device=device) for side in zip(*pairs, strict=True)))
        players = [players[0], players[-1], *players[1:-1]]
    return [(first, second) for first, second in rounds]


def _exchange(scores: Tensor, mask: Tensor, first: Tensor, second: Tensor) -> None:
    """For each pair of rows, give the columns that only one of them keeps to the row that gains most.

    Both keep as many as before, and so does each column: the best division takes, for the first row, its
    largest differences. A division that gains nothing is left as it was, so that ties do not go in circles.
    """
    one, other = mask[:, first], mask[:, second]
    alone = one != other
    better = scores[:, first] - scores[:, second]
    rank = better.masked_fill(~alone, -torch.inf).argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    won = alone & (rank < (one & alone).sum(dim=2, keepdim=True))
    gain = (better * (won.to(better.dtype) - (one & alone).to(better.dtype))).sum(dim=2, keepdim=True)
    moved = alone & (gain > 0)
    mask[:, first] = torch.where(moved, won, one)
    mask[:, second] = torch.where(moved, ~won, other)

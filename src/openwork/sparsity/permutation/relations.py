"""What a trace finds out about channels: which of them are one and the same, and what each has to do with.

An *atom* is one place on a channel axis. Atoms that a model adds, multiplies or scales element by element
are joined: one permutation must move them together. Everything that tells two atoms apart is a *role*, a
number: two joined sets of atoms may change places only where they have the same roles. An attention head, a
group of a convolution and a part of a concatenation are such roles, and an atom that may not move has one
of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Family = Literal["axis", "grouped", "elements"]


@dataclass(frozen=True)
class Use:
    """How the channels of a parameter or buffer are counted.

    tensor : its qualified name. family : "axis" counts the places of `axis`; "grouped" the inputs of a
    grouped convolution, block by block (`axis` is then the number of blocks); "elements" every element.
    """

    tensor: str
    family: Family
    axis: int = 0


def broadcast(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in their common shape."""
    shape = torch.broadcast_shapes(one.shape, other.shape)  # type: ignore[no-untyped-call]
    return one.expand(shape), other.expand(shape)


class Relations:
    """Atoms, what joins them and the roles they have."""

    def __init__(self) -> None:
        self.count = 0
        self.uses: dict[Use, Tensor] = {}
        self.reasons: list[tuple[np.ndarray, str]] = []
        self._joined: list[tuple[np.ndarray, np.ndarray]] = []
        self._roles: list[tuple[np.ndarray, np.ndarray]] = []
        self._next_role = 0

    def atoms(self, use: Use, shape: tuple[int, ...]) -> Tensor:
        """The atoms of a tensor counted in one way, i64 `shape`; the same ones each time."""
        if use not in self.uses:
            size = int(np.prod(shape))
            self.uses[use] = torch.arange(self.count, self.count + size).view(shape)
            self.count += size
        return self.uses[use]

    def join(self, one: Tensor, other: Tensor, reason: str) -> None:
        """One atom each of two i64 tensors of broadcastable shapes is the same channel;
        -1 is one that cannot move.
        """
        first, second = (t.flatten().numpy() for t in broadcast(one, other))
        both = (first >= 0) & (second >= 0)
        self._joined.append((first[both], second[both]))
        self.fix(torch.as_tensor(np.concatenate([first[second < 0], second[first < 0]])), reason)

    def tell_apart(self, atoms: Tensor, positions: Tensor) -> None:
        """Atoms at different `positions` (i64, >= 0, broadcastable to the atoms' shape) have different
        roles.
        """
        flat, keys = atoms.flatten().numpy(), positions.expand(atoms.shape).flatten().numpy()
        if flat.size:
            self._roles.append((flat[flat >= 0], keys[flat >= 0] + self._next_role))
            self._next_role += int(keys.max()) + 1

    def fix(self, atoms: Tensor, reason: str) -> None:
        """The atoms may not move. reason : a sentence."""
        atoms = atoms[atoms >= 0]
        if atoms.numel():
            self.tell_apart(atoms, torch.arange(atoms.numel()))
            self.reasons.append((atoms.numpy(), reason))

    def components(self) -> np.ndarray:
        """The number of the joined set that each atom belongs to, i64 [atoms]."""
        pairs = [
            np.concatenate(side) if side else np.zeros(0, np.int64)
            for side in zip(*self._joined, strict=True)
        ]
        first, second = pairs or (np.zeros(0, np.int64), np.zeros(0, np.int64))
        graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(self.count, self.count))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)

    def touched(self) -> np.ndarray:
        """Which atoms anything has been found out about, bool [atoms]."""
        seen = np.zeros(self.count, bool)
        for first, second in self._joined:
            seen[first] = seen[second] = True
        for atoms, _ in self._roles:
            seen[atoms] = True
        return seen

    def signatures(self, components: np.ndarray) -> np.ndarray:
        """A number for each joined set, u64 [sets]: equal where two sets have the same roles,
        and so may change places.

        A role counts as a random word and a set as the sum of its words: two different sets of 10^9 roles
        collide once in about 10^10 models, and what they then do is found by the comparison of outputs.
        """
        sets = int(components.max()) + 1 if len(components) else 0
        pairs = [np.stack([components[atoms], keys]) for atoms, keys in self._roles]
        pairs += [self._counts(number, components) for number in range(len(self.uses))]
        found = np.unique(np.concatenate(pairs, axis=1), axis=1) if pairs else np.zeros((2, 0), np.int64)
        _, keys = np.unique(found[1], return_inverse=True)
        words = np.random.default_rng(0).integers(
            0, 2**64, size=int(keys.max(initial=0)) + 1, dtype=np.uint64
        )
        signature = np.zeros(sets, np.uint64)
        np.add.at(signature, found[0], words[keys])
        return signature

    def _counts(self, number: int, components: np.ndarray) -> np.ndarray:
        """Roles: how often each set stands in one use of a tensor; below 0, where no other role is."""
        atoms = list(self.uses.values())[number].flatten().numpy()
        found, times = np.unique(components[atoms], return_counts=True)
        return np.stack([found, -(number * (1 << 32) + times)])

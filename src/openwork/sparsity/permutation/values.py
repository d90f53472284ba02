"""What is known of a tensor while a graph is walked: which atom each of its elements belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openwork.sparsity.permutation.relations import Relations, Use, broadcast


@dataclass(frozen=True)
class Value:
    """A tensor's atoms.

    atoms : i64, as many axes as the tensor, of size 1 where the atom does not depend on the axis; -1 where
    an element belongs to none; None where no element belongs to one. shape : the tensor's, of size 1 along
    each axis that it was merely expanded over. reason : why no element belongs to one, a sentence, where
    that is known.
    """

    atoms: Tensor | None
    shape: tuple[int, ...]
    reason: str = ""

    @property
    def varying(self) -> tuple[int, ...]:
        """The axes along which the atom depends on the place."""
        return () if self.atoms is None else tuple(a for a, size in enumerate(self.atoms.shape) if size > 1)


@dataclass(frozen=True)
class Source:
    """A parameter or buffer as it is stored, before it is known how its channels count.

    name : its qualified name. shape : of the whole tensor. swapped : read as its transpose, of a matrix.
    rows : the part of axis 0 that is read.
    """

    name: str
    shape: tuple[int, ...]
    swapped: bool = False
    rows: range | None = None

    def axis(self, relations: Relations, axis: int) -> Tensor:
        """The atoms of one axis, i64 [size]."""
        axis = 1 - axis if self.swapped else axis
        atoms = relations.atoms(Use(self.name, "axis", axis), (self.shape[axis],))
        return atoms[self.rows.start : self.rows.stop] if axis == 0 and self.rows is not None else atoms

    def value(self, relations: Relations) -> Value:
        """The atoms of its elements, each its own."""
        atoms = relations.atoms(Use(self.name, "elements"), self.shape)
        if self.rows is not None:
            atoms = atoms[self.rows.start : self.rows.stop]
        atoms = atoms.t() if self.swapped else atoms
        return compressed(atoms)


def compressed(atoms: Tensor) -> Value:
    """The value of atoms written out in full, i64 of the tensor's shape."""
    shape = tuple(atoms.shape)
    for axis in range(atoms.ndim):
        first = atoms.narrow(axis, 0, 1) if atoms.shape[axis] else atoms
        if atoms.shape[axis] > 1 and bool((atoms == first).all()):
            atoms = first
    return Value(None if bool((atoms < 0).all()) else atoms, shape)


def written_out(value: Value, shape: Sequence[int]) -> Tensor:
    """The atoms in full, i64 `shape`, -1 where there is none."""
    atoms = torch.tensor(-1) if value.atoms is None else value.atoms
    return atoms.expand(tuple(shape))


def positions(atoms: Tensor, axes: Iterable[int]) -> Tensor:
    """A number for each place along `axes`, the same along all others: i64,
    broadcastable to the atoms' shape.
    """
    found = torch.zeros((1,) * atoms.ndim, dtype=torch.int64)
    for axis in axes:
        shape = [1] * atoms.ndim
        shape[axis] = atoms.shape[axis]
        found = found * atoms.shape[axis] + torch.arange(atoms.shape[axis]).view(shape)
    return found


def aligned(value: Value, rank: int) -> Value:
    """The value with leading axes of size 1, as broadcasting adds them."""
    lead = rank - len(value.shape)
    atoms = None if value.atoms is None else value.atoms.view((1,) * lead + tuple(value.atoms.shape))
    return Value(atoms, (1,) * lead + tuple(value.shape), value.reason)


def combined(relations: Relations, operands: Sequence[Value], shape: Sequence[int], where: str) -> Value:
    """The value of an element-by-element operation on `operands`;
    what it says about the atoms goes to `relations`.
    """
    ready = [aligned(value, len(shape)) for value in operands]
    # A single atom, a scale of everything, is the same wherever the channels stand.
    named = [value for value in ready if value.varying]
    for one in named:
        for other in ready:
            _constrain(relations, one, other, where)
    atoms = None
    for value in named:
        assert value.atoms is not None
        if atoms is None:
            atoms = value.atoms
            continue
        relations.join(atoms, value.atoms, f"They meet channels that cannot move, in {where}.")
        left, right = broadcast(atoms, value.atoms)
        atoms = torch.where(left < 0, right, left)
    spread = torch.broadcast_shapes(*(value.shape for value in ready)) if ready else tuple(shape)  # type: ignore[no-untyped-call]
    return Value(atoms, tuple(spread), first_reason(ready) if atoms is None else "")


def _because(value: Value) -> str:
    return f" Of those: {value.reason}" if value.reason else ""


def first_reason(values: Iterable[Value]) -> str:
    """The first reason that any of the values has."""
    return next((value.reason for value in values if value.reason), "")


def _constrain(relations: Relations, one: Value, other: Value, where: str) -> None:
    """Atoms stay where they meet values that differ from place to place and do not move with them."""
    assert one.atoms is not None
    axes = [axis for axis in one.varying if axis not in other.varying and other.shape[axis] > 1]
    if not axes:
        return
    keys = positions(one.atoms, axes)
    relations.tell_apart(one.atoms, keys)
    if keys.numel() == one.atoms.numel():
        relations.fix(one.atoms, f"They meet values that keep their order, in {where}.{_because(other)}")

"""Shapes, and the grammar in which the operators' rows write them.

A shape in a row is a list of words. A letter is a dimension, and the same letter is the same dimension within
one node; a number is that number; "..." at the front stands for any leading dimensions, the same ones
everywhere in the node; "*" alone is any shape, which says nothing about another one.
"""

from __future__ import annotations

from collections.abc import Callable

Dim = int | str
Shape = tuple[Dim, ...]
Partial = tuple[Dim | None, ...]
"""A shape of which some dimensions are not known."""
Same = Callable[[Dim, Dim], bool]
"""Whether two known dimensions are equal: the loader only compares them, the lowering lets it equate free
ones."""
Words = tuple[str, ...]

LEADING, ANY = "...", "*"


def may_be_equal(a: Dim, b: Dim) -> bool:
    """Two integers must be equal; a free dimension may turn out to be anything when a program runs."""
    return not (isinstance(a, int) and isinstance(b, int)) or a == b


class Letters:
    """What the words of one node's shapes stand for, found by matching its inputs."""

    def __init__(self, same: Same) -> None:
        self._same = same
        self._bound: dict[str, Dim | None] = {}
        self._leading: Partial | None = None

    def match(self, words: Words, shape: Partial) -> str | None:
        """Why a shape does not agree with its words and all that was matched before; None where it does."""
        if words == (ANY,):
            return None
        tail = tuple(word for word in words if word != LEADING)
        split = len(shape) - len(tail)
        if split < 0 or (split and LEADING not in words):
            return f"{'at least ' if LEADING in words else ''}{len(tail)} dimension{'s' * (len(tail) != 1)}"
        if LEADING in words and not self.lead(shape[:split]):
            return f"{list(self._leading or ())} as the leading dimensions"
        for word, dim in zip(tail, shape[split:], strict=True):
            if not self.bind(word, dim):
                return f"{word if word.isdigit() else f'{self._bound[word]} as {word}'}"
        return None

    def lead(self, shape: Partial) -> bool:
        """Take a shape as what "..." stands for; false where that is another one already."""
        known = self._leading
        if known is None:
            self._leading = shape
            return True
        if len(known) != len(shape) or not all(map(self.equal, known, shape)):
            return False
        self._leading = tuple(b if a is None else a for a, b in zip(known, shape, strict=True))
        return True

    def bind(self, word: str, dim: Dim | None) -> bool:
        """Take a dimension as what a letter stands for; false where that is another one already."""
        known = int(word) if word.isdigit() else self._bound.get(word)
        if known is None and not word.isdigit():
            self._bound[word] = dim
        return self.equal(known, dim)

    def equal(self, a: Dim | None, b: Dim | None) -> bool:
        """Whether two dimensions agree; what is not known agrees with everything."""
        return a is None or b is None or self._same(a, b)

    def size(self, word: str) -> Dim | None:
        """What a letter stands for; None where that is not known."""
        return self._bound.get(word)

    def fill(self, words: Words) -> Partial | None:
        """The shape that words stand for; None where not even its rank is known."""
        if words == (ANY,) or (LEADING in words and self._leading is None):
            return None
        leading = (self._leading or ()) if LEADING in words else ()
        return (*leading, *(self._size(word) for word in words if word != LEADING))

    def _size(self, word: str) -> Dim | None:
        return int(word) if word.isdigit() else self._bound.get(word)

"""Masks of keys: what a value that is made of one mask input keeps and drops.

The input may have any element type and any number of axes, [batch, .., length] with ones between; what it
means for an element to keep its key (not 0, 0 where padded, above a number, not the padding's id) is found by
feeding it. A mask of INT64 [batch, length] that keeps what is not 0 is what the native operators read; any
other becomes one by a few nodes of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from openwork.graph.mask_contents import FLOATS, INTEGERS, Contents, binary, every, numbers_of, values_of
from openwork.graph.model import Array, Dim, ModelError, dims
from openwork.graph.probe import Cone, Probe, cone, evaluations, sized

KEPT, DROPPED, NEITHER = 1, 0, -1
"""What a value says of a key."""

RELATIONS: Mapping[str, Callable[[Array, float], Array]] = {
    "not equal": np.not_equal,
    "equal": np.equal,
    "above": np.greater,
    "below": np.less,
}


@dataclass(frozen=True)
class Test:
    """What an element of a mask input must be for its key to be kept."""

    relation: str
    number: float

    def __call__(self, content: Array) -> Array:
        """The kept ones of [batch, length]."""
        with np.errstate(invalid="ignore"):
            return np.asarray(RELATIONS[self.relation](content, self.number))


NOT_ZERO = Test("not equal", 0)
_COMPARISONS = frozenset(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"))


@dataclass(frozen=True)
class KeyMask:
    """A mask input, and which of its elements keep their keys."""

    source: ir.Value
    test: Test

    @property
    def shape(self) -> tuple[Dim, Dim]:
        """Batch and length."""
        shape = dims(self.source) or (None,)
        return shape[0], shape[-1]


@dataclass(frozen=True)
class MaskUse:
    """A use of a mask.

    states(actual): KEPT, DROPPED or NEITHER for each element of a value, i8. of_keys(states, batch, length):
    them for each key, i8 [batch, length], or why they say nothing of keys, as the end of a sentence that
    begins "its mask". meets(batch, length): the shape that the value meets elementwise in the model. neither:
    why NEITHER is no mask.
    """

    states: Callable[[Array], Array]
    of_keys: Callable[[Array, int, int], Array | str]
    meets: Callable[[int, int], tuple[int, ...]]
    neither: str


def source_of(found: Cone) -> ir.Value | str:
    """The one mask input that a cone depends on; or why there is none, as the end of "its mask"."""
    if len(found.sources) != 1:
        return f"is made of several inputs: {', '.join(sorted(repr(v.name) for v in found.sources))}"
    (source,) = found.sources
    shape = dims(source)
    if source.dtype not in INTEGERS | FLOATS | {ir.DataType.BOOL} or shape is None or len(shape) < 2:
        return f"is made of the input {source.name!r}, which is not [batch, length]"
    if any(size != 1 for size in shape[1:-1]):
        return f"may differ from query to query: {source.name!r} is {list(shape)}"
    return source


def _feeds(source: ir.Value, contents: Contents, probe: Probe) -> Iterator[dict[ir.Value, Array]]:
    shape = sized(source, probe.sizes)
    dtype = source.dtype.numpy() if source.dtype is not None else np.int64
    for content in contents(shape[0], shape[-1], probe.large):
        yield {source: content.astype(dtype).reshape(shape)}


def _flat(content: Array) -> Array:
    """A mask as [batch, length]."""
    return content.reshape(content.shape[0], content.shape[-1])


Reading = tuple[Array, Array | str]
"""A mask [batch, length], and what a value that is made of it says of the keys."""


@dataclass
class _Readings:
    """What a value says of the keys of each mask, computed once and when it is first asked for."""

    found: Cone
    source: ir.Value
    use: MaskUse
    contents: Contents
    known: list[Reading] = field(default_factory=list)
    pending: Iterator[Reading] | None = None

    def __iter__(self) -> Iterator[Reading]:
        if self.pending is None:
            self.pending = self._compute()
        yield from self.known
        for reading in self.pending:
            self.known.append(reading)
            yield reading

    def _compute(self) -> Iterator[Reading]:
        for probe, feeds, actual in evaluations(self.found, partial(_feeds, self.source, self.contents)):
            content = _flat(feeds[self.source])
            states = self.use.of_keys(self.use.states(actual), *content.shape)
            # With a large size that nothing meets the model does not run.
            if not isinstance(states, str) or not probe.large or _meet(actual, self.use, content):
                yield content, states


def _meet(actual: Array, use: MaskUse, content: Array) -> bool:
    """Whether elementwise operators take the value and what it meets."""
    pairs = zip(actual.shape[::-1], use.meets(*content.shape)[::-1], strict=False)
    return all(x == y or 1 in (x, y) for x, y in pairs)


def _agrees(test: Test, readings: _Readings, promised: bool = False) -> bool:
    """Whether a test keeps what the readings keep.

    promised: other numbers than 0 and 1 may be neither kept nor dropped; integers are promised to hold none.
    """
    for content, states in readings:
        if isinstance(states, str):
            return False
        right = states == test(content)
        if promised:
            right |= (states == NEITHER) & (content != 0) & (content != 1)
        if not right.all():
            return False
    return True


def key_mask(value: ir.Value, use: MaskUse) -> KeyMask | str | None:
    """The mask that the value is made of, if that is how it is used.

    None for a value that depends on something else than inputs, or on none. A reason, as the end of a
    sentence that begins "its mask", where it is another function of inputs.
    """
    found = cone(value)
    if found is None or not found.sources:
        return None
    source = source_of(found)
    if isinstance(source, str):
        return source
    try:
        return _read(_of_one_batch(found, source), source, use)
    except ModelError as error:
        return f"cannot be computed: {error}"


def _read(found: Cone, source: ir.Value, use: MaskUse) -> KeyMask | str:
    plain = _Readings(found, source, use, binary)
    if _is_plain(source) and not _compares(found, source) and _agrees(NOT_ZERO, plain):
        return KeyMask(source, NOT_ZERO)
    said = next((states for _, states in plain if isinstance(states, str)), None)
    if said is not None:
        return said
    numbers = numbers_of(found, source)
    full = _Readings(found, source, use, partial(every, values_of(source, numbers)))
    tests = [NOT_ZERO, *(Test(relation, number) for number in numbers for relation in RELATIONS)]
    for promised in (False, True) if source.dtype in INTEGERS else (False,):
        if promised and _is_plain(source) and _agrees(NOT_ZERO, plain):
            return KeyMask(source, NOT_ZERO)
        for test in tests:
            if _agrees(test, full, promised):
                return KeyMask(source, test)
    return _reason(source, plain, full, use)


def _of_one_batch(found: Cone, source: ir.Value) -> Cone:
    """The cone with the batches of the mask and of the value as one size: some exporters give each input a
    batch of its own, and take the first rows of a mask that has more."""
    batches = frozenset(
        shape[0] for value in (source, found.value) if (shape := dims(value)) and isinstance(shape[0], str)
    )
    return replace(found, assumed=batches) if len(batches) == 2 else found


def _compares(found: Cone, source: ir.Value) -> bool:
    """Whether the cone compares the elements of the mask with numbers, so that it says what other numbers
    than 0 and 1 mean; arithmetic with them (1 - mask) is promised to see none."""
    made = {source}
    for node in found.nodes:
        if made.intersection(node.inputs):
            if node.op_type in _COMPARISONS:
                return True
            made.update(node.outputs)
    return False


def _is_plain(source: ir.Value) -> bool:
    """Whether the native operators read the input as it is, where it keeps what is not 0."""
    return source.dtype == ir.DataType.INT64 and len(dims(source) or ()) == 2


def _reason(source: ir.Value, plain: _Readings, full: _Readings, use: MaskUse) -> str:
    if any(not isinstance(states, str) and (states == NEITHER).any() for _, states in plain):
        return use.neither
    if any(not isinstance(states, str) and (states == NEITHER).any() for _, states in full):
        return (
            f"is the {source.dtype} input {source.name!r}, in which other numbers than 0 and 1 neither keep "
            "nor drop a key; export the model with a mask of BOOL or INT64"
        )
    return f"keeps keys by {source.name!r} in another way than by comparing each element with one number"


def follows(value: ir.Value, mask: KeyMask, expected: Callable[[Array, Array], bool]) -> bool:
    """Whether a value is what is expected(kept [batch, length], value) of a mask, and of nothing else."""
    found = cone(value)
    if found is None or found.sources != {mask.source}:
        return False
    plain = mask.source.dtype in INTEGERS and mask.test.number in (0, 1)
    values = values_of(mask.source, [0.0, 1.0, mask.test.number])
    contents: Contents = binary if plain else partial(every, values)
    try:
        return all(
            expected(mask.test(_flat(feeds[mask.source])), actual)
            for _, feeds, actual in evaluations(found, partial(_feeds, mask.source, contents))
        )
    except ModelError:
        return False

"""Images as they are fed: channels last, where the model moves them only behind what normalizes them, and
bytes, of which each channel is normalized in its own way and quantized.

A move is put in front, so that one reading serves both layouts. What becomes of a byte on its way to a
quantizer is one of 256 bytes for each channel, which the graph itself is asked for: no rounding is another
one than the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.byte_functions import BYTES, outcome
from openwork.graph.edit import add_initializer
from openwork.graph.layout import FIRST, IMAGE_AXES, PERMUTATION
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    dims,
    is_onnx,
    is_openwork,
    make,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.rewrite import Replacement, Rule, home, never

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_BY_ELEMENT = (*_ARITHMETIC, "Cast", "Clip", "QuantizeLinear", "DequantizeLinear")
MOST_NODES = 16
MOST_CHANNELS = 16
"""Of an image that is fed; more are no picture, and a table for each costs more than the arithmetic."""


def _computed(node: ir.Node | None) -> ir.Value | None:
    """The one computed value that a node reads, with four axes that its result has too."""
    read = [v for v in node.inputs if v is not None and constant(v) is None] if node is not None else []
    shape = dims(read[0]) if len(read) == 1 else None
    if node is None or shape is None or len(shape) != IMAGE_AXES or dims(node.outputs[0]) != shape:
        return None
    return read[0]


def _constants(node: ir.Node) -> Iterator[Array]:
    found = (constant(value) for value in node.inputs)
    return (array for array in found if array is not None)


def _of_all(array: Array) -> bool:
    return array.size == 1 and array.ndim <= IMAGE_AXES


def _of_last(array: Array, channels: int | str | None) -> bool:
    """Whether a constant has a number for each of the last axis."""
    return 1 <= array.ndim <= IMAGE_AXES and array.size == array.shape[-1] == channels


def _of_channels(array: Array, channels: int | str | None) -> bool:
    """Whether a constant has a number for each channel of images with channels first."""
    if not IMAGE_AXES - 1 <= array.ndim <= IMAGE_AXES:
        return False
    return bool(array.size == array.shape[-IMAGE_AXES + 1] == channels)


Spread = Callable[[Array, int | str | None], bool]


def _by_element(node: ir.Node | None, axis: int, spread: Spread) -> ir.Value | None:
    """What a node reads that does the same to each element of a channel; None where it does not."""
    value = _computed(node) if is_onnx(node, *_BY_ELEMENT) or is_openwork(node, "Dequantize") else None
    if node is None or value is None:
        return None
    channels, many = (dims(value) or ())[axis], is_onnx(node, *_ARITHMETIC)
    numbers = (_of_all(array) or (many and spread(array, channels)) for array in _constants(node))
    return value if all(numbers) else None


@dataclass(frozen=True)
class _Late:
    """A node by element in front of a Transpose to channels first, and what it reads."""

    transpose: ir.Node
    node: ir.Node
    x: ir.Value


def _is_fed(value: ir.Value) -> bool:
    """Whether a value is an input of the graph, or made of one by element, for nothing else."""
    for _ in range(MOST_NODES):
        if value.is_graph_input():
            return True
        read = _by_element(value.producer(), -1, _of_last)
        if read is None or only_consumer(value) is None:
            return False
        value = read
    return False


def _match_late(transpose: ir.Node) -> _Late | None:
    made = needed(transpose, 0)
    node = producer(made, *_BY_ELEMENT)
    if tuple(attributes(transpose).get("perm", ())) != PERMUTATION[FIRST] or node is None:
        return None
    x = _by_element(node, -1, _of_last)
    if x is None or only_consumer(made) is not transpose or not _is_fed(x):
        return None
    return _Late(transpose, node, x)


def _channels_second(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """A number for each of the last axis as one for each of the second of four."""
    array = constant(value)
    if value is None or array is None or array.size == 1:
        return value
    return add_initializer(home(node), f"{value.name}.second", array.reshape(-1, 1, 1))


def _replace_late(found: _Late) -> Replacement:
    node, old = found.node, found.transpose.outputs[0]
    perm = [ir.AttrInt64s("perm", PERMUTATION[FIRST])]
    first = ir.Node("", "Transpose", [found.x], perm, name=found.transpose.name)
    shape = dims(found.x) or ()
    first.outputs[0].shape = ir.Shape([shape[axis] for axis in PERMUTATION[FIRST]])
    first.outputs[0].type = found.x.type
    read = [first.outputs[0] if v is found.x else _channels_second(node, v) for v in node.inputs]
    again = ir.Node("", node.op_type, read, list(node.attributes.values()), name=node.name)
    again.outputs[0].shape, again.outputs[0].type = old.shape, old.type
    return Replacement([first, again], [(old, again.outputs[0])])


MOVE_FIRST = Rule(
    "move the channels of a fed image first", frozenset({"Transpose"}), _match_late, never, _replace_late
)


@dataclass(frozen=True)
class _Normalized:
    """A Quantize, the bytes that decide it, and the nodes between, makers first."""

    quantize: ir.Node
    source: ir.Value
    nodes: tuple[ir.Node, ...]

    @property
    def channels(self) -> int:
        size = (dims(self.source) or ())[1]
        assert isinstance(size, int)
        return size


def _match_normalized(quantize: ir.Node) -> _Normalized | None:
    """A Quantize of bytes with channels first, of which some constant has a number for each channel."""
    nodes, value = [quantize], needed(quantize, 0)
    while value.dtype != ir.DataType.UINT8:
        node = value.producer()
        read = _by_element(node, 1, _of_channels)
        if node is None or read is None or len(nodes) > MOST_NODES:
            return None
        nodes.insert(0, node)
        value = read
    channels = (dims(value) or (None,) * IMAGE_AXES)[1]
    if not isinstance(channels, int) or not 1 < channels <= MOST_CHANNELS:
        return None
    by_channel = any(array.size > 1 for node in nodes for array in _constants(node))
    return _Normalized(quantize, value, tuple(nodes)) if by_channel else None


def _tables(found: _Normalized) -> Array | None:
    """What becomes of each byte of each channel, u8 [C, 256]; None where it cannot be computed."""
    each = np.arange(BYTES, dtype=np.uint8).reshape(BYTES, 1, 1, 1)
    made = outcome(found.nodes, found.source, np.tile(each, (1, found.channels, 1, 1)))
    return None if made is None else np.asarray(made, np.uint8).reshape(BYTES, found.channels).T


def _check_normalized(found: _Normalized) -> str | None:
    return "it cannot be computed" if _tables(found) is None else None


def _replace_normalized(found: _Normalized) -> Replacement:
    """The channels one by one and side by side again, each through its table."""
    tables = _tables(found)
    assert tables is not None
    name, graph, old = found.quantize.name or "", home(found.quantize), found.quantize.outputs[0]
    if (tables == tables[0]).all():
        held = add_initializer(graph, f"{name}.table", tables[0])
        made = make("Lookup", [found.source, held], {}, name)
        return Replacement([made], [(old, made.outputs[0])])
    cuts = [
        make("Slice", [found.source], {"axis": 1, "begin": channel, "end": channel + 1}, f"{name}.{channel}")
        for channel in range(found.channels)
    ]
    held = add_initializer(graph, f"{name}.tables", np.ascontiguousarray(tables))
    joined = make("Concat", [held, *(cut.outputs[0] for cut in cuts)], {"axis": 1}, name)
    return Replacement([*cuts, joined], [(old, joined.outputs[0])])


NORMALIZED_BYTES = Rule(
    "normalize the bytes of each channel",
    frozenset({"Quantize"}),
    _match_normalized,
    _check_normalized,
    _replace_normalized,
    domain=DOMAIN,
)

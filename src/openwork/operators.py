"""The operators of a program, one row each: the table of docs/program.md as data.

The builder infers shapes from it, the loader checks programs against it, so the two cannot differ.
A shape is written with letters ("B,L,H"); `...` stands for any number of leading dimensions, and `3H` for three
times what `H` is. Equal letters in one step are equal dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Dim = int | str
Shape = tuple[Dim, ...]
Same = Callable[[Dim, Dim], bool]

ACTIVATIONS = ("none", "relu", "gelu")


@dataclass(frozen=True)
class Port:
    """One input, tensor or output of an operator: its name, type, shape in letters, and whether it may be absent.

    `dtype` "quantized" is u8 where the step has a `y_scale` and f32 where it has none.
    """

    name: str
    dtype: str
    shape: str
    optional: bool = False


@dataclass(frozen=True)
class Operator:
    """One row of the table. `attributes` maps a name to its kind; kinds that end in "?" may be absent."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: tuple[Port, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


_QUANTIZED_OUTPUT = {"y_scale": "scale?", "y_zero_point": "zero_point?"}
_PACKED_ATTENTION = (Port("qkv", "f32", "B,L,3H"), Port("mask", "i64", "B,L", optional=True))
_SPLIT_ATTENTION = (
    *(Port(name, "f32", "B,L,H") for name in "qkv"),
    Port("mask", "i64", "B,L", optional=True),
)


def _attention(inputs: tuple[Port, ...]) -> Operator:
    return Operator(
        inputs,
        (Port("y", "quantized", "B,L,H"),),
        attributes={"heads": "count", "scale": "scale", "packed": "flag", **_QUANTIZED_OUTPUT},
    )


def _same_shape(*inputs: str) -> Operator:
    return Operator(tuple(Port(name, "f32", "...") for name in inputs), (Port("y", "f32", "..."),))


def _linear(x: str, tensors: tuple[Port, ...], attributes: Mapping[str, str]) -> Operator:
    return Operator(
        (Port("x", x, "...,K"), Port("residual", "f32", "...,N", optional=True)),
        (Port("y", "quantized", "...,N"),),
        (*tensors, Port("bias", "f32", "N", optional=True)),
        {**attributes, "activation": "activation", **_QUANTIZED_OUTPUT},
    )


OPERATORS: dict[str, Operator] = {
    "embedding_sum": Operator(
        (Port("ids", "i64", "B,L"), Port("type_ids", "i64", "B,L", optional=True)),
        (Port("y", "f32", "B,L,H"),),
        (Port("word", "f32", "V,H"), Port("position", "f32", "P,H"), Port("type", "f32", "T,H", optional=True)),
    ),
    "layer_norm": Operator(
        (Port("x", "f32", "...,N"),),
        (Port("y", "f32", "...,N", optional=True), Port("yq", "u8", "...,N", optional=True)),
        (Port("gamma", "f32", "N"), Port("beta", "f32", "N")),
        {"epsilon": "nonnegative", **_QUANTIZED_OUTPUT},
    ),
    "linear": _linear(
        "u8",
        (Port("weight", "s8", "N,K"), Port("weight_scale", "f32", "N")),
        {"x_scale": "scale", "x_zero_point": "zero_point"},
    ),
    "linear_float": _linear("f32", (Port("weight", "f32", "N,K"),), {}),
    "attention_packed": _attention(_PACKED_ATTENTION),
    "attention_split": _attention(_SPLIT_ATTENTION),
    "mean_pool": Operator(
        (Port("x", "f32", "B,L,H"), Port("mask", "i64", "B,L")), (Port("y", "f32", "B,H"),)
    ),
    "l2_normalize": Operator(
        (Port("x", "f32", "...,N"),), (Port("y", "f32", "...,N"),), attributes={"epsilon": "nonnegative"}
    ),
    "quantize": Operator(
        (Port("x", "f32", "..."),),
        (Port("y", "u8", "..."),),
        attributes={"y_scale": "scale", "y_zero_point": "zero_point"},
    ),
    "add": _same_shape("a", "b"),
    "gelu": _same_shape("x"),
    "relu": _same_shape("x"),
}
OPERATOR_NAMES = ("embedding_sum", "layer_norm", "linear", "linear_float", "attention", "mean_pool", "l2_normalize",
                  "quantize", "add", "gelu", "relu")


def operator(name: str, attributes: Mapping[str, object]) -> Operator:
    """The row of the operator `name`; attention has two rows, told apart by its attribute `packed`."""
    if name == "attention":
        return OPERATORS["attention_packed" if attributes.get("packed") else "attention_split"]
    return OPERATORS[name]


class Letters:
    """What the letters of one step's shapes stand for, found by matching its inputs and tensors."""

    def __init__(self, same: Same) -> None:
        self._same = same
        self._bound: dict[str, Dim] = {}
        self._leading: Shape | None = None

    def match(self, pattern: str, shape: Shape) -> bool:
        """Whether `shape` agrees with `pattern` and with everything matched before."""
        letters = [letter for letter in pattern.split(",") if letter != "..."]
        if not pattern.startswith("...") and len(shape) != len(letters) or len(shape) < len(letters):
            return False
        split = len(shape) - len(letters)
        if pattern.startswith("...") and not self._match_leading(shape[:split]):
            return False
        return all(self._match_letter(letter, dim) for letter, dim in zip(letters, shape[split:], strict=True))

    def fill(self, pattern: str) -> Shape:
        """The shape that `pattern` stands for, once the inputs and tensors have been matched."""
        letters = [letter for letter in pattern.split(",") if letter != "..."]
        leading = (self._leading or ()) if pattern.startswith("...") else ()
        return (*leading, *(self._bound[letter] for letter in letters))

    def _match_leading(self, shape: Shape) -> bool:
        if self._leading is None:
            self._leading = shape
        return len(shape) == len(self._leading) and all(
            self._same(a, b) for a, b in zip(self._leading, shape, strict=True)
        )

    def _match_letter(self, letter: str, dim: Dim) -> bool:
        if letter[0] == "3":
            if not isinstance(dim, int) or dim % 3:
                return False
            letter, dim = letter[1:], dim // 3
        return self._same(self._bound.setdefault(letter, dim), dim)


def output_dtype(port: Port, attributes: Mapping[str, object]) -> str:
    """The type of an output: `quantized` is u8 with a `y_scale`, else f32."""
    if port.dtype != "quantized":
        return port.dtype
    return "u8" if attributes.get("y_scale") is not None else "f32"

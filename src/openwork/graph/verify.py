"""The graph's invariants, checked around every change."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from openwork.engine.operators import (
    ACTIVATIONS,
    DOMAIN,
    QUANTIZATION,
    RESIDUAL_QUANTIZATION,
    Operator,
    Slot,
    operator,
)
from openwork.graph.model import DTYPES, Dim, Dims, ModelError, attributes, describe, dims

_TYPES = {"float": (float, int), "int": (int,), "string": (str,)}


def verify(model: ir.Model) -> None:
    """Raise ModelError, naming the node and what is wrong, if the graph breaks an invariant.

    Every value is made once, before it is read; initializers have data; the graph's outputs are made; every
    openwork node has the operands, element types, shapes and attributes that docs/program.md gives it.
    """
    graph = model.graph
    made: set[ir.Value] = set()
    names: set[str] = set()
    for value in graph.inputs:
        _declare(value, "the graph's inputs", made, names)
    for name, value in graph.initializers.items():
        if value.const_value is None:
            raise ModelError(f"The initializer {name!r} has no data.")
        if value not in made:
            _declare(value, "the initializers", made, names)
    for node in graph:
        _check_node(node, made, names)
    for value in graph.outputs:
        if value not in made:
            raise ModelError(f"The graph's output {value.name!r} is made by no node.")


def _declare(value: ir.Value, where: str, made: set[ir.Value], names: set[str]) -> None:
    if value in made or (value.name and value.name in names):
        raise ModelError(f"The value {value.name!r} of {where} is made more than once.")
    made.add(value)
    if value.name:
        names.add(value.name)


def _check_node(node: ir.Node, made: set[ir.Value], names: set[str]) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None and value not in made:
            raise ModelError(
                f"{describe(node)} reads {value.name!r} as its input {index}, but nothing makes that value "
                f"before it."
            )
    if node.domain == DOMAIN:
        check_native(node)
    for value in node.outputs:
        _declare(value, describe(node), made, names)


def check_native(node: ir.Node) -> None:
    """Raise ModelError if an openwork node does not have the form that docs/program.md gives it."""
    form = operator(node.op_type, packed=bool(attributes(node).get("packed")))
    if form is None:
        raise ModelError(
            f"{describe(node)} is not an operator of the domain {DOMAIN!r}; docs/program.md lists them."
        )
    _check_attributes(node, form)
    sizes: dict[str, Dim | Dims] = {}
    _check_slots(node, form.inputs, node.inputs, "input", sizes)
    _check_slots(node, form.outputs, node.outputs, "output", sizes)
    _check_outputs(node, form)


def _check_attributes(node: ir.Node, form: Operator) -> None:
    found = attributes(node)
    given = [name for name in QUANTIZATION if name in found] if form.quantizes else []
    expected = {**form.attributes, **(QUANTIZATION if given or node.op_type == "Quantize" else {})}
    expected |= {name: kind for name, kind in form.optional.items() if name in found}
    if set(found) != set(expected):
        raise ModelError(
            f"{describe(node)} must have the attributes {sorted(expected)}, but it has {sorted(found)}."
        )
    for name, kind in expected.items():
        if not isinstance(found[name], _TYPES[kind]):
            raise ModelError(
                f"{describe(node)}: the attribute {name} must be a {kind}, but it is {found[name]!r}."
            )
        _check_range(node, name, found[name])
    _check_ending(node, form, found)
    _check_roundings(node, found)


def _check_roundings(node: ir.Node, found: Mapping[str, object]) -> None:
    """Scale and zero point of a rounding inside attention: both or neither."""
    for part in ("score", "probability"):
        if (f"{part}_scale" in found) != (f"{part}_zero_point" in found):
            raise ModelError(
                f"{describe(node)} must have {part}_scale and {part}_zero_point together or neither."
            )


def _check_ending(node: ir.Node, form: Operator, found: Mapping[str, object]) -> None:
    """The numbers of the activation and of a u8 residual: all of them, and only where they mean something."""
    if "activation" in form.attributes:
        numbers = {name for name in ("alpha", "beta") if name in found}
        needed = set(ACTIVATIONS[str(found["activation"])])
        if numbers != needed:
            raise ModelError(
                f"{describe(node)}: the activation {found['activation']} goes with the numbers "
                f"{sorted(needed)}, but it has {sorted(numbers)}."
            )
    given = [name for name in RESIDUAL_QUANTIZATION if name in found]
    residual = node.inputs[1] if len(node.inputs) > 1 else None
    is_u8 = residual is not None and residual.dtype == ir.DataType.UINT8
    if "residual_scale" in form.optional and (len(given) == 1 or bool(given) != is_u8):
        raise ModelError(
            f"{describe(node)} must have {' and '.join(RESIDUAL_QUANTIZATION)} exactly where its residual "
            f"is u8."
        )


def _check_range(node: ir.Node, name: str, value: object) -> None:
    if name.endswith("zero_point") and not (isinstance(value, int) and 0 <= value <= 255):
        raise ModelError(f"{describe(node)}: {name} must lie in [0, 255], but it is {value!r}.")
    is_scale = name.endswith("_scale")
    if is_scale and not (isinstance(value, float) and 0 < value < float("inf")):
        raise ModelError(f"{describe(node)}: {name} must be positive and finite, but it is {value!r}.")
    if name == "activation" and value not in ACTIVATIONS:
        raise ModelError(
            f"{describe(node)}: the activation must be one of {', '.join(ACTIVATIONS)}, but it is {value!r}."
        )
    if name == "activation_last" and value not in (0, 1):
        raise ModelError(f"{describe(node)}: activation_last must be 0 or 1, but it is {value!r}.")
    if name == "heads" and not (isinstance(value, int) and value > 0):
        raise ModelError(f"{describe(node)}: heads must be positive, but it is {value!r}.")


def _check_slots(
    node: ir.Node, slots: tuple[Slot, ...], values: object, kind: str, sizes: dict[str, Dim | Dims]
) -> None:
    given = list(values)  # type: ignore[call-overload]
    if len(given) > len(slots):
        raise ModelError(f"{describe(node)} has {len(given)} {kind}s, but {node.op_type} takes {len(slots)}.")
    for index, slot in enumerate(slots):
        value = given[index] if index < len(given) else None
        if value is None or (kind == "output" and not _used(value) and slot.optional):
            if not slot.optional:
                raise ModelError(f"{describe(node)} lacks its {kind} {slot.name!r}.")
            continue
        _check_value(node, slot, value, sizes)


def _used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _check_value(node: ir.Node, slot: Slot, value: ir.Value, sizes: dict[str, Dim | Dims]) -> None:
    where = f"{describe(node)}: {slot.name!r} ({value.name!r})"
    accepted = [DTYPES[name] for name in slot.dtypes]
    if value.dtype is not None and value.dtype not in accepted:
        raise ModelError(f"{where} must be {' or '.join(slot.dtypes)}, but it is {value.dtype.name}.")
    if slot.tensor and value.const_value is None:
        raise ModelError(f"{where} must be an initializer, but it is computed.")
    shape = dims(value)
    if shape is not None:
        _check_shape(where, slot, shape, sizes)


def _check_shape(where: str, slot: Slot, shape: Dims, sizes: dict[str, Dim | Dims]) -> None:
    open_ = slot.shape[:1] == ("...",)
    letters = slot.shape[1:] if open_ else slot.shape
    if len(shape) < len(letters) or (not open_ and len(shape) != len(letters)):
        raise ModelError(f"{where} must have the shape [{' '.join(slot.shape)}], but it has {list(shape)}.")
    leading, tail = shape[: len(shape) - len(letters)], shape[len(shape) - len(letters) :]
    known = sizes.setdefault("...", leading) if open_ else leading
    if isinstance(known, tuple) and (len(known) != len(leading) or not _agree_all(known, leading)):
        raise ModelError(
            f"{where} must have the leading dimensions {list(known)}, but it has {list(leading)}."
        )
    for letter, size in zip(letters, tail, strict=True):
        expected = _expected(letter, size, sizes)
        if not _agree(expected, size):
            raise ModelError(
                f"{where}: the dimension {letter} must be {expected}, but the shape is {list(shape)}."
            )


def _expected(letter: str, size: Dim, sizes: dict[str, Dim | Dims]) -> Dim:
    if letter == "3H":
        third = size // 3 if isinstance(size, int) else None
        known = sizes.setdefault("H", third)
        return 3 * known if isinstance(known, int) else None
    known = sizes.setdefault(letter, size)
    return None if isinstance(known, tuple) else known


def _agree(a: Dim, b: Dim) -> bool:
    """Two free dimensions may turn out equal when the program runs; two integers must be equal now."""
    return not (isinstance(a, int) and isinstance(b, int)) or a == b


def _agree_all(a: Dims, b: Dims) -> bool:
    return all(_agree(x, y) for x, y in zip(a, b, strict=True))


def _check_outputs(node: ir.Node, form: Operator) -> None:
    if not any(_used(value) for value in node.outputs):
        return
    quantized = "y_scale" in attributes(node)
    output = (
        node.outputs[len(form.outputs) - 1] if len(node.outputs) == len(form.outputs) else node.outputs[-1]
    )
    is_u8 = output.dtype == ir.DataType.UINT8
    if node.op_type == "LayerNorm":
        if _used(output) and is_u8 and not quantized:
            raise ModelError(f"{describe(node)} has the output 'yq' but neither y_scale nor y_zero_point.")
    elif quantized != is_u8 and output.dtype is not None:
        raise ModelError(
            f"{describe(node)} must give u8 exactly where it has y_scale, but its output is "
            f"{output.dtype.name} and "
            f"y_scale is {'there' if quantized else 'absent'}."
        )

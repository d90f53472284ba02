"""One node or step against the row of its operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openwork.engine.operators.contract import Form, Operand, Operator, Problem, Slot
from openwork.engine.shapes import Letters, Partial, Same

Shapes = tuple[Partial | None, ...]
"""The shape of each output of a row, None where not even the rank is known."""


def examine(row: Operator, form: Form, same: Same) -> Problem | Shapes:
    """The first thing that is wrong with a node, or the shapes of its outputs.

    same : whether two known dimensions are equal.
    """
    letters = Letters(same)
    problem = (
        attribute_problem(row, form.attributes)
        or _presence(row, form)
        or _inputs(form, letters)
        or _own(row, form, letters)
    )
    if problem is not None:
        return problem
    shapes = tuple(letters.fill(slot.shape) for slot in row.outputs)
    return _outputs(form, letters, shapes) or shapes


def infer(row: Operator, form: Form) -> Shapes:
    """The shapes of a row's outputs for inputs that may not fit; what does not is left to `examine`."""
    letters = Letters(lambda a, b: True)
    for slot, operand in form.inputs:
        if operand is not None and operand.shape is not None:
            letters.match(slot.shape, operand.shape)
    if row.derive is not None:
        row.derive(form, letters)
    return tuple(letters.fill(slot.shape) for slot in row.outputs)


def attribute_problem(row: Operator, attributes: Mapping[str, Any]) -> Problem | None:
    """The first attribute that is missing, unknown, or not what it may be."""
    for attribute in row.attributes:
        if attribute.name not in attributes:
            if not attribute.optional:
                return Problem(attribute.name, f"given: {attribute.expected}", "absent")
        elif not attribute.accepts(attributes[attribute.name]):
            return Problem(attribute.name, attribute.expected, repr(attributes[attribute.name]))
    for name in attributes:
        if row.attribute(name) is None:
            known = ", ".join(attribute.name for attribute in row.attributes) or "none"
            return Problem(
                name, f"absent (the attributes of {row.name} are: {known})", repr(attributes[name])
            )
    return None


def _presence(row: Operator, form: Form) -> Problem | None:
    """Attributes and slots that are there without what they need, or missing where they must be."""
    for attribute in row.attributes:
        if attribute.name in form.attributes and (lacking := _lacking(form, attribute.needs)):
            return _alone(attribute.name, lacking)
    for slot, operand in (*form.inputs, *form.outputs):
        lacking = _lacking(form, slot.needs)
        if operand is not None and lacking:
            return _alone(slot.name, lacking)
        if operand is None and not lacking and not slot.optional:
            also = f" exactly where {_listed(slot.needs)} is" if slot.needs else ""
            return Problem(slot.name, f"given{also}", "absent")
    if form.outputs and all(operand is None for _, operand in form.outputs):
        names = " or ".join(f"'{slot.name}'" for slot, _ in form.outputs)
        return Problem("outputs", f"{names}, at least one", "absent")
    return None


def _lacking(form: Form, needs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in needs if not form.has(name))


def _alone(name: str, lacking: tuple[str, ...]) -> Problem:
    return Problem(name, f"given only together with {_listed(lacking)}", "given alone")


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _own(row: Operator, form: Form, letters: Letters) -> Problem | None:
    """What the row itself demands."""
    checks = (*((row.derive,) if row.derive is not None else ()), *row.checks)
    return next((found for check in checks if (found := check(form, letters)) is not None), None)


def _inputs(form: Form, letters: Letters) -> Problem | None:
    shared = shared_dtype(form)
    for slot, operand in form.inputs:
        if operand is None:
            continue
        problem = _dtype(form, slot, operand, shared)
        detail = None if operand.shape is None else letters.match(slot.shape, operand.shape)
        if problem is not None or detail is not None:
            return problem or Problem(slot.name, described(form, slot, detail), _found(operand))
        if slot.tensor and not operand.stored:
            return Problem(slot.name, "an initializer", "computed")
    return None


def _outputs(form: Form, letters: Letters, shapes: Shapes) -> Problem | None:
    shared = shared_dtype(form)
    for (slot, operand), shape in zip(form.outputs, shapes, strict=False):
        if operand is None:
            continue
        problem = _dtype(form, slot, operand, shared)
        if problem is None and not _agrees(letters, shape, operand.shape):
            problem = Problem(slot.name, described(form, slot, f"{list(shape or ())}"), _found(operand))
        if problem is not None:
            return problem
    return None


def _agrees(letters: Letters, made: Partial | None, said: Partial | None) -> bool:
    if made is None or said is None:
        return True
    return len(made) == len(said) and all(map(letters.equal, made, said))


def _dtype(form: Form, slot: Slot, operand: Operand, shared: str | None) -> Problem | None:
    accepted = slot.dtypes_with(form.attributes)
    if shared in accepted and not slot.scale:
        accepted = (str(shared),)
    if operand.dtype is None or operand.dtype in accepted:
        return None
    return Problem(slot.name, described(form, slot, None), _found(operand))


def shared_dtype(form: Form) -> str | None:
    """The type of the slots that may have several and are not told which by an attribute."""
    free = (op for slot, op in form.inputs if op is not None and len(slot.dtypes) > 1 and not slot.scale)
    return next((operand.dtype for operand in free if operand.dtype is not None), None)


def output_dtype(form: Form, slot: Slot) -> str:
    """The type of an output, which follows from the attributes and the inputs."""
    accepted = slot.dtypes_with(form.attributes)
    shared = shared_dtype(form)
    return str(shared) if shared in accepted and not slot.scale else accepted[0]


def described(form: Form, slot: Slot, detail: str | None) -> str:
    """A slot's type and shape as a message says them.

    detail : what the node's other shapes make of it; None where the shape is not what is wrong.
    """
    dtypes = " or ".join(slot.dtypes_with(form.attributes))
    told = ""
    if slot.scale:
        there = "there" if slot.scale in form.attributes else "absent"
        told = f" since '{slot.scale}' is {there}"
    agreement = "" if detail is None else f" in agreement with the other shapes ({detail})"
    return f"{dtypes} [{','.join(slot.shape)}]{told}{agreement}"


def _found(operand: Operand) -> str:
    return f"{operand.dtype} {'of unknown rank' if operand.shape is None else list(operand.shape)}"

"""How rows write their slots: type names and shape words in texts."""

from __future__ import annotations

from openwork.engine.operators.contract import Slot


def value(
    name: str,
    dtypes: str,
    shape: str,
    *,
    optional: bool = False,
    scale: str = "",
    indexes: str = "",
    cuts: str = "",
    quantizer: str = "",
) -> Slot:
    """A value of the program: "u8|f32" for its types, "B H W C" for its shape."""
    words = tuple(shape.split())
    types = tuple(dtypes.split("|"))
    return Slot(name, types, words, optional, scale=scale, indexes=indexes, cuts=cuts, quantizer=quantizer)


def tensor(
    name: str,
    dtypes: str,
    shape: str,
    *,
    optional: bool = False,
    scale: str = "",
    needs: tuple[str, ...] = (),
) -> Slot:
    """An initializer, written in the same way."""
    words = tuple(shape.split())
    return Slot(name, tuple(dtypes.split("|")), words, optional, tensor=True, scale=scale, needs=needs)

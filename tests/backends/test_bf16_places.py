"""Which values of a program are BF16 from the start, so that no pass rounds them."""

from __future__ import annotations

from openwork.backends.cpu.rounding import made_as_bf16
from openwork.engine.program import Named, Program, Step, Value

IMAGE = Value("f32", (1, 4, 4, 8))


def program(*steps: tuple[str, int, int], outputs: tuple[int, ...]) -> Program:
    """Steps of one input and one output each."""
    made = tuple(Step(op, f"{op}{to}", (read,), (to,), {}, {}) for op, read, to in steps)
    count = 1 + max(to for *_, to in steps)
    ends = tuple(Named(f"y{index}", index) for index in outputs)
    return Program((Named("x", 0),), ends, (IMAGE,) * count, made)


def found(given: Program) -> frozenset[int]:
    return made_as_bf16(given, lambda step: step.op == "conv")


def test_a_norm_and_an_enlarged_image_before_products() -> None:
    assert found(program(("group_norm", 0, 1), ("conv", 1, 2), outputs=(2,))) == {1}
    chain = program(("conv", 0, 1), ("upsample", 1, 2), ("conv", 2, 3), outputs=(3,))
    assert found(chain) == {1, 2}


def test_what_others_read_stays_as_it_is() -> None:
    assert not found(program(("group_norm", 0, 1), ("conv", 1, 2), ("silu", 1, 3), outputs=(2, 3)))
    assert not found(program(("conv", 0, 1), ("upsample", 1, 2), outputs=(2,)))
    partly = program(("conv", 0, 1), ("upsample", 1, 2), ("conv", 2, 3), ("silu", 1, 4), outputs=(3, 4))
    assert found(partly) == {2}
    assert not found(program(("silu", 0, 1), ("conv", 1, 2), outputs=(2,)))

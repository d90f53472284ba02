"""Steps on images and elements: threads, free sizes, views, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from native_steps import add_step
from openwork import _native as native
from openwork.graph.reference import MEANING

ISAS = native.isas()
BATCH, HEIGHT, WIDTH = -1, -2, -3
OUT_HEIGHT, OUT_WIDTH = -4, -5
Q = {"x_scale": 0.1, "x_zero_point": 3, "y_scale": 0.07, "y_zero_point": 9}
POOL = {"kernel": [3, 2], "strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 1, 1]}


def array(dtype: str, *shape: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    if dtype == "u8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def run(program: Any, *arrays: Any, threads: int = 1) -> Any:
    return native.Context(program, threads).run(list(arrays))


def image_program(isa: str, op: str, dtype: str, made: str, out: list[int], **given: Any) -> Any:
    """One step on images of 17 channels and any size."""
    p = native.Program(isa)
    x, y = p.value(dtype, [BATCH, HEIGHT, WIDTH, 17]), p.value(made, out)
    add_step(p, op, "s", x=x, y=y, **given)
    p.finish([x], [y])
    return p


WINDOWS = [BATCH, OUT_HEIGHT, OUT_WIDTH, 17]
WHOLE = [BATCH, 1, 1, 17]
IMAGE_STEPS: list[tuple[str, str, str, str, list[int], dict[str, Any]]] = [
    ("max_pool", "MaxPool", "u8", "u8", WINDOWS, POOL),
    ("max_pool", "MaxPool", "f32", "f32", WINDOWS, POOL),
    ("average_pool", "AveragePool", "u8", "u8", WINDOWS, POOL | Q),
    (
        "average_pool",
        "AveragePool",
        "f32",
        "f32",
        WINDOWS,
        POOL | {"count_include_pad": 1, "overhang": [1, 0]},
    ),
    ("global_max_pool", "GlobalMaxPool", "u8", "u8", WHOLE, {}),
    ("global_average_pool", "GlobalAveragePool", "u8", "u8", WHOLE, Q),
    ("pad", "Pad", "f32", "f32", [BATCH, OUT_HEIGHT, WIDTH, 20], {"pads": [1, 0, 2, 0, 0, 1], "value": 2.5}),
    ("to_channels_first", "ToChannelsFirst", "u8", "u8", [BATCH, 17, HEIGHT, WIDTH], {}),
    ("to_channels_first", "ToChannelsFirst", "f32", "f32", [BATCH, 17, HEIGHT, WIDTH], {}),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", IMAGE_STEPS, ids=lambda case: f"{case[0]}-{case[2]}")
def test_any_size_and_any_number_of_threads_give_the_bits_of_the_reference(isa: str, case: Any) -> None:
    op, name, dtype, made, out, given = case
    program = image_program(isa, op, dtype, made, out, **given)
    for threads in (1, 2, 3):
        context = native.Context(program, threads)
        for shape in ((1, 3, 5), (2, 9, 4), (5, 1, 3), (1, 30, 31)):
            x = array(dtype, *shape, 17)
            (found,) = context.run([x])
            expected = MEANING[name](x, given)
            assert found.shape == expected.shape
            assert found.tobytes() == expected.tobytes(), (threads, shape)


def test_a_few_pixels_share_their_channels_among_threads() -> None:
    x = array("u8", 1, 7, 7, 2048)
    p = native.Program(ISAS[0])
    value, y = p.value("u8", [1, 7, 7, 2048]), p.value("u8", [1, 1, 1, 2048])
    add_step(p, "global_average_pool", "g", x=value, y=y, **Q)
    p.finish([value], [y])
    expected = MEANING["GlobalAveragePool"](x, Q).tobytes()
    assert [run(p, x, threads=threads)[0].tobytes() == expected for threads in (1, 2, 3, 5)] == [True] * 4


def viewed(*, x_out: bool = False, twice: bool = False, ahead: bool = False) -> Any:
    """relu -> reshape -> relu, with the values in the middle as outputs too where asked for."""
    p = native.Program("scalar")
    x, a = p.value("f32", [BATCH, 4, 6]), p.value("f32", [BATCH, 4, 6])
    b, c = p.value("f32", [BATCH, 24]), p.value("f32", [BATCH, 24])
    add_step(p, "relu", "first", x=x, y=a)
    add_step(p, "reshape", "view", x=a, y=b, shape=[0, -1])
    add_step(p, "softmax", "last", x=b, y=c)
    outputs = [c, *([a] if x_out else []), *([b] if twice else [])]
    p.finish([x], outputs)
    return p


@pytest.mark.parametrize("x_out", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_a_view_lies_where_its_source_does_or_is_copied(x_out: bool, twice: bool) -> None:
    context = native.Context(viewed(x_out=x_out, twice=twice), 2)
    for batch in (1, 3, 400):
        x = array("f32", batch, 4, 6)
        made = np.maximum(x, 0)
        found = context.run([x])
        flat = made.reshape(batch, 24)
        expected = [MEANING["Softmax"](flat, {}), *([made] if x_out else []), *([flat] if twice else [])]
        assert [f.tobytes() for f in found] == [e.tobytes() for e in expected]
        assert [f.shape for f in found] == [e.shape for e in expected]
        assert len({f.ctypes.data for f in found}) == len(found)


def test_views_of_inputs_and_views_of_views() -> None:
    p = native.Program("scalar")
    x, a = p.value("u8", [BATCH, 2, 3, 4]), p.value("u8", [BATCH, 24])
    b, c = p.value("u8", [BATCH, 1, 1, 24]), p.value("u8", [BATCH, 24, 1, 1])
    d, e = p.value("u8", [BATCH, 24, 1, 1]), p.value("u8", [BATCH, 1, 1, 24])
    add_step(p, "reshape", "a", x=x, y=a, shape=[0, -1])
    add_step(p, "reshape", "b", x=a, y=b, shape=[0, 1, 1, 24])
    add_step(p, "to_channels_first", "c", x=b, y=c)
    add_step(p, "lookup", "d", x=c, y=d, table=np.arange(255, -1, -1, dtype=np.uint8))
    add_step(p, "global_max_pool", "e", x=b, y=e)
    p.finish([x], [d, c, e])
    given = array("u8", 3, 2, 3, 4)
    found = run(p, given, threads=2)
    flat = given.reshape(3, 24)
    for output, expected in zip(found, (255 - flat, flat, flat), strict=True):
        assert output.tobytes() == expected.tobytes()
    found[1][:] = 0
    assert given.any(), "an output is never the caller's input"


def test_a_value_lives_as_long_as_its_views_are_read() -> None:
    """The view of `a` is read at the end; what is made between must not lie in its place."""
    p = native.Program("scalar")
    shape = [BATCH, 64]
    x, a, b, c, d = (p.value("f32", shape) for _ in range(5))
    view, y = p.value("f32", [BATCH, 8, 8]), p.value("f32", [BATCH, 8, 8])
    add_step(p, "relu", "a", x=x, y=a)
    add_step(p, "reshape", "view", x=a, y=view, shape=[0, 8, 8])
    add_step(p, "sigmoid", "b", x=x, y=b)
    add_step(p, "add", "c", a=b, b=b, y=c)
    add_step(p, "add", "d", a=c, b=b, y=d)
    flat = p.value("f32", [BATCH, 8, 8])
    add_step(p, "reshape", "flat", x=d, y=flat, shape=[0, 8, 8])
    add_step(p, "add", "y", a=view, b=flat, y=y)
    p.finish([x], [y])
    given = array("f32", 2, 64)
    s = MEANING["Sigmoid"](given, {})
    expected = np.maximum(given, 0) + (s + s + s)
    assert run(p, given)[0].tobytes() == expected.astype(np.float32).reshape(2, 8, 8).tobytes()


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    return str(caught.value)


def value(p: Any, dtype: str, *shape: int) -> int:
    return int(p.value(dtype, list(shape)))


REFUSALS: list[tuple[Callable[[Any], Any], str]] = [
    (
        lambda p: add_step(
            p,
            "max_pool",
            "m",
            x=value(p, "u8", 1, 5, 5, 3),
            y=value(p, "f32", 1, 4, 4, 3),
            kernel=[2, 2],
            strides=[1, 1],
            dilations=[1, 1],
            pads=[0] * 4,
        ),
        'Step "m" (max_pool): expected y of the type of x.',
    ),
    (
        lambda p: add_step(
            p,
            "max_pool",
            "m",
            x=value(p, "u8", 1, 5, 5, 3),
            y=value(p, "u8", 1, 4, 5, 3),
            kernel=[2, 2],
            strides=[1, 1],
            dilations=[1, 1],
            pads=[0] * 4,
        ),
        'Step "m" (max_pool): expected y of shape [1, 4, 4, 3], found [1, 4, 5, 3].',
    ),
    (
        lambda p: add_step(
            p,
            "average_pool",
            "m",
            x=value(p, "f32", 1, 5, 5, 3),
            y=value(p, "f32", 1, 4, 4, 3),
            kernel=[2, 2],
            strides=[1, 1],
            dilations=[1, 1],
            pads=[0] * 4,
            overhang=[0, 1],
        ),
        'Step "m" (average_pool): expected overhang to be a part of the pads at the bottom and at the right, '
        "found 1 of 0.",
    ),
    (
        lambda p: add_step(
            p, "to_channels_first", "t", x=value(p, "u8", 1, 2, 2, 3), y=value(p, "f32", 1, 3, 2, 2)
        ),
        'Step "t" (to_channels_first): expected y of the type of x, u8, found f32.',
    ),
    (
        lambda p: add_step(p, "add", "a", a=value(p, "f32", 2, 3), y=value(p, "f32", 2, 3)),
        'Step "a" (add): expected either an input b or a tensor constant, found neither.',
    ),
    (
        lambda p: add_step(
            p, "add", "a", a=value(p, "f32", 2, 3), y=value(p, "f32", 2, 3), constant=np.ones(2, np.float32)
        ),
        'Step "a" (add): expected constant of shape [3], found [2].',
    ),
    (
        lambda p: add_step(
            p,
            "add",
            "a",
            a=value(p, "f32", 2, 3),
            b=value(p, "f32", 2, 3),
            y=value(p, "f32", 2, 3),
            activation="gelu",
        ),
        'Step "a" (add): expected an activation out of none, relu and clip, found "gelu".',
    ),
    (
        lambda p: add_step(
            p,
            "add",
            "a",
            a=value(p, "u8", 1, 2, 2, 3),
            b=value(p, "f32", 1, 1, 2, 3),
            y=value(p, "f32", 1, 2, 2, 3),
            a_scale=1.0,
            a_zero_point=0,
        ),
        'Step "a" (add): expected b of shape [1, 1, 1, 3], found [1, 1, 2, 3].',
    ),
    (
        lambda p: add_step(p, "reshape", "r", x=value(p, "f32", 2, 3), y=value(p, "f32", 6), shape=[-1, -1]),
        'Step "r" (reshape): expected at most one -1 in the attribute shape, found several.',
    ),
    (
        lambda p: add_step(p, "reshape", "r", x=value(p, "f32", 2, 3), y=value(p, "f32", 6), shape=[2] * 9),
        'Step "r" (reshape): expected 1 to 8 integers as the attribute shape, found 9.',
    ),
    (
        lambda p: add_step(p, "reshape", "r", x=value(p, "f32", 2), y=value(p, "f32", 2, 1), shape=[-1, 0]),
        'Step "r" (reshape): expected a 0 in the attribute shape only where x has a dimension, found one at '
        "place 1.",
    ),
    (
        lambda p: add_step(
            p, "slice", "s", x=value(p, "f32", 2, 3), y=value(p, "f32", 2, 3), axis=1, begin=0, end=4
        ),
        'Step "s" (slice): expected end from 1 to 3, found 4.',
    ),
    (
        lambda p: add_step(
            p,
            "pad",
            "p",
            x=value(p, "u8", 1, 2, 2, 3),
            y=value(p, "u8", 1, 3, 2, 3),
            pads=[1, 0, 0, 0, 0, 0],
            value=0.5,
        ),
        'Step "p" (pad): expected an integer from 0 to 255 as the value of an image of u8, found 0.500000.',
    ),
]


@pytest.mark.parametrize(("build", "sentence"), REFUSALS, ids=range(len(REFUSALS)))
def test_refusals_say_what_was_expected_and_found(build: Callable[[Any], Any], sentence: str) -> None:
    assert refusal(lambda: build(native.Program("scalar"))) == sentence


def test_a_reshape_of_another_number_of_elements_is_refused_where_it_is_run() -> None:
    p = native.Program("scalar")
    x, y = value(p, "f32", BATCH, HEIGHT), value(p, "f32", BATCH, 6)
    add_step(p, "reshape", "r", x=x, y=y, shape=[0, 6])
    p.finish([x], [y])
    assert run(p, array("f32", 2, 6))[0].shape == (2, 6)
    assert refusal(lambda: run(p, array("f32", 2, 5))) == (
        'Step "r" (reshape): expected x of as many elements as the shape [2, 6] has, found [2, 5].'
    )


def test_a_window_larger_than_the_image_is_refused_where_it_is_run() -> None:
    p = image_program("scalar", "max_pool", "u8", "u8", WINDOWS, **(POOL | {"pads": [0] * 4}))
    assert (
        "expected a kernel that fits into the padded input"
        in refusal(lambda: run(p, array("u8", 1, 2, 9, 17))).lower()
    )

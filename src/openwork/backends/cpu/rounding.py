"""Where the activations of products in BF16 are rounded: by the product before, by a pass of its own, or by
the product itself.

The bits are the same: a product's epilogue rounds to the nearest BF16 as the pass does, and what is rounded
is never read otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from openwork.engine.program import Program, Step

PRODUCTS = frozenset({"linear", "conv"})
"""Steps that can store what they make as BF16."""
ROUNDS_ITSELF = frozenset({"linear"})
"""Steps that round the rows of x as they read them; a convolution reads its pixels several times."""


def made_as_bf16(program: Program, is_bf16: Callable[[Step], bool]) -> frozenset[int]:
    """The values that may be BF16 from the start: f32 that a product makes, and that only products in BF16
    read, as their x.

    is_bf16 : whether a step is a product with weights of BF16.
    """
    readers: dict[int, list[tuple[Step, int]]] = defaultdict(list)
    for step in program.steps:
        for place, index in enumerate(step.inputs):
            if index is not None:
                readers[index].append((step, place))
    kept = {named.value for named in program.outputs}
    made = {step.outputs[0] for step in program.steps if step.op in PRODUCTS} - {None}
    return frozenset(
        index
        for index in made
        if index is not None
        and index not in kept
        and program.values[index].dtype == "f32"
        and readers[index]
        and all(place == 0 and is_bf16(step) for step, place in readers[index])
    )

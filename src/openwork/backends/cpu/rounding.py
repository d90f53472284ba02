"""Where the activations of products in BF16 are rounded: by the step before, by a pass of its own, or by the
product itself.

The bits are the same: what stores BF16 rounds to the nearest as the pass does, and what is rounded is never
read otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from openwork.engine.program import Program, Step

STORES = frozenset({"linear", "conv", "group_norm"})
"""Steps that can store what they make as BF16."""
MOVES = frozenset({"upsample"})
"""Steps that make BF16 of BF16, since they only move elements."""
ROUNDS_ITSELF = frozenset({"linear"})
"""Steps that round the rows of x as they read them; a convolution reads its pixels several times."""


def made_as_bf16(program: Program, is_bf16: Callable[[Step], bool]) -> frozenset[int]:
    """The values that may be BF16 from the start: f32 that a step of STORES or MOVES makes, and that only
    products in BF16 read, as their x, or steps of MOVES whose result is such a value.

    is_bf16 : whether a step is a product with weights of BF16.
    """
    readers: dict[int, list[tuple[Step, int]]] = defaultdict(list)
    for step in program.steps:
        for place, index in enumerate(step.inputs):
            if index is not None:
                readers[index].append((step, place))
    kept, found = {named.value for named in program.outputs}, set[int]()
    # The readers of a value come behind what makes it.
    for step in reversed(program.steps):
        made = step.outputs[0]
        if made is None or step.op not in STORES | MOVES or made in kept or not readers[made]:
            continue
        rounded = all(
            place == 0 and (is_bf16(reader) or (reader.op in MOVES and reader.outputs[0] in found))
            for reader, place in readers[made]
        )
        if program.values[made].dtype == "f32" and rounded:
            found.add(made)
    return frozenset(found)

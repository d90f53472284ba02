"""Whether products in bfloat16 are worth it on this CPU."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor

_REPEATS = 5


@cache
def bfloat16_is_faster() -> bool:
    """Time a product of the size of a small encoder's in both types, interleaved,
    and compare the fastest runs.

    Measured and not read from the CPU's flags: without AVX-512 BF16 or AMX the same call works,
    several times slower.
    """
    single = torch.randn(1024, 384), torch.randn(384, 1536)
    half = tuple(x.bfloat16() for x in single)
    times = [(_seconds(*single), _seconds(*half)) for _ in range(_REPEATS)]
    return 1.2 * min(t[1] for t in times) < min(t[0] for t in times)


def _seconds(a: Tensor, b: Tensor) -> float:
    began = time.perf_counter()
    torch.mm(a, b)
    return time.perf_counter() - began

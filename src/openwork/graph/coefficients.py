"""The polynomial coefficients of docs/arithmetic.md: those of native/simd/math.h, as a test checks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def _floats(text: str) -> NDArray[np.float32]:
    return np.array([float.fromhex(word) for word in text.split()], np.float32)


GELU = _floats(
    "0x1.218356p-3 -0x1.1feefep-4 0x1.a60e5ep-5 -0x1.4b4e4cp-5 0x1.019304p-5 -0x1.7d3bcep-6 0x1.0cbbb4p-6"
    " -0x1.6dd544p-7 0x1.a41e84p-8 -0x1.6000f2p-9 0x1.c39f1ep-10 -0x1.a6e864p-10 0x1.3f25fep-11"
)
EXP = _floats("0x1.0p+0 0x1.0p+0 0x1.fffffap-2 0x1.5553fep-3 0x1.5558bcp-5 0x1.127400p-7 0x1.6ab27ep-10")
LOG2E, LN2_HIGH, LN2_LOW = _floats("0x1.715476p+0 0x1.63p-1 -0x1.bd0106p-13")

"""The instruction sets that the tests must cover, and the sentence that says which of them a run covered."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from openwork import _native

REQUIRED = (
    "amx",
    "avx512vnni",
    "avx512bf16",
    "avx512vnni_novbmi",
    "avxvnni",
    "avx2",
    "amx_emulated_avx512",
    "neon",
    "amx_emulated",
    "scalar",
)
"""Those with a translation unit of their own in native/kernels/, best first."""

_BF16 = "avx512bf16"
_HOST_OF_BF16 = "avx512vnni"


def present() -> set[str]:
    """Those of `REQUIRED` that this machine runs. AVX-512's BF16 has no name at run time: it is a part of
    avx512vnni where the CPU has it."""
    bf16 = {_BF16} if "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split() else set()
    return set(_native.isas(emulated=True)) | bf16


def sentence(run: Collection[str], on_machine: Collection[str]) -> str:
    """What tests that ran on the instruction sets `run` covered on a machine that has `on_machine`."""
    covered = {*run, _BF16} if _HOST_OF_BF16 in run and _BF16 in on_machine else set(run)
    parts = {
        "covered": [isa for isa in REQUIRED if isa in covered],
        "not by the tests that ran": [isa for isa in REQUIRED if isa in on_machine and isa not in covered],
        "not on this machine": [isa for isa in REQUIRED if isa not in on_machine],
    }
    listed = "; ".join(f"{what}: {', '.join(isas)}" for what, isas in parts.items() if isas)
    return f"Instruction sets {listed}."

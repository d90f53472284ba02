"""The description of the machine, from files made by hand."""

from pathlib import Path

import numpy as np
import pytest

from openwork.support import machine

X86 = """processor\t: 0
model name\t: Example CPU @ 3.00GHz
flags\t\t: fpu avx2 avx512_vnni avx512f

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


def test_the_first_processor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(X86, encoding="utf-8")
    facts = machine._cpu_facts(path)
    assert facts["model name"] == "Example CPU @ 3.00GHz"
    assert facts["flags"] == "fpu avx2 avx512_vnni avx512f"


def test_a_machine_without_the_file_has_no_facts(tmp_path: Path) -> None:
    assert machine._cpu_facts(tmp_path / "missing") == {}


def test_the_line_names_cpu_threads_flags_and_versions() -> None:
    described = machine.Machine("Example CPU", 2, ("avx2",), "3.11.7", {"numpy": "2.0"})
    assert described.line(1) == "Example CPU, 2 cores (avx2), 1 thread; Python 3.11.7, numpy 2.0"


def test_this_machine_knows_the_installed_versions() -> None:
    described = machine.this_machine(("numpy", "no-such-distribution"))
    assert described.versions == {"numpy": np.__version__, "no-such-distribution": "(not installed)"}
    assert described.cores >= 1
    assert described.cpu


@pytest.mark.parametrize("flag", machine.SPEED_FLAGS)
def test_flags_are_those_of_the_processor(flag: str) -> None:
    facts = machine._cpu_facts(Path("/proc/cpuinfo"))
    assert (flag in machine.this_machine().flags) == (flag in facts.get("flags", "").split())

"""The list of instruction sets is the one that is built and documented, and a run says what it covered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import instruction_sets
from instruction_sets import REQUIRED, sentence
from openwork import _native

pytest_plugins = "pytester"
ROOT = Path(__file__).parents[2]


def test_the_list_names_each_translation_unit_that_has_flags_of_its_own() -> None:
    built = re.findall(r'^openwork_isa\("[^"]+" (\w+)', (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert sorted([*built, "amx_emulated", "scalar"]) == sorted(REQUIRED)


def test_the_page_has_a_row_for_each_name() -> None:
    page = (ROOT / "docs/instruction_sets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|", page, re.MULTILINE)
    assert sorted([*rows, "avx512bf16"]) == sorted(REQUIRED)


def test_this_machine_has_nothing_that_the_list_lacks() -> None:
    assert set(_native.isas()) <= instruction_sets.present() <= set(REQUIRED)
    assert set(_native.isas(emulated=True)) - set(_native.isas()) == {
        name for name, emulated, lacks in _native.instruction_sets() if emulated and not lacks
    }


@pytest.mark.parametrize(
    ("run", "machine", "expected"),
    [
        (
            {"avx2", "scalar"},
            {"avx2", "scalar"},
            "Instruction sets covered: avx2, scalar; "
            "not on this machine: amx, avx512vnni, avx512bf16, avx512vnni_novbmi, avxvnni, "
            "amx_emulated_avx512, neon, amx_emulated.",
        ),
        (
            {"avx512vnni"},
            {"avx512vnni", "avx512bf16", "avx2", "scalar"},
            "Instruction sets covered: avx512vnni, avx512bf16; not by the tests that ran: avx2, scalar; "
            "not on this machine: amx, avx512vnni_novbmi, avxvnni, amx_emulated_avx512, neon, amx_emulated.",
        ),
        (set(REQUIRED) - {"avx512bf16"}, set(REQUIRED), f"Instruction sets covered: {', '.join(REQUIRED)}."),
    ],
)
def test_the_sentence_parts_what_ran_from_what_could_not(
    run: set[str], machine: set[str], expected: str
) -> None:
    assert sentence(run, machine) == expected


TESTS = """
import pytest

@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_passes_on_scalar_alone(isa):
    assert isa == "scalar"

def test_without():
    pass
"""


def test_a_run_names_those_whose_tests_passed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruction_sets, "present", lambda: {"avx2", "scalar"})
    pytester.makeconftest((ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(TESTS)
    expected = sentence({"scalar"}, {"avx2", "scalar"})
    assert expected in pytester.runpytest_inprocess().outlines
    assert not any(
        "Instruction sets" in line for line in pytester.runpytest_inprocess("-k", "without").outlines
    )

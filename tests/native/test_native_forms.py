"""The table of forms and instruction sets, as Python sees it: what C++ declares, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from openwork import _native as native

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "CMakeLists.txt").exists())
ISAS = native.isas(emulated=True)
KERNELS = ROOT / "native" / "kernels"


def rows(file: Path, macro: str) -> list[list[str]]:
    """The arguments of each row of a table, comments left out."""
    lines = [line for line in file.read_text().splitlines() if line.startswith(f"{macro}(")]
    return [[part.strip() for part in line[len(macro) + 1 : line.rindex(")")].split(",")] for line in lines]


def test_every_form_of_the_table_is_known_by_its_numbers() -> None:
    table = rows(KERNELS / "table.inc", "OPENWORK_GEMM")
    together = {body: int(count) for body, count, _ in rows(KERNELS / "bodies.inc", "OPENWORK_BODY")}
    for name, body, reach, share, bits in table:
        form = native.form(name)
        assert (form.name, form.body, form.rows_at_once) == (name, body, together[body])
        assert (form.reach, form.share, form.bits) == (int(reach), int(share), int(bits))
        assert form.few_rows == (0 < form.bits < 8)
        assert form.sparse == (form.share > 0 or form.bits > 0)
        assert repr(form) == f"Form({name})"
    assert native.form("window1000") is None
    names = [row[0] for row in table]
    for isa in ISAS:
        here = [form.name for form in native.forms(isa)]
        assert here == [name for name in names if name in here]


def test_every_instruction_set_has_its_flags_and_its_units() -> None:
    sets, units = (
        [row[0] for row in rows(KERNELS / "isas.inc", f"OPENWORK_{kind}")] for kind in ("ISA", "UNIT")
    )
    cmake = (ROOT / "CMakeLists.txt").read_text()
    # BF16's own products are no set of their own; plain C++ needs no flags.
    flags = set(re.findall(r'^openwork_isa\("[^"]*" (\w+)', cmake, re.MULTILINE)) - {"avx512bf16"}
    assert flags == {*sets, *units} - {"scalar", "amx_emulated"}
    built = [name for name, _, _ in native.instruction_sets()]
    assert set(built) <= {*sets, *units}
    assert [name for name in built if name in ISAS] == ISAS
    assert all((KERNELS / f"{name}.cc").exists() for name in (*sets, *units))
    assert all((ROOT / "native" / "test" / f"vocabulary_{name}.cc").exists() for name in sets)


@pytest.mark.parametrize("isa", ISAS)
def test_expected_work_is_that_of_the_first_span_over_dense(isa: str) -> None:
    rng = np.random.default_rng(3)
    kept = np.repeat(rng.random((160, 96)) < 0.3, 4, axis=0)
    weight = rng.integers(-127, 128, (640, 96)).astype(np.int8) * kept
    pack, sample = native.PackedWeights.pack, np.ascontiguousarray(weight[:512])
    names = [form.name for form in native.forms(isa)]
    found = native.expected_work(weight, names, isa)
    assert list(found) == names
    assert found["dense"] == 1.0
    assert found.pop("depthwise").startswith("The form depthwise runs convolutions whose groups")
    for name, work in found.items():
        assert work == pack(sample, name, isa).work / pack(sample, "dense", isa).work
    missing = native.expected_work(weight.astype(np.float32), ["window8"], isa)
    assert missing == {"window8": f"The form window8 is not on {isa} for f32."}


def test_expected_work_refuses_what_no_form_holds() -> None:
    with pytest.raises(ValueError, match="found -128 in output channel 1"):
        native.expected_work(np.array([[1, 2], [3, -128]], np.int8), ["window8"], "scalar")
    with pytest.raises(ValueError, match='found "window7"'):
        native.expected_work(np.ones((2, 4), np.int8), ["window7"], "scalar")

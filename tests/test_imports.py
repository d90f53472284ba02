"""The arrows of the house, as docs/architecture.md draws them: who imports whom, and nobody in a ring."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine_files import REPORT
from engine_samples import encoder
from import_graph import PACKAGE, Import, Sources, between_siblings, cycles, rows
from openwork.engine.engine_file import write_engine

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
BELOW_TORCH = ("patterns", "qdq", "engine", "graph", "backends", "builder", "runtime", "prediction")


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def table(heading: str) -> dict[str, frozenset[str]]:
    """A table of the page: what stands first in a row, each name by itself, and the names behind it."""
    return {name: frozenset(quoted(row[1])) for row in rows(PAGE, f"## {heading}") for name in quoted(row[0])}


ROOMS = table("Rooms and what they may import")
LIBRARIES = table("Libraries and who may import them")
FOLDERS = table("Folders of native/ and what they may include")


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources.below(ROOT / "src")


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def wrong_arrows(sources: Sources, rooms: Mapping[str, frozenset[str]]) -> list[str]:
    """The imports from room to room that the table does not have, as sentences."""
    return [
        f"{found.importer}, line {found.line}, imports {target}, but the room {room(found.importer)} may "
        f"import only {', '.join(sorted(rooms[room(found.importer)])) or 'nothing'}."
        for found in sources.imports
        for target in dict.fromkeys((found.imported, found.written))
        if found.importer != PACKAGE
        if target.split(".")[0] == PACKAGE
        if room(target) not in rooms[room(found.importer)] | {room(found.importer)}
    ]


def wrong_libraries(sources: Sources, libraries: Mapping[str, frozenset[str]]) -> list[str]:
    """The imports of a library outside the places of the table, as sentences."""
    return [
        f"{found.importer}, line {found.line}, imports {library}, which only {', '.join(sorted(places))} may."
        for found in sources.imports
        for library, places in libraries.items()
        if found.imported.split(".")[0] == library and not _inside(found, places)
    ]


def _inside(found: Import, places: frozenset[str]) -> bool:
    path = found.importer.removeprefix(f"{PACKAGE}.").replace(".", "/")
    return any(path == place.removesuffix(".py") or path.startswith(f"{place}/") for place in places)


def test_every_room_stands_in_the_table(sources: Sources) -> None:
    assert {room(module) for module in sources.files if module != PACKAGE} == set(ROOMS)
    assert {name for names in ROOMS.values() for name in names} <= {*ROOMS, "_native"}


def test_imports_point_down(sources: Sources) -> None:
    assert wrong_arrows(sources, ROOMS) == []


def test_the_table_itself_has_no_ring() -> None:
    assert cycles({name: set(below) for name, below in ROOMS.items()}) == []


def test_no_files_import_each_other_in_a_ring(sources: Sources) -> None:
    assert cycles(sources.edges) == []


def test_no_packages_import_each_other_in_a_ring(sources: Sources) -> None:
    assert cycles(between_siblings(sources.edges)) == []


def test_libraries_stay_where_they_belong(sources: Sources) -> None:
    assert wrong_libraries(sources, LIBRARIES) == []


def test_every_library_of_the_table_is_imported_in_each_of_its_places(sources: Sources) -> None:
    idle = [
        f"{library} in {place}"
        for library, places in LIBRARIES.items()
        for place in sorted(places)
        if not any(
            found.imported.split(".")[0] == library and _inside(found, frozenset({place}))
            for found in sources.imports
        )
    ]
    assert idle == []


LATE_PACKAGES = (
    "openwork",
    "openwork.export",
    "openwork.quantization",
    "openwork.quantization.placement",
    "openwork.sparsity",
)


@pytest.mark.parametrize("package", LATE_PACKAGES)
def test_names_that_are_loaded_late_are_declared_once_for_types_and_once_for_use(
    sources: Sources, package: str
) -> None:
    module = importlib.import_module(package)
    declared = {
        alias.name: node.module
        for block in sources.trees[package].body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == module._HOMES
    assert set(declared) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match=f"The module '{package}' has no attribute 'absent'"):
        _ = module.absent


def test_every_package_that_loads_names_late_is_looked_at(sources: Sources) -> None:
    late = {name for name, tree in sources.trees.items() if "'late_names'" in ast.dump(tree)}
    assert late - {"openwork.support.late_names"} == set(LATE_PACKAGES)


def loaded(code: str, *arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded at the end of `code`."""
    shown = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", shown, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_nothing_below_the_stages_loads_torch(sources: Sources) -> None:
    modules = sorted(module for module in sources.files if room(module) in BELOW_TORCH)
    found = loaded("".join(f"import {module}\n" for module in modules))
    assert "torch" not in found
    assert {"openwork", "numpy", "onnx_ir"} <= found


def test_an_engine_runs_without_onnx(tmp_path: Path) -> None:
    path = tmp_path / "sample.engine"
    program, tensors = encoder()
    write_engine(path, program, REPORT.to_json(), tensors)
    code = "import openwork\nengine = openwork.load(sys.argv[1])\nengine.run(engine.sample((2, 5)))"
    found = loaded(code, str(path))
    assert found & {"torch", "onnx", "onnx_ir", "onnxruntime", "google"} == set()
    assert "numpy" in found


INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def includes(root: Path) -> dict[str, set[str]]:
    """By file of native/, what it includes: files as paths from there, and the headers in angle brackets."""
    return {
        str(path.relative_to(root)): {
            one or other for one, other in INCLUDE.findall(path.read_text(encoding="utf-8"))
        }
        for path in sorted(root.rglob("*"))
        if path.suffix in (".h", ".cc", ".inc")
    }


def wrong_includes(found: Mapping[str, set[str]], folders: Mapping[str, frozenset[str]]) -> list[str]:
    """The includes that the table does not have, and Python outside of `bind`, as sentences."""
    wrong = []
    for file, headers in found.items():
        folder = file.split("/")[0]
        allowed = folders.get(file, folders[folder]) | {folder}
        for header in sorted(headers):
            above = header.split("/")[0]
            if above in folders and above not in allowed:
                wrong.append(
                    f"native/{file} includes {header}, but may include only {', '.join(sorted(allowed))}."
                )
            if (above == "nanobind" or header == "Python.h") and folder != "bind":
                wrong.append(f"native/{file} includes {header}, which only native/bind may.")
    return wrong


def test_native_folders_include_what_lies_below_them() -> None:
    found = includes(ROOT / "native")
    assert wrong_includes(found, FOLDERS) == []
    # A table (.inc) is read under macros that choose a part of it: it may name what reads another part.
    headers = {file: {name for name in names if not name.endswith(".inc")} for file, names in found.items()}
    assert cycles(headers) == []
    assert {file.split("/")[0] for file in found} == {name for name in FOLDERS if "/" not in name}


# That each check can fail: the same functions on small trees that break one arrow each.


def tree(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


LATE = "def f():\n    from openwork.b.y import n\n"
TYPED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import openwork.b.y\n"
NAMED = '_HOMES = {"n": "openwork.b.y"}\n'


RELATIVE = ("from ..b.y import n\n", "from ..b import n\n", "from .. import b\nfrom ..b import y\n")


@pytest.mark.parametrize(
    "text", [LATE, TYPED, NAMED, "from openwork.b import n\n", "import openwork.b.y\n", *RELATIVE[:2]]
)
def test_every_way_of_importing_is_seen(tmp_path: Path, text: str) -> None:
    files = {
        "openwork/__init__.py": "",
        "openwork/a/__init__.py": "",
        "openwork/a/x.py": text,
        "openwork/b/__init__.py": "from openwork.b.y import n\n",
        "openwork/b/y.py": "n = 1\n",
    }
    found = Sources.below(tree(tmp_path, files))
    assert found.edges["openwork.a.x"] == {"openwork.b.y"}
    none: dict[str, frozenset[str]] = {"a": frozenset(), "b": frozenset()}
    line = len(text.splitlines())
    assert wrong_arrows(found, none)[0] == (
        f"openwork.a.x, line {line}, imports openwork.b.y, but the room a may import only nothing."
    )
    assert wrong_arrows(found, none | {"a": frozenset({"b"})}) == []


@pytest.mark.parametrize("text", RELATIVE)
def test_the_linter_refuses_relative_imports_below_src(text: str) -> None:
    def linted(path: str) -> str:
        command = [sys.executable, "-m", "ruff", "check", "--select", "TID", "--stdin-filename", path, "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT).stdout

    assert "TID252" in linted("src/openwork/a/x.py")
    assert "TID252" not in linted("examples/a/x.py")


def test_relative_imports_lead_where_python_goes(tmp_path: Path) -> None:
    files = {
        "openwork/__init__.py": "",
        "openwork/a/__init__.py": "from .x import n\n",
        "openwork/a/x.py": "n = 1\n",
        "openwork/a/b/__init__.py": "from .. import x\n",
        "openwork/a/b/z.py": "from ..x import n\nfrom . import z\n",
    }
    found = Sources.below(tree(tmp_path, files))
    assert found.edges["openwork.a"] == {"openwork.a.x"}
    assert found.edges["openwork.a.b"] == {"openwork.a.x"}
    assert found.edges["openwork.a.b.z"] == {"openwork.a.x"}


def test_a_name_taken_through_another_room_is_seen(tmp_path: Path) -> None:
    files = {
        "openwork/high/__init__.py": "from openwork.low import n\n",
        "openwork/low.py": "n = 1\n",
        "openwork/x/y.py": "from openwork.high import n\n",
        "openwork/x/z.py": "from openwork import high\nfrom openwork import _native\n",
    }
    rooms = {"x": frozenset({"low"}), "high": frozenset({"low"}), "low": frozenset[str]()}
    shown = wrong_arrows(Sources.below(tree(tmp_path, files)), rooms)
    assert shown == [
        "openwork.x.y, line 1, imports openwork.high, but the room x may import only low.",
        "openwork.x.z, line 1, imports openwork.high, but the room x may import only low.",
        "openwork.x.z, line 2, imports openwork._native, but the room x may import only low.",
    ]


def test_a_ring_of_files_is_named() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b -> c -> b"]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_ring_of_packages_is_seen_where_their_files_have_none() -> None:
    edges = {"p.a.x": {"p.b.x"}, "p.b.y": {"p.a.y"}, "p.b.x": set[str](), "p.a.y": set[str]()}
    assert cycles(edges) == []
    assert cycles(between_siblings(edges)) == ["p.a -> p.b -> p.a"]
    inside = {"p": {"p.a.x"}, "p.a.x": {"p.c"}, "p.a": {"p.a.x"}}
    assert cycles(between_siblings(inside)) == []


def test_a_library_in_the_wrong_place_is_named(tmp_path: Path) -> None:
    files = {"openwork/a.py": "def f():\n    import torch.nn\n", "openwork/b/c.py": "from torch import nn\n"}
    found = Sources.below(tree(tmp_path, files))
    assert wrong_libraries(found, {"torch": frozenset({"b"})}) == [
        "openwork.a, line 2, imports torch, which only b may."
    ]
    assert wrong_libraries(found, {"torch": frozenset({"b/c.py", "a.py"})}) == []


def test_an_include_that_goes_up_is_named(tmp_path: Path) -> None:
    files = {"simd/a.h": '#include "kernels/b.h"\n', "kernels/b.h": "#include <nanobind/nanobind.h>\n"}
    found = includes(tree(tmp_path, files))
    folders: dict[str, frozenset[str]] = {"simd": frozenset(), "kernels": frozenset({"simd"})}
    assert wrong_includes(found, folders) == [
        "native/kernels/b.h includes nanobind/nanobind.h, which only native/bind may.",
        "native/simd/a.h includes kernels/b.h, but may include only simd.",
    ]
    assert wrong_includes(found, {**folders, "simd/a.h": frozenset({"kernels"})}) == [
        "native/kernels/b.h includes nanobind/nanobind.h, which only native/bind may."
    ]
    assert cycles(found | {"kernels/b.h": {"simd/a.h"}}) == ["kernels/b.h -> simd/a.h -> kernels/b.h"]


def test_a_fresh_interpreter_shows_what_it_loads() -> None:
    assert {"json", "sys"} <= loaded("import json.decoder")
    assert "json" not in loaded("")

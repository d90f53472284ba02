"""Fails where the linker could take a function compiled for one instruction set into code for every machine.

An inline function or a template that does not name its instruction set is one symbol in all translation
units. Where two of them hold it and one was compiled with, say, `-mavx512f`, the linker keeps either, and the
program may stop on a machine without AVX-512 although no kernel of it was called.

    python native/test/shared_symbols.py build/native [--nm aarch64-linux-gnu-nm]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# nm's letters for definitions of which the linker keeps one: weak functions and objects, and unique ones.
KEPT_ONCE = frozenset("WVu")


def merged_symbols(nm: str, file: Path) -> set[str]:
    """The symbols that `file` defines and of which the linker keeps one definition."""
    command = [nm, "--defined-only", "-C", str(file)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    fields = (line.split(maxsplit=2) for line in listed.splitlines())
    return {name for _, letter, name in fields if letter in KEPT_ONCE}


def compiled_for(file: Path) -> str:
    """The name of the file's instruction set, if it was compiled with one's flags, or another name."""
    return file.name.removesuffix(".cc.o").removeprefix("vocabulary_")


def is_special(file: Path) -> bool:
    """Whether the file was compiled with an instruction set's flags."""
    name = compiled_for(file)
    return name.startswith(("amx", "avx", "neon")) and name != "amx_emulated"


def shared(symbols: dict[Path, set[str]]) -> Iterable[str]:
    """A sentence for each symbol of a special file that a file of another set, or of none, defines too."""
    for special in filter(is_special, symbols):
        for other in symbols:
            if compiled_for(other) == compiled_for(special):
                continue
            for name in sorted(symbols[special] & symbols[other]):
                yield (
                    f"{name} is defined in both {special.name} and {other.name}: "
                    "make it a template over V, or [[gnu::always_inline]]."
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("build", type=Path, help="the folder that CMake built in")
    parser.add_argument("--nm", default="nm", help="of the compiler that built it")
    arguments = parser.parse_args()
    files = sorted(arguments.build.glob("CMakeFiles/openwork_*.dir/native/**/*.cc.o"))
    if not any(map(is_special, files)):
        sys.exit(f"Expected objects of an instruction set's kernels under {arguments.build}, found none.")
    sentences = list(shared({file: merged_symbols(arguments.nm, file) for file in files}))
    print("\n".join(sentences) or f"{len(files)} objects: no instruction set shares a symbol")
    return bool(sentences)


if __name__ == "__main__":
    sys.exit(main())

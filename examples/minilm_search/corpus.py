"""Pairs of query and document, cut from the docstrings of the Python that runs the demo.

The first paragraph of a docstring is the query, the rest is the document that answers it. Nothing is
imported: the sources are parsed. The same packages give the same pairs in the same order.
"""

import ast
import hashlib
import json
import logging
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from .store import write_json

PACKAGES = (
    "torch",
    "sympy",
    "scipy",
    "sklearn",
    "matplotlib",
    "networkx",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
"""Import names of the packages that are read beside the standard library."""
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Distribution names where they differ from the import name."""

QUERY_CHARACTERS = (20, 200)
DOCUMENT_CHARACTERS = (80, 600)
TEST_PAIRS = 2_000
TRAIN_PAIRS = 18_000
MINIMUM_PAIRS = 8_000
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
PARAGRAPH_END = re.compile(r"\n[ \t]*\n")

logger = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A query, the document that answers it, and the object whose docstring they are."""

    query: str
    document: str
    source: str


@dataclass(frozen=True)
class Corpus:
    """The pairs, split once for all: `train` for calibration and distillation, `test` for the score."""

    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    def cut(self, pairs: int) -> "Corpus":
        """The corpus with only the first `pairs` of the test."""
        return replace(self, test=self.test[:pairs])

    def training_texts(self) -> list[str]:
        """Queries and documents of the training part, each text once, in a fixed order."""
        return list(dict.fromkeys(text for pair in self.train for text in (pair.document, pair.query)))


def load(cache: Path) -> Corpus:
    """The corpus of the running Python, read from `cache` where that was made from the same packages.

    Raises ValueError if the installed packages hold too few docstrings for a meaningful score.
    """
    key = fingerprint()
    if cache.exists() and (stored := json.loads(cache.read_text(encoding="utf-8")))["packages"] == key:
        return Corpus(_pairs_of(stored["train"]), _pairs_of(stored["test"]))
    corpus = split(collect(source_files()))
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_json(cache, {"packages": key, "train": corpus.train, "test": corpus.test})
    return corpus


def _pairs_of(rows: Iterable[list[str]]) -> tuple[Pair, ...]:
    return tuple(Pair(*row) for row in rows)


def fingerprint() -> dict[str, str]:
    """Versions of everything that is read; equal fingerprints give equal corpora."""
    versions = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions}


def _version(package: str) -> str:
    try:
        return metadata.version(DISTRIBUTIONS.get(package, package))
    except metadata.PackageNotFoundError:
        return "not installed"


def source_files() -> list[tuple[str, Path]]:
    """Module name and path of every source of the standard library and of `PACKAGES`, without their tests."""
    library, packages = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
    found = [(_module_name(path, library), path) for path in _python_files(library, library)]
    for name in PACKAGES:
        found += [(_module_name(path, packages), path) for path in _python_files(packages / name, packages)]
    return found


def _python_files(folder: Path, root: Path) -> list[Path]:
    files = folder.rglob("*.py")
    return sorted(path for path in files if SKIPPED_FOLDERS.isdisjoint(path.relative_to(root).parts))


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def collect(files: Iterable[tuple[str, Path]]) -> list[Pair]:
    """Every usable pair of `files`, the first of those that share a query or a document."""
    queries: set[str] = set()
    documents: set[str] = set()
    kept = []
    for module, path in files:
        for pair in pairs_in(module, path.read_bytes()):
            if pair.query not in queries and pair.document not in documents:
                kept.append(pair)
            queries.add(pair.query)
            # A document that stood in both parts would let the calibration see the test.
            documents.add(pair.document)
    return kept


def pairs_in(module: str, source: bytes) -> Iterator[Pair]:
    """The pairs of one source file, in the order of the file; a file that does not parse has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        logger.debug("%s is left out of the corpus: %s", module, error)
        return
    for name, text in _docstrings(module, tree):
        if (pair := cut(name, text)) is not None:
            yield pair


def _docstrings(name: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if isinstance(node, owners) and (text := ast.get_docstring(node)):
        yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(f"{name}.{child.name}", child)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _docstrings(name, child)


def cut(source: str, docstring: str) -> Pair | None:
    """The pair of one docstring, white space made single; None where a part is too short or too long."""
    first, *rest = PARAGRAPH_END.split(docstring.strip(), maxsplit=1)
    query, document = " ".join(first.split()), " ".join(" ".join(rest).split())
    shortest, longest = QUERY_CHARACTERS
    if not shortest <= len(query) <= longest or len(document) < DOCUMENT_CHARACTERS[0]:
        return None
    return Pair(query, _shortened(document, DOCUMENT_CHARACTERS[1]), source)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit + 1].rsplit(" ", 1)[0][:limit]


def split(pairs: list[Pair]) -> Corpus:
    """The fixed split: by a digest of the query, 2,000 for the test and then at most 18,000 to train."""
    if len(pairs) < MINIMUM_PAIRS:
        raise ValueError(
            f"The installed packages gave {len(pairs)} pairs of query and document; the demo needs at least "
            f"{MINIMUM_PAIRS}. Install the 'train' and 'bench' extras, whose docstrings it reads."
        )
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(pair.query.encode()).digest())
    return Corpus(tuple(ordered[TEST_PAIRS : TEST_PAIRS + TRAIN_PAIRS]), tuple(ordered[:TEST_PAIRS]))

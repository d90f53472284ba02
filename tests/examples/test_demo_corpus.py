"""The demo's corpus: what a docstring gives, which pairs are kept, and that the split is fixed."""

import json
from pathlib import Path

import pytest
from examples.minilm_search import corpus
from examples.minilm_search.corpus import Pair

SOURCE = b'''"""A module with a summary line.

It goes on with a second paragraph that is long enough to count as the document of the pair.
"""

class Shelf:
    """Keep books in the order of their titles.

    The order is kept whenever a book is added, so that looking one up
    takes logarithmic time in the number of books.
    """

    def add(self, book):
        """Put a book where it belongs on the shelf."""

        def inner():
            """Too short.

            This document is long enough, but the query before it has fewer than twenty characters.
            """

if True:
    async def find(title):
        """Find a book by its title on the shelf.

        Returns None where there is no such book; never raises, whatever the title may be.
        """
'''


def _pairs(count: int) -> list[Pair]:
    return [
        Pair(f"query number {i} of the test", f"document number {i} " * 6, f"module.f{i}")
        for i in range(count)
    ]


def test_pairs_of_a_source_file() -> None:
    found = list(corpus.pairs_in("library.shelf", SOURCE))
    assert [pair.source for pair in found] == ["library.shelf", "library.shelf.Shelf", "library.shelf.find"]
    assert found[1] == Pair(
        "Keep books in the order of their titles.",
        "The order is kept whenever a book is added, so that looking one up takes logarithmic time in the "
        "number of books.",
        "library.shelf.Shelf",
    )


def test_a_file_that_does_not_parse_gives_nothing() -> None:
    assert list(corpus.pairs_in("broken", b"def f(:\n")) == []
    assert list(corpus.pairs_in("binary", b"\x00\x01")) == []


@pytest.mark.parametrize(
    ("query", "document", "kept"),
    [(19, 80, False), (20, 80, True), (200, 80, True), (201, 80, False), (20, 79, False), (20, 600, True)],
)
def test_limits_of_length(query: int, document: int, kept: bool) -> None:
    assert (corpus.cut("name", "q" * query + "\n\n" + "d" * document) is not None) == kept


def test_long_documents_end_between_words() -> None:
    pair = corpus.cut("name", "A query that is long enough.\n\n" + "word " * 300)
    assert pair is not None
    assert len(pair.document) <= 600
    assert set(pair.document.split(" ")) == {"word"}


def test_a_paragraph_ends_at_a_line_of_blanks_only() -> None:
    pair = corpus.cut("name", "A query over\n   two lines.\n  \t\n" + "d" * 90)
    assert pair == Pair("A query over two lines.", "d" * 90, "name")


def test_repeated_queries_and_documents_are_dropped(tmp_path: Path) -> None:
    text = "first {} of the pairs here\n\n{}"
    docstrings = [
        text.format("query", "a" * 90),
        text.format("query", "b" * 90),
        text.format("other", "a" * 90),
    ]
    path = tmp_path / "m.py"
    path.write_text("\n".join(f"def f{i}():\n    {d!r}" for i, d in enumerate(docstrings)), encoding="utf-8")
    assert [pair.source for pair in corpus.collect([("m", path)])] == ["m.f0"]


def test_the_split_does_not_depend_on_the_order_and_shares_nothing() -> None:
    pairs = _pairs(9_000)
    first, second = corpus.split(pairs), corpus.split(pairs[::-1])
    assert first == second
    assert len(first.test) == corpus.TEST_PAIRS
    assert len(first.train) == 7_000
    tested = {pair.query for pair in first.test} | {pair.document for pair in first.test}
    assert tested.isdisjoint(first.training_texts())


def test_a_large_corpus_is_cut() -> None:
    assert len(corpus.split(_pairs(25_000)).train) == corpus.TRAIN_PAIRS


def test_a_small_corpus_is_refused() -> None:
    with pytest.raises(
        ValueError, match="gave 100 pairs of query and document; the demo needs at least 8000"
    ):
        corpus.split(_pairs(100))


def test_the_cache_is_used_for_the_same_packages_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "corpus.json"
    reads: list[int] = []

    def collect(files: object) -> list[Pair]:
        reads.append(1)
        return _pairs(8_000)

    monkeypatch.setattr(corpus, "source_files", list)
    monkeypatch.setattr(corpus, "collect", collect)
    monkeypatch.setattr(corpus, "fingerprint", lambda: {"python": "1"})
    made = corpus.load(cache)
    assert corpus.load(cache) == made
    assert len(reads) == 1
    monkeypatch.setattr(corpus, "fingerprint", lambda: {"python": "2"})
    assert corpus.load(cache) == made
    assert len(reads) == 2
    assert json.loads(cache.read_text(encoding="utf-8"))["packages"] == {"python": "2"}


def test_tests_of_packages_are_not_read(tmp_path: Path) -> None:
    for name in ("a.py", "tests/b.py", "sub/c.py", "sub/test/d.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    found = corpus._python_files(tmp_path, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.py", "sub/c.py"]
    assert corpus._module_name(tmp_path / "sub" / "__init__.py", tmp_path) == "sub"

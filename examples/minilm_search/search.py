"""Answering a query with a sparse engine, over all documents of the corpus."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from openwork.models import load_tokenizer
from openwork.support.progress import progress_bar

from . import corpus
from .corpus import Pair
from .engines import engine_path
from .runners import Runner, with_openwork
from .settings import HEADLINE, MAXIMUM_LENGTH
from .store import Store
from .texts import FloatArray, batches, embed


@dataclass(frozen=True)
class Hit:
    """A document, and the cosine of its embedding to the query's."""

    score: float
    pair: Pair


class Index:
    """The corpus' documents, embedded once by an engine."""

    def __init__(self, work: Path, threads: int) -> None:
        engine = engine_path(work, HEADLINE)
        if not engine.exists():
            raise FileNotFoundError(f"{engine} is not there yet; run `make demo` first, which builds it.")
        self.runner, self.tokenizer = (
            with_openwork(HEADLINE, engine, threads),
            load_tokenizer(max_length=MAXIMUM_LENGTH),
        )
        found = corpus.load(work / "corpus.json")
        self.pairs = [*found.test, *found.train]
        self.embeddings = self._load(Store(work), self.runner)

    def _load(self, store: Store, runner: Runner) -> FloatArray:
        status = runner.file.stat()
        key = {"bytes": status.st_size, "time": status.st_mtime_ns, "documents": len(self.pairs)}

        def make(path: Path) -> None:
            data = list(batches(self.tokenizer, [pair.document for pair in self.pairs]))
            with progress_bar(f"Embedding {len(self.pairs):,} documents", len(data)) as advance:
                np.save(path, embed(runner.run, data, lambda done: advance(done)))

        values: FloatArray = np.load(store.file("index.npy", key, make))
        return values

    def search(self, query: str, count: int) -> list[Hit]:
        """The `count` documents closest to `query`, closest first. Raises ValueError for an empty query."""
        if not query.strip():
            raise ValueError("The query is empty; ask with a few words.")
        batch = next(batches(self.tokenizer, [query]))
        scores = self.embeddings @ self.runner.run(batch.input_ids, batch.attention_mask)[0]
        best = np.argsort(-scores, kind="stable")[:count]
        return [Hit(float(scores[i]), self.pairs[i]) for i in best]


def show(hits: list[Hit], console: Console) -> None:
    """Print the hits: score, object, its first paragraph, the beginning of the rest."""
    for number, hit in enumerate(hits, start=1):
        console.print(f"[bold]{number}. {hit.score:.3f}  {hit.pair.source}[/bold]", highlight=False)
        console.print(f"   {hit.pair.query}", markup=False, highlight=False)
        excerpt = textwrap.shorten(hit.pair.document, 160, placeholder=" ...")
        console.print(f"   {excerpt}", markup=False, highlight=False, style="dim")

"""MiniLM's docstring search as a task: its texts, its teacher, and the score of a student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from examples.minilm_search import corpus, texts
from examples.minilm_search.settings import MAXIMUM_LENGTH

from openwork.evaluate.retrieval import Retrieval, retrieval
from openwork.models import SentenceEmbedder, load_minilm, load_tokenizer
from openwork.support.progress import progress_bar


class Search:
    """The corpus cut from the installed packages' docstrings, with dense MiniLM as the teacher.

    work: a folder for the corpus. queries: held-out pairs to score with; each query is searched in the
    documents of all of them. training: token ids of the unlabelled texts to distil from.
    """

    def __init__(self, work: Path, queries: int) -> None:
        found = corpus.load(work / "corpus.json")
        if not 1 <= queries <= len(found.test):
            raise ValueError(
                f"There are 1 to {len(found.test)} queries to score with, but {queries} were asked."
            )
        self.teacher: SentenceEmbedder = load_minilm()
        tokenizer = load_tokenizer(max_length=MAXIMUM_LENGTH)
        self.training = texts.token_ids(tokenizer, found.training_texts())
        test = found.test[:queries]
        asked = [pair.query for pair in test] + [pair.document for pair in test]
        self._batches = list(texts.batches(tokenizer, asked, size=32))
        self.queries = queries

    @torch.inference_mode()
    def score(self, model: torch.nn.Module, title: str, progress: bool = False) -> Retrieval:
        """How well the embeddings of `model`, a sentence embedder in evaluation mode, find the documents."""

        def run(ids: texts.IntArray, mask: texts.IntArray) -> texts.FloatArray:
            made: texts.FloatArray = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
            return made

        training = model.training
        model.eval()
        try:
            with progress_bar(title, len(self._batches), progress) as advance:
                made = np.asarray(texts.embed(run, self._batches, lambda done: advance(done)))
        finally:
            model.train(training)
        return retrieval(made[: self.queries], made[self.queries :])

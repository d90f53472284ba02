"""How well embeddings find what they should, and how close two sets of embeddings are.

Every query has exactly one relevant document, so each measure follows from the rank of that document.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

QUERIES_PER_BLOCK = 1_024
"""Queries scored at once; bounds the score matrix to this many rows."""


@dataclass(frozen=True)
class Retrieval:
    """The quality of a search over queries with one relevant document each, in [0, 1], 1 the best."""

    ndcg_at_10: float
    mrr: float
    recall_at_1: float
    recall_at_10: float


def retrieval(queries: FloatArray, documents: FloatArray, relevant: IntArray | None = None) -> Retrieval:
    """Rank all `documents` for each of the `queries` by inner product and score the ranking.

    Arguments as for `ranks`, and the same errors.
    """
    found_at = ranks(queries, documents, relevant)
    return Retrieval(ndcg(found_at, 10), mrr(found_at), recall(found_at, 1), recall(found_at, 10))


def ranks(queries: FloatArray, documents: FloatArray, relevant: IntArray | None = None) -> IntArray:
    """The rank, from 1, of each query's relevant document by inner product with the query.

    A document with the same score as the relevant one counts as ahead of it, so embeddings that do not tell
    documents apart score worst and not best.

    queries: float [Q, N]. documents: float [D, N]. relevant: int64 [Q], indices into `documents`; without it
    query i is answered by document i. Raises ValueError for shapes that do not fit, empty data, NaN,
    infinity, or an index outside `documents`.
    """
    _require_embeddings("queries", queries)
    _require_embeddings("documents", documents)
    if queries.shape[1] != documents.shape[1]:
        raise ValueError(
            f"Queries and documents must have embeddings of the same size; the queries have "
            f"{queries.shape[1]} numbers each, the documents {documents.shape[1]}."
        )
    answers = _answers(len(queries), len(documents), relevant)
    blocks = range(0, len(queries), QUERIES_PER_BLOCK)
    return np.concatenate(
        [
            _block_ranks(
                queries[at : at + QUERIES_PER_BLOCK], documents, answers[at : at + QUERIES_PER_BLOCK]
            )
            for at in blocks
        ]
    )


def _block_ranks(queries: FloatArray, documents: FloatArray, answers: IntArray) -> IntArray:
    scores = queries @ documents.T
    own = np.take_along_axis(scores, answers[:, None], axis=1)
    result: IntArray = np.count_nonzero(scores >= own, axis=1).astype(np.int64)
    return result


def _require_embeddings(name: str, values: FloatArray) -> None:
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"The {name} must be a float array of shape [count, size]; an array of {values.dtype} of shape "
            f"{list(values.shape)} came."
        )
    if values.size == 0:
        raise ValueError(f"The {name} are empty (shape {list(values.shape)}); give at least one embedding.")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(
            f"The {name} hold a NaN or an infinity, first in row {row}; check the model that made them."
        )


def _answers(queries: int, documents: int, relevant: IntArray | None) -> IntArray:
    answers = np.arange(queries, dtype=np.int64) if relevant is None else np.asarray(relevant)
    if answers.shape != (queries,) or not np.issubdtype(answers.dtype, np.integer):
        raise ValueError(
            f"`relevant` must hold an integer for each of the {queries} queries; an array of "
            f"{answers.dtype} of shape {list(answers.shape)} came."
        )
    if answers.min() < 0 or answers.max() >= documents:
        raise ValueError(
            f"Each query needs a relevant document among the {documents} documents; the indices run from "
            f"{answers.min()} to {answers.max()}."
        )
    return answers.astype(np.int64)


def ndcg(found_at: IntArray, k: int) -> float:
    """Normalized discounted cumulative gain: the mean of 1 / log2(1 + rank), 0 for a rank beyond `k`.

    found_at: int64 [Q], ranks from 1. Source: Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR
    techniques", 2002, for a single relevant document, whose ideal gain is 1. Raises ValueError for an empty
    array or a `k` or a rank below 1.
    """
    _require_ranks(found_at, k)
    return float(np.mean(np.where(found_at <= k, 1 / np.log2(1 + found_at), 0.0)))


def mrr(found_at: IntArray) -> float:
    """Mean reciprocal rank: the mean of 1 / rank. found_at: int64 [Q], ranks from 1; raises as `ndcg`."""
    _require_ranks(found_at, 1)
    return float(np.mean(1 / found_at))


def recall(found_at: IntArray, k: int) -> float:
    """The fraction of queries whose relevant document is in the first `k`; errors as for `ndcg`."""
    _require_ranks(found_at, k)
    return float(np.mean(found_at <= k))


def _require_ranks(found_at: IntArray, k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1; it is {k}.")
    if found_at.size == 0 or found_at.min() < 1:
        lowest = "an empty array came" if found_at.size == 0 else f"the lowest is {found_at.min()}"
        raise ValueError(f"Ranks are a non-empty array of integers from 1 upwards; {lowest}.")


def cosine_similarity(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    """The cosine of the angle between row i of `a` and row i of `b`, in binary64.

    a, b: float [count, size]. Raises ValueError for different shapes, empty data, NaN, infinity, or a row of
    zeros, which has no direction.
    """
    _require_embeddings("first embeddings", a)
    _require_embeddings("second embeddings", b)
    if a.shape != b.shape:
        raise ValueError(
            f"Embeddings are compared row by row; the shapes are {list(a.shape)} and {list(b.shape)}."
        )
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    if not lengths.all():
        raise ValueError(
            f"Row {int(np.flatnonzero(lengths == 0)[0])} is all zeros and has no direction to compare."
        )
    cosines: npt.NDArray[np.float64] = np.einsum("ij,ij->i", x, y) / lengths
    return cosines

"""Retrieval measures against scikit-learn, against hand-made rankings, and their refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from openwork.evaluate import retrieval as metrics

# A mean of at most 200 terms in [0, 1], each with a few roundings in binary64.
MEAN_TOLERANCE = 200 * 8 * np.finfo(np.float64).eps


def _embeddings(seed: int, queries: int, documents: int, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.standard_normal((queries, size)), random.standard_normal((documents, size))


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 40),
    documents=st.integers(2, 60),
    k=st.integers(1, 20),
)
def test_ndcg_agrees_with_scikit_learn(seed: int, queries: int, documents: int, k: int) -> None:
    q, d = _embeddings(seed, queries, documents)
    relevant = np.random.default_rng(seed + 1).integers(0, documents, queries)
    relevance = np.zeros((queries, documents))
    relevance[np.arange(queries), relevant] = 1
    expected = ndcg_score(relevance, q @ d.T, k=k)
    assert abs(metrics.ndcg(metrics.ranks(q, d, relevant), k) - expected) <= MEAN_TOLERANCE


def test_ranks_of_a_hand_made_ranking() -> None:
    documents = np.eye(4)
    queries = np.array([[0.9, 0.1, 0.2, 0.3], [0.5, 0.4, 0.3, 0.2], [4.0, 3.0, 1.0, 2.0]])
    np.testing.assert_array_equal(metrics.ranks(queries, documents), [1, 2, 4])
    np.testing.assert_array_equal(metrics.ranks(queries, documents, np.array([1, 0, 3])), [4, 1, 3])


def test_ranks_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    q, d = _embeddings(5, 23, 30)
    whole = metrics.ranks(q, d)
    monkeypatch.setattr(metrics, "QUERIES_PER_BLOCK", 4)
    np.testing.assert_array_equal(metrics.ranks(q, d), whole)


def test_measures_of_known_ranks() -> None:
    found_at = np.array([1, 2, 10, 11])
    assert math.isclose(metrics.mrr(found_at), (1 + 1 / 2 + 1 / 10 + 1 / 11) / 4, rel_tol=MEAN_TOLERANCE)
    gains = 1 + 1 / math.log2(3) + 1 / math.log2(11)
    assert math.isclose(metrics.ndcg(found_at, 10), gains / 4, rel_tol=MEAN_TOLERANCE)
    assert metrics.recall(found_at, 1) == 0.25
    assert metrics.recall(found_at, 10) == 0.75


def test_collapsed_embeddings_score_worst() -> None:
    constant = np.ones((50, 3))
    result = metrics.retrieval(constant, constant)
    assert result == metrics.Retrieval(0.0, 1 / 50, 0.0, 0.0)


def test_perfect_embeddings_score_one() -> None:
    assert metrics.retrieval(np.eye(12), np.eye(12)) == metrics.Retrieval(1.0, 1.0, 1.0, 1.0)


def test_cosine_similarity_of_known_angles() -> None:
    a = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    b = np.array([[3.0, 0.0], [0.0, 5.0], [-1.0, -1.0]], dtype=np.float32)
    np.testing.assert_allclose(
        metrics.cosine_similarity(a, b), [1, 0, -1], rtol=0, atol=4 * np.finfo(np.float64).eps
    )


@pytest.mark.parametrize(
    ("queries", "documents", "relevant", "message"),
    [
        (np.ones(3), np.ones((2, 3)), None, "of shape \\[3\\] came"),
        (np.ones((2, 3), np.int64), np.ones((2, 3)), None, "an array of int64"),
        (np.ones((0, 3)), np.ones((2, 3)), None, "queries are empty"),
        (np.ones((2, 3)), np.ones((2, 4)), None, "the queries have 3 numbers each, the documents 4"),
        (
            np.ones((2, 3)),
            np.full((2, 3), np.nan),
            None,
            "documents hold a NaN or an infinity, first in row 0",
        ),
        (np.ones((3, 3)), np.ones((2, 3)), None, "among the 2 documents; the indices run from 0 to 2"),
        (np.ones((2, 3)), np.ones((2, 3)), np.array([0, -1]), "the indices run from -1 to 0"),
        (np.ones((2, 3)), np.ones((2, 3)), np.array([0]), "an integer for each of the 2 queries"),
    ],
)
def test_ranks_refuse(
    queries: np.ndarray, documents: np.ndarray, relevant: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.ranks(queries, documents, relevant)


def test_measures_refuse_bad_ranks() -> None:
    with pytest.raises(ValueError, match="an empty array came"):
        metrics.mrr(np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match="the lowest is 0"):
        metrics.ndcg(np.array([0, 1]), 10)
    with pytest.raises(ValueError, match="k must be at least 1; it is 0"):
        metrics.recall(np.array([1]), 0)


def test_cosine_similarity_refuses_what_has_no_direction() -> None:
    with pytest.raises(ValueError, match="Row 1 is all zeros"):
        metrics.cosine_similarity(np.eye(2), np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="the shapes are \\[2, 2\\] and \\[3, 2\\]"):
        metrics.cosine_similarity(np.eye(2), np.ones((3, 2)))

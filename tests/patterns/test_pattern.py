"""The pattern grammar, and whether a weight keeps to a pattern."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.sparsity import BlockPattern, GroupPattern, Pattern, detect

GROUPS = st.tuples(st.integers(1, 63), st.integers(2, 64), st.integers(1, 8)).filter(lambda t: t[0] < t[1])
SIZES = st.integers(1, 40)


@given(GROUPS)
def test_group_patterns_round_trip(numbers: tuple[int, int, int]) -> None:
    pattern = GroupPattern(*numbers)
    assert Pattern.parse(str(pattern)) == pattern


@given(st.integers(1, 16), st.integers(1, 64), st.integers(1, 999))
def test_block_patterns_round_trip(rows: int, columns: int, permille: int) -> None:
    pattern = BlockPattern(rows, columns, permille / 1000)
    assert Pattern.parse(str(pattern)) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "2:4",
        "4:8",
        "4:16",
        "4:32",
        "4:64",
        "1:4",
        "2:4@2",
        "2:4@4",
        "2:4@3",
        "4x1:0.8",
        "4x16:0.85",
        "1x1:0.9",
    ],
)
def test_canonical_texts_print_as_written(text: str) -> None:
    assert str(Pattern.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [(" 2:4 ", "2:4"), ("2:4@1", "2:4"), ("4x1:.50", "4x1:0.5"), ("1x1:0.900", "1x1:0.9")],
)
def test_other_spellings_print_canonically(text: str, canonical: str) -> None:
    assert str(Pattern.parse(text)) == canonical


@pytest.mark.parametrize(("text", "zeros"), [("2:4", 0.5), ("4:16", 0.75), ("2:4@4", 0.5), ("4x1:0.8", 0.8)])
def test_zeros_and_density(text: str, zeros: float) -> None:
    pattern = Pattern.parse(text)
    assert pattern.zeros == zeros
    assert pattern.density == 1.0 - zeros


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "4:2",
            '"4:2" prunes nothing; N:M keeps N of every M weights, so N must be smaller than M '
            '(did you mean "2:4"?).',
        ),
        ("4:4", '"4:4" prunes nothing; N:M keeps N of every M weights, so N must be smaller than M.'),
        ("0:4", '"0:4" keeps nothing; in N:M both numbers are at least 1.'),
        ("2:0", '"2:0" keeps nothing; in N:M both numbers are at least 1.'),
        ("2:4@0", '"2:4@0" shares its mask among no output channels; V in N:M@V is at least 1.'),
        ("4x1:1.5", '"4x1:1.5" asks for the fraction 1.5 of zeros; Z in RxC:Z lies between 0 and 1.'),
        ("4x1:0.0", '"4x1:0.0" asks for the fraction 0 of zeros; Z in RxC:Z lies between 0 and 1.'),
        ("0x1:0.5", '"0x1:0.5" has an empty block; in RxC both numbers are at least 1.'),
    ],
)
def test_odd_patterns_are_refused_in_a_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Pattern.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "banana",
        "",
        "2",
        "2:",
        ":4",
        "2:4@",
        "2:4:8",
        "-2:4",
        "2.0:4",
        "4x1",
        "4x1:",
        "4x1:.",
        "x:0.5",
        "4x1:nan",
        "٢:٤",
    ],
)
def test_texts_outside_the_grammar_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a sparsity pattern; write it as"):
        Pattern.parse(text)


def _loop_violations(weight: np.ndarray, pattern: GroupPattern) -> list[tuple[int, int, int]]:
    found = []
    for row in range(0, weight.shape[0], pattern.shared):
        for group, column in enumerate(range(0, weight.shape[1], pattern.group)):
            block = weight[row : row + pattern.shared, column : column + pattern.group]
            kept = sum(bool(np.any(block[:, i])) for i in range(block.shape[1]))
            if kept > pattern.kept:
                found.append((row, group, kept))
    return found


@given(GROUPS, SIZES, SIZES, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_violations_agree_with_a_loop(
    numbers: tuple[int, int, int], rows: int, columns: int, density: float, seed: int
) -> None:
    pattern, generator = GroupPattern(*numbers), np.random.default_rng(seed)
    weight = generator.standard_normal((rows, columns)) * (generator.random((rows, columns)) < density)
    expected = _loop_violations(weight, pattern)
    assert [(v.row, v.group, v.kept) for v in pattern.violations(weight)] == expected
    assert pattern.holds(weight) == (not expected)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 99), SIZES, SIZES, st.integers(0, 2**32 - 1))
def test_block_violations_agree_with_a_loop(
    r: int, c: int, percent: int, rows: int, columns: int, seed: int
) -> None:
    pattern, generator = BlockPattern(r, c, percent / 100), np.random.default_rng(seed)
    weight = generator.integers(-1, 2, (rows, columns)) * (generator.random((rows, columns)) < 0.3)
    starts = [(i, j) for i in range(0, rows, r) for j in range(0, columns, c)]
    kept = sum(bool(np.any(weight[i : i + r, j : j + c])) for i, j in starts)
    assert pattern.holds(weight) == (len(starts) - kept >= percent * len(starts) // 100)


def test_a_violation_names_row_and_group() -> None:
    weight = np.zeros((4, 10), dtype=np.int8)
    weight[2, 4:7] = 1
    assert [str(v) for v in Pattern.parse("2:4").violations(weight)] == [
        "row 2, group 1: 3 non-zero weights where 2:4 allows 2"
    ]
    assert [str(v) for v in Pattern.parse("1x1:0.95").violations(weight)] == [
        "3 blocks are non-zero where 1x1:0.95 allows 2"
    ]
    assert len(Pattern.parse("2:4").violations(np.ones((9, 8)), limit=5)) == 5


def test_nan_counts_as_kept_and_negative_zero_as_zero() -> None:
    pattern = Pattern.parse("1:2")
    assert not pattern.holds(np.array([[np.nan, 1.0]]))
    assert pattern.holds(np.array([[-0.0, 1.0]]))


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2, 4), (0, 4), (4, 0)])
def test_only_matrices_are_judged(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be a non-empty matrix"):
        Pattern.parse("2:4").holds(np.zeros(shape))


def _pruned(text: str, rows: int = 8, columns: int = 128) -> np.ndarray:
    pattern = Pattern.parse(text)
    assert isinstance(pattern, GroupPattern)
    generator = np.random.default_rng(3)
    scores = generator.random((-(-rows // pattern.shared), columns // pattern.group, pattern.group))
    mask = np.argsort(np.argsort(scores)) < pattern.kept
    mask = np.repeat(mask.reshape(mask.shape[0], columns), pattern.shared, axis=0)[:rows]
    return generator.uniform(1, 2, (rows, columns)) * mask


@pytest.mark.parametrize(
    "text", ["4:64", "4:32", "4:16", "1:4", "2:4", "4:8", "4:64@2", "4:16@4", "2:4@2", "2:4@4", "4:8@2"]
)
def test_detect_finds_the_pattern_a_weight_was_pruned_to(text: str) -> None:
    assert str(detect(_pruned(text))) == text


def test_zeros_alone_are_the_sparsest_and_dense_weights_are_none() -> None:
    assert str(detect(np.zeros((8, 128)))) == "1:128@4"
    assert detect(np.ones((8, 128))) is None
    assert detect(np.ones((3, 3))) is None


def test_patterns_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from openwork.sparsity import Pattern; Pattern.parse('2:4');"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_stack_is_judged_matrix_by_matrix() -> None:
    stack = np.zeros((3, 4, 8), np.int8)
    stack[2, 1, 4:7] = 1
    pattern = Pattern.parse("2:4")
    assert [str(v) for v in pattern.violations(stack)] == [
        "matrix 2, row 1, group 1: 3 non-zero weights where 2:4 allows 2"
    ]
    assert pattern.violations(stack)[0].matrix == 2
    assert pattern.violations(stack[2])[0].matrix is None
    assert pattern.holds(stack[:2])
    # Sharing ends at a matrix's edge: rows 0 of the two matrices are no neighbours.
    shared = np.zeros((2, 1, 4), np.int8)
    shared[0, 0, :2] = shared[1, 0, 2:] = 1
    assert Pattern.parse("2:4@2").holds(shared)
    assert not Pattern.parse("2:4@2").holds(shared.reshape(2, 4))


def test_a_block_pattern_counts_over_the_whole_stack() -> None:
    stack = np.zeros((2, 4, 2), np.int8)
    stack[0] = 1
    assert Pattern.parse("4x1:0.5").holds(stack)
    assert not Pattern.parse("4x1:0.5").holds(stack[0])


def test_a_transposable_pattern_holds_both_ways() -> None:
    pattern = Pattern.parse("2:4t")
    assert pattern == GroupPattern(2, 4, transposable=True)
    assert str(pattern) == "2:4t"
    assert pattern.zeros == 0.5
    weight = np.zeros((8, 4), np.int8)
    weight[:4, 0] = 1
    assert Pattern.parse("2:4").holds(weight)
    assert [str(v) for v in pattern.violations(weight)] == [
        "column 0, group 0 of output channels: 4 non-zero weights where 2:4t allows 2"
    ]
    weight[2:4, 0] = 0
    assert pattern.holds(weight)
    with pytest.raises(ValueError, match="shares masks among rows and is transposable"):
        GroupPattern(2, 4, 2, transposable=True)
    with pytest.raises(ValueError, match="not a sparsity pattern"):
        Pattern.parse("2:4t@2")

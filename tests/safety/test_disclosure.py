"""No small cell can be worked out from those that are shown, and no more is left out than that takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dask_em.disclosure import crowds, hidden_in_line, hidden_in_table, is_small

COUNTS = st.sampled_from([0, 0, 1, 2, 3, 5, 8, 9, 10, 11, 25, 100, 1000])


def follows(counts: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Cells that are left out but follow from the others, by linear algebra: what no solution of the equations of the totals can change."""
    rows, columns = hidden.shape
    cells = np.argwhere(hidden)
    equations = np.zeros((rows + columns, len(cells)))
    for n, (i, j) in enumerate(cells):
        equations[i, n] = -1 if j == columns - 1 else 1
        equations[rows + j, n] = -1 if i == rows - 1 else 1
    _, values, vectors = np.linalg.svd(equations)
    null = vectors[(values > 1e-9).sum() :]
    out = np.zeros(hidden.shape, bool)
    out[tuple(cells[np.abs(null).max(axis=0, initial=0.0) < 1e-9].T)] = True
    return out


@settings(max_examples=1000)
@given(st.data())
def test_no_cell_of_a_table_follows_from_the_others(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    counts = np.array(data.draw(st.lists(COUNTS, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
    counts = counts.reshape(shape)
    hidden = hidden_in_table(counts)
    wide = np.column_stack([counts, counts.sum(axis=1)])
    full = np.vstack([wide, wide.sum(axis=0)])
    assert hidden[is_small(full)].all()
    small = is_small(full) & hidden
    assert not (follows(full, hidden) & small).any()
    for lines, own in ((full, hidden), (full.T, hidden.T)):
        for line, left_out in zip(lines, own):
            # What is left out of a line is known in sum.
            assert not left_out.any() or line[left_out].sum() >= 10 or line.sum() < 20


def test_a_table_without_small_cells_is_shown_whole() -> None:
    assert not hidden_in_table([[10, 0, 30], [20, 50, 0]]).any()
    assert not hidden_in_line([10, 0, 30]).any()
    assert not hidden_in_table([[1, 2], [3, 4]], smallest=0).any()


@pytest.mark.parametrize(
    ("counts", "hidden"),
    [
        ([100, 3, 50, 20], [0, 1, 0, 1]),
        ([100, 3, 0, 20], [0, 1, 0, 1]),
        ([100, 3, 4, 20], [0, 1, 1, 1]),  # 3 + 4 would be known
        ([100, 6, 7, 20], [0, 1, 1, 0]),
        ([3, 0], [1, 0]),
    ],
)
def test_a_line_loses_its_small_cells_and_the_smallest_beside_them(counts: list[int], hidden: list[int]) -> None:
    assert hidden_in_line(counts).tolist() == [bool(h) for h in hidden]


def test_a_table_loses_a_rectangle_for_a_small_cell() -> None:
    hidden = hidden_in_table([[3, 50, 60], [70, 20, 90], [80, 95, 30]])
    assert hidden.sum() == 4
    assert hidden[0, 0]


def test_a_bridge_between_two_cycles_is_no_secret() -> None:
    """Every line has two cells that are left out, and yet the one in the middle would follow."""
    counts = np.full((5, 5), 100)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1), (3, 3), (3, 4), (4, 3), (4, 4), (1, 3)):
        counts[i, j] = 9
    hidden = hidden_in_table(counts)
    assert not follows(counts, hidden).any()
    assert hidden.sum() > 9


def test_nothing_is_shown_of_a_column_whose_total_is_left_out() -> None:
    hidden = hidden_in_table([[50, 20, 60], [70, 30, 90]], hidden_columns=[True, True, False])
    assert hidden[:, :2].all()
    assert not hidden[:, 2].any()


@pytest.mark.parametrize("n", [0, 9, 10, 19, 20, 21, 1000])
def test_crowds_hold_every_row_once_and_are_of_ten_to_nineteen(n: int) -> None:
    points = np.random.default_rng(0).normal(size=(n, 2))
    groups = crowds(points)
    assert all(10 <= len(own) < 20 for own in groups)
    assert sorted(np.concatenate([[], *groups])) == (list(range(n)) if n >= 10 else [])
    assert len(crowds(points, 0)) == n


def test_crowds_are_of_rows_near_each_other() -> None:
    points = np.random.default_rng(0).normal(size=(2000, 2)) * [1, 1000]
    spread = [points[own].std(axis=0) for own in crowds(points)]
    assert (np.mean(spread, axis=0) < 0.2 * points.std(axis=0)).all()

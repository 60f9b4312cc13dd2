"""What a report publishes of a few persons: nothing, and nothing from which it would follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dask_em.data.schema import Design
from dask_em.disclosure import is_small
from dask_em.images import regions
from dask_em.imputation import published
from dask_em.imputation.missingness import Missingness
from dask_em.imputation.overimputation import OverimputedNumbers
from dask_em.imputation.summaries import GroupSums
from dask_em.segments import SegmentSums
from tests.safety.test_disclosure import follows

SIZES = st.sampled_from([0, 1, 2, 5, 9, 10, 12, 30, 200])


def with_totals(counts: np.ndarray) -> np.ndarray:
    wide = np.column_stack([counts, counts.sum(axis=1)])
    return np.vstack([wide, wide.sum(axis=0)])


def segments_of(levels: np.ndarray, outliers: np.ndarray) -> SegmentSums:
    """Segments with a category without missing cells."""
    size = levels.sum(axis=0).astype(float)
    own = {f"level {i}": row.astype(float) for i, row in enumerate(levels) if row.any()}
    numbers = {"spend": np.stack([size, 3.7 * size, 20 * size], axis=1)}
    return SegmentSums(size, np.minimum(outliers, size), numbers, {"plan": own}, {"spend": 0.0})


@settings(max_examples=300)
@given(st.data())
def test_nothing_small_follows_from_the_tables_of_a_segmentation(data: st.DataObject) -> None:
    k, n = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 5))
    levels = np.array(data.draw(st.lists(SIZES, min_size=n * k, max_size=n * k))).reshape(n, k)
    levels[0] += 1  # no empty segment
    levels[0, 0] += 12  # how many rows there are is always told
    sums = segments_of(levels, np.array(data.draw(st.lists(SIZES, min_size=k, max_size=k))))
    sizes, table = sums.sizes(range(k)), sums.table(range(k))
    outliers = with_totals(np.array([sums.outliers, sums.size - sums.outliers]))
    hidden = np.zeros(outliers.shape, bool)
    hidden[0, :-1], hidden[-1, :-1] = sizes["outliers"].isna(), sizes["rows"].isna()
    hidden[0, -1] = sums.facts(range(k))["outliers"] is None
    hidden[1] = True  # not published
    hidden[1] &= hidden[0] | hidden[-1]  # but a difference
    assert hidden[:, :-1][is_small(outliers)[:, :-1] & (np.arange(3) != 1)[:, None]].all()
    assert not (follows(outliers, hidden) & is_small(outliers)).any()
    # Nothing at all is said of a segment whose size is hidden.
    silent = table[table["segment"].isin(sizes["segment"][sizes["rows"].isna()])]
    assert silent[["size", "missing", "mean", "share", "overall", "lift", "z"]].isna().all().all()
    # And of the others no level that is small.
    shown = table[table["share"].notna()]
    counts = shown["share"] * shown["size"]
    assert not is_small(counts.round(6)).any()
    rare = {level for level, rows in sums.levels["plan"].items() if is_small(rows.sum())}
    assert not rare & set(table["level"])


def test_a_level_of_a_few_persons_is_not_named() -> None:
    levels = np.array([[40, 60], [30, 20], [3, 0]])
    sums = segments_of(levels, np.array([20, 20]))
    assert sums.rare() == {"plan": 1}
    assert "level 2" not in sums.table([0, 1]).to_csv()
    assert "level 2" in replace(sums, smallest=0).table([0, 1]).to_csv()


def test_a_segment_of_a_few_persons_is_flagged() -> None:
    sums = segments_of(np.array([[40, 60, 3], [30, 20, 1]]), np.array([0, 0, 2]))
    assert sums.small([7, 4, 9]) == [9]
    facts = sums.facts([7, 4, 9])
    assert facts["small_segments"] == [9]
    assert [own["rows"] for own in facts["segments"]] == [None, 80, None]
    assert facts["outliers"] is None
    assert replace(sums, smallest=0).facts([7, 4, 9])["outliers"] == 2


def test_a_share_does_not_tell_how_many_are_missing() -> None:
    """47 of 50 have answered: sevenths of 47 would tell the 3 who have not."""
    sums = segments_of(np.array([[20, 400], [27, 300]]), np.array([0, 0]))
    sums = replace(sums, size=np.array([50.0, 700.0]))
    table = sums.table([0, 1]).query("column == 'plan' and segment == 0")
    assert table["missing"].isna().all()
    assert table["share"].tolist() == [0.43, 0.57]


def test_a_region_of_a_few_pixels_is_hidden_with_a_second_one() -> None:
    table = pd.DataFrame(
        {
            "segment": [0, 1, 2],
            "name": list("abc"),
            "pixels": [900, 40, 3],
            "share": 0.3,
            "colour": "#ffffff",
            "red": 1.0,
        }
    )
    shown = regions.published(table, 10)
    assert shown[["pixels", "share", "colour", "red"]].isna().all(axis=1).tolist() == [False, True, True]
    assert regions.published(table, 0) is table


# --- imputation --------------------------------------------------------------------------------------------------


def counted(missing: dict[str, int], n: int = 200) -> Missingness:
    """Rows of which the first ones have holes."""
    table = pa.table({name: [None] * m + [1.0] * (n - m) for name, m in missing.items()})
    return Missingness.of(table, Design(gaussian=tuple(missing)))


def test_missing_cells_of_a_few_rows_are_hidden_with_a_second_column() -> None:
    found = counted({"a": 3, "b": 50, "c": 20, "d": 0})
    table = published.missingness(found, 10).set_index("column")
    assert table["missing"].isna().to_dict() == {"a": True, "b": False, "c": True, "d": False}
    assert table["observed"].isna().to_dict() == {"a": True, "b": False, "c": True, "d": False}
    assert table["missing_share"].isna().to_dict() == {"a": True, "b": False, "c": True, "d": False}
    pd.testing.assert_frame_equal(published.missingness(found, 0), found.table())
    assert published.missingness(counted({"a": 50, "b": 20}), 10)["missing"].tolist() == [50, 20]


def test_patterns_of_a_few_rows_are_among_all_others() -> None:
    found = counted({"a": 3, "b": 50, "c": 53, "d": 53})  # abcd: 3, bcd: 47, cd: 3, none: 147
    assert sorted(found.patterns()["rows"]) == [3, 3, 47, 147]
    table = published.patterns(found, 10)
    assert table["rows"].tolist() == [147, 53]
    assert published.complete_rows(found, 10) == 147
    assert published.complete_rows(counted({"a": 3}), 10) is None
    pd.testing.assert_frame_equal(published.patterns(found, 0, 2), found.patterns(2))


@pytest.mark.parametrize(
    ("groups", "left"),
    [
        ({"x": 100, "y": 60, "z": 30}, {"x", "y", "z"}),
        ({"x": 100, "y": 60, "z": 3}, {"x"}),
        ({"x": 100, "y": 60, "z": 1}, {"x"}),  # one row has no variance, so the table never had it
        ({"x": 100, "y": 6, "z": 6}, {"x"}),
    ],
)
def test_means_of_small_groups_are_left_out_with_a_second_group(groups: dict[str, int], left: set[str]) -> None:
    n = sum(groups.values())
    rng = np.random.default_rng(0)
    table = pa.table({"y": rng.normal(size=n), "g": np.repeat(list(groups), list(groups.values()))})
    empty = GroupSums(("y",), "g", None)
    pooled = (empty.add(table, 0) + empty.add(table, 1)).pooled()
    found = published.means(pooled, 10)
    assert set(found["group"]) == left | {"all"}
    assert set(published.means(pooled, 0)["group"]) == set(pooled["group"])


def test_classes_are_joined_until_ten_cells_are_in_each() -> None:
    observed = [0, 1, 2, 30, 0, 9, 8, 1, 1, 0]
    ends = [-np.inf, *range(9), np.inf]
    frame = pd.DataFrame(
        {
            "column": "x", "level": None, "low": ends[:-1], "high": ends[1:], "transform": None,
            "observed": observed, "imputed": 5,
        }
    )  # fmt: skip
    joined = published.distributions(frame, 10)
    inner = joined.iloc[1:-1]
    assert inner["observed"].tolist() == [33, 19]
    assert inner["low"].tolist() == [0, 3]
    assert inner["high"].tolist() == [3, 8]
    assert joined["imputed"].sum() == 50
    assert published.distributions(frame.assign(observed=0), 10).empty


def test_levels_of_few_rows_have_one_name() -> None:
    frame = pd.DataFrame(
        {"column": "g", "level": ["a", "b", "c", "d"], "low": np.nan, "observed": [90, 4, 20, 3], "imputed": 5}
    )
    joined = published.distributions(frame, 10)
    assert joined["level"].tolist() == ["a", published.FEW]
    assert joined["observed"].tolist() == [90, 27]
    assert published.distributions(frame.iloc[:2], 10).empty


def test_hidden_cells_are_told_by_column() -> None:
    cells = pd.DataFrame(
        {"observed": [1.0] * 30, "expected": 1.5, "low": 0.0, "high": 2.0, "inside": True, "weight": 1.0}
    )
    own = OverimputedNumbers("x", 0.9, None, cells)
    few = OverimputedNumbers("y", 0.9, None, cells.head(9))
    table = published.coverage([own, few], 10)
    assert table[["column", "cells", "inside"]].to_numpy().tolist() == [["x", 30, 1.0]]
    assert len(published.coverage([own, few], 0)) == 39

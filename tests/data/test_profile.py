"""The profile of a table is the sum of the profiles of its parts, and depends on nothing but the rows."""

from __future__ import annotations

import itertools
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dask_em.data import profile as module
from dask_em.data.profile import Moments, Profile, pattern_groups, profile
from dask_em.data.schema import Design
from dask_em.errors import DataError
from tests.laws.table import CASES, COINS

PRODUCT = next(case for case in CASES if case.name == "product")
DESIGN = PRODUCT.design()


def table(n: int, seed: int = 0) -> pa.Table:
    return PRODUCT.table(np.random.default_rng(seed), n)


def assert_same(one: Profile, two: Profile, rtol: float = 1e-11) -> None:
    assert one.rows == two.rows
    assert one.weight == pytest.approx(two.weight, rel=1e-12)
    assert one.patterns == two.patterns
    assert one.n_distinct == two.n_distinct
    for name, moments in one.moments.items():
        other = two.moments[name]
        assert moments.count == other.count
        assert_allclose(
            [moments.weight, moments.mean, moments.m2], [other.weight, other.mean, other.m2], rtol=rtol, atol=1e-12
        )
    for name, levels in one.levels.items():
        assert levels == pytest.approx({k: v for k, v in two.levels[name].items() if v or k in levels})
    assert one.sample.drop_columns(["#weight"]).equals(two.sample.drop_columns(["#weight"]))
    assert_allclose(one.sample.column("#weight"), two.sample.column("#weight"), rtol=1e-12)


@given(n=st.integers(1, 60), cuts=st.lists(st.integers(0, 60), max_size=5), seed=st.integers(0, 1000))
def test_profiles_of_parts_add_up(n: int, cuts: list[int], seed: int) -> None:
    rows = table(n, seed)
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    parts = [profile(rows.slice(a, b - a), DESIGN) for a, b in itertools.pairwise(edges)]
    whole = profile(rows, DESIGN)
    assert_same(reduce(add, parts), whole)
    assert reduce(add, parts).piece_rows == tuple(b - a for a, b in itertools.pairwise(edges))


def test_the_order_of_rows_does_not_matter() -> None:
    rows = table(200)
    assert_same(profile(rows.take(np.random.default_rng(1).permutation(200)), DESIGN), profile(rows, DESIGN))


def test_weights_are_repetitions() -> None:
    rows, weight = table(50), np.random.default_rng(2).integers(0, 4, 50)
    repeated = profile(rows.take(np.repeat(np.arange(50), weight)), DESIGN)
    weighted = profile(rows.append_column("w", pa.array(weight)), PRODUCT.design("w"))
    assert weighted.rows == (weight > 0).sum()
    assert weighted.weight == repeated.weight == weight.sum()
    assert weighted.n_distinct == repeated.n_distinct
    assert_array_equal(weighted.sample.column("#hash"), repeated.sample.column("#hash"))
    assert_array_equal(weighted.sample.column("#weight"), repeated.sample.column("#weight"))
    for name, moments in weighted.moments.items():
        assert moments.mean == pytest.approx(repeated.moments[name].mean, rel=1e-12)
        assert moments.deviation == pytest.approx(repeated.moments[name].deviation, rel=1e-12)


def test_the_numbers_are_numpys() -> None:
    rows = table(300)
    found = profile(rows, DESIGN)
    for name in ("g0", "g1", "y1"):
        values = rows.column(name).drop_null().to_numpy()
        assert found.moments[name].count == len(values)
        assert found.moments[name].mean == pytest.approx(values.mean(), rel=1e-13)
        assert found.moments[name].deviation == pytest.approx(values.std(), rel=1e-13)
    assert found.levels["c0"] == {
        level: float((np.array(rows.column("c0").to_pylist()) == level).sum()) for level in ("low", "middle", "high")
    }
    seen = {tuple(v is not None for v in row) for row in zip(*(rows.column(g).to_pylist() for g in DESIGN.gaussian))}
    masks = found.masks(3)
    assert masks is not None
    assert {tuple(row) for row in masks.tolist()} == seen
    assert masks[0].all()
    assert (np.diff(masks.sum(axis=1)) <= 0).all()


@pytest.mark.parametrize("offset", [0.0, 1e8, -1e12])
def test_far_columns_keep_their_spread(offset: float) -> None:
    values = np.random.default_rng(3).integers(0, 64, 1000) / 16.0
    weight = np.ones(1000)
    parts = [Moments.of(offset + values[a : a + 100], weight[:100]) for a in range(0, 1000, 100)]
    for found in (reduce(add, parts), Moments.of(offset + values, weight)):
        # Means of parts are rounded where the column is: the last place is what the spread can be off by.
        allowed = 1e-12 + np.spacing(abs(offset)) / values.std()
        assert found.deviation == pytest.approx(values.std(), rel=allowed)
        assert found.mean == pytest.approx(offset + values.mean(), abs=2 * np.spacing(abs(offset)) + 1e-14)


def test_nothing_is_nothing() -> None:
    nothing = Moments.of(np.array([np.nan]), np.ones(1))
    some = Moments.of(np.array([1.0, 2.0]), np.ones(2))
    assert nothing + some == some + nothing == some
    assert nothing.deviation == 0.0


# --- distinct rows -----------------------------------------------------------------------------------------------


def numbers(values: Any) -> tuple[pa.Table, Design]:
    return pa.table({"x": values}), Design(gaussian=("x",))


def test_distinct_rows_are_counted() -> None:
    rows, design = numbers([1.0, 2.0, 1.0, None, None, 0.0, -0.0, float("nan")])
    found = profile(rows, design)
    assert found.n_distinct == 4
    weights = dict(zip(found.sample.column("x").to_pylist(), found.sample.column("#weight").to_pylist()))
    assert sorted(weights.values()) == [1.0, 2.0, 2.0, 3.0]


def test_distinct_rows_are_estimated_beyond_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 1024)
    rows, design = numbers(np.tile(np.random.default_rng(4).standard_normal(20_000), 3))
    found = reduce(add, (profile(rows.slice(a, 7000), design) for a in range(0, 60_000, 7000)))
    assert len(found.sample) == 1024
    assert found.n_distinct == pytest.approx(20_000, rel=0.15)  # five standard errors
    assert found.sample.column("#weight").to_pylist() == [3.0] * 1024


def test_the_sample_is_a_fair_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_ROWS", 1024)
    values = np.random.default_rng(5).standard_normal(20_000)
    rows, design = numbers(values)
    sample = profile(rows, design).sample.column("x").to_numpy()
    assert abs(sample.mean()) < 4 / np.sqrt(1024)
    assert sample.std() == pytest.approx(1.0, abs=0.1)


def test_rows_that_differ_in_one_cell_differ() -> None:
    rows = table(1)
    for name in rows.column_names:
        if name in ("s0", "t0", "s1") or rows.column(name)[0].as_py() is None:
            continue
        other = rows.set_column(rows.column_names.index(name), name, pa.nulls(1, rows.schema.field(name).type))
        assert (profile(rows, DESIGN) + profile(other, DESIGN)).n_distinct == 2


# --- patterns ----------------------------------------------------------------------------------------------------


@given(d=st.integers(1, 20), n=st.integers(0, 50), seed=st.integers(0, 1000))
def test_pattern_groups_are_the_distinct_columns(d: int, n: int, seed: int) -> None:
    seen = np.random.default_rng(seed).random((d, n)) < 0.7
    groups, which = pattern_groups(seen)
    assert_array_equal(groups[which], seen.T)
    assert len({row.tobytes() for row in groups}) == len(groups) <= max(n, 0)


def test_too_many_patterns_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(200)
    monkeypatch.setattr(module, "MAX_PATTERNS", 3)
    assert profile(rows, DESIGN).patterns is None
    assert (profile(rows.slice(0, 1), DESIGN) + profile(rows, DESIGN)).patterns is None
    assert profile(rows, DESIGN).masks(3) is None


# --- what is refused ---------------------------------------------------------------------------------------------


def test_an_identifier_is_no_category() -> None:
    rows = pa.table({"c": [str(i) for i in range(1200)]})
    design = Design(categorical=("c",))
    with pytest.raises(DataError, match="'c' has more than 1000 levels"):
        profile(rows, design)
    with pytest.raises(DataError, match="'c' has more than 1000 levels"):
        profile(rows.slice(0, 700), design) + profile(rows.slice(700), design)


def test_a_column_has_one_type() -> None:
    design = Design(categorical=("c",))
    with pytest.raises(DataError, match="'c' has different types in different parts"):
        profile(pa.table({"c": ["1"]}), design) + profile(pa.table({"c": [1]}), design)


def test_a_part_without_a_cell_takes_the_type_of_the_others() -> None:
    design = Design(categorical=("c",), gaussian=("x",))
    empty = pa.table({"c": pa.nulls(2), "x": pa.nulls(2)})
    full = pa.table({"c": ["a", "b"], "x": [1.0, 2.0]})
    for found in (profile(empty, design) + profile(full, design), profile(full, design) + profile(empty, design)):
        assert found.levels["c"] == {"a": 1.0, "b": 1.0}
        assert found.moments["x"].count == 2
        assert found.n_distinct == 3


def test_trials_are_profiled_where_successes_are_seen() -> None:
    rows = pa.table({"s0": [1.0, None, 3.0], "t0": [2.0, 5.0, 4.0], "s1": [1.0, 1.0, None]})
    found = profile(rows, Design(binomial=COINS))
    assert (found.moments["s0"].mean, found.moments["trials of s0"].mean) == (2.0, 3.0)
    assert (found.moments["s1"].mean, found.moments["trials of s1"].mean) == (1.0, 5.0)

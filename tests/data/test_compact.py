"""A table collapsed to its distinct rows: nothing is lost, whoever collapses and however the rows are cut, and only where it pays."""

from __future__ import annotations

import itertools
import logging
import pickle
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_em import fitting, specification
from dask_em.data import compact, packing
from dask_em.data.columns import WEIGHT
from dask_em.data.compact import collapse
from dask_em.data.gather import NO_REPLICATES, Bootstrap
from dask_em.data.packing import Layout
from dask_em.data.reading import read_rows
from dask_em.data.schema import Design
from dask_em.data.sources import ArrowPiece, Source, open_source
from dask_em.errors import ConfigurationError, DataError
from dask_em.execution.local import LocalExecutor
from tests.laws.table import CASES, Case

ROLES: dict[str, Any] = {
    "gaussian": ("age", "score", "grade", "town=Bern", "town=Chur"),
    "categorical": ("colour", "answer", "member"),
    "poisson": ("visits",),
    "binomial": (("hits", "shots"), ("heads", 3)),
    "ordered": (("grade", ("low", "middle", "high")),),
    "bounds": (("age", (0.0, 120.0)),),
    "universe": (("visits", "member == True"),),
    "indicators": (("town", ("Basel", "Bern", "Chur")),),
}
"""Every kind of column that there is."""


def rows(n: int = 3000, seed: int = 0) -> pa.Table:
    """Rows of few different cells, with holes, in the types that tables have."""
    rng = np.random.default_rng(seed)
    shots = rng.integers(1, 4, n)
    cells = {
        "age": rng.integers(20, 26, n).astype(np.uint8),
        "score": rng.integers(-2, 3, n) / 4.0,
        "grade": np.array(["low", "middle", "high"])[rng.integers(0, 3, n)],
        "town": np.array(["Basel", "Bern", "Chur"])[rng.integers(0, 3, n)],
        "colour": np.array(["red", "green"])[rng.integers(0, 2, n)],
        "answer": rng.integers(3, 6, n),
        "member": rng.random(n) < 0.7,
        "visits": rng.poisson(0.5, n),
        "shots": shots,
        "hits": rng.binomial(shots, 0.3),
        "heads": rng.binomial(3, 0.5, n),
    }
    full = ("town", "member", "shots")
    arrays = {name: pa.array(v, mask=(rng.random(n) < 0.05) & (name not in full)) for name, v in cells.items()}
    return pa.table({**arrays, "w": rng.integers(0, 4, n)})


def cut(table: pa.Table, n: int) -> Source:
    """A source of n uneven pieces, and an empty one."""
    edges = np.concatenate([[0, 0], np.sort(np.random.default_rng(n).integers(0, len(table), n - 1)), [len(table)]])
    pieces = tuple(ArrowPiece(table.slice(a, b - a), ("", int(a))) for a, b in itertools.pairwise(edges))
    return Source(tuple(table.column_names), pieces)


def collapsed(
    source: Source, design: Design, bootstrap: Bootstrap = NO_REPLICATES, n_threads: int = 2
) -> compact.Collapsed:
    executor = LocalExecutor(n_threads)
    found = fitting.profile_source(source, design, executor)
    out = collapse(source, specification.make_schema(design, found), found, bootstrap, True, 3, executor.reduce)
    assert out is not None
    return out


def frame(out: compact.Collapsed) -> pd.DataFrame:
    """The distinct rows, read as a fit reads them."""
    return pa.concat_tables([read_rows(piece, out.schema.design) for piece in out.pieces]).to_pandas()


def naive(table: pa.Table, design: Design) -> pd.DataFrame:
    """The obvious way: group by all columns."""
    whole = read_rows(ArrowPiece(table), design).to_pandas()
    names = [*dict.fromkeys((*design.gaussian, *design.features)), "shots"]
    weight = whole["w"] if design.weight == "w" else pd.Series(1.0, index=whole.index)
    kept = whole[names][weight > 0]
    return kept.assign(**{WEIGHT: weight}).groupby(names, dropna=False)[WEIGHT].sum().reset_index()


def in_order(table: pd.DataFrame) -> list[tuple[str, ...]]:
    columns = sorted(table.columns)
    return sorted(tuple(map(str, row)) for row in table[columns].astype(object).itertuples(index=False))


# --- nothing is lost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, "w"])
def test_distinct_rows_and_their_weights_are_those_of_the_obvious_way(weight: str | None) -> None:
    design = Design(**ROLES, weight=weight)
    out = collapsed(cut(rows(), 5), design)
    own, other = frame(out), naive(rows(), design)
    assert len(own) == out.rows == len(other) < 3000
    assert in_order(own[list(other.columns)]) == in_order(other)


def test_a_hash_need_not_tell_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    design = Design(**ROLES)
    own = collapsed(cut(rows(), 5), design)
    assert own.pieces[0].layout.n_words > 1
    monkeypatch.setattr(packing, "row_hash", lambda words: words[-1] % np.uint64(3))
    clash = collapsed(cut(rows(), 5), design)
    assert in_order(frame(clash)) == in_order(frame(own))


def test_numbers_of_any_size_come_back() -> None:
    table = pa.table(
        {
            "whole": [2.0**60, -(2.0**60), 0.0, -0.0, 1.0, None],
            "wide": [0, 2**50, 2**50, 1, 5, 7],
            "tiny": [-128, 127, None, 0, 0, -1],
            "half": [0.5, -0.5, float("nan"), None, 1e-300, 0.5],
            "level": [2**62, -(2**62), 5, 5, None, 2**62],
        }
    )
    design = Design(gaussian=("whole", "wide", "tiny", "half"), categorical=("level",))
    whole = read_rows(ArrowPiece(table), design).to_pandas()
    out = frame(collapsed(cut(table, 2), design))
    assert in_order(out[list(whole.columns)]) == in_order(whole + 0)
    assert out[WEIGHT].sum() == 6


def test_levels_that_an_ordered_column_does_not_have_are_missing() -> None:
    """An order may name fewer levels than the table has; the others are beyond its digits."""
    table = pa.table({"grade": [1, 2, 3, 99, 2, -7, None], "x": [0.0, 1.0] * 3 + [2.0]})
    design = Design(gaussian=("grade", "x"), ordered=(("grade", (1, 2, 3)),), unseen="missing")
    own = frame(collapsed(cut(table, 2), design))
    assert own[WEIGHT][own["grade"].isna()].sum() == 3


def test_many_columns_share_few_words() -> None:
    answers = pa.table({f"q{j}": np.random.default_rng(j).integers(0, 5, 50) for j in range(24)})
    source, executor = cut(answers, 1), LocalExecutor(1)
    design = Design(categorical=tuple(answers.column_names))
    found = fitting.profile_source(source, design, executor)
    assert Layout.of(specification.make_schema(design, found), found).n_words == 1  # 6^24 < 2^63
    assert collapsed(source, design).rows == 50


def test_replicates_are_carried_along() -> None:
    """The weight of a distinct row in a replicate is that of its rows, whatever its average count."""
    design, bootstrap = Design(categorical=("colour", "answer"), weight="w"), Bootstrap(4, 9, ("id",))
    table = rows().append_column("id", pa.array(np.arange(3000) + 2**40))
    out = collapsed(cut(table, 7), design, bootstrap)
    own = pd.DataFrame(np.concatenate([p.weights for p in out.pieces], axis=1).T)
    (keys,) = (fitting.row_keys(table, ("id",), ("", 0)),)
    data = table.to_pandas()
    data[list(range(4))] = bootstrap.counts(keys).T * data[["w"]].to_numpy()
    data = data[data["w"] > 0].rename(columns={"w": "own"})
    other = data.groupby(["colour", "answer"], dropna=False)[["own", 0, 1, 2, 3]].sum()
    assert sorted(map(tuple, own.to_numpy())) == sorted(map(tuple, other.to_numpy().astype(float)))


# --- whoever collapses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [ROLES, {"categorical": ("colour", "answer")}], ids=["several words", "one word"])
@pytest.mark.parametrize("weight", [None, "w"])
def test_order_and_cuts_do_not_change_a_bit(
    roles: dict[str, Any], weight: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = Design(**roles, weight=weight)
    table = rows()
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    ways = [(cut(table, 1), 1 << 25, 1), (cut(table, 40), 1 << 25, 3), (cut(shuffled, 9), 1 << 10, 2)]
    found = []
    for source, size, n_threads in ways:
        monkeypatch.setattr(compact, "PILE_BYTES", size)
        out = collapsed(source, design, n_threads=n_threads)
        found.append([np.concatenate([getattr(p, of) for p in out.pieces], axis=1) for of in ("words", "weights")])
    for words, weights in found[1:]:
        assert_array_equal(words, found[0][0])
        assert_array_equal(weights, found[0][1])


def test_what_travels_is_put_together() -> None:
    pile = compact.Pile(rows=(np.arange(1000, dtype=np.uint64) % 7,) * 2)
    sent = pickle.loads(pickle.dumps(pile))
    assert sent.rows == ()
    assert len(pickle.dumps(pile)) < 1000
    assert_array_equal(sent.together().weights, pile.together().weights)


# --- the fit is the same --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")  # a few steps are enough to compare
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_fit_is_that_of_all_rows(case: Case) -> None:
    table = case.table(np.random.default_rng(5), 150)
    weight = np.random.default_rng(6).integers(0, 4, 150).astype(float)
    several = pa.concat_tables([table, table, table.slice(0, 100)]).append_column(
        "w", pa.array(np.tile(weight, 3)[:400])
    )
    settings = specification.Settings(max_iter=25, tol=1e-9, bootstrap=Bootstrap(3, 4), **case.settings)
    executor = LocalExecutor(1)

    def fit(compress: bool) -> fitting.Fit:
        own = replace(settings, compress=compress)
        return fitting.fit(cut(several, 3), case.design("w"), own, [2, 3], executor)

    short, long = fit(True), fit(False)
    assert short.n_distinct is not None
    assert short.n_distinct <= 150
    assert short.n_scans == 2 < long.n_scans
    assert short.profile.weight == long.profile.weight
    assert len(short.replicates) == len(long.replicates) == 3
    for one, two in zip((*short.candidates, *short.replicates), (*long.candidates, *long.replicates), strict=True):
        assert_same(one, two)


def assert_same(one: Any, two: Any) -> None:
    assert one.verdict is two.verdict
    assert one.n_iter == two.n_iter
    assert_allclose(one.log_likelihoods, two.log_likelihoods, rtol=1e-10)
    if one.parameters is None:
        return
    assert_allclose(one.parameters.weights, two.parameters.weights, rtol=1e-10, atol=1e-12)
    for mine, other in zip(one.parameters.parts, two.parameters.parts, strict=True):
        for name in mine.__dataclass_fields__:
            assert_allclose(getattr(mine, name), getattr(other, name), rtol=1e-10, atol=1e-10)


# --- the rule ------------------------------------------------------------------------------------------------------


def answers(n: int, levels: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame(rng.integers(0, levels, (n, 4)), columns=list("abcd"))


def opened(X: pd.DataFrame, compress: Any = "auto", **roles: Any) -> fitting.Table:
    design = Design(**(roles or {"categorical": tuple(X.columns)}))
    settings = specification.Settings(compress=compress)
    return fitting.open_table(open_source(X), design, settings, [2], LocalExecutor(1))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of distinct rows."""
    return [line for line in caplog.messages if "distinct rows" in line]


def test_rows_are_collapsed_where_many_are_alike(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dask_em"):
        table = opened(answers(20_000))
    assert table.rows == table.n_distinct == 81
    assert table.passes.total() == 2
    assert told(caplog) == ["81 distinct rows of 20,000: collapsed (247 to 1)"]


def test_continuous_columns_are_not_collapsed(caplog: pytest.LogCaptureFixture) -> None:
    X = answers(20_000).assign(x=np.random.default_rng(0).normal(size=20_000))
    with caplog.at_level(logging.INFO, logger="dask_em"):
        table = opened(X, gaussian=("x",), categorical=tuple("abcd"))
    assert table.n_distinct is None
    assert table.rows == 20_000
    (line,) = told(caplog)
    assert line.endswith("distinct rows of 20,000: not collapsed")


@pytest.mark.parametrize(("levels", "alike"), [(8, True), (9, False)])
def test_four_rows_of_a_kind_are_enough(levels: int, alike: bool) -> None:
    """8^4 = 4,096 different answers are few among 20,000 rows, 9^4 = 6,561 are not."""
    assert (opened(answers(20_000, levels)).n_distinct is not None) is alike


def test_few_rows_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dask_em"):
        assert opened(answers(16_000)).n_distinct is None
        assert opened(answers(20_000), False).n_distinct is None
    assert not told(caplog)
    assert opened(answers(500), True).n_distinct == 81


def test_distinct_rows_that_need_much_memory_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "MAX_BYTES", 81 * 16 - 1)
    assert opened(answers(20_000)).n_distinct is None
    with pytest.raises(ConfigurationError, match="leave compress at 'auto'"):
        opened(answers(20_000), True)
    monkeypatch.setattr(compact, "MAX_BYTES", 81 * 16)
    assert opened(answers(20_000)).n_distinct == 81


@pytest.mark.parametrize("compress", ["always", None, 1])
def test_compress_is_one_of_three(compress: Any) -> None:
    with pytest.raises(ConfigurationError, match="'auto', True or False"):
        specification.Settings(compress=compress)


# --- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"), [("visits", 99), ("visits", 0.5), ("colour", "blue"), ("visits", None), (None, None)]
)
def test_a_table_that_changes_between_scans_is_noticed(tmp_path: Path, column: str | None, value: Any) -> None:
    table = rows().select(["colour", "visits"])
    pq.write_table(table, tmp_path / "t.parquet")
    source, executor = open_source(str(tmp_path / "t.parquet")), LocalExecutor(1)
    design = Design(categorical=("colour",), poisson=("visits",))
    found = fitting.profile_source(source, design, executor)
    assert found.ranges["visits"] is not None
    if column is None:
        table = table.slice(1)
    else:
        cells = table.column(column).to_pylist()
        cells[7] = value
        table = table.set_column(table.column_names.index(column), column, pa.array(cells))
    pq.write_table(table, tmp_path / "t.parquet")
    # A file that is open would be known by its time and size, and its columns by their marks.
    source, found = open_source(str(tmp_path / "t.parquet")), replace(found, marks=({},))
    settings = specification.Settings(compress=True)
    if value is None and column is not None:  # a cell that may be missing may change unnoticed
        assert fitting.open_table(source, design, settings, [2], executor, found=found).n_distinct
        return
    with pytest.raises(DataError, match=r"'colour'|'visits' has changed|has changed since it was first read"):
        fitting.open_table(source, design, settings, [2], executor, found=found)


def test_a_pile_adds_up() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.integers(0, 50, n).astype(np.uint64) for n in (10, 0, 300, 1)]
    total = reduce(add, (compact.Pile(rows=(p,)) for p in parts)).together()
    words, counts = np.unique(np.concatenate(parts), return_counts=True)
    assert_array_equal(total.words[0], words)
    assert_array_equal(total.weights[0], counts)

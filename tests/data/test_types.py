"""What a column holds counts, not how a part of the table happens to store it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from dask_em import GaussianMixture, LatentClassAnalysis, MixtureModel
from dask_em.errors import DataError

N = 120
RNG = np.random.default_rng(8)
KIND = RNG.random(N) < 0.4
VISITS = RNG.poisson(np.where(KIND, 1.0, 4.0))
TABLE = pa.table(
    {
        "x": np.where(KIND, 0.0, 5.0) + RNG.standard_normal(N),
        "town": np.where(RNG.random(N) < np.where(KIND, 0.9, 0.2), "Bern", "Chur"),
        "visits": VISITS,
        "child": (VISITS > 2).astype(np.int64),
    }
)


def fit(X: Any) -> MixtureModel:
    model = MixtureModel(
        2, gaussian=["x"], categorical=["town"], poisson=["visits", "child"], random_state=0, tol=1e-10
    )
    return model.fit(X)


# --- parts of one table ------------------------------------------------------------------------------------------


def put(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def cast(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda table: put(table, name, table.column(name).cast(kind))


def emptied(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda table: put(table, name, pa.nulls(len(table), kind))


def encoded(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: put(table, name, table.column(name).dictionary_encode())


def plainly(table: pa.Table) -> pa.Table:
    """The same cells in the types of TABLE."""
    cells = (np.array([np.nan if v is None else v for v in column.to_pylist()], object) for column in table.columns)
    return pa.table(
        [
            pa.array(c if f.type == pa.string() else c.astype(float), f.type, from_pandas=True)
            for c, f in zip(cells, TABLE.schema)
        ],
        names=table.column_names,
    )


PARTS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no text, as numbers": emptied("town", pa.float64()),
    "no text, as NaN": lambda table: put(table, "town", pa.array(np.full(len(table), np.nan))),
    "no text, as integers": emptied("town", pa.int32()),
    "no text, untyped": emptied("town", pa.null()),
    "text in a dictionary": encoded("town"),
    "large text": cast("town", pa.large_string()),
    "text by view": cast("town", pa.string_view()),
    "narrow counts": cast("visits", pa.uint8()),
    "unsigned counts": cast("visits", pa.uint64()),
    "counts as numbers": cast("visits", pa.float32()),
    "counts as decimals": cast("visits", pa.decimal128(20, 0)),
    "counts as yes and no": cast("child", pa.bool_()),
    "no counts, as text": emptied("visits", pa.string()),
    "numbers in a dictionary": encoded("x"),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", PARTS)
def test_parts_may_store_a_column_differently(kind: str, first: bool, tmp_path: Path) -> None:
    parts = [TABLE.slice(0, N // 2), TABLE.slice(N // 2)]
    parts[1 - first] = PARTS[kind](parts[1 - first])
    for i, part in enumerate(parts):
        pq.write_table(part, tmp_path / f"{i}.parquet")
    found, expected = fit(tmp_path), fit(pa.concat_tables(map(plainly, parts)))
    assert found.log_likelihood_ == pytest.approx(expected.log_likelihood_, rel=1e-9)
    assert_allclose(found.predict_proba(tmp_path), expected.predict_proba(tmp_path), atol=1e-5)


@pytest.mark.parametrize("empty", [np.nan, None, pd.NA])
def test_a_partition_may_have_no_text_at_all(empty: Any) -> None:
    frames = [TABLE.slice(0, N // 2).to_pandas(), TABLE.slice(N // 2).to_pandas().assign(town=empty)]
    lazy = dd.from_delayed([dask.delayed(f) for f in frames], meta=frames[0].iloc[:0], verify_meta=False)
    expected = fit(pd.concat([frames[0], frames[1].assign(town=None).astype({"town": "str"})]))
    assert fit(lazy).log_likelihood_ == pytest.approx(expected.log_likelihood_, rel=1e-9)


def test_yes_and_no_are_not_the_numbers_1_and_0() -> None:
    """As categories they are different levels, also where Python calls them equal."""
    parts = {"a": pa.array([True, False] * 5), "b": pa.array([1, 0] * 5)}
    frames = [pd.DataFrame({"c": column.to_pandas()}) for column in parts.values()]
    lazy = dd.from_delayed([dask.delayed(f) for f in frames], meta=frames[0].iloc[:0], verify_meta=False)
    with pytest.raises(DataError, match="'c' has different types in different parts"):
        LatentClassAnalysis(1).fit(lazy)


# --- scored tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [[np.nan] * 4, [None] * 4, [pd.NA] * 4])
def test_a_scored_category_may_be_missing_throughout(cells: list[Any]) -> None:
    model, X = fit(TABLE), TABLE.slice(0, 4).to_pandas()
    missing = X.assign(town=pd.Series([None] * 4, dtype="str"))
    pd.testing.assert_frame_equal(model.predict_proba(X.assign(town=cells)), model.predict_proba(missing))


# --- types of categories -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
@pytest.mark.parametrize("weighted", [True, False])
def test_text_of_every_arrow_type_is_a_category(kind: pa.DataType, weighted: bool) -> None:
    weight = np.arange(N) % 3 if weighted else None
    own = TABLE.select(["town"])
    expected = LatentClassAnalysis(1).fit(own, sample_weight=weight)
    found = LatentClassAnalysis(1).fit(cast("town", kind)(own), sample_weight=weight)
    assert found.log_likelihood_ == expected.log_likelihood_


CATEGORIES: dict[str, tuple[Any, str]] = {
    "classes of numbers": (pd.cut(pd.Series(TABLE.column("x").to_numpy()), 3), "convert it to text"),
    "intervals": (pd.Series(pd.interval_range(0, N, N)), "convert it to text"),
    "unsigned integers beyond 64 bits with a sign": (
        pd.Series(np.full(N, 2**63 + 98765, dtype=np.uint64)),
        "larger than 64 bits with a sign hold: convert it to text",
    ),
    "numbers beyond every integer": (pd.Series(np.full(N, 2.0**70)), "fractional or very large numbers"),
    "infinity": (pd.Series(np.full(N, np.inf)), "fractional or very large numbers"),
    "bytes": (pd.Series([b"98765"] * N), "convert it to text"),
}


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize("kind", CATEGORIES)
def test_what_is_no_category_is_refused_by_name(kind: str, arrow: bool) -> None:
    column, message = CATEGORIES[kind]
    X: Any = pd.DataFrame({"c": column, "town": TABLE.column("town").to_pandas()})
    X = pa.Table.from_pandas(X) if arrow and kind != "classes of numbers" else X
    with pytest.raises(DataError, match="column 'c'") as caught:
        LatentClassAnalysis(2).fit(X)
    assert message in str(caught.value)
    assert "98765" not in str(caught.value)


# --- arrays ------------------------------------------------------------------------------------------------------

NUMBERS = np.column_stack([TABLE.column("x").to_numpy(), np.round(10 * RNG.standard_normal(N))])
HOLES = RNG.random(NUMBERS.shape) < 0.2


def normal(X: Any, **arguments: Any) -> GaussianMixture:
    return GaussianMixture(2, random_state=0).fit(X, **arguments)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, object])
@pytest.mark.parametrize("masked", [True, False])
def test_what_a_mask_hides_is_missing(dtype: Any, masked: bool) -> None:
    numbers = np.round(NUMBERS).astype(dtype)
    holes = HOLES if masked else np.zeros_like(HOLES)
    X = np.ma.masked_array(numbers, holes, fill_value=7)
    expected = np.where(holes, np.nan, numbers.astype(np.float64))
    model = normal(expected)
    assert normal(X).log_likelihood_ == model.log_likelihood_
    for fitted in (model, normal(pd.DataFrame(expected, columns=["a", "b"]))):
        assert_allclose(fitted.score_samples(X), model.score_samples(expected))


def test_what_a_mask_hides_is_a_missing_category() -> None:
    X = np.array([["a", "x"], ["b", "y"], ["a", "y"], ["b", "y"]])
    holes = np.array([[False, True], [True, False], [False, False], [False, False]])
    expected = LatentClassAnalysis(1).fit(np.where(holes, None, X.astype(object)))
    assert LatentClassAnalysis(1).fit(np.ma.masked_array(X, holes)).log_likelihood_ == expected.log_likelihood_


def test_a_masked_weight_is_a_missing_one() -> None:
    weight = np.ma.masked_array(np.ones(N), np.arange(N) == 3)
    with pytest.raises(DataError, match="row weights hold missing values"):
        normal(NUMBERS, sample_weight=weight)
    assert normal(NUMBERS, sample_weight=np.ma.masked_array(np.ones(N))).sum_of_weights_ == N


@pytest.mark.parametrize("frame", [True, False])
@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i4", ">u2", "<f8"])
def test_bytes_may_be_in_either_order(dtype: str, frame: bool) -> None:
    numbers = np.abs(np.round(NUMBERS))
    X: Any = numbers.astype(dtype)
    X = pd.DataFrame({"a": X[:, 0], "b": X[:, 1]}) if frame else X
    assert normal(X).log_likelihood_ == normal(numbers).log_likelihood_
    weight = np.arange(N).astype(dtype)
    assert normal(numbers, sample_weight=weight).sum_of_weights_ == np.arange(N).sum()


def test_pandas_may_store_zeros_sparsely() -> None:
    numbers = np.where(HOLES[:, 0], 0.0, NUMBERS[:, 0])
    X = pd.DataFrame({"a": pd.arrays.SparseArray(numbers, fill_value=0.0)})
    assert normal(X).log_likelihood_ == normal(numbers[:, None]).log_likelihood_


@pytest.mark.parametrize(
    ("X", "kind"),
    [
        (pd.DataFrame({"a": NUMBERS[:, 0].astype(np.longdouble)}), np.dtype(np.longdouble).name),
        (pd.DataFrame({"a": NUMBERS[:, 0].astype(complex)}), "complex128"),
    ],
)
def test_a_type_that_cannot_be_read_is_named(X: pd.DataFrame, kind: str) -> None:
    with pytest.raises(DataError, match=f"^column 'a' has the type {kind}.*, which cannot be read: convert it to"):
        normal(X)

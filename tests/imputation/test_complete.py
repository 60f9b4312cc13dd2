"""What goes into a hole has the type of its column, whatever the type; what stands beside it is the very same."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dask_em import Imputer
from dask_em.imputation.complete import complete_arrow, complete_pandas
from dask_em.imputation.model import Cells

MASK = np.array([False, True, True, False])
FAR = Cells(MASK, np.array([-1e30, 1e30]))


# --- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_a_value_beyond_a_type_is_the_nearest_that_it_has(kind: str) -> None:
    limits = np.iinfo(kind)
    arrow = pa.table({"x": pa.array([1, None, None, 2], getattr(pa, kind)())})
    nullable = pd.DataFrame({"x": pd.array([1, None, None, 2], dtype=kind.replace("i", "I").replace("uI", "UI"))})
    pandas = pd.DataFrame({"x": pd.array([1, None, None, 2], dtype=pd.ArrowDtype(getattr(pa, kind)()))})
    for done in (
        complete_arrow(arrow, {"x": FAR}).column("x").to_pylist(),
        complete_pandas(nullable, {"x": FAR})["x"].tolist(),
        complete_pandas(pandas, {"x": FAR})["x"].tolist(),
    ):
        assert done[0], done[3] == (1, 2)
        assert done[1] == limits.min
        # The largest 64-bit integers are no float64.
        assert 1 - 2**-50 < done[2] / limits.max <= 1


@pytest.mark.parametrize(("digits", "scale"), [(3, 1), (5, 5), (12, 0), (38, 2)])
def test_decimals_keep_their_digits(digits: int, scale: int) -> None:
    kind = pa.decimal128(digits, scale)
    cells = [Decimal(0), None, None, Decimal(0)]
    most = (Decimal(10) ** digits - 1).scaleb(-scale)
    arrow = pa.table({"x": pa.array(cells, kind)})
    frame = pd.DataFrame({"x": pd.array(cells, dtype=pd.ArrowDtype(kind))})
    far = Cells(MASK, np.array([-1e60, 1e60]))
    assert complete_arrow(arrow, {"x": far}).column("x").to_pylist()[1:3] == pytest.approx([-most, most])
    assert complete_pandas(frame, {"x": far})["x"].tolist()[1:3] == pytest.approx([-most, most])
    near = Cells(MASK, np.array([0.25, 0.125]))
    assert complete_arrow(arrow, {"x": near}).column("x").to_pylist()[1] == round(Decimal("0.25"), scale)


def test_floats_stay_finite() -> None:
    for kind, dtype in ((pa.float16(), np.float16), (pa.float32(), np.float32)):
        cells = np.array([1, np.nan, np.nan, 2], dtype=dtype)
        far = Cells(MASK, np.array([-1e300, 1e300]))
        assert np.isfinite(
            complete_arrow(pa.table({"x": pa.array(cells, kind)}), {"x": far}).column("x").to_numpy()
        ).all()
        assert np.isfinite(complete_pandas(pd.DataFrame({"x": cells}), {"x": far})["x"]).all()


@pytest.mark.parametrize(
    ("kind", "least", "most"), [(pa.uint8(), 0, 255), (pa.int8(), -128, 127), (pa.decimal128(3, 1), -99, 99)]
)
def test_narrow_columns_are_drawn(kind: pa.DataType, least: int, most: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    # Half of what a normal draws lies beyond the type.
    cells = np.clip(np.rint(most + 10 * x), least, most).astype(int)
    column = pa.array([Decimal(int(v)) if pa.types.is_decimal(kind) else int(v) for v in cells], kind)
    hole = pa.array(rng.random(400) < 0.3)
    table = pa.table({"x": x, "y": pc.if_else(hole, pa.scalar(None, kind), column)})
    for done in Imputer(n_replicates=2, random_state=0).fit(table).draw(table):
        assert done.schema.types == table.schema.types
        assert done.column("y").null_count == 0


# --- types of pandas ---------------------------------------------------------------------------------------------------


def pair(y: Any) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({"x": np.arange(200) + rng.normal(size=200), "y": y})


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([Decimal(i).scaleb(-2) if i % 3 else None for i in range(200)], Decimal),
        ([i if i % 3 else None for i in range(200)], int),
    ],
)
def test_columns_of_objects_keep_their_objects(cells: list[Any], kind: type) -> None:
    table = pair(pd.Series(cells, dtype=object))
    imputer = Imputer(n_replicates=2, random_state=0).fit(table)
    for done in (imputer.transform(table), *imputer.draw(table)):
        assert done["y"].dtype == object
        assert {type(v) for v in done["y"]} == {kind}
        assert (done["y"][table["y"].notna()] == table["y"].dropna()).all()
        if kind is Decimal:
            assert {v.as_tuple().exponent for v in done["y"]} == {-2}


@pytest.mark.parametrize("dtype", [object, "str", pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.string_view())], ids=str)
def test_text_keeps_its_type_and_what_stands_for_missing(dtype: Any) -> None:
    """A table with a question that was not asked keeps its own None or NaN there."""
    cells = pd.Series(["a", "b", None, "a"] * 50, dtype=dtype)
    table = pair(cells).assign(asked=np.arange(200) < 150)
    imputer = Imputer(columns=["x", "y"], universe={"y": "asked"}, n_components=1, n_replicates=2, random_state=0)
    for done in (imputer.fit(table).transform(table), *imputer.draw(table)):
        assert done["y"].dtype == table["y"].dtype
        assert done["y"][:150].notna().all()
        assert type(done["y"].iloc[150]) is type(cells.iloc[150])
        own, given = done["y"].tolist()[150:], cells.tolist()[150:]
        assert [None if pd.isna(cell) else cell for cell in own] == [None if pd.isna(cell) else cell for cell in given]


def test_sparse_columns_stay_sparse() -> None:
    cells = np.where(np.arange(200) % 3 == 0, np.nan, np.arange(200.0))
    table = pair(pd.arrays.SparseArray(cells))
    done = Imputer(n_replicates=0).fit(table).transform(table)
    assert done["y"].dtype == table["y"].dtype
    assert done["y"].notna().all()
    seen = ~np.isnan(cells)
    np.testing.assert_array_equal(np.asarray(done["y"])[seen], cells[seen])


def test_categories_that_a_part_lacks_are_added() -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["a", None, None, "a"])})
    done = complete_pandas(frame, {"c": Cells(MASK, np.array(["a", "b"], dtype=object))})
    assert done["c"].tolist() == ["a", "a", "b", "a"]
    assert done["c"].dtype.categories.tolist() == ["a", "b"]


# --- columns without a cell --------------------------------------------------------------------------------------------


def survey() -> pa.Table:
    rng = np.random.default_rng(2)
    n = 400
    x = rng.normal(size=n)
    hole = rng.random(n) < 0.2
    return pa.table(
        {
            "x": x,
            "number": pa.array(x + rng.normal(size=n), mask=hole),
            "count": pa.array(rng.poisson(3, n), mask=hole),
            "yes": pa.array(x > 0.3, mask=hole),
            "town": pa.array(np.array(["Bern", "Chur"])[(x > rng.normal(size=n)).astype(int)], mask=hole),
        }
    )


TYPES = {"number": pa.float64(), "count": pa.int64(), "yes": pa.bool_(), "town": pa.string()}


@pytest.fixture(scope="module")
def imputer() -> Imputer:
    return Imputer(
        n_components=1,
        n_replicates=2,
        random_state=0,
    ).fit(survey())


@pytest.mark.parametrize("kind", [pa.null(), pa.float64(), pa.string(), pa.dictionary(pa.int32(), pa.null())])
def test_a_column_without_a_cell_gets_the_type_of_its_values(imputer: Imputer, kind: pa.DataType) -> None:
    table = survey().slice(0, 5).select(["x"])
    for name in TYPES:
        table = table.append_column(name, pa.nulls(5, kind))
    for done in (imputer.transform(table), *imputer.draw(table)):
        for name, own in TYPES.items():
            assert done.column(name).null_count == 0
            wide = kind == pa.float64() and name == "count"
            assert done.column(name).type == (kind if wide else own)


@pytest.mark.parametrize("empty", [None, np.nan, pd.NA])
def test_frames_with_empty_columns_are_filled(imputer: Imputer, empty: Any) -> None:
    table = pd.DataFrame({"x": [0.0, 1.0]}).assign(**dict.fromkeys(TYPES, empty))
    for done in (imputer.transform(table), *imputer.draw(table)):
        assert done.notna().all().all()
        assert set(done["town"]) <= {"Bern", "Chur"}

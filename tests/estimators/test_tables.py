"""Tables at the door: opened once, matched by name or by position, and answered in kind."""

from __future__ import annotations

from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

from dask_em import GaussianMixture, MixtureModel
from dask_em.errors import ConfigurationError, DataError

RNG = np.random.default_rng(4)
HALF = np.arange(200) < 100
X = np.column_stack([np.where(HALF, 0.0, 9.0) + RNG.standard_normal(200), RNG.standard_normal(200)])
NAMED = pd.DataFrame(X, columns=["a", "b"])
NUMBERED = pd.DataFrame(X)


def model(k: int = 2) -> GaussianMixture:
    return GaussianMixture(k, random_state=0)


EXPECTED = model().fit(X)


# --- streams that can be read once -------------------------------------------------------------------------------


def reader() -> pa.RecordBatchReader:
    return pa.Table.from_pandas(NAMED).to_reader()


class Once:
    """Anything whose Arrow stream is gone once it was taken."""

    def __init__(self) -> None:
        self._reader = reader()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._reader.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("make", [reader, Once])
def test_a_stream_is_read_once(make: Any) -> None:
    fitted = model().fit(make())
    assert list(fitted.feature_names_in_) == ["a", "b"]
    assert fitted.log_likelihood_ == EXPECTED.log_likelihood_
    assert_allclose(fitted.score_samples(make()), EXPECTED.score_samples(X))
    assert fitted.score(make()) == pytest.approx(EXPECTED.score(X))
    assert_allclose(fitted.fit_predict(make()), EXPECTED.predict(X))
    # By position, too.
    assert_allclose(EXPECTED.predict(make()), EXPECTED.predict(X))


@pytest.mark.parametrize("make", [reader, Once, lambda: pa.RecordBatch.from_pandas(NAMED)])
def test_what_speaks_arrow_is_answered_in_arrow(make: Any) -> None:
    assert isinstance(EXPECTED.predict(make()), pa.Array)
    assert isinstance(EXPECTED.predict_proba(make()), pa.Table)


# --- names and positions -----------------------------------------------------------------------------------------

TABLES = {
    "array": X,
    "masked array": np.ma.masked_array(X),
    "list": X.tolist(),
    "numbered frame": NUMBERED,
    "frame with other numbers": pd.DataFrame(X, columns=[2024, 2025]),
    "named frame": NAMED,
    "Arrow table": pa.Table.from_pandas(NAMED),
    "numbered Dask frame": dd.from_pandas(NUMBERED, npartitions=2),
    "Dask frame": dd.from_pandas(NAMED, npartitions=2),
}


TEXT = ("named frame", "Arrow table", "Dask frame")
NUMBERS = ("numbered frame", "frame with other numbers", "numbered Dask frame")


@pytest.mark.parametrize("scored", TABLES)
@pytest.mark.parametrize("fitted", TABLES)
def test_columns_without_names_go_by_position(fitted: str, scored: str) -> None:
    own = model().fit(TABLES[fitted])
    if fitted in NUMBERS and scored in TEXT:
        with pytest.raises(DataError, match=r"column '(0|2024)' is not in the table"):
            own.predict(TABLES[scored])
        return
    found = own.predict(TABLES[scored])
    found = found.compute(scheduler="sync") if dask.is_dask_collection(found) else found
    assert (np.asarray(found) == EXPECTED.predict(X)).all()


def test_numbered_columns_are_matched_by_their_number() -> None:
    fitted = model().fit(NUMBERED)
    assert list(fitted.feature_names_in_) == ["0", "1"]
    assert (fitted.predict(NUMBERED[[1, 0]]) == EXPECTED.predict(X)).all()


def test_numbered_columns_can_be_named() -> None:
    own = MixtureModel(2, gaussian=["1", "0"], random_state=0).fit(NUMBERED.assign(note="x"))
    assert (own.predict(NUMBERED.assign(note="y")) == EXPECTED.predict(X)).mean() in (0.0, 1.0)


def test_a_file_can_be_scored_by_position(tmp_path: Any) -> None:
    NAMED.to_parquet(tmp_path / "rows.parquet")
    assert (EXPECTED.predict(tmp_path / "rows.parquet") == EXPECTED.predict(X)).all()


def test_positions_are_counted() -> None:
    with pytest.raises(ConfigurationError, match="X has 1 features, but GaussianMixture is expecting 2"):
        EXPECTED.predict(NAMED[["a"]])


# --- series ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", None])
def test_a_dask_series_is_a_table_of_one_column(name: str | None) -> None:
    series = pd.Series(X[:, 0], name=name)
    lazy = dd.from_pandas(series, npartitions=3)
    own, expected = model().fit(lazy), model().fit(series)
    assert_allclose(own.means_, expected.means_, rtol=1e-9)
    for fitted in (own, expected):
        found = fitted.predict(lazy)
        assert isinstance(found, dd.Series)
        pd.testing.assert_series_equal(found.compute(scheduler="sync"), expected.predict(series))
    assert own.score(lazy) == pytest.approx(expected.score(series))

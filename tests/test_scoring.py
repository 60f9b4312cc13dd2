"""Scored tables: outliers are judged against rows that the model itself generates, and keys name every row once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_em
from dask_em import BinomialMixture, GaussianMixture, MixtureModel
from dask_em.data.sinks import ParquetSink
from dask_em.errors import DataError, IntegrityError, OutputError
from dask_em.scoring import write_scores

SHARE = 0.001
"""The share of rows that a model flags of its own making, unless told otherwise."""


def coins(n: int = 5000) -> pd.DataFrame:
    """Heads of 20, 200 or 5 tosses, and of 10 for all."""
    rng = np.random.default_rng(0)
    tosses = rng.choice([5, 20, 200], n, p=[0.2, 0.7, 0.1])
    return pd.DataFrame({"a": rng.binomial(tosses, 0.3), "t": tosses, "b": rng.binomial(10, 0.5, n)})


MODELS: dict[str, Any] = {
    "one column of trials": lambda: BinomialMixture(1, successes="a", trials="t"),
    "shared by two columns": lambda: BinomialMixture(1, successes=["a", "a2"], trials="t"),
    "beside a fixed number": lambda: BinomialMixture(2, successes=["a", "b"], trials=["t", 10], random_state=0),
    "in a mixture": lambda: MixtureModel(1, binomial={"a": "t"}, gaussian=["x"]),
}


def test_an_output_among_the_files_of_the_table(tmp_path: Path) -> None:
    """From then on it would be a part of the table."""
    frame = pd.DataFrame({"x": np.arange(20.0)})
    (tmp_path / "table").mkdir()
    frame.to_parquet(tmp_path / "table" / "part.parquet")
    model = GaussianMixture(1).fit(frame)
    for inside in ("table/out", "table/../table/a/b"):
        with pytest.raises(OutputError, match="is inside the folder of the table, which would hold it from then on"):
            write_scores(model, tmp_path / "table", tmp_path / inside)
    assert [path.name for path in (tmp_path / "table").iterdir()] == ["part.parquet"]
    assert write_scores(model, tmp_path / "table" / "part.parquet", tmp_path / "table" / "out")["rows"] == 20


@pytest.mark.parametrize("name", MODELS)
def test_outliers_of_binomial_rows_are_as_rare_as_asked(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = coins().assign(a2=lambda f: rng.binomial(f["t"], 0.6), x=rng.normal(size=5000))
    frame.loc[::7, "t"] = np.nan
    model = MODELS[name]().fit(frame)
    dask_em.save(model, tmp_path / "model")
    loaded = dask_em.load(tmp_path / "model")
    facts = write_scores(loaded, frame, tmp_path / "scores")
    assert facts["outliers"] <= 4 * SHARE * len(frame)
    far = frame.head(50).assign(a=200.0, t=200.0)
    assert write_scores(loaded, far, tmp_path / "far")["outliers"] == len(far)


def test_drawn_rows_have_the_trials_of_the_table() -> None:
    frame = coins()
    drawn, _ = BinomialMixture(1, successes=["a", "b"], trials=["t", 10]).fit(frame).sample(4000, 0)
    expected = frame["t"].value_counts(normalize=True)
    assert (drawn["t"].value_counts(normalize=True) - expected).abs().max() < 0.03
    assert (drawn["a"] <= drawn["t"]).all()
    assert abs(drawn["a"].sum() / drawn["t"].sum() - 0.3) < 0.01
    assert (drawn["b"] <= 10).all()


def test_many_numbers_of_trials_are_drawn_from_their_distribution() -> None:
    rng = np.random.default_rng(2)
    tosses = rng.integers(1, 3000, 20_000)
    frame = pd.DataFrame({"a": rng.binomial(tosses, 0.4), "t": tosses})
    drawn, _ = BinomialMixture(1, successes="a", trials="t").fit(frame).sample(4000, 0)
    assert np.abs(np.quantile(drawn["t"], [0.1, 0.5, 0.9]) - np.array([300, 1500, 2700])).max() < 100


def test_no_two_rows_have_the_same_key(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": np.arange(60), "x": np.random.default_rng(0).normal(size=60)})
    model = MixtureModel(1, gaussian=["x"]).fit(frame)
    with pytest.raises(DataError, match=r"^the key 'id' is not unique: name columns that tell rows apart$"):
        write_scores(model, frame.assign(id=frame["id"] % 59), tmp_path / "scores", key="id")
    assert list(tmp_path.iterdir()) == []
    nameless = frame.astype({"id": "Int64"}).replace({"id": {7: pd.NA, 8: pd.NA}})
    assert write_scores(model, nameless, tmp_path / "nameless", key="id")["rows"] == 60
    halves = frame.assign(half=frame["id"] % 2, id=frame["id"] // 2)
    assert write_scores(model, halves, tmp_path / "halves", key=["half", "id"])["rows"] == 60


@pytest.mark.parametrize("what", ["a row is lost", "a key is another", "nothing"])
def test_rows_and_keys_are_read_back(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between writing and reading back a part is swapped for one that is not the same."""
    frame = pd.DataFrame({"id": [2**60 + 1, 2**60 + 2, 2**60 + 3, 5], "x": [0.0, 1.0, 5.0, 6.0]})
    model = MixtureModel(1, gaussian=["x"]).fit(frame)
    write = ParquetSink.write

    def swapped(self: ParquetSink, part: int, tables: Any) -> Any:
        receipt = write(self, part, tables)
        table = pq.read_table(receipt.path)
        ids = [2**60 + 1, 2**60 + 2, 2**60 + 3, 5]
        if what == "a row is lost":
            table = table.slice(1)
        elif what == "a key is another":
            table = table.set_column(0, "id", pa.array([*ids[:1], ids[1] + 1, ids[2] - 1, 5]))
        pq.write_table(table, receipt.path)
        return receipt

    monkeypatch.setattr(ParquetSink, "write", swapped)
    if what == "nothing":
        assert write_scores(model, frame, tmp_path / "out", key="id")["rows"] == 4
        return
    with pytest.raises(IntegrityError, match="rows that were written are not those that came in"):
        write_scores(model, frame, tmp_path / "out", key="id")
    assert not (tmp_path / "out").exists()

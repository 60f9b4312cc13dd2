"""Every row of a table with its segment, written as Parquet parts.

A row's density is judged against what the model itself generates with the same cells observed: a row is an outlier when fewer than a small share
of generated rows are less probable. So missing cells neither hide outliers nor make them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dask_em.data.columns import missing_cells
from dask_em.data.digest import column_digest
from dask_em.data.keys import KeySet, check_keys, row_keys
from dask_em.data.profile import pattern_groups
from dask_em.data.sinks import ParquetSink, check_apart, staged
from dask_em.data.sources import open_source
from dask_em.errors import ConfigurationError, IntegrityError
from dask_em.execution.choose import open_executor
from dask_em.model import FittedMixture

SIMULATED_ROWS = 4096
"""Rows drawn to judge outliers: enough for a quantile of a few thousandths."""


@dataclass(frozen=True)
class Scorer:
    """What turns rows into scores; a pure function that can be sent to workers.

    Attributes
    ----------
    model : the fitted mixture
    segments : the name (a number) of each component
    outlier_share : share of rows of the model's own that are at most as improbable as an outlier
    """

    model: FittedMixture
    segments: tuple[int, ...]
    outlier_share: float = 0.001

    def score(self, table: pa.Table) -> dict[str, NDArray[Any]]:
        """segment, probability, log_density and outlier of every row."""
        responsibilities, log_density = self.model.score(table)
        best = responsibilities.argmax(axis=1)
        return {
            "segment": np.asarray(self.segments, dtype=np.int32)[best],
            "probability": responsibilities[np.arange(len(best)), best],
            "log_density": log_density,
            "outlier": log_density < self._thresholds(table),
        }

    def _thresholds(self, table: pa.Table) -> NDArray[np.float64]:
        """For every row, the low quantile of the log densities of rows drawn from the model and observed alike."""
        design = self.model.schema.design
        features, trials = design.features, dict(design.binomial)
        # A cell of successes tells nothing without its trials.
        needs = [[name, str(trials[name])] if isinstance(trials.get(name), str) else [name] for name in features]
        seen = np.stack([~np.any([missing_cells(table.column(own)) for own in both], axis=0) for both in needs])
        patterns, which = pattern_groups(seen)
        drawn, _ = self.model.sample(SIMULATED_ROWS, np.random.default_rng(0))
        simulated = pa.table({name: pa.array(values) for name, values in drawn.items()})
        limits = np.empty(len(patterns))
        for p, observed in enumerate(patterns):
            masked = simulated
            for name in np.asarray(features, dtype=object)[~observed]:
                index = masked.column_names.index(name)
                masked = masked.set_column(index, name, pa.nulls(SIMULATED_ROWS, masked.schema.field(index).type))
            limits[p] = np.quantile(self.model.score(masked)[1], self.outlier_share) if observed.any() else -np.inf
        return limits[which] if len(limits) else np.zeros(table.num_rows)


def write_scores(
    model: Any,
    X: Any,
    output: str | os.PathLike[str],
    *,
    key: str | Sequence[str] | None = None,
    executor: Any = None,
    types: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Score every row of a table into a new folder of Parquet parts.

    Parameters
    ----------
    model : fitted estimator, or the folder of a saved one
    X : table, or path or URL of one
    output : folder to make; it must be absent or empty
    key : columns that together name a row, to carry over bit for bit, missing cells too; by default none
    executor : where to score, as in `fit`
    types : for CSV, Arrow type names by column

    Returns
    -------
    facts : {"rows", "parts", "outliers", "output"}

    Raises
    ------
    DataError, OutputError, ConfigurationError
        Nothing is left behind.
    """
    if isinstance(model, (str, os.PathLike)):
        from dask_em.artifact import load

        model = load(model)
    keys = (key,) if isinstance(key, str) else tuple(key or ())
    source = open_source(X, types=types)
    fitted: FittedMixture = model.model_
    fitted.schema.design.check(source.columns, source.where)
    taken = {"segment", "probability", "log_density", "outlier"}
    check_keys(source, keys)
    for name in keys:
        if name in taken:
            raise ConfigurationError(f"key column {name!r} has the name of a result: rename it")
    scorer = scorer_of(model)
    check_apart(source.folder, output)
    with staged(output) as folder, open_executor(executor) as opened:
        write = partial(_write_piece, scorer, ParquetSink(str(folder)), keys)
        written = opened.write(source.pieces, write) if source.pieces else _Written()
        if written.keys is not None:
            written.keys.check_unique(keys)
    return {"rows": written.rows, "parts": written.parts, "outliers": written.outliers, "output": str(output)}


def scorer_of(model: Any) -> Scorer:
    """The scorer of a fitted estimator, with the segment names and the outlier share saved beside it."""
    notes = getattr(model, "notes_", {})
    segments = tuple(notes.get("segments", range(model.n_components)))
    return Scorer(model.model_, segments, float(notes.get("outlier_share", Scorer.outlier_share)))


@dataclass(frozen=True)
class _Written:
    """What was written, and the keys of its rows; adds up over pieces."""

    rows: int = 0
    parts: int = 0
    outliers: int = 0
    keys: KeySet | None = None

    def __add__(self, other: _Written) -> _Written:
        keys = None if self.keys is None or other.keys is None else self.keys + other.keys
        return _Written(self.rows + other.rows, self.parts + other.parts, self.outliers + other.outliers, keys)


def _write_piece(scorer: Scorer, sink: ParquetSink, keys: tuple[str, ...], i: int, piece: Any) -> _Written:
    columns = tuple(dict.fromkeys((*scorer.model.schema.design.columns, *keys)))
    table = piece.read(columns)
    scores = scorer.score(table)
    out = pa.table({**{name: table.column(name) for name in keys}, **scores})
    _check(sink.write(i, [out]).path, out.select(keys), out.num_rows)
    known = KeySet.of(row_keys(table.select(keys).drop_null(), keys, piece.origin)) if keys else None
    return _Written(table.num_rows, 1, int(scores["outlier"].sum()), known)


def _check(path: str, keys: pa.Table, rows: int) -> None:
    """Raise IntegrityError unless what was written has these rows, and their keys bit for bit."""
    back = pq.read_table(path, columns=keys.column_names)
    places = np.arange(rows)
    same = pq.read_metadata(path).num_rows == rows and all(
        column_digest(own, places) == column_digest(written, places) for own, written in zip(keys.columns, back.columns)
    )
    if not same:
        raise IntegrityError("the rows that were written are not those that came in: please report this as a bug")

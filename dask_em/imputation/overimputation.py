"""Overimputation: hide observed cells, impute them as if they were missing, and see how often the truth is where it should be.

For each hidden cell, draws under every bootstrap replicate give an interval; of the intervals of level 0.9, about 90 % should hold the value that was hidden (Blackwell, Honaker
and King 2017, "A Unified Approach to Measurement Error and Missing Data", and their program Amelia). A coverage far from the level says that the model does not
fit the column. It says nothing of cells that are missing for reasons the table does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data import columns as col
from dask_em.data.keys import word
from dask_em.data.universe import asked
from dask_em.errors import ConfigurationError, DataError
from dask_em.imputation.donors import make_donors
from dask_em.imputation.model import ImputationModel
from dask_em.randomness import SIMULATION, Words, mix

N_DRAWS = 200
"""Draws for each hidden cell, over all replicates: the ends of a 90 % interval are then the tenth values from both ends."""


@dataclass(frozen=True)
class OverimputedNumbers:
    """A number whose observed cells were imputed again.

    Attributes
    ----------
    column : name
    level : of the intervals
    transform : of the column, None where the scale of the model is the table's
    cells : one row a cell with observed, expected, low, high (the table's units), inside, and weight: how many equal rows it stands for
    """

    column: str
    level: float
    transform: str | None
    cells: pd.DataFrame

    @property
    def coverage(self) -> float:
        """Share of the cells inside their interval; it should be near `level`."""
        return _share(self.cells["inside"], self.cells["weight"])


@dataclass(frozen=True)
class OverimputedLevels:
    """A categorical or ordered column whose observed cells were imputed again.

    Attributes
    ----------
    column : name
    cells : one row a cell with observed and expected (the most probable level), probability (given to the observed level), highest (given to the most
        probable one), inside (whether both levels are the same), and weight: how many equal rows it stands for
    """

    column: str
    cells: pd.DataFrame

    @property
    def most_probable(self) -> float:
        """Share of the cells whose level is the most probable one."""
        return _share(self.cells["inside"], self.cells["weight"])

    @property
    def promised(self) -> float:
        """What that share should be near if the probabilities are right: the mean of the highest ones."""
        return _share(self.cells["highest"], self.cells["weight"])

    @property
    def mean_probability(self) -> float:
        """The mean probability given to the true level."""
        return _share(self.cells["probability"], self.cells["weight"])


def overimpute(
    imputation: ImputationModel, sample: pa.Table, column: str, n_rows: int = 1000, level: float = 0.9
) -> OverimputedNumbers | OverimputedLevels:
    """Hide each observed cell of a column, one at a time, and impute it from the rest of its row.

    Parameters
    ----------
    imputation : the fitted model (`imputer.imputation_`)
    sample : rows to take cells from, such as the profile's sample; "#weight" and "#hash" are used where it has them
    column : a column of the model
    n_rows : cells to hide at most, chosen by hash; by default 1000, for which a coverage of 0.9 has a standard error of 0.01
    level : of the intervals, by default 0.9

    Returns
    -------
    OverimputedNumbers for numbers and counts, OverimputedLevels for categorical and ordered columns

    Raises
    ------
    ConfigurationError
        The column is not in the model, or the level is not between 0 and 1.
    DataError
        The sample has no observed cell of the column.

    Notes
    -----
    At least 200 draws a cell, the same number under each replicate, are mixed; their ends at p (n + 1) make the interval, which has the wanted level whatever the
    distribution. Draws, unlike quantiles of the conditional normal, hold for bounds, transforms, counts and mixtures alike, and carry the uncertainty of the
    parameters. The shifts `delta` are left out: they are about missing cells. With method="donor" no row is its own donor: cells come from one half of the
    sample at most and donors from the rest; the few donors of a cell do not reach into its tails, so that coverage stays some points
    below the level. The rows took part in the fit, so that with few rows for many columns the coverage flatters a little.
    """
    design = imputation.schema.design
    if column not in design.features:
        raise ConfigurationError(
            f"column {column!r} is not in the model, so it cannot be overimputed: name one that is"
        )
    if not 0 < level < 1:
        raise ConfigurationError("level must be between 0 and 1, such as 0.9")
    if n_rows < 1:
        raise ConfigurationError("n_rows must be at least 1: it is how many cells are hidden")
    keys = sample.column("#hash").to_numpy() if "#hash" in sample.column_names else np.arange(sample.num_rows)
    words = mix(keys.astype(np.uint64), word(column), SIMULATION)
    chosen, others = _chosen(imputation, sample, column, words, n_rows)
    hidden = _without(sample, column).take(pa.array(chosen))
    rows, words = sample.take(pa.array(chosen)), words[chosen]
    weight = rows.column("#weight").to_numpy() if "#weight" in rows.column_names else np.ones(len(rows))
    model = replace(imputation, delta=(), replicates=imputation.replicates or (imputation.model.parameters,))
    if column in design.categorical or design.levels(column) is not None:
        return OverimputedLevels(column, _levels(model, rows, hidden, column, weight))
    if model.donors is not None:
        model = replace(model, donors=make_donors(model, sample.take(pa.array(others))))
    observed = col.numeric(rows, column)
    draws = _draws(model, hidden, column, words)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    cells = pd.DataFrame(
        {
            "observed": observed,
            "expected": model.mean(hidden)[column].values.astype(np.float64),
            "low": low,
            "high": high,
            "inside": (low <= observed) & (observed <= high),
            "weight": weight,
        }
    )
    return OverimputedNumbers(column, level, design.transform(column), cells)


def _chosen(
    imputation: ImputationModel, sample: pa.Table, column: str, words: Words, n_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows whose cell is hidden, and all others; only cells that would be filled if they were missing."""
    seen = ~col.missing_cells(sample.column(column))
    condition = dict(imputation.schema.design.universe).get(column)
    if condition is not None:
        seen &= asked(_without(sample, column), condition, column)
    own = np.flatnonzero(seen)
    own = own[np.argsort(words[own], kind="stable")]
    many = min(n_rows, len(own) // 2 if imputation.donors is not None else len(own))
    if not many:
        raise DataError(
            f"column {column!r} has too few observed cells in the sample: leave it out of the overimputation"
        )
    chosen = np.sort(own[:many])
    return chosen, np.setdiff1d(np.arange(sample.num_rows), chosen)


def _without(table: pa.Table, column: str) -> pa.Table:
    """The table with a column emptied."""
    index = table.column_names.index(column)
    return table.set_column(index, column, pa.nulls(table.num_rows, table.schema.field(index).type))


def _draws(model: ImputationModel, hidden: pa.Table, column: str, words: Words) -> NDArray[np.float64]:
    """(draws, n) values of the hidden cells, from every replicate alike."""
    repeats = -(-N_DRAWS // len(model.replicates))
    table = pa.concat_tables([hidden] * repeats)
    keys = np.concatenate([mix(words, repeat) for repeat in range(repeats)])
    drawn = [model.draw(table, keys, r)[column].values.astype(np.float64) for r in range(len(model.replicates))]
    return np.concatenate(drawn).reshape(-1, hidden.num_rows)


def _levels(
    model: ImputationModel, rows: pa.Table, hidden: pa.Table, column: str, weight: NDArray[np.float64]
) -> pd.DataFrame:
    levels, probabilities = model.probabilities(hidden, column)
    place = {level: i for i, level in enumerate(levels)}
    codes = np.array([place.get(value, -1) for value in col.category(rows, column).to_pylist()])
    best = probabilities.argmax(axis=1)
    given = np.where(codes >= 0, probabilities[np.arange(len(codes)), codes], 0.0)
    return pd.DataFrame(
        {
            "observed": [None if code < 0 else levels[code] for code in codes],
            "expected": [levels[code] for code in best],
            "probability": given,
            "highest": probabilities[np.arange(len(best)), best],
            "inside": codes == best,
            "weight": weight,
        }
    )


def _share(values: Any, weight: Any) -> float:
    return float(np.average(values.to_numpy(dtype=float), weights=weight.to_numpy(dtype=float)))

"""What can be seen of an imputation: what was missing, how imputed cells are spread beside observed ones, how the fit went.

Everything here is a count over rows, gathered piece by piece with +; no row is kept. Classes of numbers are fixed before the first piece is read, from the sample of the
profile, so that the counts of any two pieces fit together. Missing cells are counted in `missingness`, observed cells hidden and imputed again
in `overimputation`; both can be had from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.data import columns as col
from dask_em.data.keys import row_keys
from dask_em.data.reading import prepared
from dask_em.data.schema import Level
from dask_em.data.sources import Source
from dask_em.disclosure import SMALLEST
from dask_em.execution.base import Executor
from dask_em.fitting import profile_source
from dask_em.imputation.missingness import Missingness
from dask_em.imputation.model import Cells, ImputationModel
from dask_em.imputation.overimputation import OverimputedLevels, OverimputedNumbers, overimpute
from dask_em.randomness import Words

__all__ = [
    "Bins",
    "Diagnosis",
    "Distributions",
    "Missingness",
    "OverimputedLevels",
    "OverimputedNumbers",
    "bins_of",
    "convergence",
    "diagnose",
    "overimpute",
    "sample_of",
]

N_BINS = 40
"""Classes of a number: enough to see a second peak, few enough for a few hundred imputed cells."""

N_DRAWS = 5
"""Draws whose imputed cells are counted: the shape needs no more."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """The classes in which a column is counted: its levels, or intervals on the scale of the model with an open one at each end.

    Attributes
    ----------
    column : name
    levels : of a categorical or ordered column
    edges : of a number, ascending; cells beyond the ends are counted in the open intervals
    transform : of a number, None where the scale of the model is the table's
    ordered : False for unordered categories
    """

    column: str
    levels: tuple[Level, ...] = ()
    edges: tuple[float, ...] = ()
    transform: str | None = None
    ordered: bool = True

    @property
    def size(self) -> int:
        return len(self.levels) or len(self.edges) + 1

    def count(self, values: NDArray[Any]) -> Counts:
        """(size,) how many of these values, in the table's units, fall into each class; missing ones into none."""
        if not self.levels:
            # Edges are taken back to the table's units rather than values to the model's: a drawn 0 has no logarithm.
            edges = col.undo(np.array(self.edges), self.transform)
            numbers = values.astype(np.float64)
            return np.bincount(
                np.searchsorted(edges, numbers[~np.isnan(numbers)], side="right"), minlength=self.size
            ).astype(np.int64)
        place = {level: i for i, level in enumerate(self.levels)}
        codes = [place[value] for value in values.tolist() if value in place]
        return np.bincount(np.array(codes, dtype=np.int64), minlength=self.size).astype(np.int64)

    def count_column(self, table: pa.Table) -> Counts:
        """(size,) of the cells of a table."""
        if not self.levels:
            return self.count(col.numeric(table, self.column))
        found = pc.value_counts(col.category(table, self.column))
        rows = dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist()))
        return np.array([rows.get(level, 0) for level in self.levels], dtype=np.int64)


def bins_of(imputation: ImputationModel, sample: pa.Table, smallest: int = SMALLEST) -> tuple[Bins, ...]:
    """The classes of every modelled column.

    Numbers have at most 40 of equal width on the scale of the model, from the 0.1 % to the 99.9 % quantile of the sample and a tenth of that beyond,
    because imputed cells may lie where few observed ones do; whole numbers have the same number of wholes in each.

    Parameters
    ----------
    sample : rows of the table, such as the profile's
    smallest : cells of the sample that lie beyond the quantiles at least, so that these are nobody's own
    """
    design = imputation.schema.design
    out = []
    for name in design.features:
        if name in design.categorical or design.levels(name) is not None:
            out.append(Bins(name, levels=imputation.levels(name), ordered=name not in design.categorical))
            continue
        how = design.transform(name)
        values, _ = col.transformed(col.numeric(sample, name), name, how)
        seen = values[~np.isnan(values)]
        beyond = min(max(0.001, smallest / max(len(seen), 1)), 0.25)
        low, high = np.quantile(seen, [beyond, 1 - beyond]) if len(seen) else (0.0, 1.0)
        whole = how is None and (name in imputation.integer or name not in design.gaussian)
        out.append(Bins(name, edges=tuple(_edges(float(low), float(high), whole)), transform=how))
    return tuple(out)


def _edges(low: float, high: float, whole: bool) -> list[float]:
    if whole:
        step = max(1.0, np.ceil((high - low + 1) / N_BINS))
        return np.arange(np.floor(low) - 0.5, high + step, step).tolist()
    margin = 0.1 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, N_BINS + 1).tolist()


@dataclass(frozen=True)
class Distributions:
    """Observed and imputed cells of every column by class; those of disjoint rows add up.

    Attributes
    ----------
    bins : the classes
    observed, imputed : for each column, (size,) cells; imputed ones over all draws
    n_draws : draws whose imputed cells were counted
    """

    bins: tuple[Bins, ...]
    observed: tuple[Counts, ...]
    imputed: tuple[Counts, ...]
    n_draws: int

    @staticmethod
    def of(
        table: pa.Table, keys: Words, imputation: ImputationModel, bins: tuple[Bins, ...], m: int = N_DRAWS
    ) -> Distributions:
        """Count some rows: what is observed, and what the first draws impute.

        Parameters
        ----------
        table : rows with the columns of the design
        keys : (n,) words that name the rows, as in `draw`
        bins : from `bins_of`
        m : draws, at most the replicates that were fitted; without replicates one draw under the fitted parameters
        """
        model = replace(imputation, replicates=imputation.replicates or (imputation.model.parameters,))
        known = prepared(table, model.schema.design)
        observed = tuple(own.count_column(known) for own in bins)
        imputed = tuple(np.zeros(own.size, dtype=np.int64) for own in bins)
        draws = min(m, len(model.replicates))
        for replicate in range(draws):
            cells: dict[str, Cells] = model.draw(table, keys, replicate)
            imputed = tuple(sums + own.count(cells[own.column].values) for sums, own in zip(imputed, bins))
        return Distributions(bins, observed, imputed, draws)

    def __add__(self, other: Distributions) -> Distributions:
        observed = tuple(a + b for a, b in zip(self.observed, other.observed))
        imputed = tuple(a + b for a, b in zip(self.imputed, other.imputed))
        return replace(self, observed=observed, imputed=imputed)

    def table(self) -> pd.DataFrame:
        """One row a column with imputed cells: observed cells, imputed cells of a draw, and the `distance` of their distributions.

        The distance is the largest difference of the cumulative shares (Kolmogorov and Smirnov's) by class, and for unordered categories half the sum of the
        differences of the shares. It is no error: cells that are missing at random may well differ from those observed.
        """
        rows = []
        for own, observed, imputed in zip(self.bins, self.observed, self.imputed):
            if imputed.any():
                difference = observed / max(observed.sum(), 1) - imputed / imputed.sum()
                distance = np.abs(np.cumsum(difference)).max() if own.ordered else 0.5 * np.abs(difference).sum()
                rows.append((own.column, int(observed.sum()), int(imputed.sum()) // self.n_draws, float(distance)))
        return pd.DataFrame(rows, columns=["column", "observed", "imputed", "distance"])

    def frame(self) -> pd.DataFrame:
        """One row a column and class, for the columns with imputed cells.

        Columns: column; level (text) or low and high (on the scale of the model, infinite at the ends) and transform; observed and imputed, cells.
        """
        rows: list[dict[str, Any]] = []
        for own, observed, imputed in zip(self.bins, self.observed, self.imputed):
            if imputed.any():
                ends = [-np.inf, *own.edges, np.inf]
                for i in range(own.size):
                    level = {"level": str(own.levels[i])} if own.levels else {"low": ends[i], "high": ends[i + 1]}
                    rows.append(
                        {
                            "column": own.column,
                            **level,
                            "transform": own.transform,
                            "observed": int(observed[i]),
                            "imputed": int(imputed[i]),
                        }
                    )
        return pd.DataFrame(rows, columns=["column", "level", "low", "high", "transform", "observed", "imputed"])


@dataclass(frozen=True)
class Diagnosis:
    """Both summaries of the same rows; those of disjoint rows add up."""

    missingness: Missingness
    distributions: Distributions

    def __add__(self, other: Diagnosis) -> Diagnosis:
        return Diagnosis(self.missingness + other.missingness, self.distributions + other.distributions)


def diagnose(
    source: Source,
    imputation: ImputationModel,
    sample: pa.Table,
    executor: Executor,
    m: int = N_DRAWS,
    smallest: int = SMALLEST,
) -> Diagnosis:
    """Gather both summaries in one pass over a table.

    Parameters
    ----------
    sample : rows that fix the classes of numbers, such as those of `sample_of` or of a profile
    m : draws whose imputed cells are counted, by default 5
    smallest : as in `bins_of`
    """
    return executor.reduce(source.pieces, partial(_diagnose, imputation, bins_of(imputation, sample, smallest), m))


def _diagnose(imputation: ImputationModel, bins: tuple[Bins, ...], m: int, i: int, piece: Any) -> Diagnosis:
    design = imputation.schema.design
    table = piece.read(tuple(dict.fromkeys((*design.columns, *imputation.key))))
    keys = row_keys(table, imputation.key, piece.origin)
    return Diagnosis(Missingness.of(table, design), Distributions.of(table, keys, imputation, bins, m))


def sample_of(source: Source, imputation: ImputationModel, executor: Executor) -> pa.Table:
    """At most 16,384 distinct rows of a table, in one pass: the profile's sample, for `bins_of` and `overimpute`."""
    return profile_source(source, imputation.schema.design, executor).sample


def convergence(imputer: Any) -> pd.DataFrame:
    """How EM went: one row an iteration (0 is the start) with log_likelihood, objective (with the prior) and gain, the last step's in the objective."""
    history = imputer.history_
    out = pd.DataFrame({"iteration": np.arange(len(history))})
    out["log_likelihood"] = history["log_likelihood"].to_numpy()
    out["objective"] = history["objective"].to_numpy()
    out["gain"] = out["objective"].diff()
    return out

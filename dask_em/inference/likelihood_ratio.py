"""The likelihood ratio of k against k + 1 components, by the parametric bootstrap.

    2 (log L_{k+1} - log L_k)   has no known distribution, for k components lie on the boundary of k + 1

so tables are drawn from the fitted k components, with the holes of the table, and both models are fitted to each of them (McLachlan 1987).
"""

from __future__ import annotations

import numbers
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from dask_em.data.columns import missing_cells
from dask_em.data.profile import MAX_PATTERNS, pattern_groups, weighted_rows
from dask_em.data.reading import read_rows
from dask_em.data.schema import Design
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.estimators.arguments import checked_number, seed_of
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.tables import opened, to_source
from dask_em.execution.choose import is_dask_frame, open_executor
from dask_em.families.base import Array
from dask_em.model import FittedMixture


@dataclass(frozen=True, eq=False)
class LikelihoodRatioTest:
    """k components against k + 1.

    Attributes
    ----------
    n_components : k
    statistic : 2 (log L_{k+1} - log L_k)
    pvalue : (1 + tables with a statistic at least as large) / (1 + tables); a small one speaks for k + 1
    replicates : (n_replicates,) statistics of tables drawn from k components
    redrawn : tables that could not be fitted, such as with too few cells in a column, and were drawn again
    """

    n_components: int
    statistic: float
    pvalue: float
    replicates: Array
    redrawn: int = 0


@dataclass(frozen=True)
class _Holes:
    """How much weight each pattern of observed columns has; adds up over pieces."""

    weight: dict[bytes, float]

    def __add__(self, other: _Holes) -> _Holes:
        total = dict(self.weight)
        for pattern, weight in other.weight.items():
            total[pattern] = total.get(pattern, 0.0) + weight
        if len(total) > MAX_PATTERNS:
            raise ConfigurationError(
                f"the table has more than {MAX_PATTERNS} patterns of missing cells, which cannot be drawn again: test on fewer columns"
            )
        return _Holes(total)


def k_against_k_plus_1(
    X: Any,
    estimator: Any,
    k: int,
    n_replicates: int = 99,
    *,
    sample_weight: Any = None,
    random_state: Any = None,
) -> LikelihoodRatioTest:
    """Test whether k components are enough.

    Parameters
    ----------
    X : table, as in `fit`
    estimator : a mixture, fitted or not; its settings count, but for n_components. Use n_init=5 or more: both models need their best optimum.
    k : int
    n_replicates : int, default 99
        Tables to draw: the smallest p-value is 1 / (n_replicates + 1). Each is as large as X and is fitted in this process.
    sample_weight : as in `fit`; so many rows
    random_state : int, numpy generator or None

    Returns
    -------
    LikelihoodRatioTest

    Raises
    ------
    ConfigurationError
        The estimator starts from given values or labels, which say nothing of k + 1 components.
    DataError
        More tables than n_replicates were drawn that cannot be fitted.
    ConvergenceWarning
        (as a warning) so many tables could not be fitted and were drawn again.
    """
    k = checked_number("k", k, numbers.Integral)
    n_replicates = checked_number("n_replicates", n_replicates, numbers.Integral)
    if k < 1 or n_replicates < 1:
        raise ConfigurationError("k and n_replicates must be at least 1")
    if not isinstance(estimator, BaseMixture):
        raise ConfigurationError("estimator must be a mixture, such as GaussianMixture(1)")
    twin = clone(estimator)
    if twin._has_given() or twin._labels() is not None:
        raise ConfigurationError(
            "an estimator that starts from given values or labels cannot be fitted with k + 1 components: leave them out"
        )
    rng = np.random.default_rng(seed_of(random_state))
    table = opened(X)
    twin.set_params(n_components=k, random_state=int(rng.integers(2**31)))
    found = twin.fit_candidates(table, [k, k + 1], sample_weight=sample_weight)
    null = found.fitted(found.best(k))
    holes = _holes(twin, table, null.schema.design, sample_weight)
    n = max(round(found.profile.weight), 1)
    statistic = _statistic(found, k)
    replicates: list[float] = []
    redrawn = 0
    while len(replicates) < n_replicates:
        again = clone(twin).set_params(executor="local", random_state=int(rng.integers(2**31)))
        drawn = draw(null, n, holes, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                replicates.append(_statistic(again.fit_candidates(drawn, [k, k + 1]), k))
            except DataError:
                redrawn += 1
        if redrawn > n_replicates:
            raise DataError(
                f"of {redrawn + len(replicates)} tables that were drawn from {k} component(s) {redrawn} cannot be fitted: leave out columns with few cells"
            )
    if redrawn:
        warnings.warn(
            f"{redrawn} drawn tables could not be fitted and were drawn again", ConvergenceWarning, stacklevel=2
        )
    reached = sum(r >= statistic for r in replicates)
    return LikelihoodRatioTest(k, statistic, (1 + reached) / (1 + n_replicates), np.array(replicates), redrawn)


def _statistic(found: Any, k: int) -> float:
    """The ratio; 0 where k + 1 components collapsed or found nothing better."""
    if k + 1 not in found.sizes or k not in found.sizes:
        return 0.0
    small, large = (found.best(size).log_likelihoods[-1] for size in (k, k + 1))
    return max(2.0 * float(large - small), 0.0)


def _holes(estimator: Any, table: Any, design: Design, sample_weight: Any) -> dict[bytes, float]:
    columns = (*design.columns, sample_weight) if isinstance(sample_weight, str) else design.columns
    source, weight, _ = to_source(table, columns, sample_weight, None)
    own = replace(design, weight=weight)
    with open_executor(estimator.executor, lazy_table=is_dask_frame(table)) as executor:
        total: _Holes = executor.reduce(source.pieces, partial(_holes_of, own))
    return total.weight


def _holes_of(design: Design, i: int, piece: Any) -> _Holes:
    kept, weight = weighted_rows(read_rows(piece, design), design)
    seen = np.stack([~missing_cells(kept.column(name)) for name in design.features])
    patterns, which = pattern_groups(seen)
    totals = np.bincount(which, weights=weight, minlength=len(patterns))
    return _Holes({p.tobytes(): float(w) for p, w in zip(patterns, totals)})


def draw(model: FittedMixture, n: int, holes: dict[bytes, float], rng: np.random.Generator) -> pd.DataFrame:
    """Draw n rows of a mixture with holes of these patterns, which do not depend on what is missing."""
    columns, _ = model.sample(n, rng)
    frame = pd.DataFrame(columns)
    features = model.schema.design.features
    patterns = np.array([np.frombuffer(p, dtype=bool) for p in sorted(holes)])
    shares = np.array([holes[p] for p in sorted(holes)])
    seen = patterns[rng.choice(len(patterns), size=n, p=shares / shares.sum())]
    for j, name in enumerate(features):
        if not seen[:, j].all():
            frame[name] = frame[name].where(seen[:, j], None if frame[name].dtype == object else np.nan)
    return frame

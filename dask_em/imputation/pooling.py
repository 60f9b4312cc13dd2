"""Rubin's rules: one estimate and its uncertainty from the m estimates of m completed tables.

    within  W = mean of the variances          between  B = variance of the estimates (divisor m - 1)
    total   T = W + (1 + 1/m) B                r = (1 + 1/m) B / W

Scalars follow Rubin (1987) and Barnard and Rubin (1999), tests of several coefficients Li, Raghunathan and Rubin (1991). Nothing here knows how the tables came about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from dask_em.errors import ConfigurationError, DataError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WaldTest:
    """A test of several coefficients at once: the F statistic, its degrees of freedom and p-value."""

    statistic: float
    df1: int
    df2: float
    pvalue: float


@dataclass(frozen=True, eq=False)
class Pooled:
    """Pooled estimates: floats for a scalar, (p,) arrays for a vector.

    Attributes
    ----------
    m : number of replicates
    estimate : mean of the estimates
    within, between, total : variances; (p, p) where covariance matrices were given
    r : relative increase in variance due to nonresponse
    df : degrees of freedom of the t distribution
    fmi : fraction of missing information
    names : names of the coefficients, where they had any
    """

    m: int
    estimate: Any
    within: Any
    between: Any
    total: Any
    r: Any
    df: Any
    fmi: Any
    names: tuple[Any, ...] | None = None

    @property
    def standard_error(self) -> Any:
        """Square root of the total variance, (p,) or a float."""
        return np.sqrt(_variances(self.total, self.estimate))

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """The interval (low, high) that covers the quantity with this probability, for each coefficient by itself."""
        if not 0 < level < 1:
            raise ConfigurationError("level must be between 0 and 1, such as 0.95")
        reach = stats.t.ppf(0.5 + level / 2, self.df) * self.standard_error
        return self.estimate - reach, self.estimate + reach

    def test(self, hypothesis: Any = 0.0) -> WaldTest:
        """Test that all coefficients equal `hypothesis` (D1).

        Raises
        ------
        ConfigurationError
            Several coefficients were pooled without their covariance matrices.
        """
        difference = np.atleast_1d(np.asarray(self.estimate, dtype=np.float64) - hypothesis)
        p = len(difference)
        if p == 1:
            statistic = float((difference / np.atleast_1d(self.standard_error))[0] ** 2)
            df = float(np.atleast_1d(self.df)[0])
            return WaldTest(statistic, 1, df, float(stats.f.sf(statistic, 1, df)))
        if np.ndim(self.within) != 2:
            raise ConfigurationError(
                "a test of several coefficients needs their covariance matrices: pool (m, p, p) variances"
            )
        scatter = np.linalg.solve(self.within, self.between)
        r = (1 + 1 / self.m) * float(np.trace(scatter)) / p
        statistic = float(difference @ np.linalg.solve(self.within, difference)) / (p * (1 + r))
        t = p * (self.m - 1)
        if r == 0:
            df2 = np.inf
        elif t > 4:
            df2 = 4 + (t - 4) * (1 + (1 - 2 / t) / r) ** 2
        else:
            df2 = t * (1 + 1 / p) * (1 + 1 / r) ** 2 / 2
        return WaldTest(statistic, p, df2, float(stats.f.sf(statistic, p, df2)))

    def table(self, level: float = 0.95) -> Any:
        """A DataFrame with a row for each coefficient: estimate, standard_error, df, pvalue (that it is 0), low, high, fmi."""
        import pandas as pd

        estimate, error = np.atleast_1d(self.estimate), np.atleast_1d(self.standard_error)
        low, high = self.interval(level)
        with np.errstate(divide="ignore", invalid="ignore"):
            pvalue = 2 * stats.t.sf(np.abs(estimate) / error, np.atleast_1d(self.df))
        columns = {"estimate": estimate, "standard_error": error, "df": np.atleast_1d(self.df), "pvalue": pvalue}
        columns |= {"low": np.atleast_1d(low), "high": np.atleast_1d(high), "fmi": np.atleast_1d(self.fmi)}
        return pd.DataFrame(columns, index=None if self.names is None else list(self.names))


def pool(estimates: Any, variances: Any, *, n: float | None = None, k: float | None = None) -> Pooled:
    """Pool the estimates of m completed tables.

    Parameters
    ----------
    estimates : (m,) for a scalar, (m, p) for p coefficients; a DataFrame keeps the names of its columns
    variances : (m,) squared standard errors, (m, p), or (m, p, p) covariance matrices
    n, k : rows of the complete table and estimated parameters
        They bound the degrees of freedom by what the complete table would give, n - k (Barnard and Rubin 1999). By default the table counts as large.

    Returns
    -------
    Pooled

    Raises
    ------
    ConfigurationError
        Fewer than two replicates, or shapes that do not fit.
    DataError
        Estimates or variances that are not finite, negative variances, or covariance matrices that are not symmetric.
    """
    names = tuple(estimates.columns) if hasattr(estimates, "columns") else None
    q, u = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    _check(q, u)
    m = len(q)
    estimate = q.mean(axis=0)
    within = u.mean(axis=0)
    between = np.cov(q, rowvar=False, ddof=1) if u.ndim == 3 else q.var(axis=0, ddof=1)
    between = np.reshape(between, within.shape)
    total = within + (1 + 1 / m) * between
    w, b = _variances(within, estimate), _variances(between, estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(b > 0, (1 + 1 / m) * b / w, 0.0)
        df = np.where(r > 0, (m - 1) * (1 + 1 / r) ** 2, np.inf)
        if n is not None:
            complete = n - (1 if k is None else k)
            if not complete > 0:
                raise ConfigurationError("n, the rows of the table, must be above k, the number of parameters")
            share = np.where(np.isinf(r), 1.0, r / (r + 1))
            observed = (complete + 1) / (complete + 3) * complete * (1 - share)
            df = np.where(observed > 0, 1 / (1 / df + 1 / np.where(observed > 0, observed, 1.0)), 0.0)
        fmi = np.where(np.isinf(r), 1.0, np.where(r > 0, (r + 2 / (df + 3)) / (r + 1), 0.0))
    if q.ndim == 1:
        return Pooled(m, float(estimate), float(within), float(between), float(total), float(r), float(df), float(fmi))
    return Pooled(m, estimate, within, between, total, r, df, fmi, names)


def n_replicates_needed(fmi: float, cv: float = 0.05, *, pilot: int | None = None) -> int:
    """How many replicates make the standard error itself repeatable (von Hippel 2020).

    Parameters
    ----------
    fmi : fraction of missing information of the estimate
    cv : wanted coefficient of variation of the standard error over repetitions of the imputation
    pilot : replicates from which fmi was estimated; its upper 95 % limit is then used, as a pilot's fmi is uncertain

    Returns
    -------
    m : 1 + (fmi / cv)² / 2, rounded up, at least 2
    """
    if not (0 <= fmi <= 1 and cv > 0):
        raise ConfigurationError("fmi must be from 0 to 1, and cv above 0")
    if pilot is not None and 0 < fmi < 1:
        fmi = float(expit(logit(fmi) + 1.959963984540054 * np.sqrt(2 / pilot)))
    return max(2, int(np.ceil(1 + 0.5 * (fmi / cv) ** 2)))


def _variances(matrix: Any, estimate: Any) -> Any:
    """The diagonal of a covariance matrix; variances as they are."""
    return np.diagonal(matrix) if np.ndim(matrix) == 2 and np.ndim(estimate) == 1 else matrix


def _check(q: Array, u: Array) -> None:
    if q.ndim not in (1, 2) or len(q) < 2:
        raise ConfigurationError("pooling needs the estimates of at least 2 replicates, as (m,) or (m, p)")
    fits = u.shape == q.shape or (q.ndim == 2 and u.shape == (*q.shape, q.shape[1]))
    if not fits:
        raise ConfigurationError(
            f"variances of the shape {u.shape} do not fit estimates of the shape {q.shape}: give one variance an estimate, or (p, p) matrices"
        )
    if not (np.isfinite(q).all() and np.isfinite(u).all()):
        raise DataError("estimates and variances must be finite: drop or repeat the replicates that failed")
    own = np.diagonal(u, axis1=1, axis2=2) if u.ndim == 3 else u
    if (own < 0).any():
        raise DataError("variances must not be negative: give squared standard errors")
    if u.ndim == 3 and not np.allclose(u, np.swapaxes(u, 1, 2), rtol=1e-8, atol=0):
        raise DataError("covariance matrices must be symmetric")

"""Rubin's rules: one estimate and its uncertainty from the m estimates of m completed tables.

    within  W = mean of the variances          between  B = variance of the estimates (divisor m - 1)
    total   T = W + (1 + 1/m) B                r = (1 + 1/m) B / W

Scalars follow Rubin (1987) and Barnard and Rubin (1999), tests of several coefficients Li, Raghunathan and Rubin (1991) and Reiter (2007).
Nothing here knows how the tables came about.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from dask_em.errors import ConfigurationError, DataError

Array = NDArray[np.float64]

SYMMETRY = 1e-8
"""Two mirrored covariances may differ by this share of the standard errors' product: rounding, where they are nearly zero."""


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
    complete_df : degrees of freedom n - k of a table without holes; infinite where n was not given
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
    complete_df: float = np.inf

    @property
    def standard_error(self) -> Any:
        """Square root of the total variance, (p,) or a float."""
        return np.sqrt(_variances(self.total, self.estimate))

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """The interval (low, high) that covers the quantity with this probability, for each coefficient by itself."""
        if not 0 < _number("level", level) < 1:
            raise ConfigurationError("level must be between 0 and 1, such as 0.95")
        # Without degrees of freedom (all variance is between, in a small table) nothing is known: the limit of the t quantile.
        quantile = np.where(np.equal(self.df, 0), np.inf, stats.t.ppf(0.5 + level / 2, self.df))
        reach = np.multiply(quantile, self.standard_error)
        return self.estimate - reach, self.estimate + reach

    def test(self, hypothesis: Any = 0.0) -> WaldTest:
        """Test that all coefficients equal `hypothesis` (D1): for one coefficient the squared t.

        Parameters
        ----------
        hypothesis : float or (p,)

        Returns
        -------
        WaldTest
            The statistic and, in large tables, df2 of Li, Raghunathan and Rubin (1991, JASA 86, 1065-1073), who take the share of missing
            information as equal for all coefficients; with n, df2 of Reiter (2007, Biometrika 94, 502-508).

        Raises
        ------
        ConfigurationError
            Several coefficients were pooled without their covariance matrices, or `hypothesis` does not have their shape.
        DataError
            A variance is zero, or coefficients depend on each other linearly.
        """
        estimate, target = np.atleast_1d(self.estimate), _numbers(hypothesis, "the hypothesis")
        p = len(estimate)
        if target.shape not in ((), (p,)):
            raise ConfigurationError(f"the hypothesis has the shape {target.shape}: give one number or {p}")
        difference = estimate - target
        if p == 1:
            return self._test_one(float(difference[0]))
        if np.ndim(self.within) != 2:
            raise ConfigurationError("a test of several coefficients needs (m, p, p) covariance matrices: pool these")
        scale = np.sqrt(np.diagonal(self.within))
        root = _root(self.within, scale)
        z = np.linalg.solve(root, difference / scale)
        half = np.linalg.solve(root, self.between / np.outer(scale, scale))
        r = (1 + 1 / self.m) * max(float(np.trace(np.linalg.solve(root, half.T))), 0.0) / p
        statistic = float(z @ z) / (p * (1 + r))
        df2 = _wald_df(r, p, self.m, self.complete_df)
        # SciPy's F distribution has no limit at infinitely many degrees of freedom.
        pvalue = stats.chi2.sf(p * statistic, p) if np.isinf(df2) else stats.f.sf(statistic, p, df2)
        return WaldTest(statistic, p, df2, float(pvalue))

    def _test_one(self, difference: float) -> WaldTest:
        if not np.all(self.standard_error):
            raise DataError("a coefficient without variance cannot be tested: give its squared standard errors")
        t, df = difference / np.ravel(self.standard_error)[0], np.ravel(self.df)[0]
        return WaldTest(float(t * t), 1, float(df), float(_tails(t, df)))

    def table(self, level: float = 0.95) -> Any:
        """A DataFrame with a row for each coefficient: estimate, standard_error, df, pvalue (that it is 0), low, high, fmi."""
        import pandas as pd

        estimate, error, df = (np.atleast_1d(x) for x in (self.estimate, self.standard_error, self.df))
        low, high = self.interval(level)
        with np.errstate(divide="ignore", invalid="ignore"):
            pvalue = _tails(estimate / error, df)
        columns = {"estimate": estimate, "standard_error": error, "df": df, "pvalue": pvalue}
        columns |= {"low": np.atleast_1d(low), "high": np.atleast_1d(high), "fmi": np.atleast_1d(self.fmi)}
        return pd.DataFrame(columns, index=None if self.names is None else list(self.names))


def pool(estimates: Any, variances: Any, *, n: float | None = None, k: float | None = None) -> Pooled:
    """Pool the estimates of m completed tables.

    Parameters
    ----------
    estimates : (m,) for a scalar, (m, p) for p coefficients
        A DataFrame, or a list of Series as regression libraries give, keeps the names of its coefficients; a Series keeps its own.
    variances : (m,) squared standard errors, (m, p), or (m, p, p) covariance matrices
    n, k : rows of the complete table and estimated parameters (by default 1)
        They bound the degrees of freedom by what the complete table would give, n - k (Barnard and Rubin 1999). Without n the table counts as
        large (Rubin 1987).

    Returns
    -------
    Pooled
        Where the replicates agree exactly, r and fmi are 0, and df is what the complete table gives.

    Raises
    ------
    ConfigurationError
        Fewer than two replicates, or shapes or names that do not fit.
    DataError
        Estimates or variances that are not finite, negative variances, or covariance matrices that are not symmetric.
    """
    q, u = _numbers(estimates, "estimates"), _numbers(variances, "variances")
    _check(q, u)
    m = len(q)
    estimate, within = q.mean(axis=0), u.mean(axis=0)
    between = np.cov(q, rowvar=False, ddof=1) if u.ndim == 3 else q.var(axis=0, ddof=1)
    between = np.reshape(between, within.shape)
    total = within + (1 + 1 / m) * between
    w, b = _variances(within, estimate), _variances(between, estimate)
    complete = _complete_df(n, k)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        r = np.where(b > 0, (1 + 1 / m) * b / w, 0.0)
        df = np.where(r > 0, (m - 1) * (1 + 1 / r) ** 2, np.inf)
        if np.isfinite(complete):
            df = 1 / (1 / df + (1 + r) / _observed_df(complete))
        fmi = np.where(np.isinf(r), 1.0, np.where(r > 0, (r + 2 / (df + 3)) / (r + 1), 0.0))
    if q.ndim == 1:
        one = None if getattr(estimates, "name", None) is None else (estimates.name,)
        own = (float(estimate), float(within), float(between), float(total), float(r), float(df), float(fmi))
        return Pooled(m, *own, one, complete)
    return Pooled(m, estimate, within, between, total, r, df, fmi, _common_names(estimates, variances), complete)


def n_replicates_needed(fmi: float, cv: float = 0.05, *, pilot: int | None = None) -> int:
    """How many replicates make the standard error itself repeatable.

    Parameters
    ----------
    fmi : fraction of missing information of the estimate
    cv : wanted coefficient of variation of the standard error over repetitions of the imputation
        By default 5 %: the second digit of a standard error is then seldom another.
    pilot : replicates from which fmi was estimated
        Its upper 95 % limit, logit(fmi) + 1.96 sqrt(2 / pilot), is then used, as a pilot's fmi is uncertain.

    Returns
    -------
    m : 1 + (fmi / cv)² / 2, rounded up, at least 2 (von Hippel 2020, Sociological Methods & Research 49, 699-718)
    """
    if not (0 <= _number("fmi", fmi) <= 1 and _number("cv", cv) > 0):
        raise ConfigurationError("fmi must be from 0 to 1, and cv above 0")
    if pilot is not None and not _number("pilot", pilot) >= 2:
        raise ConfigurationError("pilot, the replicates behind fmi, must be at least 2")
    if pilot is not None:
        fmi = float(expit(logit(fmi) + stats.norm.ppf(0.975) * np.sqrt(2 / pilot)))
    return max(2, int(np.ceil(1 + 0.5 * (fmi / cv) ** 2)))


def _complete_df(n: float | None, k: float | None) -> float:
    complete = np.inf if n is None else _number("n", n) - (1 if k is None else _number("k", k))
    if not complete > 0:
        raise ConfigurationError("n, the rows of the table, must be above k, the number of parameters")
    return complete


def _observed_df(complete: float) -> float:
    """What Barnard and Rubin leave of the complete table's degrees of freedom, before any loss to missing cells."""
    return complete * (1 - 2 / (complete + 3))


def _wald_df(r: float, p: int, m: int, complete: float) -> float:
    """Denominator of the F distribution of D1."""
    t, observed = p * (m - 1), _observed_df(complete)
    if t <= 4 or np.isinf(complete):
        with np.errstate(divide="ignore", over="ignore"):
            x = 1 / np.float64(r)
            large = t * (1 + 1 / p) * (1 + x) ** 2 / 2 if t <= 4 else 4 + (t - 4) * (1 + (1 - 2 / t) * x) ** 2
        # Reiter has no answer for t <= 4; a table without holes bounds the degrees of freedom all the same.
        return min(float(large), observed)
    a = r * t / (t - 2)
    c1, c2 = observed - 2 * (1 + a), observed - 4 * (1 + a)
    if c2 <= 0:
        # Beyond the range of Reiter's expansion, whose value at its end, c2 = 0, is 4.
        return min(4.0, observed)
    share = a / (1 + a)
    spread = share**2 * c1 + 8 * a * share * c1 / c2 + 4 * a * share + 4 * a**2 / c1 + 16 * a**2 * c1 / c2**2
    return 4 + c2 / (1 + (spread + 8 * a**2 / c2) / (t - 4))


def _tails(t: Any, df: Any) -> Any:
    """Probability of a larger |t|; 1 in the limit of no degrees of freedom."""
    return np.where(np.equal(df, 0), 1.0, 2 * stats.t.sf(np.abs(t), df))


def _root(within: Array, scale: Array) -> Any:
    """Cholesky factor of the correlations within, in whose units every coefficient counts alike."""
    try:
        root = np.linalg.cholesky(within / np.outer(scale, scale)) if scale.all() else np.zeros_like(within)
    except np.linalg.LinAlgError:
        root = np.zeros_like(within)
    if np.diagonal(root).min() ** 2 < 10 * len(scale) * np.finfo(np.float64).eps:
        raise DataError("the covariance matrices are singular: leave out coefficients that follow from the others")
    return root


def _variances(matrix: Any, estimate: Any) -> Any:
    """The diagonal of a covariance matrix; variances as they are."""
    return np.diagonal(matrix) if np.ndim(matrix) == 2 and np.ndim(estimate) == 1 else matrix


def _numbers(values: Any, what: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{what} must be numbers, equally many in every replicate") from None


def _number(what: str, value: Any) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ConfigurationError(f"{what} must be a number")
    return float(value)


def _names(values: Any) -> tuple[Any, ...] | None:
    """Names of the coefficients, the same in all replicates, if they have any."""
    if hasattr(values, "columns"):
        return tuple(values.columns)
    rows = values if isinstance(values, (list, tuple)) else ()
    found = {tuple(getattr(row, "columns", row.index)) for row in rows if hasattr(row, "iloc")}
    if len(found) > 1:
        raise ConfigurationError("the replicates name their coefficients differently: give all in the same order")
    return found.pop() if found else None


def _common_names(estimates: Any, variances: Any) -> tuple[Any, ...] | None:
    names, others = _names(estimates), _names(variances)
    if names is not None and others is not None and names != others:
        raise ConfigurationError("estimates and variances name other coefficients: give both in the same order")
    return names if names is not None else others


def _check(q: Array, u: Array) -> None:
    if q.ndim not in (1, 2) or len(q) < 2 or not q.size:
        raise ConfigurationError("pooling needs the estimates of at least 2 replicates, as (m,) or (m, p)")
    if u.shape != q.shape and (q.ndim == 1 or u.shape != (*q.shape, q.shape[1])):
        raise ConfigurationError(
            f"variances of the shape {u.shape} do not fit estimates of the shape {q.shape}: give one variance an estimate, or (p, p) matrices"
        )
    if not (np.isfinite(q).all() and np.isfinite(u).all()):
        raise DataError("estimates and variances must be finite: drop or repeat the replicates that failed")
    own = np.diagonal(u, axis1=1, axis2=2) if u.ndim == 3 else u
    if (own < 0).any():
        raise DataError("variances must not be negative: give squared standard errors")
    if u.ndim == 3:
        error = np.sqrt(own)
        if (np.abs(u - np.swapaxes(u, 1, 2)) > SYMMETRY * error[:, :, None] * error[:, None, :]).any():
            raise DataError("covariance matrices must be symmetric: give each as (p, p), not its triangle")

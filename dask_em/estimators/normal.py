"""The multivariate normal on columns with holes."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2
from sklearn.utils.validation import check_is_fitted

from dask_em import normal_fitting
from dask_em.data.schema import Design
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.arguments import checked_number
from dask_em.estimators.estimator import Estimator
from dask_em.estimators.tables import column_names, has_names, to_source
from dask_em.execution.choose import is_dask_frame, open_executor
from dask_em.model import FittedMixture
from dask_em.normal import information, little_statistic
from dask_em.normal_fitting import NormalFit


@dataclass(frozen=True)
class Moments:
    """One number for each mean, (d,), and for each covariance, (d, d)."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


@dataclass(frozen=True)
class LittleTest:
    """Little's test: the statistic, its degrees of freedom and its p-value."""

    statistic: float
    df: int
    pvalue: float


class MultivariateNormal(Estimator):
    """Mean and covariance of numeric columns by maximum likelihood, using every observed cell.

    Parameters
    ----------
    prior : "weak", None, Ridge(df) or InverseWishart(df, scale), default "weak"
        "weak" is one pseudo-row of uncorrelated columns, which keeps the covariance invertible and moves nothing that
        has data; None is exact maximum likelihood.
    tol : float, default 1e-8
        EM stops when the last gain in log-likelihood and the predicted remaining one, both per row, are at most this.
        Iterations run on sums in memory, so a strict rule costs little.
    max_iter : int, default 10000
    executor : None, "local", "dask", a distributed Client or the address of a scheduler

    Attributes
    ----------
    mean_ : (d,); covariance_ : (d, d), divisor n
    log_likelihood_ : float
        Of the observed cells under the reported parameters, weighted, with the 2 pi.
    n_iter_, converged_, n_scans_ : EM steps, whether the stopping rule was met, passes over the table
    n_patterns_ : int
        Missingness patterns, the complete one included; patterns_ lists them with their rows and weights.
    standard_errors_, fraction_missing_information_ : records with .mean (d,) and .covariance (d, d)
        From the exact observed information, and 1 - V_complete / V_observed.
    worst_fraction_missing_ : float
        The largest fraction of missing information of any combination of parameters: the rate of convergence of EM.
    history_ : DataFrame of the log-likelihood and objective after every step
    feature_names_in_, n_features_in_, n_rows_, sum_of_weights_

    Notes
    -----
    The table is read once: per missingness pattern the sums of weights, cells and their products suffice for every EM step (Little and Rubin 2020,
    section 11.2). Where these sums would need more than 128 MB, rows are scanned in every step, with the same result.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import MultivariateNormal
    >>> X = np.array([[1.0, 2.0], [2.0, 4.1], [3.0, np.nan], [4.0, 7.9]])
    >>> MultivariateNormal(prior=None).fit(X).mean_.round(2).tolist()
    [2.5, 4.98]
    """

    def __init__(self, *, prior: Any = "weak", tol: float = 1e-8, max_iter: int = 10000, executor: Any = None) -> None:
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.executor = executor

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MultivariateNormal:
        """Fit by EM.

        Parameters
        ----------
        X : table of n rows and d numeric columns, or a path or URL of one
            NaN, None and nulls are missing.
        y : ignored
        sample_weight : (n,) array, Dask series, or name of a column, optional
            As if rows were repeated that often.

        Raises
        ------
        DataError
            The table cannot carry the model, or prior=None was asked for a likelihood that has no maximum.
        """
        names = column_names(X)
        if not names:
            raise ConfigurationError(
                f"the table has 0 feature(s) (shape=({len(X)}, 0)) while a minimum of 1 is required: add columns"
            )
        if isinstance(sample_weight, str):
            names = tuple(n for n in names if n != sample_weight)
        tol = checked_number("tol", self.tol, numbers.Real)
        max_iter = checked_number("max_iter", self.max_iter, numbers.Integral)
        columns = (*names, sample_weight) if isinstance(sample_weight, str) else names
        source, weight, _ = to_source(X, columns, sample_weight, None)
        design = replace(Design(gaussian=names), weight=weight)
        with open_executor(self.executor, lazy_table=is_dask_frame(X)) as executor:
            found = normal_fitting.fit(source, design, self.prior, tol, max_iter, executor)
        self._keep_names(names, named=has_names(X))
        self._adopt(found)
        return self

    def _adopt(self, found: NormalFit) -> None:
        self.fit_ = found
        self.__dict__.pop("_information", None)
        model, best = found.fitted(found.best), found.best
        self._publish(model)
        self.log_likelihood_ = best.log_likelihoods[-1]
        self.n_iter_ = best.n_iter
        self.converged_ = best.verdict.converged
        self.stopped_because_ = str(best.verdict)
        self.n_scans_ = found.n_scans
        self.n_rows_ = found.rows
        self.sum_of_weights_ = found.weight
        self.history_ = pd.DataFrame(
            {"log_likelihood": best.log_likelihoods, "objective": best.objectives}
        ).rename_axis("iteration")

    def _publish(self, model: FittedMixture) -> None:
        assert model.means is not None
        assert model.covariances is not None
        self.model_ = model
        self.mean_, self.covariance_ = model.means[0], model.covariances[0]

    @property
    def n_patterns_(self) -> int:
        """Missingness patterns of the table."""
        return len(self._sums.observed)

    @property
    def patterns_(self) -> pd.DataFrame:
        """The patterns: which columns are observed, and the rows and weight that have it (#rows and #weight beside columns of these names); most frequent first."""
        sums, names = self._sums, self.fit_.schema.design.gaussian
        found = {"rows": sums.rows, "weight": sums.weight[:, 0]}
        frame = pd.DataFrame(sums.observed, columns=list(names))
        frame = frame.assign(**{f"#{name}" if name in names else name: own for name, own in found.items()})
        return frame.iloc[np.argsort(-sums.rows, kind="stable")].reset_index(drop=True)

    @cached_property
    def _information(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Covariance matrices of the parameters, in the table's units: from what was observed, and had nothing been missing."""
        sums, found = self._sums, self.fit_
        own = information(sums, self.model_.parameters.parts[0], found.family)
        scale = np.asarray(found.schema.scale)
        i, j = np.triu_indices(len(scale))
        unit = np.concatenate([scale, scale[i] * scale[j]])
        try:
            inverses = [np.linalg.inv(one) for one in (own.observed, own.complete)]
        except np.linalg.LinAlgError:
            inverses = []
        if not inverses or not (np.diagonal(inverses[0]) > 0).all():
            raise DataError(
                "the observed information is singular: two columns are never observed together, so the table does not "
                "identify their covariance: use prior=Ridge(df)"
            )
        return inverses[0] * unit[:, None] * unit, inverses[1] * unit[:, None] * unit

    def _record(self, values: NDArray[np.float64]) -> Moments:
        d = self.n_features_in_
        covariance = np.empty((d, d))
        i, j = np.triu_indices(d)
        covariance[i, j] = covariance[j, i] = values[d:]
        return Moments(values[:d], covariance)

    @property
    def standard_errors_(self) -> Moments:
        """Standard errors from the observed information, of the likelihood and, where there is one, the prior."""
        return self._record(np.sqrt(np.diagonal(self._information[0])))

    @property
    def fraction_missing_information_(self) -> Moments:
        """Share of the information on each parameter that was lost with the missing cells."""
        observed, complete = self._information
        return self._record(1.0 - np.diagonal(complete) / np.diagonal(observed))

    @property
    def worst_fraction_missing_(self) -> float:
        """The largest eigenvalue of EM's rate matrix, 1 - I_complete⁻¹ I_observed (Dempster, Laird and Rubin 1977)."""
        observed, complete = self._information
        shares = np.linalg.eigvals(np.linalg.solve(observed, complete))
        return float(1.0 - shares.real.min())

    def little_mcar_test(self) -> LittleTest:
        """Test whether cells are missing completely at random (Little 1988), with the fitted covariance.

        A small p-value says that what is missing depends on what is observed: rows with holes must not be dropped.
        """
        statistic, df = little_statistic(self._sums, self.model_.parameters.parts[0])
        pvalue = float(chi2.sf(statistic, df)) if df > 0 else np.nan
        return LittleTest(statistic, df, pvalue)

    @property
    def _sums(self) -> Any:
        check_is_fitted(self)
        if not hasattr(self, "fit_"):
            raise ConfigurationError("a saved model keeps no sums by pattern, which this needs: fit it again")
        if self.fit_.sums is None:
            raise ConfigurationError(
                "this table has too many missingness patterns to keep their sums, which this needs: fit fewer columns"
            )
        return self.fit_.sums

    def summary(self, errors: Moments | None = None) -> str:
        """The fitted model in words and numbers, for a terminal: what was fitted, how it ended, the parameters, and what to beware of.

        Parameters
        ----------
        errors : `standard_errors_`, for 95 % intervals; by default they are given where they have been computed before

        Raises
        ------
        ConfigurationError
            The errors are no standard errors of these columns.
        """
        from dask_em.report.text import describe

        check_is_fitted(self)
        return describe(self, self._errors(errors))

    def _errors(self, given: Any) -> Any:
        from dask_em.inference.record import record_of

        d = self.n_features_in_
        if given is None:
            if "_information" not in self.__dict__:
                return None
            covariance = self._information[0]
        elif isinstance(given, Moments) and np.shape(given.mean) == (d,):
            covariance = np.diag(np.concatenate([given.mean, given.covariance[np.triu_indices(d)]]) ** 2)
        else:
            raise ConfigurationError("errors must be the standard_errors_ of this fit")
        # The mixing weight of one component is 1.
        return record_of(self.model_, "observed", np.pad(covariance, ((1, 0), (1, 0))))

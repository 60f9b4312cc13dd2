"""Filling holes in tables, with honest uncertainty."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dask_em import fitting, normal_fitting, specification
from dask_em.data.gather import Bootstrap
from dask_em.data.keys import KeySet, check_keys, row_keys
from dask_em.data.pins import pinned
from dask_em.data.profile import Profile, profile
from dask_em.data.reading import prepared, read_marked_rows
from dask_em.data.schema import Design, indicator
from dask_em.data.sources import Source, open_source
from dask_em.em.loop import Progress
from dask_em.em.stopping import Verdict
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.arguments import checked_number, seed_of
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.estimator import Estimator
from dask_em.estimators.imputer_arguments import (
    bounds_of,
    check_arguments,
    check_found,
    check_predictors,
    check_roles,
    key_columns,
    ordered_levels,
)
from dask_em.estimators.normal import MultivariateNormal
from dask_em.estimators.tables import column_names, has_names, to_source
from dask_em.execution.base import Executor
from dask_em.execution.choose import is_dask_frame, open_executor
from dask_em.imputation.collinear import warn_of_collinear
from dask_em.imputation.complete import complete_pandas
from dask_em.imputation.donors import make_donors
from dask_em.imputation.filling import (
    cells_of_piece,
    complete_frame,
    complete_piece,
    joined,
    probabilities_of_frame,
    probabilities_of_piece,
    statistic_of_draw,
    types_for,
)
from dask_em.imputation.model import ImputationModel
from dask_em.imputation.ordered import Probits, fit_probits
from dask_em.imputation.pooling import Pooled, pool
from dask_em.imputation.roles import Roles, roles_of

N_COMPONENTS = (1, 2, 3, 4, 5, 6)
"""Numbers of components among which BIC chooses where none is given."""


class Imputer(OneToOneFeatureMixin, TransformerMixin, Estimator):
    """Fill missing cells by what the observed ones say: their expected values, or draws for multiple imputation.

    Parameters
    ----------
    model : None, "normal", "mixture", or an unfitted estimator
        "normal" is a multivariate normal over numbers, yes/no and ordered columns (these are cut from a normal); it is fitted in one scan. "mixture" lets
        unordered categories, too, and shapes that are not normal. By default the first where it can be and no `n_components` are asked for, the second otherwise.
        An estimator (MixtureModel, GaussianMixture, LatentClassAnalysis, MultivariateNormal) is taken as it is.
    n_components : int, optional
        Components of the mixture; by default BIC chooses among 1 to 6, in the same scans.
    columns : sequence of names, optional
        What to model and fill; by default all columns but `key` and the weights whose type can be modelled. Others are handed through.
    key : name or names, optional
        Columns that name a row. Random numbers hang on it, so that a row draws the same wherever it stands; without it they hang on the row's position in
        a table in memory, on (file, row group, offset) in files, and on (partition, offset) in a Dask dataframe.
    ordered : mapping from a column to its levels in order, optional
        For columns whose type does not say so; ordered pandas categories need not be named. Yes/no coded as whole numbers is a number like any other, which
        draws -1 and 2 as well: `ordered={"y": (0, 1)}` keeps it at 0 and 1.
    predictors : names of unordered categories without holes, optional
        They help a normal to predict the other columns, as one indicator a level, and are not modelled themselves.
    transforms : mapping from a number to "log", "log1p" or "asinh", optional
    bounds : mapping from a number to (lowest, highest), None for no bound, optional
    integer : names of numbers that are whole although their type is not, optional
    universe : mapping from a column to a condition such as "age >= 20", optional
        Where it is false, or cannot be told, the question was not asked: the cell is kept out of the fit and is not filled.
    delta : mapping from a number or ordered column to a shift, optional
        Sensitivity analysis (not missing at random): added to what is expected of missing cells, on the scale of the model: after the transform
        (0.1 on the log is 10 per cent), and in standard deviations of the scores for ordered columns.
    method : "draw" or "donor", default "draw"
        Where drawn numbers come from: the model's distribution, or the observed rows with the nearest expected value (predictive mean matching), which
        keeps heaps and brackets.
    n_replicates : int, default 20
        Bootstrap replicates fitted beside the table, in the same scans: as many imputations can be drawn.
    unseen : "error" or "missing", default "error"
        What a level that the fitted table did not have means in new rows. Such a cell is kept in any case.
    prior, tol, max_iter, n_init : as in MultivariateNormal and MixtureModel; by default each model's own
    random_state : int, optional; executor : as in `MultivariateNormal`

    Attributes
    ----------
    imputation_ : what is sent to workers and saved
    roles_ : roles of the columns, and which were left alone, with the reason
    n_scans_, converged_, log_likelihood_, feature_names_in_, n_features_in_, n_rows_, n_distinct_, sum_of_weights_

    Notes
    -----
    Each replicate is the model fitted to a Poisson(1) bootstrap of the rows (Honaker and King 2010; Chamandy et al. 2012), so that draws carry the uncertainty of the
    parameters. Bounded cells of a row are drawn together from the truncated normal, never clipped. Columns keep their types: a value beyond the range of a narrow one
    (int8, decimal(3, 1)) becomes the nearest that it can hold, so give such a column `bounds`.

    Examples
    --------
    >>> import pandas as pd
    >>> from dask_em import Imputer
    >>> people = pd.DataFrame({"age": [25.0, 40, 61, 33, 52], "income": [21000.0, None, 50000, 30000, 43000]})
    >>> bool(Imputer(n_replicates=2, random_state=0).fit(people).transform(people)["income"].notna().all())
    True
    """

    def __init__(
        self,
        model: Any = None,
        *,
        n_components: int | None = None,
        columns: Sequence[str] | None = None,
        key: str | Sequence[str] | None = None,
        ordered: Mapping[str, Sequence[Any]] | None = None,
        predictors: Sequence[str] = (),
        transforms: Mapping[str, str] | None = None,
        bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
        integer: Sequence[str] = (),
        universe: Mapping[str, str] | None = None,
        delta: Mapping[str, float] | None = None,
        method: str = "draw",
        n_replicates: int = 20,
        unseen: str = "error",
        prior: Any = "weak",
        tol: float | None = None,
        max_iter: int = 10000,
        n_init: int = 5,
        random_state: Any = None,
        executor: Any = None,
    ) -> None:
        self.model = model
        self.n_components = n_components
        self.columns = columns
        self.key = key
        self.ordered = ordered
        self.predictors = predictors
        self.transforms = transforms
        self.bounds = bounds
        self.integer = integer
        self.universe = universe
        self.delta = delta
        self.method = method
        self.n_replicates = n_replicates
        self.unseen = unseen
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.executor = executor

    # ---- fitting ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Imputer:
        """Fit the model and its bootstrap replicates.

        Parameters
        ----------
        X : table of n rows, or a path or URL of one
        y : ignored
        sample_weight : (n,) array, Dask series, or name of a column, optional
        on_progress : called after every scan of a mixture

        Raises
        ------
        DataError, ConfigurationError
            In one sentence: what is wrong, where, and the remedy.
        """
        check_arguments(self)
        names = column_names(X)
        source, weight, _ = to_source(X, None, sample_weight, None)
        bootstrap = Bootstrap(self.n_replicates, seed_of(self.random_state), key_columns(self.key))
        check_predictors(self.predictors, self.columns, (weight, *bootstrap.key), source)
        wanted = self._wanted(names, weight)
        ordered = ordered_levels(self.ordered)
        with open_executor(self.executor, lazy_table=is_dask_frame(X)) as executor:
            roles = roles_of(source, wanted, ordered, executor)
            for name, why in roles.other if self.columns is not None else ():
                raise DataError(f"column {name!r} cannot be modelled ({why}): leave it out of columns")
            design = replace(self._design(roles, names), weight=weight)
            if self.predictors:
                design = self._with_predictors(design, roles, source, executor)
            design.check(source.columns, source.where)
            check_keys(source, bootstrap.key)
            seen: _Seen | None = None
            if source.pieces:
                seen = executor.reduce(source.pieces, partial(_look_at, design, bootstrap.key))
            if seen is not None:
                check_found(design, ordered, seen.profile)
            specification.check_table(None if seen is None else seen.profile, design, 1)
            assert seen is not None
            source = pinned(source, seen.profile.marks)
            if seen.keys is not None:
                seen.keys.check_unique(bootstrap.key)
            if not self._is_normal(roles):
                warn_of_collinear(design, seen.profile.sample, executor)
            self._fit(source, design, seen.profile, bootstrap, roles, executor, on_progress)
        self.profile_ = seen.profile
        self.roles_ = roles
        self._keep_names(names, named=has_names(X))
        self.n_rows_ = seen.profile.rows
        self.sum_of_weights_ = seen.profile.weight
        return self

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, then `transform` the same rows."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def _fit(
        self,
        source: Source,
        design: Design,
        found: Profile,
        bootstrap: Bootstrap,
        roles: Roles,
        executor: Executor,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        if self._is_normal(roles):
            own: Any = self.model if isinstance(self.model, MultivariateNormal) else self
            tol = 1e-8 if own.tol is None else own.tol
            schema = specification.make_schema(design, found)
            fit: Any = normal_fitting.fit(
                source, schema.design, own.prior, tol, own.max_iter, executor, schema=schema, bootstrap=bootstrap
            )
            best, replicates, n_scans = fit.best, fit.candidates[1:], 1 + fit.n_scans
            probits: tuple[Probits, ...] = ()
            if fit.schema.cuts:
                fitted = {i: c.parameters.parts[0] for i, c in enumerate(fit.candidates) if c.parameters is not None}
                sample = prepared(found.sample, fit.schema.design)
                probits = fit_probits(source, fit.schema, fitted, bootstrap, sample, executor)
                n_scans += 1
        else:
            settings, sizes = self._mixture_settings(bootstrap)
            fit = fitting.fit(source, design, settings, sizes, executor, on_progress, found)
            best, replicates, n_scans, probits = fit.smallest_bic(), fit.replicates, fit.n_scans, ()
        kept = tuple(c.parameters for c in replicates if c.parameters is not None)
        if self.n_replicates and len(kept) < 2:
            raise DataError("the model collapsed on the bootstrap replicates: use prior='weak', or fewer components")
        model = ImputationModel(
            fit.fitted(best),
            kept,
            bootstrap.seed,
            bootstrap.key,
            frozenset((*roles.integers, *self.integer)),
            tuple((self.delta or {}).items()),
            probits=probits,
        )
        if self.method == "donor":
            model = replace(model, donors=make_donors(model, found.sample))
        self.imputation_ = model
        self.fit_ = fit
        self.log_likelihood_ = best.log_likelihoods[-1]
        self.history_ = pd.DataFrame({"log_likelihood": best.log_likelihoods, "objective": best.objectives})
        self.converged_ = best.verdict.converged and all(c.verdict is not Verdict.MAX_ITER for c in replicates)
        self.stopped_because_ = str(best.verdict)
        self.n_iter_ = best.n_iter
        self.n_distinct_ = getattr(fit, "n_distinct", None)
        self.n_scans_ = n_scans + bool(self.predictors)

    def _is_normal(self, roles: Roles) -> bool:
        if isinstance(self.model, BaseMixture) or self.model == "mixture":
            return False
        unordered = ", ".join(map(repr, roles.categories))
        if (self.model == "normal" or isinstance(self.model, MultivariateNormal)) and unordered:
            raise ConfigurationError(
                f"a normal cannot take unordered categories ({unordered}): use model='mixture', name their order, or leave them out of columns"
            )
        return self.model is not None or not (roles.categories or self.n_components)

    def _design(self, roles: Roles, names: Sequence[str]) -> Design:
        """The columns by family, with what the arguments say of them."""
        transforms = tuple((self.transforms or {}).items())
        if isinstance(self.model, BaseMixture):
            design = self.model._design(tuple(names))
            transforms = design.transforms or transforms
        elif self._is_normal(roles):
            design = Design(gaussian=(*roles.numbers, *(name for name, _ in roles.ordered)), ordered=roles.ordered)
        else:
            classes = (*(name for name, _ in roles.ordered), *roles.categories)
            design = Design(gaussian=roles.numbers, categorical=classes)
        arguments = ("ordered", "transforms", "bounds", "integer", "delta", "universe")
        check_roles(design, names, {argument: getattr(self, argument) for argument in arguments})
        unseen: Any = self.unseen
        universe = tuple((self.universe or {}).items())
        return replace(design, transforms=transforms, bounds=bounds_of(self.bounds), universe=universe, unseen=unseen)

    def _with_predictors(self, design: Design, roles: Roles, source: Source, executor: Executor) -> Design:
        """The design with an indicator for every level but the first of the categories that predict; one more scan finds the levels."""
        if not self._is_normal(roles):
            raise ConfigurationError(
                "predictors are for a normal; a mixture models categories: name them among its columns"
            )
        names = tuple(self.predictors)
        found = fitting.profile_source(source, Design(categorical=names), executor)
        indicators = []
        for name in names:
            levels = sorted(found.levels[name], key=str)
            if sum(found.levels[name].values()) < found.rows:
                raise DataError(
                    f"predictor {name!r} has missing cells, which would stay: use model='mixture', or leave it out"
                )
            if len(levels) < 2:
                raise DataError(f"predictor {name!r} has one level only: it tells nothing, so leave it out")
            indicators.append((name, tuple(levels)))
        derived = tuple(indicator(name, level) for name, levels in indicators for level in levels[1:])
        for name in derived:
            if name in source.columns:
                raise DataError(f"column {name!r} has the name that a level of a predictor gets inside: rename it")
        return replace(design, gaussian=(*design.gaussian, *derived), indicators=tuple(indicators))

    def _mixture_settings(self, bootstrap: Bootstrap) -> tuple[specification.Settings, tuple[int, ...]]:
        if isinstance(self.model, BaseMixture):
            return replace(self.model.fit_settings(), bootstrap=bootstrap), (self.model.n_components,)
        settings = specification.Settings(
            prior=self.prior,
            tol=1e-6 if self.tol is None else self.tol,
            max_iter=self.max_iter,
            n_init=self.n_init,
            seed=bootstrap.seed,
            bootstrap=bootstrap,
            acceleration="daarem",
        )
        return settings, N_COMPONENTS if self.n_components is None else (self.n_components,)

    def _wanted(self, names: Sequence[str], weight: str | None) -> tuple[str, ...]:
        """Columns to model, before their types are known."""
        if isinstance(self.model, BaseMixture):
            return self.model._design(tuple(names)).features
        if self.columns is not None:
            Design(gaussian=tuple(self.columns)).check(names, "the table")
            return tuple(self.columns)
        apart = {weight, *key_columns(self.key), *self.predictors}
        return tuple(name for name in names if name not in apart)

    # ---- filling ---------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Fill every hole with its expected value given what was observed, in the table's units; categories with the most probable level.

        Under a transform or bounds this is the mean of the original quantity (exp(mu + s2 / 2) for a log), not the transformed mean.

        Returns
        -------
        The kind of table that X is: a Dask dataframe stays lazy; a path gives an Arrow table.
        """
        return self._complete(X, None)

    def draw(self, X: Any, m: int | None = None) -> list[Any]:
        """Draw m completed tables: multiple imputation.

        Parameters
        ----------
        X : the fitted table, or another with the same columns
        m : int, optional
            Number of tables, at most n_replicates; by default all.

        Returns
        -------
        m tables of the kind that X is; the i-th is the same in every call
        """
        return [self._complete(X, i) for i in range(self._n_draws(m))]

    def predict_proba(self, X: Any, column: str) -> Any:
        """Probabilities of the levels of a categorical or ordered column in every row, given the row's other observed cells."""
        check_is_fitted(self)
        design = self.imputation_.schema.design
        if column not in design.categorical and design.levels(column) is None:
            raise ConfigurationError(
                f"column {column!r} has no levels: name a categorical or ordered column of the model"
            )
        columns, X = self.imputation_.schema.design.columns, self._named(X)
        if is_dask_frame(X):
            from dask_em.execution.frames import map_frame

            empty = pd.DataFrame(columns=[str(lv) for lv in self.imputation_.levels(column)], dtype=float)
            return map_frame(X, partial(probabilities_of_frame, self.imputation_, column, columns), empty)
        source = open_source(X)
        with open_executor(self.executor) as executor:
            parts = executor.map(source.pieces, partial(probabilities_of_piece, self.imputation_, column, columns))
        values = np.concatenate(parts) if parts else np.empty((0, len(self.imputation_.levels(column))))
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(values, columns=list(self.imputation_.levels(column)), index=index)

    def pooled(self, statistic: Callable[[pd.DataFrame], Any], X: Any, m: int | None = None) -> Pooled:
        """Apply a statistic to m completed tables and pool the results by Rubin's rules.

        Parameters
        ----------
        statistic : function of a pandas frame
            Returns (estimate, variance), scalars or vectors with a covariance matrix, or a fitted model with `params` and `cov_params()`,
            as statsmodels gives. The index is that of X where X is a pandas frame.
        X : table
        m : int, optional; by default all replicates

        Returns
        -------
        Pooled
        """
        count = self._n_draws(m)
        named = self._named(X)
        source = to_source(named, None, None, None)[0]
        if not source.pieces:
            raise DataError(f"{source.where} has no rows: give at least one row")
        with open_executor(self.executor, lazy_table=is_dask_frame(X)) as executor:
            types = types_for(self.imputation_, source, executor)
            table = named if isinstance(named, pd.DataFrame) else source
            results = executor.map(
                list(range(count)), partial(statistic_of_draw, self.imputation_, table, types, statistic)
            )
        estimates, variances, rows = zip(*results)
        sizes = {np.shape(estimate) for estimate in estimates}
        if len(sizes) > 1:
            raise ConfigurationError(
                "the statistic gives different numbers of estimates for different draws: let it give the same ones for every table"
            )
        together = pd.DataFrame(list(estimates)) if isinstance(estimates[0], pd.Series) else np.array(estimates)
        k = max(int(np.prod(sizes.pop())), 1)
        return pool(together, np.array([np.asarray(v) for v in variances]), n=rows[0], k=k)

    def _n_draws(self, m: int | None) -> int:
        check_is_fitted(self)
        fitted = len(self.imputation_.replicates)
        if not fitted:
            raise ConfigurationError("draws need bootstrap replicates: fit with n_replicates=20")
        if m is None:
            return fitted
        if not 1 <= checked_number("m", m, numbers.Integral) <= fitted:
            advice = f": fit with n_replicates={m}" if m > fitted else ""
            raise ConfigurationError(f"m must be from 1 to {fitted}, the replicates that were fitted{advice}")
        return m

    def _named(self, X: Any) -> Any:
        """X with the fitted names where it has none, a series as a table of one column."""
        check_is_fitted(self)
        X = X.to_frame() if getattr(X, "ndim", 2) == 1 and hasattr(X, "to_frame") else X
        names = column_names(X)
        if not has_names(X) and hasattr(self, "feature_names_in_"):
            if len(names) != self.n_features_in_:
                raise ConfigurationError(
                    f"X has {len(names)} features, but the imputer is expecting {self.n_features_in_}: give the columns that were fitted"
                )
            X = pd.DataFrame(np.asarray(X), columns=self.feature_names_in_)
            names = column_names(X)
        design = self.imputation_.schema.design
        design.check(names, "the table")
        for key in self.imputation_.key:
            if key not in names:
                raise DataError(f"key column {key!r} is not in the table: check the spelling or the table")
        return X

    def _complete(self, X: Any, replicate: int | None) -> Any:
        named = self._named(X)
        if getattr(X, "ndim", 2) == 1:
            done = self._complete(named, replicate)
            return done[done.columns[0]].rename(X.name)
        if is_dask_frame(X):
            from dask_em.execution.frames import map_numbered

            return map_numbered(X, partial(complete_frame, self.imputation_, replicate))
        source = open_source(named)
        with open_executor(self.executor) as executor:
            if isinstance(named, pd.DataFrame):
                found = executor.map(source.pieces, partial(cells_of_piece, self.imputation_, replicate))
                whole = complete_pandas(named, joined(found)) if found else named.copy()
                return whole if isinstance(X, pd.DataFrame) else whole.to_numpy()
            types = types_for(self.imputation_, source, executor)
            function = partial(complete_piece, self.imputation_, source.columns, types, replicate)
            parts = executor.map(source.pieces, function)
        if not parts:
            return X if source.n_rows == 0 else pa.table({name: pa.nulls(0) for name in source.columns})
        table = pa.concat_tables(parts, promote_options="permissive")
        if isinstance(X, (str, os.PathLike)) or hasattr(X, "__arrow_c_stream__"):
            return table
        return np.column_stack([c.to_numpy() for c in table.columns])

    def summary(self, errors: Any = None) -> str:
        """The fitted model in words and numbers, for a terminal: what was fitted, how it ended, the parameters, and what to beware of.

        Parameters
        ----------
        errors : standard errors of this very fit, for 95 % intervals; by default those of the bootstrap replicates that draws are made with
        """
        from dask_em.report.text import describe

        check_is_fitted(self)
        return describe(self, errors)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "imputation_")


@dataclass(frozen=True)
class _Seen:
    """What the first scan looks at."""

    profile: Profile
    keys: KeySet | None

    def __add__(self, other: _Seen) -> _Seen:
        keys = None if self.keys is None or other.keys is None else self.keys + other.keys
        return _Seen(self.profile + other.profile, keys)


def _look_at(design: Design, key: tuple[str, ...], i: int, piece: Any) -> _Seen:
    table, marks = read_marked_rows(piece, design, key)
    # Positions are unique as they are.
    return _Seen(profile(table, design, marks), KeySet.of(row_keys(table, key, piece.origin)) if key else None)

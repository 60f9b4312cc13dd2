"""What all mixtures share: settings, fit, scoring, and the attributes of a fitted model."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from dask_em import fitting, specification
from dask_em.data.gather import Bootstrap
from dask_em.data.profile import weighted_rows
from dask_em.data.reading import read_rows
from dask_em.data.schema import Design, Schema
from dask_em.data.sources import Source, positions
from dask_em.em import seeding
from dask_em.em.loop import Candidate, Progress
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.arguments import checked_number, given_array, seed_of
from dask_em.estimators.estimator import Estimator
from dask_em.estimators.tables import (
    column_names,
    has_names,
    like,
    opened,
    renamed,
    score_lazily,
    score_rows,
    to_source,
)
from dask_em.estimators.warm import model_of, warm_start
from dask_em.execution.choose import is_dask_frame, open_executor
from dask_em.mixture import Mixture, Parameters
from dask_em.model import FittedMixture
from dask_em.scan import Block

if TYPE_CHECKING:
    from dask_em.inference import StandardErrors


class BaseMixture(DensityMixin, Estimator):
    """A mixture model with scikit-learn's interface. Use one of its subclasses.

    Subclasses say which columns are what (`_design`) and where EM starts when values are given (`_given_parts`).
    """

    n_components: int
    prior: str | None
    tol: float
    max_iter: int
    acceleration: Any
    n_init: int
    init: Any
    compress: Any
    random_state: Any
    weights_init: Any

    def _keep(self, given: dict[str, Any]) -> None:
        """Store the arguments of __init__, given as its locals(), untouched."""
        self.__dict__.update({name: value for name, value in given.items() if name != "self"})

    def _design(self, names: tuple[str, ...]) -> Design:
        """The roles of the columns of a table with these names."""
        raise NotImplementedError

    def _settings(self) -> dict[str, Any]:
        """Further settings of the fit."""
        return {}

    def _centres(self, schema: Schema) -> list[NDArray[Any]] | None:
        """Given centres as encoded values, one (d, k) array a family: rows of the sample start at the nearest."""
        return None

    def _given_parts(self, schema: Schema, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """The families' starting parameters with given values put in the place of seeded ones."""
        return parts

    # ---- fitting ---------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit the mixture by EM.

        Parameters
        ----------
        X : table of n rows
            pandas or Dask dataframe, array, Arrow table (or anything with an Arrow stream), or a path or URL of Parquet or CSV files.
            NaN, None and nulls are missing cells; they are used, not dropped.
        y : ignored
        sample_weight : (n,) array, Dask series, or name of a column, optional
            Row weights, any numbers that are not negative. The result is as if rows were repeated that often. A column of weights is not modelled.

        Returns
        -------
        self

        Raises
        ------
        DataError, ConfigurationError
            In one sentence: what is wrong, where, and the remedy.
        """
        k = checked_number("n_components", self.n_components, numbers.Integral)
        found = self.fit_candidates(X, [k], sample_weight=sample_weight)
        return self.adopt(found, found.best(k), keep_order=self._has_given() or self._labels() is not None)

    def fit_candidates(
        self,
        X: Any,
        n_components: Sequence[int],
        *,
        sample_weight: Any = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> fitting.Fit:
        """Fit n_init starts for every number of components, all in the same scans, without taking one over.

        This is what `fit` and the search over models stand on; `adopt` takes a candidate over.
        """
        X = opened(X)
        source, design = self._source(X, sample_weight)
        with open_executor(self.executor, lazy_table=is_dask_frame(X)) as executor:
            return fitting.fit(source, design, self.fit_settings(), n_components, executor, on_progress)

    @contextmanager
    def ready(
        self,
        X: Any,
        n_components: Sequence[int],
        models: Sequence[BaseMixture],
        sample_weight: Any,
        replicates: Bootstrap,
        on_progress: Callable[[Progress], None] | None,
    ) -> Iterator[tuple[fitting.Table, list[specification.Settings]]]:
        """A table ready for a grid of models of the same columns, and how each is fitted."""
        X = opened(X)
        source, design = self._source(X, sample_weight)
        names = column_names(X)
        pattern = any(model._design(names).pattern for model in models)
        settings = [replace(model.fit_settings(), bootstrap=replicates) for model in models]
        with open_executor(self.executor, lazy_table=is_dask_frame(X)) as executor:
            own = replace(design, pattern=pattern)
            with closing(fitting.open_table(source, own, settings[0], n_components, executor, on_progress)) as table:
                yield table, settings

    def _source(self, X: Any, sample_weight: Any) -> tuple[Source, Design]:
        """An opened table as a source, and the roles of its columns."""
        names = self._take_names(X, sample_weight)
        design = self._design(names)
        columns = (*design.columns, sample_weight) if isinstance(sample_weight, str) else design.columns
        source, weight, labels = to_source(X, columns, sample_weight, self._labels(), n_labels=self.n_components)
        return source, replace(design, weight=weight, labels=labels)

    def fit_settings(self) -> specification.Settings:
        """How to fit, as the arguments say."""
        labels, given = self._labels(), self._has_given()
        seeded = "kmeans++" if model_of(self.init) is not None else self.init
        return specification.Settings(
            prior=self.prior,  # type: ignore[arg-type]
            tol=checked_number("tol", self.tol, numbers.Real),
            max_iter=checked_number("max_iter", self.max_iter, numbers.Integral),
            acceleration=self.acceleration,
            n_init=1 if given or labels is not None else checked_number("n_init", self.n_init, numbers.Integral),
            init="labels" if labels is not None else seeded,
            seed=seed_of(self.random_state),
            given=partial(self._start, k=self.n_components) if given else None,
            compress=self.compress,
            **self._settings(),
        )

    def _labels(self) -> Any:
        """The labels that `init` holds, or None."""
        return None if isinstance(self.init, (str, type(None))) or model_of(self.init) is not None else self.init

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, then `predict` the same rows."""
        table = opened(X)
        return like(X, self.fit(table, sample_weight=sample_weight)._scores(table, _predict, "component"), "component")

    def _take_names(self, X: Any, sample_weight: Any) -> tuple[str, ...]:
        """Column names of an opened table to fit, but for that of its weights; remembers them as scikit-learn does."""
        names = column_names(X)
        numbered = names != positions(len(names))
        if isinstance(sample_weight, str):
            if not has_names(X) and not numbered:
                raise ConfigurationError(
                    "sample_weight names a column of a table whose columns have no names: give one weight a row"
                )
            names = tuple(name for name in names if name != sample_weight)
        if not names:
            n = X.n_rows if isinstance(X, Source) else len(X)
            raise ConfigurationError(
                f"the table has 0 feature(s) (shape=({n}, 0)) while a minimum of 1 is required: add columns"
            )
        self._keep_names(names, named=has_names(X) or numbered)
        return names

    def _named(self, X: Any) -> Any:
        """An opened table under the names of the fitted columns.

        By name where both sides have names, and where a table with numbered columns has the fitted numbers; by position otherwise.
        """
        check_is_fitted(self)
        design, fitted = self.model_.schema.design, getattr(self, "feature_names_in_", None)
        names = column_names(X)
        numbered = names != positions(len(names))
        if fitted is not None and (has_names(X) or (numbered and set(design.columns) <= set(names))):
            design.check(names, "the table")
            return X
        if len(names) != self.n_features_in_:
            raise ConfigurationError(
                f"X has {len(names)} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input: "
                "give the columns that were fitted"
            )
        return renamed(X, positions(len(names)) if fitted is None else fitted)

    def _has_given(self) -> bool:
        return model_of(self.init) is not None or any(
            value is not None
            for name, value in self.get_params(deep=False).items()
            if name.endswith("_init") and name != "n_init"
        )

    def _start(self, schema: Schema, mixture: Mixture, block: Block, k: int) -> Parameters:
        """Where EM starts when values are given, as near to them as the covariance model comes: elsewhere EM need not climb."""
        return mixture.project(self._given_start(schema, mixture, block, k), [k])

    def _given_start(self, schema: Schema, mixture: Mixture, block: Block, k: int) -> Parameters:
        """Given values where there are any; what is not given comes from a fitted model, or else from one M-step on a seeded start."""
        earlier = model_of(self.init)
        if earlier is not None:
            start = warm_start(earlier, schema, mixture, k)
            return Parameters(start.weights, self._given_parts(schema, start.parts))
        centres = self._centres(schema)
        if centres is None:
            rng = np.random.default_rng([seed_of(self.random_state), k, 0])
            labels = seeding.labels(mixture.families, block, k, "kmeans++", rng)
        else:
            labels = seeding.nearest(mixture.families, block, centres)
        start = specification.parameters_of_labels(mixture, block, labels[None], [k])
        weights = start.weights if centres is not None else np.full(k, 1.0 / k)
        if self.weights_init is not None:
            weights = given_array("weights_init", self.weights_init, (k,))
            if (weights <= 0).any() or not np.isclose(weights.sum(), 1.0, rtol=1e-6):
                raise ConfigurationError("weights_init must be shares above 0 that sum to 1")
        elif not (weights > 0).all():
            raise ConfigurationError(
                "means_init has a row to which no row of the table is nearest: give distinct means that lie among the rows, "
                "or weights_init as well"
            )
        return Parameters(weights / weights.sum(), self._given_parts(schema, start.parts))

    def adopt(self, found: fitting.Fit, candidate: Candidate, *, keep_order: bool = False) -> Any:
        """Take over a fitted candidate."""
        model = found.fitted(candidate)
        if not keep_order:
            model = model.reordered(np.argsort(-model.parameters.weights, kind="stable"))
        self.model_ = model
        # Errors of an earlier fit say nothing of this one.
        self.__dict__.pop("errors_", None)
        self.log_likelihood_ = candidate.log_likelihoods[-1]
        self.converged_ = candidate.verdict.converged
        self.stopped_because_ = str(candidate.verdict)
        self.n_iter_ = candidate.n_iter
        self.n_maps_ = candidate.n_maps
        self.n_scans_ = found.n_scans
        self.n_rows_ = sum(found.profile.piece_rows)
        self.n_distinct_ = found.n_distinct
        self.sum_of_weights_ = found.profile.weight
        self.history_ = history(found)
        self._publish(model)
        return self

    def _publish(self, model: FittedMixture) -> None:
        """Set the fitted attributes that users read."""
        self.weights_ = model.parameters.weights

    def summary(self, errors: StandardErrors | None = None) -> str:
        """The fitted model in words and numbers, for a terminal: what was fitted, how it ended, the parameters, and what to beware of.

        Parameters
        ----------
        errors : from `standard_errors` or `bootstrap`, for 95 % intervals; by default those that were computed last, if any

        Raises
        ------
        ConfigurationError
            The errors are those of another fit.
        """
        from dask_em.report.text import describe

        check_is_fitted(self)
        return describe(self, self._errors(errors))

    def _errors(self, given: Any) -> Any:
        return getattr(self, "errors_", None) if given is None else given

    # ---- scoring ---------------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> Any:
        """The most probable component of each row, 0 to n_components - 1, in the kind of container that X is."""
        return self._score(X, _predict, "component")

    def predict_proba(self, X: Any) -> Any:
        """Posterior probabilities of the components, (n, n_components), in the kind of container that X is."""
        check_is_fitted(self)
        return self._score(X, _proba, [f"component_{k}" for k in range(self.model_.n_components)])

    def score_samples(self, X: Any) -> Any:
        """Log density of each row given what is observed of it, in the units of the table."""
        return self._score(X, _density, "log_density")

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log density of the rows, weighted."""
        total, weight = self._log_likelihood(X, sample_weight)
        return total / weight

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion, smaller is better: -2 log-likelihood + free parameters x log(sum of weights).

        The weights are those of all rows: one in which nothing is observed is a member of the sample that did not answer. Leave such rows out to not count them.
        """
        total, weight = self._log_likelihood(X, sample_weight)
        return -2 * total + self.model_.n_parameters * float(np.log(weight))

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike information criterion, smaller is better: -2 log-likelihood + 2 x free parameters."""
        return -2 * self._log_likelihood(X, sample_weight)[0] + 2 * self.model_.n_parameters

    def standard_errors(
        self, X: Any, kind: str = "observed", *, sample_weight: Any = None, weight_type: str = "frequency"
    ) -> StandardErrors:
        """Standard errors and intervals of every parameter, from one scan of the rows that were fitted.

        Parameters
        ----------
        X : the fitted table
        kind : "observed", "empirical" or "sandwich", default "observed"
            "observed" inverts minus the second derivatives of the log-likelihood (Louis 1982), "empirical" the sum of products of the rows' scores;
            "sandwich" is the first on both sides of the second, which holds where the model is only nearly true.
        sample_weight : as in `fit`
        weight_type : "frequency" or "probability", default "frequency"
            A row of weight w is w rows, or one row that stands for w in the population: weights then have mean 1, and the sandwich has their squares.

        Returns
        -------
        record : weights_, means_, covariances_, rates_ and probabilities_ hold standard errors in the shapes of the estimator's own; also covariance,
            names, boundary, interval() and to_frame(). It is kept as `errors_` until the next fit, for `summary`.

        Raises
        ------
        ConfigurationError
            The model has so many parameters that their products cannot be summed for every row; `bootstrap` can do it.
        DataError
            The information is singular: some parameters are not told apart by the table.

        Notes
        -----
        All fourteen covariance models have all three kinds. A prior counts with its second derivatives. Probabilities and rates on their boundary are held
        there and named in `boundary`.
        """
        from dask_em.inference import standard_errors

        check_is_fitted(self)
        self.errors_ = standard_errors(self, X, kind, sample_weight, weight_type)
        return self.errors_

    def bootstrap(
        self,
        X: Any,
        n_replicates: int = 200,
        *,
        random_state: Any = None,
        sample_weight: Any = None,
        weight_type: str = "frequency",
    ) -> StandardErrors:
        """Standard errors and percentile intervals from the weighted-likelihood bootstrap: it needs no derivatives, and no symmetry.

        Every replicate is fitted again from the fitted parameters, all of them in the same scans.

        Parameters
        ----------
        X : the fitted table
        n_replicates : int, default 200
            Enough for standard errors to within 5 %; the ends of 95 % intervals want 1000 or more. Every row is kept with a byte for each.
        random_state : int, numpy generator or None
            The same seed gives the same replicates, whatever the executor.
        sample_weight : as in `fit`
        weight_type : "frequency" or "probability", default "frequency"
            A row of weight w is w rows, each of which may or may not be drawn; or it is one row, which is drawn with its whole weight.

        Returns
        -------
        record : as from `standard_errors`, with `replicates` (n_replicates, P); components are in the order of the fitted ones

        Raises
        ------
        ConvergenceWarning
            (as a warning) replicates collapsed and were dropped, or stopped at max_iter.
        """
        from dask_em.inference import bootstrap

        check_is_fitted(self)
        self.errors_ = bootstrap(self, X, n_replicates, random_state, sample_weight, weight_type)
        return self.errors_

    def sample(self, n_samples: int = 1, random_state: Any = None) -> tuple[Any, NDArray[np.int64]]:
        """Draw rows from the mixture.

        Returns
        -------
        X : array where all columns are numbers and the model was fitted on an array, dataframe otherwise
        components : (n_samples,) the component of each row
        """
        check_is_fitted(self)
        n_samples = checked_number("n_samples", n_samples, numbers.Integral)
        if n_samples < 1:
            raise ConfigurationError("n_samples must be at least 1")
        columns, components = self.model_.sample(n_samples, np.random.default_rng(seed_of(random_state)))
        frame = pd.DataFrame(columns)
        return (frame if hasattr(self, "feature_names_in_") else frame.to_numpy()), components

    def _log_likelihood(self, X: Any, sample_weight: Any) -> tuple[float, float]:
        """Weighted total log density, and the total weight."""
        X = self._named(opened(X))
        design = self.model_.schema.design
        columns = (*design.columns, sample_weight) if isinstance(sample_weight, str) else design.columns
        source, weight, _ = to_source(X, columns, sample_weight, None)
        total = np.zeros(3)
        if source.pieces:
            with open_executor(self.executor, lazy_table=is_dask_frame(X)) as executor:
                total = executor.reduce(source.pieces, partial(_weighted_density, self.model_, weight))
        if not total[2]:
            raise DataError("the table has no rows: give at least one row")
        if not total[1] > 0:
            raise DataError("the row weights are all zero: give at least some rows a positive weight")
        return float(total[0]), float(total[1])

    def _score(self, X: Any, function: Any, names: list[str] | str) -> Any:
        return like(X, self._scores(opened(X), function, names), names)

    def _scores(self, X: Any, function: Any, names: list[str] | str) -> Any:
        """A function of the rows of an opened table: an array, or a lazy Dask result."""
        named = self._named(X)
        own, columns = partial(function, self.model_), self.model_.schema.design.columns
        if is_dask_frame(named):
            return score_lazily(named, own, columns, names)
        with open_executor(self.executor) as executor:
            return score_rows(named, own, columns, executor)


def _predict(model: FittedMixture, table: pa.Table) -> NDArray[np.int64]:
    return model.score(table)[0].argmax(axis=1)


def _proba(model: FittedMixture, table: pa.Table) -> NDArray[np.float64]:
    return model.score(table)[0]


def _density(model: FittedMixture, table: pa.Table) -> NDArray[np.float64]:
    return model.score(table)[1]


def _weighted_density(model: FittedMixture, weight: str | None, i: int, piece: Any) -> NDArray[np.float64]:
    design = replace(model.schema.design, weight=weight, labels=None)
    table = read_rows(piece, design)
    kept, weights = weighted_rows(table, design)
    return np.array([weights @ model.score(kept)[1], weights.sum(), table.num_rows])


def history(found: fitting.Fit) -> pd.DataFrame:
    """Objective and log-likelihood of every candidate after every evaluation of the EM map, those that were taken back among them.

    Where starts ran on a sample first, their traces come first; those on all rows are new ones, with candidates numbered anew.
    """
    rows = []
    staged = [("sample", c, own) for c, own in enumerate(found.sampled)]
    for stage, c, candidate in [*staged, *(("all rows", c, own) for c, own in enumerate(found.candidates))]:
        told = (stage, c, candidate.n_components)
        lost = {r.after + i: (r.log_likelihood, r.objective, False) for i, r in enumerate(candidate.rejected)}
        accepted = iter(zip(candidate.log_likelihoods, candidate.objectives))
        for i in range(candidate.n_maps):
            seen = lost[i] if i in lost else (*next(accepted), True)
            rows.append((*told, i, *seen, str(candidate.verdict)))
    columns = ["stage", "candidate", "n_components", "iteration", "log_likelihood", "objective", "accepted", "outcome"]
    return pd.DataFrame(rows, columns=columns)

"""What is known of the parameters of a fitted mixture: estimates, standard errors and intervals, in the units and shapes of the estimator's attributes."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from dask_em.errors import ConfigurationError
from dask_em.families import Binomial, Categorical, DiagonalGaussian, Poisson
from dask_em.families.base import Array
from dask_em.model import FittedMixture

Scale = Literal["identity", "log", "logit"]


@dataclass(frozen=True)
class Layout:
    """What the stored parameters φ = (π, φ_1, ..., φ_K) of a mixture are called, and what they are in the user's units.

    Attributes
    ----------
    parameters, components, columns : of each entry; a covariance has two columns, "a, b", and a level its own, "grade=high"
    scales : on which intervals are symmetric
    positions : where an entry stands in its array, (row, column) of a covariance
    unit, shift : (m,) user's value = shift + unit x stored value
    """

    parameters: tuple[str, ...]
    components: tuple[int, ...]
    columns: tuple[str, ...]
    scales: tuple[Scale, ...]
    positions: tuple[tuple[int, ...], ...]
    unit: Array
    shift: Array

    @staticmethod
    def of(model: FittedMixture) -> Layout:
        one = _component(model)
        k = model.n_components
        rows = [("weights", c, "", "logit", (), 1.0, 0.0) for c in range(k)]
        rows += [(name, c, *rest) for c in range(k) for name, *rest in one]
        parameters, components, columns, scales, positions, unit, shift = zip(*rows)
        return Layout(parameters, components, columns, scales, positions, np.array(unit), np.array(shift))

    @property
    def names(self) -> tuple[str, ...]:
        """Such as weights[0], means[0, a], covariances[1, a, b], probabilities[0, grade=high]."""
        return tuple(
            f"{p}[{c}, {column}]" if column else f"{p}[{c}]"
            for p, c, column in zip(self.published, self.components, self.columns)
        )

    @property
    def published(self) -> tuple[str, ...]:
        """The attribute of the estimator that holds each entry: chances of success are among the probabilities."""
        return tuple("probabilities" if p == "chances" else p for p in self.parameters)


def _component(model: FittedMixture) -> list[tuple[Any, ...]]:
    """(parameter, column, scale, position, unit, shift) of every entry of one component, family by family."""
    design = model.schema.design
    out: list[tuple[Any, ...]] = []
    for family in model.mixture.families:
        if isinstance(family, Categorical):
            columns = [f"{name}={lv}" for name, own in zip(design.categorical, model.schema.levels) for lv in own]
            out += [("probabilities", name, "logit", (j,), 1.0, 0.0) for j, name in enumerate(columns)]
        elif isinstance(family, Poisson):
            out += [("rates", name, "log", (j,), 1.0, 0.0) for j, name in enumerate(design.poisson)]
        elif isinstance(family, Binomial):
            out += [("chances", name, "logit", (j,), 1.0, 0.0) for j, (name, _) in enumerate(design.binomial)]
        else:
            names, s = design.gaussian, model.schema.scale
            out += [("means", n, "identity", (j,), s[j], model.schema.shift[j]) for j, n in enumerate(names)]
            diagonal = isinstance(family, DiagonalGaussian)
            pairs = [(i, j) for i in range(len(s)) for j in range(i, len(s)) if i == j or not diagonal]
            out += [
                (
                    "covariances",
                    f"{names[i]}, {names[j]}",
                    "log" if i == j else "identity",
                    (i, j),
                    s[i] * s[j],
                    0.0,
                )
                for i, j in pairs
            ]
    return out


def stored(model: FittedMixture) -> Array:
    """The stored parameters as one vector, in the order of the layout."""
    parts = []
    for family, own in zip(model.mixture.families, model.parameters.parts):
        if isinstance(family, Categorical | Binomial):
            parts.append(own.probabilities)
        elif isinstance(family, Poisson):
            parts.append(own.rates)
        elif isinstance(family, DiagonalGaussian):
            parts += [own.means, own.variances]
        else:
            i, j = np.triu_indices(family.n_columns)
            parts += [own.means, own.covariances[:, i, j]]
    return np.concatenate([model.parameters.weights, np.concatenate(parts, axis=1).ravel()])


@dataclass(frozen=True, eq=False, repr=False)
class StandardErrors:
    """Standard errors of every parameter of a fitted mixture.

    Attributes
    ----------
    kind : "observed", "empirical", "sandwich" or "bootstrap"
    names : what the P parameters are called
    estimates : (P,) as fitted, in the user's units
    covariance : (P, P) of the estimates; singular, for shares sum to 1 and covariance models tie parameters together
    boundary : names of the parameters that are held on a boundary (a probability of 0 or 1); their standard error is 0
    n_free : free parameters that were not on a boundary
    replicates : (R, P) estimates of the bootstrap, None otherwise
    weights_, means_, covariances_, rates_, probabilities_ : standard errors in the shapes of the estimator's attributes, None where it has no such
        attribute
    """

    kind: str
    layout: Layout
    estimates: Array
    covariance: Array
    boundary: tuple[str, ...]
    n_free: int
    like: dict[str, Any]
    replicates: Array | None = None

    def __repr__(self) -> str:
        return f"StandardErrors({self.kind}, of {len(self.errors)} parameters)"

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html())

    @property
    def names(self) -> tuple[str, ...]:
        return self.layout.names

    @property
    def errors(self) -> Array:
        """(P,) standard errors, in the order of the names."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Confidence intervals of all parameters, in the order of the names.

        Probabilities are symmetric on the logit, variances and rates on the log, so that intervals stay where the parameters are defined; the
        bootstrap's are its percentiles.

        Parameters
        ----------
        level : float, default 0.95
            Between 0 and 1.

        Returns
        -------
        low, high : (P,)
        """
        if not (isinstance(level, numbers.Real) and 0.0 < level < 1.0):
            raise ConfigurationError("level must be between 0 and 1, such as 0.95")
        if self.replicates is not None:
            low, high = np.quantile(self.replicates, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
            return low, high
        x, scale = self.estimates, np.array(self.layout.scales)
        reach = ndtri((1.0 + level) / 2.0) * self.errors
        low, high = x - reach, x + reach
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            own = (scale == "log") & (reach > 0) & (x > 0)
            low[own], high[own] = x[own] * np.exp(-reach[own] / x[own]), x[own] * np.exp(reach[own] / x[own])
            own = (scale == "logit") & (reach > 0) & (x > 0) & (x < 1)
            middle, half = logit(x[own]), reach[own] / (x[own] * (1.0 - x[own]))
            low[own], high[own] = expit(middle - half), expit(middle + half)
        return low, high

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """One row for each parameter: what it is, estimate, standard_error, low and high."""
        low, high = self.interval(level)
        return pd.DataFrame(
            {
                "parameter": self.layout.published,
                "component": self.layout.components,
                "column": self.layout.columns,
                "estimate": self.estimates,
                "standard_error": self.errors,
                "low": low,
                "high": high,
            },
            index=pd.Index(self.names, name="name"),
        )

    @property
    def weights_(self) -> NDArray[np.float64]:
        return self._own("weights")[:, 0]

    @property
    def means_(self) -> NDArray[np.float64] | None:
        return self._own("means") if "means_" in self.like else None

    @property
    def covariances_(self) -> NDArray[np.float64] | None:
        """(k, d, d); 0 where the model says that columns are uncorrelated."""
        if "covariances_" not in self.like:
            return None
        out = np.zeros_like(self.like["covariances_"])
        entries = zip(self.layout.parameters, self.layout.components, self.layout.positions, self.errors)
        for name, c, position, error in entries:
            if name == "covariances":
                i, j = position
                out[c, i, j] = out[c, j, i] = error
        return out

    @property
    def rates_(self) -> NDArray[np.float64] | None:
        return self._own("rates") if "rates_" in self.like else None

    @property
    def probabilities_(self) -> Any:
        """An array for a mixture of binomials; otherwise {column: frame of levels, or array of chances}."""
        like = self.like.get("probabilities_")
        if like is None:
            return None
        if not isinstance(like, dict):
            return self._own("chances").reshape(like.shape)
        out: dict[str, Any] = {}
        levels, chances = (self._own(name).T for name in ("probabilities", "chances"))
        level = chance = 0
        for name, own in like.items():
            if isinstance(own, pd.DataFrame):
                out[name] = pd.DataFrame(levels[level : level + own.shape[1]].T, columns=own.columns)
                level += own.shape[1]
            else:
                out[name], chance = chances[chance], chance + 1
        return out

    def _own(self, name: str) -> Array:
        """(k, entries) standard errors of one parameter."""
        own = np.array([p == name for p in self.layout.parameters])
        return self.errors[own].reshape(max(self.layout.components) + 1, -1)


def record_of(model: FittedMixture, kind: str, covariance: Array) -> StandardErrors:
    """The standard errors of a model from the (P, P) covariance of its parameters in the user's units, without an estimator's attributes."""
    layout = Layout.of(model)
    estimates = layout.shift + layout.unit * stored(model)
    return StandardErrors(kind, layout, estimates, covariance, (), model.n_parameters, {})


def published(estimator: Any) -> dict[str, Any]:
    """The fitted arrays of an estimator, which say in what shapes standard errors are given."""
    names = ("weights_", "means_", "covariances_", "rates_", "probabilities_")
    return {name: getattr(estimator, name) for name in names if hasattr(estimator, name)}

"""Standard errors of a fitted mixture from one scan: observed (Louis 1982), empirical, or the sandwich of both."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.estimators.tables import opened, to_source
from dask_em.execution.choose import is_dask_frame, open_executor
from dask_em.families.base import Array, Mask
from dask_em.inference.charts import chart, simplex
from dask_em.inference.record import Layout, StandardErrors, published, stored
from dask_em.inference.scan import Derivatives, derivatives, n_stored
from dask_em.inference.terms import terms
from dask_em.model import FittedMixture

Kind = Literal["observed", "empirical", "sandwich"]
WeightType = Literal["frequency", "probability"]

MOST_SUMS = 1 << 22
"""Sums a row beyond which the information is refused: some milliseconds a row, and matrices of more than 64 MB."""

SINGULAR = 1e-10
"""Smallest eigenvalue, with unit diagonal, of an information matrix that still says something of every parameter."""

LEFT = 0.1
"""Gain a parameter that a fit may leave, besides ten times its tolerance, before its table is doubted."""


def louis_cost(model: FittedMixture) -> int:
    """Products that are summed for every row: about K² q² / 2 for K components of q parameters each.

    With m = K + Kq stored parameters these are the m(m + 1)/2 products of a row's score, and K q(q + 1)/2 within components.
    """
    k, q = model.n_components, n_stored(model)
    m = k + k * q
    return m * (m + 1) // 2 + k * q * (q + 1) // 2


def check_not_named(model: FittedMixture) -> None:
    """Refuse a model some of whose rows had a component that was known: what it was fitted to is more than their cells."""
    if model.names:
        raise ConfigurationError(
            "there are no standard errors of a mixture with rows whose component is known: fit it without known"
        )


def standard_errors(estimator: Any, X: Any, kind: str, sample_weight: Any, weight_type: str) -> StandardErrors:
    """See `BaseMixture.standard_errors`."""
    check_choice("kind", kind, get_args(Kind))
    check_choice("weight_type", weight_type, get_args(WeightType))
    model: FittedMixture = estimator.model_
    check_not_named(model)
    cost = louis_cost(model)
    if cost > MOST_SUMS:
        raise ConfigurationError(
            f"standard errors of {model.n_components} components with {n_stored(model)} parameters each would need {cost} sums a row, "
            f"more than {MOST_SUMS}: use bootstrap(), or fit fewer components, fewer columns or a simpler covariance_type"
        )
    table = estimator._named(opened(X))
    design = model.schema.design
    columns = (*design.columns, sample_weight) if isinstance(sample_weight, str) else design.columns
    source, weight, _ = to_source(table, columns, sample_weight, None)
    if not source.pieces:
        raise DataError("the table has no rows: give at least one row")
    louis, squares = kind != "empirical", kind == "sandwich" and weight_type == "probability"
    with open_executor(estimator.executor, lazy_table=is_dask_frame(table)) as executor:
        found = executor.reduce(source.pieces, partial(derivatives, model, weight, louis, squares))
    if not found.rows:
        raise DataError("the table has no rows: give at least one row")
    if not found.weight > 0:
        raise DataError("the row weights are all zero: give at least some rows a positive weight")
    check_weight(estimator, found.weight, weight_type)
    return _record(estimator, found, kind, weight_type)


def _record(estimator: Any, found: Derivatives, kind: str, weight_type: str) -> StandardErrors:
    model: FittedMixture = estimator.model_
    jacobian, boundary = free(model)
    scores = jacobian.T @ found.outer @ jacobian
    prior_gradient, prior = _prior(model)
    prior = jacobian.T @ prior @ jacobian
    if kind == "empirical":
        covariance = _inverse(scores + prior, kind)
    else:
        information = jacobian.T @ found.observed(model.parameters.weights) @ jacobian + prior
        information -= _curvature(model, found.gradient + prior_gradient, len(information))
        covariance = _inverse(information, kind)
    _check_optimum(estimator, jacobian.T @ (found.gradient + prior_gradient), covariance, found.weight)
    if kind == "sandwich":
        middle = jacobian.T @ found.squared @ jacobian if weight_type == "probability" else scores
        covariance = covariance @ middle @ covariance
    elif weight_type == "probability":
        # Weights of mean 1.
        covariance = covariance * (found.weight / found.positive)
    layout = Layout.of(model)
    across = layout.unit[:, None] * (jacobian @ covariance @ jacobian.T) * layout.unit
    names = tuple(name for name, held in zip(layout.names, boundary) if held)
    estimates = layout.shift + layout.unit * stored(model)
    return StandardErrors(kind, layout, estimates, across, names, jacobian.shape[1], published(estimator))


def check_weight(estimator: Any, weight: float, weight_type: str) -> None:
    """Refuse rows that are more or fewer than those of the fit; the size of probability weights says nothing."""
    fitted = float(estimator.sum_of_weights_)
    if weight_type == "frequency" and not np.isclose(weight, fitted, rtol=1e-6):
        raise DataError(
            f"the rows have a weight of {weight:,.6g} in all and those of the fit had {fitted:,.6g}: give the fitted table, and sample_weight as in fit"
        )


def _check_optimum(estimator: Any, gradient: Array, covariance: Array, weight: float) -> None:
    """Warn where a step of Newton's would gain more than a fit leaves: at another table's optimum it gains about one a parameter."""
    gain = 0.5 * float(gradient @ covariance @ gradient)
    if estimator.converged_ and gain > LEFT * len(gradient) + 10.0 * float(estimator.tol) * weight:
        warnings.warn(
            f"the fit is no maximum on these rows ({gain:.3g} of log-likelihood are left to gain): give the fitted table, and sample_weight as in fit, or fit with a smaller tol",
            ConvergenceWarning,
            stacklevel=5,
        )


def free(model: FittedMixture) -> tuple[Array, Mask]:
    """J (m, t) from free coordinates to stored parameters (mixing weights, then components), and which are on a boundary."""
    k, q = model.n_components, n_stored(model)
    weights, held = simplex(model.parameters.weights)
    if model.mixture.fix_weights or k == 1:
        weights, held = np.zeros((k, 0)), np.zeros(k, dtype=bool)
    charts = _charts(model)
    sizes = [c.jacobian.shape[2] for c in charts]
    inner, boundary = np.zeros((k, q, sum(sizes))), np.zeros((k, q), dtype=bool)
    row = column = 0
    for c, size in zip(charts, sizes):
        own = slice(row, row + c.jacobian.shape[1])
        inner[:, own, column : column + size] = c.jacobian
        boundary[:, own] = c.boundary
        row, column = own.stop, column + size
    jacobian = np.zeros((k + k * q, weights.shape[1] + sum(sizes)))
    jacobian[:k, : weights.shape[1]] = weights
    jacobian[k:, weights.shape[1] :] = inner.reshape(k * q, -1)
    return jacobian, np.concatenate([held, boundary.ravel()])


def _charts(model: FittedMixture) -> list[Any]:
    return [chart(f, p) for f, p in zip(model.mixture.families, model.parameters.parts)]


def _curvature(model: FittedMixture, gradient: Array, n: int) -> Array:
    """C (t, t): what the gradient in stored parameters adds where these are not linear in the free coordinates."""
    k, q = model.n_components, n_stored(model)
    inner, charts = gradient[k:].reshape(k, q), _charts(model)
    out = np.zeros((n, n))
    row, column = 0, n - sum(c.jacobian.shape[2] for c in charts)
    for c in charts:
        rows, size = c.jacobian.shape[1:]
        out[column : column + size, column : column + size] = c.curvature(inner[:, row : row + rows])
        row, column = row + rows, column + size
    return out


def _prior(model: FittedMixture) -> tuple[Array, Array]:
    """Gradient (m,) of the log prior in stored parameters, and minus its second derivatives (m, m)."""
    k, q = model.n_components, n_stored(model)
    gradient, information = np.zeros(k + k * q), np.zeros((k + k * q, k + k * q))
    row = 0
    for family, part in zip(model.mixture.families, model.parameters.parts):
        own, curved = terms(family, part, np.ones((1, family.n_columns), dtype=bool), k).prior()
        for c in range(k):
            at = slice(k + c * q + row, k + c * q + row + own.shape[1])
            gradient[at], information[at, at] = own[c], curved[c]
        row += own.shape[1]
    return gradient, information


def _inverse(information: Array, kind: str) -> Array:
    """The inverse of an information matrix, scaled to a unit diagonal first."""
    if not len(information):
        return information
    size = np.diagonal(information)
    if np.isfinite(information).all() and (size > 0).all():
        root = np.sqrt(size)
        values, axes = np.linalg.eigh(information / (root[:, None] * root))
        if values[0] > SINGULAR:
            return (axes / values) @ axes.T / (root[:, None] * root)
    what = "empirical information" if kind == "empirical" else "observed information"
    remedy = (
        "give more rows, or fit fewer components"
        if kind == "empirical"
        else "fit with a smaller tol, fit fewer components, or use bootstrap()"
    )
    raise DataError(
        f"the {what} is singular or not positive, so the table does not tell some parameters apart, or the fit stopped short of a maximum: {remedy}"
    )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ConfigurationError for a value that is not among the choices."""
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}")

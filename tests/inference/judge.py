"""The slow judge of standard errors: second differences of the objective, in coordinates of its own.

Parameters are moved a little, every row is scored again, and what comes out is differenced twice; the delta method is differenced as well. It knows no scores,
no expectations and no patterns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.linalg import expm

from dask_em.families import Binomial, Categorical, DiagonalGaussian, Poisson
from dask_em.families.covariance import IN_USER_UNITS
from dask_em.inference.record import stored
from dask_em.mixture import Parameters
from dask_em.model import FittedMixture

Array = NDArray[np.float64]
Move = Callable[[Array], Any]

STEP = 1e-3
"""Of coordinates that are logs, or multiples of a parameter: what is lost to curvature is a millionth."""


def moves(model: FittedMixture) -> tuple[int, Move]:
    """How many coordinates there are, and the function from them (0 at the fit) to parameters."""
    fixed = model.mixture.fix_weights or model.n_components == 1
    parts = [_weights(model, fixed)]
    parts += [_part(f, p) for f, p in zip(model.mixture.families, model.parameters.parts, strict=True)]
    ends = np.cumsum([0, *(n for n, _ in parts)])

    def move(theta: Array) -> Parameters:
        own = [go(theta[a:b]) for (_, go), a, b in zip(parts, ends, ends[1:], strict=False)]
        return Parameters(own[0], tuple(own[1:]))

    return int(ends[-1]), move


def _weights(model: FittedMixture, fixed: bool) -> tuple[int, Move]:
    weights = model.parameters.weights
    return (0, lambda t: weights) if fixed else (len(weights) - 1, lambda t: _tilted(weights, t))


def _tilted(shares: Array, t: Array) -> Array:
    """Shares with other log odds against the last."""
    out = shares * np.exp(np.append(t, 0.0))
    return np.asarray(out / out.sum())


def _part(family: Any, params: Any) -> tuple[int, Move]:
    if isinstance(family, Poisson):
        return params.rates.size, lambda t: replace(params, rates=params.rates * np.exp(t.reshape(params.rates.shape)))
    if isinstance(family, Binomial):
        p = params.probabilities

        def odds(t: Array) -> Any:
            moved = p * np.exp(t.reshape(p.shape))
            return replace(params, probabilities=moved / (moved + 1 - p))

        return p.size, odds
    if isinstance(family, Categorical):
        return _categories(family, params)
    return _normal(family, params)


def _categories(family: Categorical, params: Any) -> tuple[int, Move]:
    free = [levels - 1 for levels in family.n_levels]
    edges, starts = np.cumsum([0, *free]), np.cumsum([0, *family.n_levels])

    def move(t: Array) -> Any:
        out = np.empty_like(params.probabilities)
        for own, p, t_k in zip(out, params.probabilities, t.reshape(len(out), -1), strict=True):
            for a, b, c, e in zip(starts, starts[1:], edges, edges[1:], strict=False):
                own[a:b] = _tilted(p[a:b], t_k[c:e])
        return replace(params, probabilities=out)

    return int(edges[-1]) * len(params.probabilities), move


def _normal(family: Any, params: Any) -> tuple[int, Move]:
    k, d = params.means.shape
    diagonal = isinstance(family, DiagonalGaussian)
    unit = np.asarray(family.scale) if family.model in IN_USER_UNITS else np.ones(d)
    both = unit[:, None] * unit
    if diagonal:
        matrices = params.variances[:, :, None] * np.eye(d) * both
    else:
        matrices = params.covariances * both
    n, go = _matrices(family.model, matrices)

    def move(t: Array) -> Any:
        means = params.means + t[: k * d].reshape(k, d)
        moved = go(t[k * d :]) / both
        if diagonal:
            return replace(params, means=means, variances=np.diagonal(moved, axis1=1, axis2=2).copy())
        return replace(params, means=means, covariances=moved)

    return k * d + n, move


def _matrices(model: str, matrices: Array) -> tuple[int, Move]:
    """Every model by its volumes, shapes and axes; two models whose axes need not be there by their roots."""
    k, d = matrices.shape[:2]
    volume, shape, orientation = model
    if model in ("VVV", "EEE"):
        size = d * (d + 1) // 2
        roots = np.linalg.cholesky(matrices)
        lower = np.tril_indices(d)

        def rooted(t: Array) -> Array:
            own = t.reshape(-1, size) if model == "VVV" else np.repeat(t[None], k, axis=0)
            moved = roots.copy()
            moved[:, lower[0], lower[1]] += own
            return np.asarray(moved @ moved.swapaxes(1, 2))

        return size * (k if model == "VVV" else 1), rooted
    mixed = (
        matrices
        if orientation == "V"
        else np.repeat(np.einsum("k,kij->ij", np.arange(1.0, k + 1), matrices)[None], k, axis=0)
    )
    axes = np.repeat(np.eye(d)[None], k, axis=0) if orientation == "I" else np.linalg.eigh(mixed)[1]
    values = np.diagonal(axes.swapaxes(1, 2) @ matrices @ axes, axis1=1, axis2=2)
    pairs = list(combinations(range(d), 2)) if orientation != "I" else []
    counts = [1, 0 if shape == "I" else d - 1, len(pairs)]
    varies = [volume == "V", shape == "V", orientation == "V"]

    def turned(t: Array) -> Array:
        own, start = [], 0
        for count, varied in zip(counts, varies, strict=True):
            stop = start + count * (k if varied else 1)
            own.append(np.broadcast_to(t[start:stop].reshape(k if varied else 1, count), (k, count)))
            start = stop
        out = []
        for c in range(k):
            logs = own[0][c] + (np.append(own[1][c], -own[1][c].sum()) if shape != "I" else 0.0)
            skew = np.zeros((d, d))
            for (i, j), angle in zip(pairs, own[2][c], strict=True):
                skew[i, j], skew[j, i] = angle, -angle
            turn = axes[c] @ expm(skew)
            out.append(turn * (values[c] * np.exp(logs)) @ turn.T)
        return np.array(out)

    return sum(count * (k if varied else 1) for count, varied in zip(counts, varies, strict=True)), turned


def objective(model: FittedMixture, table: pa.Table, weight: Array, move: Move) -> Callable[[Array], float]:
    """Log-likelihood plus log prior at moved parameters."""

    def value(theta: Array) -> float:
        moved = replace(model, parameters=move(theta))
        prior = model.mixture.log_prior(moved.parameters, [model.n_components])
        return float(weight @ moved.score(table)[1] + prior[0])

    return value


def hessian(function: Callable[[Array], float], n: int, step: float = STEP) -> Array:
    """Second differences at 0."""
    e, at_0 = step * np.eye(n), function(np.zeros(n))
    out = np.empty((n, n))
    for i in range(n):
        # Of fourth order on the diagonal, which carries most.
        near, far = function(e[i]) + function(-e[i]), function(2 * e[i]) + function(-2 * e[i])
        out[i, i] = (16 * near - far - 30 * at_0) / (12 * step**2)
        for j in range(i):
            cross = function(e[i] + e[j]) - function(e[i] - e[j]) - function(e[j] - e[i]) + function(-e[i] - e[j])
            out[i, j] = out[j, i] = cross / (4 * step**2)
    return out


def jacobian(function: Callable[[Array], Array], n: int, step: float = 1e-5) -> Array:
    """First differences at 0, one column for each coordinate."""
    e = step * np.eye(n)
    return np.array([(function(own) - function(-own)) / (2 * step) for own in e]).T


def row_scores(model: FittedMixture, table: pa.Table, move: Move, n: int) -> Array:
    """(rows, n) derivatives of the log density of every row."""
    return jacobian(lambda theta: replace(model, parameters=move(theta)).score(table)[1], n)


def delta(model: FittedMixture, move: Move, n: int) -> Array:
    """Derivatives of the stored parameters."""
    return jacobian(lambda theta: stored(replace(model, parameters=move(theta))), n)

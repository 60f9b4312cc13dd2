"""Free coordinates θ around fitted parameters φ: what ties parameters together.

    φ(θ):   J = dφ/dθ  and, for a gradient g,  C = sum_j g_j d²φ_j/dθ²        information in θ:  Jᵀ I J - C

Shares that sum to 1 leave out the largest. The covariance models (families/covariance.py) move as  Σ_k = D e^S diag(exp l_k) e^-S Dᵀ  with S skew: the logs
l_k are linear in log volumes and log shapes, S = 0 holds the fitted axes. At a maximum the result does not depend on the coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from dask_em.families import Binomial, Categorical, DiagonalGaussian, Family, Gaussian, Poisson
from dask_em.families.base import Array, Mask
from dask_em.families.covariance import IN_USER_UNITS

BOUNDARY = 1e-8
"""A probability this close to 0 or 1 (or a rate this close to 0, of the column's mean) is on the boundary: nothing is known of its spread."""


@dataclass(frozen=True)
class Chart:
    """Free coordinates of one family: J (K, q, t), and the second derivatives of Σ where there are any; `boundary` (K, q) says what is held."""

    jacobian: Array
    boundary: Mask
    covariance: CovarianceChart | None = None

    def curvature(self, gradient: Array) -> Array:
        """C (t, t) for a (K, q) gradient."""
        n = self.jacobian.shape[2]
        out = np.zeros((n, n))
        if self.covariance is not None:
            own = self.covariance.curvature(gradient[:, -self.covariance.size :])
            out[n - len(own) :, n - len(own) :] = own
        return out


def simplex(shares: Array) -> tuple[Array, Mask]:
    """J (L, t) and the boundary (L,) of L shares that sum to 1."""
    boundary = (shares <= BOUNDARY) | (shares >= 1.0 - BOUNDARY)
    inside = np.flatnonzero(shares > BOUNDARY)
    base = int(np.argmax(shares))
    free = inside[inside != base]
    jacobian = np.zeros((len(shares), len(free)))
    jacobian[free, np.arange(len(free))] = 1.0
    jacobian[base] = -1.0
    return jacobian, boundary


def chart(family: Family, params: Any) -> Chart:
    """Free coordinates of a family's parameters."""
    if isinstance(family, Categorical):
        return _categorical(family, params.probabilities)
    if isinstance(family, Poisson):
        return _separate(params.rates <= BOUNDARY * np.asarray(family.margins))
    if isinstance(family, Binomial):
        p = params.probabilities
        return _separate((p <= BOUNDARY) | (p >= 1.0 - BOUNDARY))
    assert isinstance(family, Gaussian | DiagonalGaussian)
    return _gaussian(family, params)


def _separate(boundary: Mask) -> Chart:
    """Parameters that nothing ties together."""
    k, q = boundary.shape
    free = np.flatnonzero(~boundary.ravel())
    return Chart(np.eye(k * q)[:, free].reshape(k, q, len(free)), boundary)


def _categorical(family: Categorical, probabilities: Array) -> Chart:
    k, q = probabilities.shape
    boundary, columns = np.zeros((k, q), dtype=bool), []
    for component, own in enumerate(probabilities):
        for start, levels in zip(family.offsets.tolist(), family.n_levels):
            jacobian, boundary[component, start : start + levels] = simplex(own[start : start + levels])
            wide = np.zeros((k, q, jacobian.shape[1]))
            wide[component, start : start + levels] = jacobian
            columns.append(wide)
    return Chart(np.concatenate(columns, axis=2), boundary)


def _gaussian(family: Gaussian | DiagonalGaussian, params: Any) -> Chart:
    k, d = params.means.shape
    means = np.zeros((k, d, k * d))
    means.reshape(k * d, k * d)[:] = np.eye(k * d)
    covariance = None
    if family.model in ("VVV", "VVI"):
        size = d if isinstance(family, DiagonalGaussian) else d * (d + 1) // 2
        own = np.eye(k * size).reshape(k, size, k * size)
    elif family.model == "EEE":
        own = np.repeat(np.eye(d * (d + 1) // 2)[None], k, axis=0)
    else:
        covariance = CovarianceChart.around(family, params)
        own = covariance.jacobian
    jacobian = np.zeros((k, d + own.shape[1], k * d + own.shape[2]))
    jacobian[:, :d, : k * d] = means
    jacobian[:, d:, k * d :] = own
    return Chart(jacobian, np.zeros(jacobian.shape[:2], dtype=bool), covariance)


@dataclass(frozen=True)
class CovarianceChart:
    """Covariances of k components along their axes.

    Attributes
    ----------
    axes : (k, d, d) orthogonal; values : (k, d) variances along them; both where the model holds
    logs : (k, d, t) derivatives of the logs of the values
    turns : (k, r, t) derivatives of the r = d(d - 1)/2 entries of S, or r = 0 where axes are the columns
    unit : (d,) what turns the engine's units into those where the model holds
    diagonal : whether only variances are stored
    """

    axes: Array
    values: Array
    logs: Array
    turns: Array
    unit: Array
    diagonal: bool

    @staticmethod
    def around(family: Gaussian | DiagonalGaussian, params: Any) -> CovarianceChart:
        """Log volumes, then log shapes, then turns, each equal over components or varying."""
        k, d = params.means.shape
        unit = np.asarray(family.scale) if family.model in IN_USER_UNITS else np.ones(d)
        diagonal = isinstance(family, DiagonalGaussian)
        if diagonal:
            axes, values = np.repeat(np.eye(d)[None], k, axis=0), params.variances * unit**2
        else:
            axes, values = _axes(family.model[2], params.covariances * unit[:, None] * unit)
        shapes = np.zeros((d, d - 1))
        if d > 1:
            shapes[:-1], shapes[-1] = np.eye(d - 1), -1.0
        volume, shape, orientation = tuple(family.model)
        logs = [_shared_or_own(np.ones((d, 1)), k, volume)]
        if shape != "I":
            logs.append(_shared_or_own(shapes, k, shape))
        n_turns = 0 if orientation == "I" else d * (d - 1) // 2
        turns = _shared_or_own(np.eye(n_turns), k, "V" if orientation == "V" else "E")
        flat = np.concatenate(logs, axis=2)
        n = flat.shape[2]
        logs_wide = np.concatenate([flat, np.zeros((k, d, turns.shape[2]))], axis=2)
        turns_wide = np.concatenate([np.zeros((k, n_turns, n)), turns], axis=2)
        return CovarianceChart(axes, values, logs_wide, turns_wide, unit, diagonal)

    @property
    def size(self) -> int:
        """Stored entries of one component."""
        d = self.values.shape[1]
        return d if self.diagonal else d * (d + 1) // 2

    @property
    def _generators(self) -> Array:
        """(r, d, d) the skew matrices that turn one pair of axes."""
        d = self.values.shape[1]
        pairs = list(combinations(range(d), 2)) if self.turns.shape[1] else []
        out = np.zeros((len(pairs), d, d))
        for r, (i, j) in enumerate(pairs):
            out[r, i, j], out[r, j, i] = 1.0, -1.0
        return out

    @property
    def jacobian(self) -> Array:
        """(k, size, t) derivatives of what is stored, in the engine's units."""
        d, generators = self.values.shape[1], self._generators
        i, j = (np.arange(d), np.arange(d)) if self.diagonal else np.triu_indices(d)
        out = []
        for axes, values, logs, turns in zip(self.axes, self.values, self.logs, self.turns):
            moved = np.einsum("jt,jab->tab", logs * values[:, None], np.eye(d)[:, :, None] * np.eye(d)[:, None, :])
            moved += np.einsum("rt,rab->tab", turns, _commutator(generators, np.diag(values)))
            there = axes @ moved @ axes.T / (self.unit[:, None] * self.unit)
            out.append(there[:, i, j].T)
        return np.array(out)

    def curvature(self, gradient: Array) -> Array:
        """C (t, t) for the (k, size) gradient in what is stored."""
        d, generators = self.values.shape[1], self._generators
        i, j = (np.arange(d), np.arange(d)) if self.diagonal else np.triu_indices(d)
        n = self.logs.shape[2]
        out = np.zeros((n, n))
        for k, (axes, values) in enumerate(zip(self.axes, self.values)):
            slope = np.zeros((d, d))
            slope[i, j] += 0.5 * gradient[k]
            slope[j, i] += 0.5 * gradient[k]
            slope = axes.T @ (slope / (self.unit[:, None] * self.unit)) @ axes
            logs, turns = self.logs[k], self.turns[k]
            out += logs.T @ (logs * (np.diagonal(slope) * values)[:, None])
            # tr(G [E, M]) = tr([G, E] M), once for the diagonal M of a log and once for M = [E', diag(values)].
            pulled = _commutator(slope, generators)
            mixed = turns.T @ (np.diagonal(pulled, axis1=1, axis2=2) * values) @ logs
            both = turns.T @ np.einsum("aij,bji->ab", pulled, _commutator(generators, np.diag(values))) @ turns
            out += mixed + mixed.T + 0.5 * (both + both.T)
        return out


def _commutator(a: Array, b: Array) -> Array:
    return a @ b - b @ a


def _shared_or_own(one: Array, k: int, how: str) -> Array:
    """(k, rows, t) from the (rows, t) derivatives of one component: the same coordinates for all, or its own for each."""
    rows, t = one.shape
    if how != "V":
        return np.repeat(one[None], k, axis=0)
    out = np.zeros((k, rows, k, t))
    out[np.arange(k), :, np.arange(k)] = one
    return out.reshape(k, rows, k * t)


def _axes(orientation: str, matrices: Array) -> tuple[Array, Array]:
    """Axes (k, d, d) and the variances along them (k, d), from covariances that have the model's structure."""
    if orientation == "V":
        values, axes = np.linalg.eigh(matrices)
        return axes, values
    # Any mixture of the matrices has the common axes; unlike weights keep their eigenvalues apart.
    _, common = np.linalg.eigh(np.einsum("k,kij->ij", np.sqrt(np.arange(2.0, len(matrices) + 2)), matrices))
    axes = np.repeat(common[None], len(matrices), axis=0)
    return axes, np.diagonal(axes.swapaxes(1, 2) @ matrices @ axes, axis1=1, axis2=2).copy()

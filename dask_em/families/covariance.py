"""The fourteen covariance models, from the scatter of each component alone.

    Σ_k = λ_k D_k A_k D_kᵀ        volume λ, shape A (diagonal, determinant 1), orientation D (orthogonal)

A model is three letters, for volume, shape and orientation: E is equal over components, V varies, I is the identity (Banfield and Raftery 1993; Celeux and Govaert 1995).
The M-step maximises  -1/2 sum_k [ n_k log|Σ_k| + tr(Σ_k⁻¹ W_k) ]  in two moves: axes first, then the variances along them, repeated where one depends on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import combinations

import numpy as np

from dask_em.families.base import COLLAPSED_VARIANCE, Array, Mask, ratio

DIAGONAL = ("EII", "VII", "EEI", "VEI", "EVI", "VVI")
FULL = ("EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")
MODELS = (*DIAGONAL, *FULL)

IN_USER_UNITS = ("EII", "VII", "EVE", "VVE", "EEV", "VEV")
"""Models that other units of a column would change: their scatter is taken in the user's."""

SETTLED = 1e-13
"""Relative change below which an inner iteration has ended."""

N_INNER = 200
"""Inner steps at most; where they do not settle, the next M-step goes on from there."""

COLLINEAR = 1e-13
"""Smallest eigenvalue of a correlation matrix that still has a density in double precision."""


def usable(covariances: Array, smallest: float = COLLAPSED_VARIANCE, least: float = COLLINEAR) -> Mask:
    """Which of the (K, d, d) covariances have a density: variances neither tiny nor vast, and correlations with eigenvalues of at least `least`."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    sized = (variances > smallest) & (variances < 1.0 / smallest)
    good: Mask = np.logical_and(np.isfinite(covariances).all(axis=(1, 2)), np.all(sized, axis=1))
    own = np.flatnonzero(good)
    deviations = np.sqrt(variances[own])
    correlations = covariances[own] / (deviations[:, :, None] * deviations[:, None, :])
    good[own] = np.linalg.eigvalsh(correlations)[:, 0] >= least
    return good


def n_free(model: str, k: int, d: int) -> int:
    """Free parameters of k covariance matrices."""
    volume, shape, orientation = tuple(model)
    count = {"E": 1, "V": k}
    turns = 0 if orientation == "I" else count[orientation] * d * (d - 1) // 2
    return count[volume] + (0 if shape == "I" else count[shape] * (d - 1)) + turns


def covariances(model: str, scatter: Array, n: Array, previous: Array, sizes: Sequence[int]) -> Array:
    """M-step of the FULL models.

    Parameters
    ----------
    scatter : (K, d, d) about the means, of all candidates side by side; n : (K,) weights
    previous : (K, d, d), from which iterations start
    sizes : components of each candidate

    Returns
    -------
    (K, d, d); not all of it usable where the scatter does not carry the model
    """
    if model == "VVV":
        return ratio(scatter, n[:, None, None], previous)
    out = np.full_like(scatter, np.nan)
    for own in candidates(sizes):
        if (n[own] > 0).all() and np.isfinite(scatter[own]).all():
            with np.errstate(all="ignore"), suppress(np.linalg.LinAlgError):
                out[own] = _full(model, scatter[own], n[own], previous[own])
    return out


def variances(model: str, scatter: Array, n: Array, previous: Array, sizes: Sequence[int]) -> Array:
    """M-step of the DIAGONAL models, as `covariances`: scatter, n and previous are (K, d), where a column may have been observed less often than others."""
    volume, shape = model[0], model[1]
    out = np.full_like(scatter, np.nan)
    for own in candidates(sizes):
        total, count = scatter[own], n[own]
        with np.errstate(all="ignore"):
            if model == "EVI":
                out[own] = _equal_volumes(total, count, previous[own])
            elif model == "VEI":
                out[own] = _equal_shapes(total, count, previous[own][0])
            else:
                out[own] = _along_axes(volume, shape, total, count)
    return out


def _equal_volumes(total: Array, n: Array, value: Array) -> Array:
    """EVI: equal volumes tie the columns of a component together, so cells that were not observed count with the variance that they have."""
    most = np.repeat(n.max(axis=1, keepdims=True), n.shape[1], axis=1)
    for _ in range(N_INNER):
        new = _along_axes("E", "V", total + (most - n) * value, most)
        change, value = np.abs(new / value - 1.0).max(), new
        if not change > SETTLED:
            break
    return value


def candidates(sizes: Sequence[int]) -> Iterator[slice]:
    """The components of each candidate."""
    start = 0
    for k in sizes:
        yield slice(start, start + k)
        start += k


def _along_axes(volume: str, shape: str, total: Array, n: Array) -> Array:
    """(k, d) variances from sums of squares and weights, both (k, d)."""
    if shape == "I":
        level = _along_axes(volume, volume, total.sum(axis=1, keepdims=True), n.sum(axis=1, keepdims=True))
        return np.repeat(level, total.shape[1], axis=1)
    if volume == shape:
        return total / n if volume == "V" else np.repeat(total.sum(axis=0)[None] / n.sum(axis=0), len(total), axis=0)
    size = np.exp(np.log(total).mean(axis=1, keepdims=True))
    return total / size * (size.sum() / n[:, 0].sum())


def _equal_shapes(total: Array, n: Array, profile: Array) -> Array:
    """VEI and VEV: the shape given the volumes, the volumes given the shape; from the shape before, so that even steps that do not settle only climb."""

    def step(profile: Array) -> Array:
        size = (total / profile).sum(axis=1) / n.sum(axis=1)
        return (total / size[:, None]).sum(axis=0) / n.sum(axis=0)

    profile = _settled(step, profile)
    return (total / profile).sum(axis=1, keepdims=True) / n.sum(axis=1, keepdims=True) * profile


def _full(model: str, scatter: Array, n: Array, previous: Array) -> Array:
    volume, shape, orientation = tuple(model)
    d = scatter.shape[1]
    weights = np.repeat(n[:, None], d, axis=1)
    if orientation == "V" and shape == "V":  # EVV
        size = np.exp(np.linalg.slogdet(scatter)[1] / d)
        return scatter * (size.sum() / n.sum() / size)[:, None, None]
    if orientation == "V":  # EEV, VEV: every component's own axes, sorted by what lies along them
        along, axes = np.linalg.eigh(scatter)
        along = np.maximum(along, 0.0)
        if volume == "V":
            return _turned(_equal_shapes(along, weights, np.linalg.eigvalsh(previous[0])), axes)
        return _turned(_along_axes(volume, shape, along, weights), axes)
    if shape == "E":  # EEE, VEE: one matrix up to volume
        if volume == "V":

            def size(matrix: Array) -> Array:
                inverse = np.linalg.inv(matrix)
                own: Array = np.einsum("kij,ji->k", scatter, inverse) / (d * n)
                return own

            common = _settled(lambda m: (scatter / size(m)[:, None, None]).sum(axis=0) / n.sum(), previous[0])
            return size(common)[:, None, None] * common
        return np.repeat((scatter.sum(axis=0) / n.sum())[None], len(n), axis=0)
    return _common_axes(volume, scatter, n, previous)


def _common_axes(volume: str, scatter: Array, n: Array, previous: Array) -> Array:
    """EVE and VVE: the same axes for all components, each with its own variances along them.

    Axes are turned in pairs, each time by the best angle, which is known (Flury and Gautschi 1986; Browne and McNicholas 2014 majorise instead).
    """
    k, d = scatter.shape[:2]
    weights = np.repeat(n[:, None], d, axis=1)
    # Any mixture of the matrices has the common axes; unlike weights keep their eigenvalues apart.
    _, axes = np.linalg.eigh(np.einsum("k,kij->ij", np.sqrt(np.arange(2.0, k + 2)), previous))
    turned = axes.T @ scatter @ axes

    def cost(values: Array, diagonal: Array) -> float:
        return float((n[:, None] * np.log(values) + diagonal / values).sum())

    before = np.inf
    for _ in range(N_INNER):
        values = _along_axes(volume, "V", np.diagonal(turned, axis1=1, axis2=2), weights)
        now = cost(values, np.diagonal(turned, axis1=1, axis2=2))
        if not before - now > SETTLED * max(abs(now), 1.0):
            break
        before = now
        for i, j in combinations(range(d), 2):
            unlike = 1.0 / values[:, i] - 1.0 / values[:, j]
            level = 0.5 * float(((turned[:, i, i] - turned[:, j, j]) * unlike).sum())
            angle = 0.5 * np.arctan2(-float((turned[:, i, j] * unlike).sum()), -level)
            c, s = np.cos(angle), np.sin(angle)
            turn = np.array([[c, -s], [s, c]])
            turned[:, :, [i, j]] = turned[:, :, [i, j]] @ turn
            turned[:, [i, j]] = turn.T @ turned[:, [i, j]]
            axes[:, [i, j]] = axes[:, [i, j]] @ turn
    return _turned(values, np.repeat(axes[None], k, axis=0))


def _turned(values: Array, axes: Array) -> Array:
    out: Array = (axes * values[:, None, :]) @ axes.swapaxes(1, 2)
    return 0.5 * (out + out.swapaxes(1, 2))


def _settled(step: Callable[[Array], Array], value: Array) -> Array:
    """The fixed point of a step, which is the same up to a factor."""
    for _ in range(N_INNER):
        new = step(value)
        new = new * (np.abs(value).max() / np.abs(new).max())
        change, value = float(np.abs(new - value).max()), new
        if not change > SETTLED * np.abs(new).max():
            break
    return value

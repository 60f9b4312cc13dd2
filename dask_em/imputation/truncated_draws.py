"""Draws of all missing cells of a row from their joint normal distribution within the cells' bounds.

Rejection first: whole rows are proposed and kept or refused. Rows that stay refused go on to Gibbs sampling (Geweke 1991), which
starts within the bounds and moves along one direction at a time, each move a univariate truncated normal. Nothing is clipped, and no cell is
drawn alone. A row's draw depends on its own uniforms only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from dask_em.imputation.truncated import Array, standard_draw, standard_moments
from dask_em.imputation.truncated_factor import Factor, Rows, alike, common, factorise, interval, shaped, sides, taken

N_PROPOSALS = 100
"""Draws from the untruncated normal before a row goes on to Gibbs: rows whose region has a mass of 5 % or more all but never do."""

N_SWEEPS = 64
"""Gibbs sweeps, alternating between the factors z (fast where cells are correlated) and the cells (fast where bounds are narrow)."""


def draw_joint(
    means: ArrayLike,
    C: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    random: Callable[[int, Rows], Array],
) -> Array:
    """One draw of all cells of each row from their joint distribution within the bounds.

    Parameters
    ----------
    means, C, lower, upper : as in `joint_mass_and_means`
    random : random(purpose, rows) -> (m, len(rows)) uniforms within (0, 1) for those rows of this call; they must depend
        on nothing but the purpose and the row's own key, for a row's draw to be its own. Purposes are 0 .. N_PROPOSALS - 1 for
        proposals, N_PROPOSALS for the start and then N_SWEEPS more.

    Returns
    -------
    draws : (m, n), within the closed bounds

    Notes
    -----
    All cells of a row are proposed at once and kept or refused together. A row refused N_PROPOSALS times goes on to N_SWEEPS sweeps of Gibbs
    (Geweke 1991) from a start within its bounds. Where the bounds limit one factor only, its inverse distribution function gives
    an exact draw at once. Nothing is clipped but rounding, and two cases in which no draw can meet the bounds: a cell with no variance whose
    value lies outside goes to the nearest bound, the limit of a truncated normal as its sd goes to 0; so do cells that determine one another
    when their bounds contradict each other.
    """
    at, covariance, low, high = shaped(means, C, lower, upper)
    out = np.empty_like(at)
    for group, bounded in alike(low, high):
        factor = factorise(covariance, bounded)
        left = group
        for purpose in range(N_PROPOSALS if factor.n_limited > 1 else 0):
            if not len(left):
                break
            here, lows, highs = taken(left, at, low, high)
            out[:, left] = x = factor.cells(here, ndtri(np.ascontiguousarray(random(purpose, left))))
            left = left[~_within(x, lows, highs, factor.tested)]
        if len(left):
            out[:, left] = _gibbs(factor, *taken(left, at, low, high), left, random)
    return np.clip(out, low, high)


def _within(x: Array, lower: Array, upper: Array, cells: tuple[int, ...]) -> NDArray[np.bool_]:
    """Rows in which all those cells meet their bounds."""
    kept = np.ones(x.shape[1], dtype=bool)
    for i in cells:
        kept &= (x[i] >= lower[i]) & (x[i] <= upper[i])
    return kept


def _gibbs(
    factor: Factor, means: Array, lower: Array, upper: Array, rows: Rows, random: Callable[[int, Rows], Array]
) -> Array:
    """Draws that start within the bounds, factor after factor, and then walk; exact at the start if the bounds limit one factor."""
    r = factor.n_limited
    uniforms = np.ascontiguousarray(random(N_PROPOSALS, rows))
    z: list[Array] = []
    for k in range(r):
        a, b = interval(factor, k, means, lower, upper, z)
        z.append(standard_draw(a, b, standard_moments(a, b)[0], uniforms[k]))
    z.extend(ndtri(uniforms[k]) for k in range(r, factor.L.shape[1]))
    if r > 1:
        kinds = _directions(factor)
        for sweep in range(N_SWEEPS):
            uniforms = np.ascontiguousarray(random(N_PROPOSALS + 1 + sweep, rows))
            x = factor.cells(means, z)  # anew each sweep, so that rounding does not gather
            for (w, v), u in zip(kinds[sweep % 2], uniforms):
                _move(z, x, w, v, lower, upper, u)
    return factor.cells(means, z)


def _move(z: list[Array], x: Array, w: Array, v: Array, lower: Array, upper: Array, uniforms: Array) -> None:
    """Draw the position along the unit vector w of the factors, which is a standard normal that the bounds limit; v is how the cells move."""
    at = np.zeros(x.shape[1])
    for k in np.flatnonzero(w):
        at = at + w[k] * z[k]
    a, b = common([sides(lower[i] - x[i], upper[i] - x[i], v[i]) for i in np.flatnonzero(v)])
    a, b = a + at, b + at
    step = standard_draw(a, b, standard_moments(a, b)[0], uniforms) - at
    for k in np.flatnonzero(w):
        z[k] = z[k] + w[k] * step
    for i in np.flatnonzero(v):
        x[i] = x[i] + v[i] * step


def _directions(factor: Factor) -> tuple[list[tuple[Array, Array]], list[tuple[Array, Array]]]:
    """Along each factor; and along each bounded cell that can move while the other bounded ones stay (Gibbs as it is commonly known)."""
    cells = list(factor.tested)
    L = factor.L[cells, : factor.n_limited]
    inverse = np.linalg.pinv(L, rcond=1e-8)
    one_factor, one_cell = [], []
    for k in range(factor.n_limited):
        v = np.zeros(len(factor.L))
        v[cells] = L[:, k]
        one_factor.append((np.eye(factor.n_limited)[k], v))
    for j, i in enumerate(cells):
        if L[j] @ inverse[:, j] > 1 - 1e-6:
            length = np.sqrt(inverse[:, j] @ inverse[:, j])
            v = np.zeros(len(factor.L))
            v[i] = 1 / length
            one_cell.append((inverse[:, j] / length, v))
    return one_factor, one_cell or one_factor

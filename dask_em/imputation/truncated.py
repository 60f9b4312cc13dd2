"""The normal distribution cut off at bounds, one cell at a time: its mass, its means and its draws, far into both tails.

    z ~ N(0, 1) given a <= z <= b        mass = Φ(b) - Φ(a)        E[z] = (φ(a) - φ(b)) / mass
    E[exp(t z)] = exp(t² / 2) (Φ(b - t) - Φ(a - t)) / mass

Everything is computed on the half line where the interval is nearer to the middle with its left end (`_fold`), so that one set of formulas
serves both tails. Every function is elementwise: a row has the same bits whatever other rows stand beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, erfcx, exprel, log_ndtr, ndtri_exp

Array = NDArray[np.float64]

NARROW = 1e-5
"""Intervals narrower than this many standard deviations: the density is exponential within them to 1e-11, and differences of Φ lose digits."""

FAR = 1e8
"""An interval that begins this many standard deviations out holds its whole distribution within rounding of its near end."""

_SQRT_2 = np.sqrt(2.0)
_SQRT_2_OVER_PI = np.sqrt(2 / np.pi)
_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


def standard_moments(a: Array, b: Array) -> tuple[Array, Array]:
    """The log mass and the mean of a standard normal on [a, b].

    Parameters
    ----------
    a, b : ends of the intervals, of shapes that broadcast, a <= b; may be infinite

    Returns
    -------
    log_mass : log(Φ(b) - Φ(a)); finite as long as a² is, -inf where the interval is empty or a single point
    mean : E[z | a <= z <= b], within [a, b]

    Notes
    -----
    In the tail φ / (1 - Φ) is √(2/π) / erfcx(a/√2), which neither overflows nor cancels (Abramowitz and Stegun 1964, 7.1).
    """
    near, far, flipped = _fold(a, b)
    with np.errstate(all="ignore"):  # np.where computes both branches; the one not taken may divide 0 by 0
        drop = np.where(np.isinf(far), -np.inf, -0.5 * (far - near) * (far + near))  # log φ(far) - log φ(near)
        peak = 0.5 * near * near
        tail = near > 0
        # Twice the mass, in the tail over exp(-near² / 2).
        mass = np.where(
            tail,
            erfcx(np.abs(near) / _SQRT_2) - np.exp(drop) * erfcx(far / _SQRT_2),
            erf(far / _SQRT_2) - erf(near / _SQRT_2),
        )
        log_mass = np.log(0.5 * mass) - np.where(tail, peak, 0.0)
        mean = -_SQRT_2_OVER_PI * np.expm1(drop) * np.where(tail, 1.0, np.exp(-peak)) / mass

        width = far - near
        half = 0.5 * width
        middle = near + half
        slope = middle * half
        narrow = width < NARROW
        log_narrow = np.log(width) - 0.5 * middle * middle - _LOG_SQRT_2PI + slope + np.log(exprel(-2 * slope))
        log_mass = np.where(narrow, log_narrow, log_mass)
        mean = np.where(narrow, middle - half * _langevin(slope), mean)
    mean = np.clip(mean, near, far)
    return log_mass, np.where(flipped, -mean, mean)


def standard_log_exp_mean(rate: ArrayLike, a: Array, b: Array, log_mass: Array, mean: Array) -> Array:
    """log E[exp(rate z)] of a standard normal on [a, b], given what `standard_moments` says of that interval."""
    rate = np.asarray(rate, dtype=np.float64)
    shifted, _ = standard_moments(a - rate, b - rate)
    with np.errstate(invalid="ignore"):
        # Where there is no mass to divide by, the interval is a point, and the mean is that point.
        at_point = np.where(rate == 0, 0.0, rate * mean)
        return np.where(np.isfinite(log_mass), 0.5 * rate * rate + shifted - log_mass, at_point)


def standard_draw(a: Array, b: Array, log_mass: Array, uniforms: Array) -> Array:
    """The quantile at `uniforms` of a standard normal on [a, b], given the interval's log mass; it increases with the uniform."""
    near, far, flipped = _fold(a, b)
    log_u, log_rest = np.log(uniforms), np.log1p(-uniforms)
    with np.errstate(all="ignore"):
        # log Φ(z) and log Φ(-z); the smaller is the one that keeps its digits.
        below = np.logaddexp(log_ndtr(near), np.where(flipped, log_rest, log_u) + log_mass)
        above = np.logaddexp(log_ndtr(-far), np.where(flipped, log_u, log_rest) + log_mass)
        left = below < above
        z = ndtri_exp(np.where(left, below, above))
        z = np.where(left, z, -z)

        width = far - near
        fall = width * (near + 0.5 * width)  # of the log density across the interval
        share = np.where(flipped, 1 - uniforms, uniforms)
        share = np.where(fall < 1e-8, share, -np.log1p(share * np.expm1(-fall)) / fall)
        z = np.where(width < NARROW, near + share * width, z)
    z = np.clip(np.where(near > FAR, near, z), near, far)
    return np.where(flipped, -z, z)


def truncated_moments(mean: ArrayLike, sd: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array]:
    """The log mass within bounds of a normal distribution, and its mean there.

    Parameters
    ----------
    mean, sd : of the normal before it is cut off; shapes broadcast with the bounds
    lower, upper : bounds, lower <= upper; -inf and inf where there is none

    Returns
    -------
    log_mass : log P(lower <= z <= upper)
    expected : E[z | lower <= z <= upper], always within the bounds

    Notes
    -----
    A cell with sd = 0 is a point: log_mass is 0 within the bounds and -inf outside. A point outside is placed at the nearest bound, which is
    where the truncated normal goes as its sd goes to 0.
    """
    centre, spread, low, high = _floats(mean, sd, lower, upper)
    log_mass, z = standard_moments(*_standardised(centre, spread, low, high))
    return log_mass, _placed(centre, spread, z, low, high)


def truncated_exp_mean(mean: ArrayLike, sd: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
    """E[exp(z) | lower <= z <= upper] of a normal z: the mean, in the user's units, of a cell that was modelled by its logarithm.

    Parameters and the treatment of sd = 0 as in `truncated_moments`; the bounds are those of z. E[exp(-z)] is the same function of
    (-mean, sd, -upper, -lower), so sinh and cosh follow. Inf where the answer is beyond the largest number.
    """
    centre, spread, low, high = _floats(mean, sd, lower, upper)
    a, b = _standardised(centre, spread, low, high)
    log_mass, z = standard_moments(a, b)
    with np.errstate(over="ignore", invalid="ignore"):
        log_mean = np.where(np.isfinite(z), centre + standard_log_exp_mean(spread, a, b, log_mass, z), centre)
        return np.clip(np.exp(log_mean), np.exp(low), np.exp(high))


def draw_univariate(mean: ArrayLike, sd: ArrayLike, lower: ArrayLike, upper: ArrayLike, uniforms: ArrayLike) -> Array:
    """Draws of a normal distribution within bounds, by the inverse of its distribution function.

    Parameters
    ----------
    mean, sd, lower, upper : as in `truncated_moments`; a point (sd = 0) outside the bounds is placed at the nearest bound
    uniforms : within (0, 1), one for each draw; a larger one gives a larger draw

    Returns
    -------
    draws : within the closed bounds

    Notes
    -----
    The distribution function is inverted as a logarithm, from whichever side is smaller, so both tails have all their digits.
    """
    centre, spread, low, high = _floats(mean, sd, lower, upper)
    a, b = _standardised(centre, spread, low, high)
    log_mass, _ = standard_moments(a, b)
    z = standard_draw(a, b, log_mass, np.asarray(uniforms, dtype=np.float64))
    return _placed(centre, spread, z, low, high)


def _fold(a: Array, b: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The interval, mirrored where needed so that its near end is its left one (-near <= far), and where it was mirrored."""
    flipped = -a > b
    return np.where(flipped, -b, a), np.where(flipped, -a, b), flipped


def _langevin(x: Array) -> Array:
    """coth x - 1/x, without its cancellation at 0."""
    return np.where(x < 0.01, x * (1 / 3 - x * x / 45), 1 / np.tanh(x) - 1 / x)


def _standardised(mean: Array, sd: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The bounds in standard deviations from the mean; those of a point are infinite, and on one side if the point lies outside."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        a, b = (lower - mean) / sd, (upper - mean) / sd
    a = np.where(sd > 0, a, np.where(lower > mean, np.inf, -np.inf))
    b = np.where(sd > 0, b, np.where(upper < mean, -np.inf, np.inf))
    return a, b


def _placed(mean: Array, sd: Array, z: Array, lower: Array, upper: Array) -> Array:
    """mean + sd z within its bounds, whatever rounding does; a point stays where it is or goes to the nearest bound."""
    with np.errstate(invalid="ignore"):
        return np.clip(np.where(np.isfinite(z) & (sd > 0), mean + sd * z, mean), lower, upper)


def _floats(*values: ArrayLike) -> tuple[Array, ...]:
    # Contiguous: NumPy's loops for exp and log may differ in the last bit between layouts, and must not between batches.
    return tuple(np.asarray(value, dtype=np.float64, order="C") for value in values)

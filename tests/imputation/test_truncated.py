"""The normal distribution within bounds, one cell at a time: against quadrature and SciPy, far into both tails, bit for bit by row."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm, truncnorm

from dask_em.imputation.truncated import draw_univariate, truncated_exp_mean, truncated_moments

NEAR = st.floats(-8, 60)
WIDTH = st.sampled_from([1e-9, 0.99e-5, 1.01e-5, 1e-3, 0.5, 3.0, 30.0])


def by_quadrature(a: float, b: float, rate: float = 0.0) -> tuple[float, float]:
    """log of the mass of exp(rate z) on [a, b], and the mean under it, relative to the density's peak in the interval."""
    peak = float(np.clip(rate, a, b))
    width = min(b - peak, 40.0), min(peak - a, 40.0)

    def density(t: float) -> float:
        return np.exp(-0.5 * t * t - (peak - rate) * t)

    def integral(f) -> float:
        edges = [-width[1], *(-x for x in (5.0, 1.0, 0.1) if x < width[1]), 0.0]
        edges += [*(x for x in (1e-3, 0.1, 1.0, 5.0) if x < width[0]), width[0]]
        return sum(quad(f, low, high, epsabs=0, epsrel=1e-11)[0] for low, high in pairwise(edges) if high > low)

    mass = integral(density)
    shift = integral(lambda t: t * density(t)) if mass else 0.0
    return np.log(mass / np.sqrt(2 * np.pi)) - 0.5 * peak * peak + rate * peak, peak + shift / mass


@given(near=NEAR, width=WIDTH, mirrored=st.booleans())
def test_mass_and_mean_are_those_of_quadrature(near: float, width: float, mirrored: bool) -> None:
    far = near + width
    log_mass, mean = by_quadrature(near, far)
    a, b, sign = (-far, -near, -1) if mirrored else (near, far, 1)
    ours, expected = truncated_moments(3.0, 2.0, 3 + 2 * a, 3 + 2 * b)
    # The bounds themselves are rounded when they are put in units, which matters to the narrowest interval only.
    rounding = 1e-14 * (1 + abs(near)) / width
    assert ours == pytest.approx(log_mass, rel=1e-9, abs=1e-9 + rounding)
    assert (expected - 3) / 2 * sign == pytest.approx(
        mean, abs=1e-5 * min(width, 1 / (1 + abs(near))) + rounding * width
    )
    assert 3 + 2 * a <= expected <= 3 + 2 * b


@given(near=NEAR, width=WIDTH, rate=st.sampled_from([0.1, 1.0, 3.0]), mirrored=st.booleans())
def test_the_mean_of_exp_is_that_of_quadrature(near: float, width: float, rate: float, mirrored: bool) -> None:
    a, b = (-near - width, -near) if mirrored else (near, near + width)
    sign = -1 if mirrored else 1
    log_mass, _ = by_quadrature(near, near + width)
    tilted, _ = by_quadrature(near, near + width, sign * rate)
    ours = truncated_exp_mean(0.0, rate, rate * a, rate * b)
    assert np.log(ours) == pytest.approx(tilted - log_mass, rel=1e-8, abs=1e-8 + 1e-14 * (1 + abs(near)) / width)
    assert np.exp(rate * a) <= ours <= np.exp(rate * b)


def test_open_intervals_are_those_of_scipy() -> None:
    a = np.array([-np.inf, -np.inf, 1.5, -30.0, -np.inf])
    b = np.array([np.inf, -2.0, np.inf, 0.3, 4.0])
    log_mass, expected = truncated_moments(0.0, 1.0, a, b)
    np.testing.assert_allclose(np.exp(log_mass), truncnorm.cdf(b, -50, 50) - truncnorm.cdf(a, -50, 50), rtol=1e-12)
    np.testing.assert_allclose(expected, truncnorm.mean(a, b), rtol=1e-9, atol=1e-15)
    uniforms = np.linspace(0.001, 0.999, 41)[:, None]
    np.testing.assert_allclose(
        draw_univariate(0.0, 1.0, a, b, uniforms), truncnorm.ppf(uniforms, a, b), rtol=1e-7, atol=1e-12
    )
    assert truncated_exp_mean(1.0, 0.5, -np.inf, np.inf) == pytest.approx(np.exp(1.125), rel=1e-14)


@pytest.mark.parametrize("out", [40.0, 1e3, 1e7, 1e20, 1e140])
@pytest.mark.parametrize("sign", [1, -1])
def test_nothing_is_lost_where_the_mass_underflows(out: float, sign: int) -> None:
    lower, upper = (out, np.inf) if sign > 0 else (-np.inf, -out)
    log_mass, expected = truncated_moments(0.0, 1.0, lower, upper)
    assert np.isfinite(log_mass)
    assert log_mass == pytest.approx(-0.5 * out * out - np.log(out * np.sqrt(2 * np.pi)), rel=1e-5)
    assert sign * expected == pytest.approx(out + 1 / out, rel=3 * out**-2 * out**-2 + 1e-15)
    assert sign * expected >= out
    draws = sign * draw_univariate(0.0, 1.0, lower, upper, np.array([1e-12, 0.3, 0.9, 1 - 1e-12]))
    assert np.all(draws >= out)
    assert np.all(draws <= out + 30 / out)
    np.testing.assert_array_equal(np.isfinite(truncated_exp_mean(-out, 1.0, lower, upper)), sign < 0 or out < 100)


@given(near=NEAR, width=WIDTH | st.just(np.inf), mirrored=st.booleans(), uniform=st.floats(1e-15, 1 - 1e-10))
def test_a_draw_has_its_uniform_of_the_mass_below_it(near: float, width: float, mirrored: bool, uniform: float) -> None:
    a, b = (-near - width, -near) if mirrored else (near, near + width)
    draw = draw_univariate(0.0, 1.0, a, b, uniform)
    assert a <= draw <= b
    total, _ = truncated_moments(0.0, 1.0, a, b)
    with np.errstate(divide="ignore"):
        below, above = (np.exp(truncated_moments(0.0, 1.0, *ends)[0] - total) for ends in ((a, draw), (draw, b)))
    # A draw can be no finer than a few of its own last bits, of which a narrow or far interval holds few.
    grain = 2e-15 * (1 + abs(draw)) * max(1 / width, 1 + abs(near))
    assert below == pytest.approx(uniform, rel=1e-8, abs=grain + 1e-11 * uniform)
    assert above == pytest.approx(1 - uniform, rel=1e-8, abs=grain + 1e-11)


def test_a_draw_keeps_its_digits_at_the_far_end_too() -> None:
    tiny = np.ldexp(1.0, -np.arange(10, 51, 8))
    upper = norm.isf(tiny * norm.sf(-1.0))
    np.testing.assert_allclose(draw_univariate(0.0, 1.0, -1.0, np.inf, 1 - tiny), upper, rtol=1e-12)
    np.testing.assert_allclose(draw_univariate(0.0, 1.0, -np.inf, 1.0, tiny), -upper, rtol=1e-12)


@pytest.mark.parametrize(("near", "far"), [(-1.0, 0.5), (3.0, np.inf), (-np.inf, -6.0), (50.0, 50.02), (2.0, 2.000001)])
def test_draws_at_even_uniforms_have_the_mean(near: float, far: float) -> None:
    uniforms = (np.arange(200_000) + 0.5) / 200_000
    draws = draw_univariate(1.0, 2.0, 1 + 2 * near, 1 + 2 * far, uniforms)
    _, expected = truncated_moments(1.0, 2.0, 1 + 2 * near, 1 + 2 * far)
    assert draws.mean() == pytest.approx(expected, abs=1e-5 * draws.std())
    assert np.all(np.diff(draws) >= 0)
    assert np.exp(draws).mean() == pytest.approx(truncated_exp_mean(1.0, 2.0, 1 + 2 * near, 1 + 2 * far), rel=2e-3)


def test_a_point_stays_or_goes_to_the_nearest_bound() -> None:
    mean = np.array([-1.0, 0.0, 0.5, 1.0, 7.0])
    log_mass, expected = truncated_moments(mean, 0.0, 0.0, 1.0)
    np.testing.assert_array_equal(log_mass, [-np.inf, 0, 0, 0, -np.inf])
    np.testing.assert_array_equal(expected, [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(draw_univariate(mean, 0.0, 0.0, 1.0, 0.3), expected)
    np.testing.assert_array_equal(truncated_exp_mean(mean, 0.0, 0.0, 1.0), np.exp(expected))
    # It is where a small sd tends to.
    np.testing.assert_allclose(truncated_moments(mean, 1e-9, 0.0, 1.0)[1], expected, atol=1e-8)
    np.testing.assert_allclose(truncated_moments(mean, 1e-320, 0.0, 1.0)[1], expected, atol=1e-8)
    np.testing.assert_array_equal(truncated_moments(0.0, 1.0, 2.0, 2.0)[1], 2.0)
    np.testing.assert_array_equal(draw_univariate(0.0, 1.0, 2.0, 2.0, 0.5), 2.0)


def test_a_row_has_its_bits_whatever_stands_beside_it() -> None:
    rng = np.random.default_rng(0)
    n = 257
    mean, sd = rng.normal(size=n) * 3, np.exp(rng.normal(size=n))
    lower = np.where(rng.random(n) < 0.3, -np.inf, rng.normal(size=n) * 10)
    upper = np.where(rng.random(n) < 0.3, np.inf, lower + np.exp(rng.normal(size=n) * 5))
    upper[np.isneginf(lower)] = rng.normal(size=int(np.isneginf(lower).sum()))
    uniforms = rng.random(n)

    def everything(rows: np.ndarray) -> np.ndarray:
        cells = mean[rows], sd[rows], lower[rows], upper[rows]
        return np.stack(
            [*truncated_moments(*cells), truncated_exp_mean(*cells), draw_univariate(*cells, uniforms[rows])]
        )

    whole = everything(np.arange(n))
    assert not np.isnan(whole).any()
    assert np.array_equal(whole, np.concatenate([everything(np.array([i])) for i in range(n)], axis=1))
    order = rng.permutation(n)
    assert np.array_equal(whole[:, order], everything(order))
    strided = truncated_moments(*(np.repeat(x, 3)[::3] for x in (mean, sd, lower, upper)))
    assert np.array_equal(whole[:2], np.stack(strided))

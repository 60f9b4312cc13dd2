"""The rule that ends EM: late enough on slow problems, at rounding, or at max_iter, and never past a decrease."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_em.em.stopping import Verdict, decreased, judge


def climb(limit: float, gap: float, ratio: float, n: int) -> list[float]:
    """Objectives that approach a limit as EM does: linearly."""
    return [limit - gap * ratio**i for i in range(n)]


def stop_of(objectives: list[float], n_weight: float, tol: float, max_iter: int = 10**6) -> tuple[int, Verdict]:
    """Where a climb is stopped, and why."""
    for i in range(1, len(objectives) + 1):
        verdict = judge(objectives[:i], n_weight, tol, max_iter)
        if verdict is not Verdict.RUNNING:
            return i, verdict
    raise AssertionError("it never stops")


@given(
    ratio=st.floats(0.01, 0.999),
    gap=st.floats(1e-3, 1e4),
    n_weight=st.floats(1, 1e6),
    tol=st.sampled_from([1e-3, 1e-6, 1e-8]),
)
def test_what_is_left_is_within_the_tolerance(ratio: float, gap: float, n_weight: float, tol: float) -> None:
    objectives = climb(0.0, gap, ratio, 40_000)
    i, verdict = stop_of(objectives, n_weight, tol)
    assert verdict.converged
    if verdict is Verdict.TOLERANCE:
        assert -objectives[i - 1] <= 1.01 * tol * n_weight


def test_the_last_change_alone_would_stop_too_early() -> None:
    """A ratio of 0.999: the change is a thousandth of what is left."""
    objectives = climb(-2000.0, 1.0, 0.999, 30_000)
    tol, n = 1e-6, 1096.0
    naive = next(i for i in range(1, 30_000) if objectives[i] - objectives[i - 1] <= tol * n)
    i, verdict = stop_of(objectives, n, tol)
    assert verdict is Verdict.TOLERANCE
    assert -2000.0 - objectives[naive] > 500 * tol * n
    assert -2000.0 - objectives[i - 1] <= 1.01 * tol * n


def test_a_climb_that_speeds_up_goes_on() -> None:
    """Leaving a saddle, changes grow: there is nothing to predict yet, however small they are."""
    objectives = [-100.0, -100.0 + 1e-9, -100.0 + 3e-9, -100.0 + 9e-9]
    assert judge(objectives, 100.0, 1e-6, 1000) is Verdict.RUNNING


def test_two_objectives_are_not_enough() -> None:
    assert judge([-100.0], 10.0, 1e-2, 1000) is Verdict.RUNNING
    assert judge([-100.0, -99.999], 10.0, 1e-2, 1000) is Verdict.RUNNING
    assert judge([-100.0, -99.999, -99.9989], 10.0, 1e-2, 1000) is Verdict.TOLERANCE


@pytest.mark.parametrize("change", [0.0, 1e-14, -1e-12])
def test_no_gain_beyond_rounding_is_the_end(change: float) -> None:
    assert judge([-1000.0, -1000.0 + change], 100.0, 0.0, 1000) is Verdict.ROUNDING


def test_rounding_ends_a_climb_without_tolerance() -> None:
    i, verdict = stop_of(climb(-1000.0, 10.0, 0.5, 200), 100.0, 0.0)
    assert verdict is Verdict.ROUNDING
    assert 40 < i < 60


def test_the_rule_does_not_depend_on_the_number_of_rows() -> None:
    objectives = climb(-1000.0, 10.0, 0.9, 1000)
    for times in (10, 1000):
        many = [times * o for o in objectives]
        assert stop_of(many, 100.0 * times, 1e-6) == stop_of(objectives, 100.0, 1e-6)


def test_max_iter_counts_steps() -> None:
    objectives = climb(0.0, 1e3, 0.99, 100)
    assert stop_of(objectives, 1.0, 1e-9, max_iter=5) == (6, Verdict.MAX_ITER)
    assert not Verdict.MAX_ITER.converged
    # Who converges in the last step has converged.
    assert judge([-5.0, -5.0], 1.0, 1e-9, 1) is Verdict.ROUNDING


def test_a_decrease_is_what_rounding_cannot_do() -> None:
    assert not decreased([-100.0])
    assert not decreased([-100.0, -99.0])
    assert not decreased([-100.0, -100.0 - 1e-8])
    assert decreased([-100.0, -100.0 - 1e-6])
    assert decreased([1.0, 1.0 - 1e-6])
    assert decreased([-100.0, np.nan])


def test_each_verdict_is_a_sentence_of_its_own() -> None:
    texts = {str(v) for v in Verdict}
    assert len(texts) == len(Verdict)
    assert all(" " in text for text in texts)

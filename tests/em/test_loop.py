"""The loop as a state machine: what it asks, what it makes of the answer, and whom it lets go.

The rows are a few counts, so that every number can be worked out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from dask_em import GaussianMixture, PoissonMixture
from dask_em.em import loop
from dask_em.em.loop import Candidate, Settings, State
from dask_em.em.stopping import Verdict
from dask_em.errors import ConvergenceWarning, DataError, ObjectiveDecreasedError
from dask_em.families import DiagonalGaussian, Poisson
from dask_em.families.diagonal import DiagonalParams
from dask_em.families.poisson import PoissonParams
from dask_em.mixture import Mixture, Parameters
from dask_em.scan import Block, PatternSums, Sums
from tests import reference

NO_PATTERN = np.ones((1, 0), dtype=bool)

DEATHS = Settings(Mixture((Poisson((2.157,)),), NO_PATTERN), float(reference.DEATHS_DAYS.sum()), 1e-6, 5000)
"""Hasselblad's deaths: an easy table, and a slow climb."""


def block_of(
    values: NDArray[np.float64], weight: NDArray[np.float64], labels: NDArray[np.int64] | None = None
) -> Block:
    n = values.shape[1]
    return Block((values,), weight.astype(float), np.zeros(n), NO_PATTERN, np.array([0, n]), labels)


def deaths(labels: NDArray[np.int64] | None = None) -> Block:
    block = block_of(np.arange(10.0)[None], reference.DEATHS_DAYS, labels)
    return replace(block, base=-np.array([math.lgamma(y + 1) for y in range(10)]))


def rates(*values: float) -> Parameters:
    return Parameters(np.full(len(values), 1 / len(values)), (PoissonParams(np.array(values)[:, None]),))


def stack(*candidates: Parameters) -> Parameters:
    parts = [c.parts[0].rates for c in candidates]
    return Parameters(np.concatenate([c.weights for c in candidates]), (PoissonParams(np.concatenate(parts)),))


def scan(state: State, block: Block) -> State:
    return loop.tell(state, loop.ask(state)(block))


def finish(state: State, block: Block, see: Callable[[State], None] = lambda state: None) -> State:
    while not state.done:
        state = scan(state, block)
        see(state)
    return state


# --- the end -----------------------------------------------------------------------------------------------------


def test_deaths_are_not_stopped_early() -> None:
    """After 39 steps the change per row is below 1e-6, and the optimum still a hundred times as far."""
    done = finish(loop.start(DEATHS, [2], rates(1.5, 2.5)), deaths()).candidates[0]
    left = (reference.DEATHS_LOG_LIKELIHOOD - np.array(done.objectives)) / DEATHS.n_weight
    naive = int(np.flatnonzero(np.diff(done.objectives) / DEATHS.n_weight <= 1e-6)[0]) + 1
    assert left[naive] > 1e-4
    assert done.verdict is Verdict.TOLERANCE
    assert 0 < left[-1] <= 1.05e-6
    assert done.n_iter > 10 * naive


def test_what_is_reported_belongs_together() -> None:
    done = finish(loop.start(DEATHS, [2], rates(1.5, 2.5)), deaths()).candidates[0]
    assert done.parameters is not None
    again = DEATHS.mixture.e_step(done.parameters, [2])(deaths())
    assert again.log_likelihood[0] == done.log_likelihoods[-1]
    assert done.n_iter == len(done.objectives) - 1


def test_rounding_ends_a_fit_without_tolerance() -> None:
    exact = replace(DEATHS, tol=0.0)
    done = finish(loop.start(exact, [1], rates(5.0)), deaths()).candidates[0]
    assert done.verdict is Verdict.ROUNDING
    assert done.n_iter == 2
    assert done.objectives[1] == pytest.approx(done.objectives[2], rel=1e-14)


def test_max_iter_bounds_the_steps() -> None:
    short = replace(DEATHS, max_iter=3)
    done = finish(loop.start(short, [2], rates(1.5, 2.5)), deaths())
    assert done.candidates[0].verdict is Verdict.MAX_ITER
    assert done.candidates[0].n_iter == 3
    assert done.n_scans == 4
    assert done.candidates[0].parameters is not None


# --- a bug is not passed over ------------------------------------------------------------------------------------


def test_a_decrease_raises() -> None:
    state = loop.start(DEATHS, [2], rates(1.5, 2.5))
    for _ in range(3):
        state = scan(state, deaths())
    honest = loop.ask(state)(deaths())
    assert isinstance(honest, PatternSums)
    lower = PatternSums(honest.log_likelihood - 1.0, honest.sums)
    with pytest.raises(ObjectiveDecreasedError, match=r"candidate 0 \(2 components\) fell from .* in scan 4"):
        loop.tell(state, lower)
    # A rounding error is none, and the honest answer is taken.
    loop.tell(state, PatternSums(honest.log_likelihood, honest.sums))


def test_no_number_is_a_decrease() -> None:
    state = scan(loop.start(DEATHS, [2], rates(1.5, 2.5)), deaths())
    bad = loop.ask(state)(deaths())
    with pytest.raises(ObjectiveDecreasedError):
        loop.tell(state, PatternSums(np.array([np.nan]), bad.sums))  # type: ignore[union-attr]


# --- many candidates ---------------------------------------------------------------------------------------------


def test_candidates_that_are_done_leave_the_stack_and_keep_their_parameters() -> None:
    sizes = [1, 2, 2]
    state = loop.start(DEATHS, sizes, stack(rates(2.0), rates(1.5, 2.5), rates(0.5, 4.0)))
    kept: dict[int, tuple[int, Parameters]] = {}

    def see(state: State) -> None:
        for i, candidate in enumerate(state.candidates):
            if candidate.parameters is not None and i not in kept:
                kept[i] = (state.n_scans, candidate.parameters)
        assert state.parameters is not None
        assert len(state.parameters.weights) == sum(state.sizes)
        assert state.sizes == tuple(sizes[i] for i in state.running)

    state = finish(state, deaths(), see)
    assert kept[0][0] == 3, "one Poisson is there after a step, and the third objective shows it"
    assert kept[0][0] < min(kept[1][0], kept[2][0])
    for i, (scans, parameters) in kept.items():
        candidate = state.candidates[i]
        assert candidate.parameters is parameters
        assert len(candidate.objectives) == scans
        alone = finish(loop.start(DEATHS, [sizes[i]], [rates(2.0), rates(1.5, 2.5), rates(0.5, 4.0)][i]), deaths())
        assert candidate.n_iter == alone.candidates[0].n_iter
        assert_allclose(parameters.parts[0].rates, alone.candidates[0].parameters.parts[0].rates, rtol=1e-9)  # type: ignore[union-attr]
    assert state.n_scans == max(scans for scans, _ in kept.values())


def test_a_state_is_never_changed() -> None:
    state = loop.start(DEATHS, [2], rates(1.5, 2.5))
    total = loop.ask(state)(deaths())
    one, two = loop.tell(state, total), loop.tell(state, total)
    assert state.n_scans == 0
    assert state.candidates[0].objectives == ()
    assert one.candidates == two.candidates
    assert_array_equal(one.parameters.weights, two.parameters.weights)  # type: ignore[union-attr]


def test_progress_is_small_and_says_what_happened() -> None:
    state = loop.start(DEATHS, [1, 2], stack(rates(2.0), rates(1.5, 2.5)))
    assert loop.progress(state).scan == 0
    state = scan(scan(state, deaths()), deaths())
    record = loop.progress(state)
    best = max(c.objectives[-1] for c in state.candidates)
    assert (record.scan, record.candidates, record.done) == (2, 2, False)
    assert record.objective == pytest.approx(best / DEATHS.n_weight)
    assert "scan 2: 2 running" in record.message


# --- labels ------------------------------------------------------------------------------------------------------


def test_labels_start_with_an_m_step() -> None:
    labels = (np.arange(10) >= 3).astype(np.int64)
    block = deaths(labels[None])
    state = loop.start(DEATHS, [2], None)
    assert "started from labels" in loop.progress(state).message
    total = loop.ask(state)(block)
    assert isinstance(total, (PatternSums, Sums))
    state = loop.tell(state, total)
    days, counts = reference.DEATHS_DAYS, np.arange(10)
    means = [np.average(counts[labels == k], weights=days[labels == k]) for k in (0, 1)]
    assert state.parameters is not None
    assert_allclose(state.parameters.parts[0].rates[:, 0], means, rtol=1e-14)
    assert_allclose(state.parameters.weights, [days[:3].sum() / days.sum(), days[3:].sum() / days.sum()], rtol=1e-14)
    # The scan is counted, but it has no objective: nothing was evaluated in it.
    assert (state.n_scans, state.candidates[0].objectives) == (1, ())
    state = scan(state, block)
    assert (state.n_scans, len(state.candidates[0].objectives), state.candidates[0].n_iter) == (2, 1, 0)


# --- collapse ----------------------------------------------------------------------------------------------------


POINTS = Settings(Mixture((DiagonalGaussian("VVI", (1.0,)),), NO_PATTERN), 6.0, 1e-6, 100)


def normals(means: list[float], variances: list[float]) -> Parameters:
    part = DiagonalParams(np.array(means)[:, None], np.array(variances)[:, None])
    return Parameters(np.full(len(means), 1 / len(means)), (part,))


def test_a_collapsed_candidate_is_dropped_and_the_others_go_on() -> None:
    block = block_of(np.array([[0.0, 0.5, 1.0, 1.5, 2.0, 50.0]]), np.ones(6))
    # One component sits on the last row alone; the other candidate takes all rows.
    both = Parameters(
        np.array([0.5, 0.5, 1.0]),
        (DiagonalParams(np.array([[1.0], [50.0], [9.0]]), np.array([[1.0], [1.0], [300.0]])),),
    )
    state = finish(loop.start(POINTS, [2, 1], both), block)
    lost, kept = state.candidates
    assert lost.verdict is Verdict.COLLAPSED
    assert lost.parameters is None
    assert not lost.verdict.converged
    assert kept.verdict.converged
    assert kept.parameters is not None
    assert kept.parameters.parts[0].means[0, 0] == pytest.approx(55 / 6)


def test_the_best_is_the_highest_of_those_that_were_not_given_up() -> None:
    ends = {
        "outrun": Candidate(2, (-9.0, -5.0), (-8.0, -4.0), Verdict.OUTRUN),
        "best": Candidate(2, (-9.0, -6.0), (-8.0, -7.0), Verdict.ANTICIPATED),
        "second": Candidate(2, (-9.0, -7.0), (-8.0, -5.0), Verdict.MAX_ITER),
        "collapsed": Candidate(2, (-9.0, 90.0), (-8.0, 90.0), Verdict.COLLAPSED),
        "larger": Candidate(3, (-9.0, -1.0), (-8.0, -1.0), Verdict.TOLERANCE),
    }
    assert loop.ranked(list(ends.values()), 2) == [ends["best"], ends["second"], ends["outrun"]]
    assert loop.ranked([ends["outrun"], ends["collapsed"]], 2) == [ends["outrun"]]


def test_a_start_that_is_collapsed_is_dropped_before_any_scan() -> None:
    state = loop.start(POINTS, [1, 1], normals([0.0, 1.0], [0.0, 1.0]))
    assert [c.verdict for c in state.candidates] == [Verdict.COLLAPSED, Verdict.RUNNING]
    assert state.parameters is not None
    assert_array_equal(state.parameters.parts[0].means, [[1.0]])
    assert loop.start(POINTS, [1], normals([0.0], [0.0])).done


@pytest.mark.filterwarnings("error")
def test_starts_that_collapse_are_dropped_with_a_warning() -> None:
    rng = np.random.default_rng(0)
    x = np.r_[rng.standard_normal(20), 9 + rng.standard_normal(12), 30.0][:, None]
    settings = {"prior": None, "n_init": 8, "init": "random", "random_state": 0}
    with pytest.warns(
        ConvergenceWarning, match=r"^[1-7] of 8 starts with 3 components collapsed and (was|were) dropped$"
    ):
        fitted = GaussianMixture(3, **settings).fit(x)
    assert np.isfinite(fitted.log_likelihood_)
    outcomes = fitted.history_.groupby("candidate")["outcome"].last()
    assert outcomes.str.startswith("dropped").sum() < 8
    # The weak prior loses none.
    GaussianMixture(3, **{**settings, "prior": "weak"}).fit(x)


def test_all_starts_collapsed_is_an_error() -> None:
    x = np.r_[np.zeros(5), np.ones(5)][:, None]
    with pytest.raises(DataError, match="every start with 2 components collapsed onto too few rows"):
        GaussianMixture(2, prior=None, n_init=3, random_state=0).fit(x)


# --- scans -------------------------------------------------------------------------------------------------------


def test_scans_are_counted() -> None:
    """The profile, and one evaluation of the start and of every step; labels cost one more."""
    x = np.repeat(np.arange(10), reference.DEATHS_DAYS)[:, None]
    seeded = PoissonMixture(2, rates_init=[1.5, 2.5]).fit(x)
    assert seeded.n_scans_ == 1 + seeded.n_iter_ + 1
    labelled = PoissonMixture(2, init=(x[:, 0] > 2).astype(int)).fit(x)
    assert labelled.n_scans_ == 1 + 1 + labelled.n_iter_ + 1
    # All starts share the scans: the slowest counts.
    several = PoissonMixture(2, n_init=4, init="random", random_state=0).fit(x)
    longest = several.history_.groupby("candidate").size().max()
    assert several.n_scans_ == 1 + longest

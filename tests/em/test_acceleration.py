"""Accelerated EM: the same answers in fewer evaluations of the map, and accepted states that climb."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dask_em import GaussianMixture, LatentClassAnalysis, PoissonMixture
from dask_em.em.acceleration import Daarem, Squarem, make_accelerator
from dask_em.errors import ConfigurationError
from dask_em.families import Poisson
from dask_em.families.covariance import MODELS
from dask_em.families.poisson import PoissonParams
from dask_em.mixture import Mixture, Parameters
from tests import reference
from tests.laws.table import CASES, Case

METHODS: list[Any] = ["squarem", "daarem"]


# --- the map of Hasselblad's deaths ------------------------------------------------------------------------------


def deaths_map(weight: float, rates: np.ndarray) -> tuple[np.ndarray, float]:
    """One EM step from (weight, rates), and the log-likelihood there, up to a constant."""
    deaths, days = reference.DEATHS.to_numpy().ravel().astype(float), reference.DEATHS_DAYS
    shares = np.array([weight, 1 - weight])[:, None]
    density = shares * np.exp(-rates[:, None]) * rates[:, None] ** deaths
    r = density / density.sum(axis=0) * days
    n = r.sum(axis=1)
    after = np.array([n[0] / n.sum(), *(r @ deaths / n)])
    return after, float(days @ np.log(density.sum(axis=0)))


def maps_until(method: Any, near: float) -> tuple[int, np.ndarray]:
    """Evaluations of the map until it moves (weight, rates) by at most `near`."""
    mixture = Mixture((Poisson((2.0,)),), None)

    def unfolded(theta: np.ndarray) -> Parameters:
        return Parameters(np.array([theta[0], 1 - theta[0]]), (PoissonParams(theta[1:, None]),))

    theta, way = np.array([0.3, 1.0, 2.5]), make_accelerator(method)
    best, fallback = -np.inf, None
    for count in range(1, 5000):
        after, value = deaths_map(theta[0], theta[1:])
        if np.linalg.norm(after - theta) <= near:
            return count, theta
        if fallback is not None and value < best:
            assert way is not None
            theta, way, fallback = fallback, way.rejected(), None
            continue
        best, fallback, move = value, None, None
        if way is not None:
            here, mapped = (mixture.coordinates(unfolded(t), [2]) for t in (theta, after))
            way, move = way.told(here.ravel(), mapped.ravel())
        theta = after
        if move is not None:
            fallback = after
            there = mixture.at(move.reshape(2, 2), unfolded(after), [2])
            theta = np.array([there.weights[0], *there.parts[0].rates[:, 0]])
    raise AssertionError("it does not end")


@pytest.mark.parametrize(("method", "published"), [(None, 2586), ("squarem", 72), ("daarem", 39)])
def test_evaluations_of_the_map_are_no_more_than_the_published(method: Any, published: int) -> None:
    count, theta = maps_until(method, 1e-8)
    assert count <= 1.2 * published
    assert_allclose(theta, [reference.DEATHS_WEIGHT, *reference.DEATHS_RATES], atol=2e-6)


LINKAGE = np.array([125.0, 18.0, 20.0, 34.0])
"""Animals in four cells of chances (1/2 + p/4, (1 - p)/4, (1 - p)/4, p/4) (Rao 1965; Dempster, Laird and Rubin 1977)."""

LINKAGE_LIMIT = (15 + np.sqrt(53809)) / 394


def linkage_map(p: float) -> float:
    """One EM step: the first cell is split into those of chance 1/2 and of chance p/4."""
    hidden = LINKAGE[0] * (p / 4) / (0.5 + p / 4)
    return (hidden + LINKAGE[3]) / (hidden + LINKAGE[1:].sum())


def test_linkage_by_em_and_accelerated() -> None:
    p, iterates = 0.5, []
    for _ in range(8):
        p = linkage_map(p)
        iterates.append(p)
    published = [0.6082474227, 0.6243210504, 0.6264888791, 0.6267773223, 0.6268156321, 0.6268207190, 0.6268213945]
    assert_allclose(iterates, [*published, 0.6268214841], atol=5e-11)
    for way in (Squarem(), Daarem()):
        x, steps = np.array([0.0]), 0  # log odds of 1/2
        while abs(linkage_map(1 / (1 + np.exp(-x[0]))) - 1 / (1 + np.exp(-x[0]))) > 1e-10:
            after = linkage_map(1 / (1 + np.exp(-x[0])))
            mapped = np.array([np.log(after / (1 - after))])
            way, move = way.told(x, mapped)
            x, steps = mapped if move is None else move, steps + 1
        assert 1 / (1 + np.exp(-x[0])) == pytest.approx(LINKAGE_LIMIT, abs=1e-9)
        assert steps < 10


def test_linkage_information() -> None:
    """Louis: what is complete less what is missing; the rate of EM is the share that is missing."""
    p = LINKAGE_LIMIT
    hidden = LINKAGE[0] * (p / 4) / (0.5 + p / 4)
    complete = (hidden + LINKAGE[3]) / p**2 + (LINKAGE[1] + LINKAGE[2]) / (1 - p) ** 2
    missing = LINKAGE[0] * (p / 4) * 0.5 / (0.5 + p / 4) ** 2 / p**2
    assert complete == pytest.approx(435.317854, abs=1e-5)
    assert complete - missing == pytest.approx(377.516900, abs=1e-5)
    rate = (linkage_map(p + 1e-6) - linkage_map(p - 1e-6)) / 2e-6
    assert rate == pytest.approx(missing / complete, abs=1e-7)
    assert rate == pytest.approx(0.1327787, abs=1e-6)
    assert (complete - missing) ** -0.5 == pytest.approx(0.0514673, abs=1e-6)


# --- in fits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_deaths(method: Any) -> None:
    settings: dict[str, Any] = {"prior": None, "tol": 1e-12, "max_iter": 20000, "init": "random", "random_state": 1}
    arguments = {"sample_weight": reference.DEATHS_DAYS}
    plain = PoissonMixture(2, **settings).fit(reference.DEATHS, **arguments)
    fast = PoissonMixture(2, acceleration=method, **settings).fit(reference.DEATHS, **arguments)
    assert fast.log_likelihood_ == pytest.approx(reference.DEATHS_LOG_LIKELIHOOD, abs=1e-6)
    assert_allclose(fast.rates_, plain.rates_, rtol=1e-3)
    assert fast.n_maps_ < plain.n_maps_ / 10
    assert fast.n_scans_ == fast.n_maps_ + 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_every_covariance_model_ends_as_high(model: str, method: Any) -> None:
    X, species = reference.iris()
    X = X.mask(np.random.default_rng(3).random(X.shape) < 0.1)
    settings: dict[str, Any] = {"covariance_type": model, "init": species, "tol": 1e-9, "max_iter": 5000}
    plain = GaussianMixture(3, **settings).fit(X)
    fast = GaussianMixture(3, acceleration=method, **settings).fit(X)
    assert fast.converged_
    assert fast.history_["objective"].iloc[-1] >= plain.history_["objective"].iloc[-1] - 1e-4
    assert_climbs(fast)


@pytest.mark.parametrize("method", METHODS)
def test_latent_classes_climb(method: Any) -> None:
    cells, counts = reference.latent_class_cells("carcinoma")
    model = LatentClassAnalysis(3, acceleration=method, n_init=10, random_state=0, tol=1e-10, max_iter=5000)
    model.fit(cells, sample_weight=counts)
    plain = LatentClassAnalysis(3, n_init=10, random_state=0, tol=1e-10, max_iter=5000).fit(cells, sample_weight=counts)
    assert model.log_likelihood_ >= plain.log_likelihood_ - 1e-4
    assert_climbs(model)
    assert model.n_scans_ < plain.n_scans_


def assert_climbs(model: Any) -> None:
    """Accepted states never fall, and those that did are marked."""
    for _, own in model.history_.groupby("candidate"):
        accepted = own[own["accepted"]]["objective"].to_numpy()
        assert (np.diff(accepted) >= -1e-9 * np.abs(accepted[1:])).all()
        best = own["objective"].where(own["accepted"]).cummax().ffill()
        lost = ~own["accepted"]
        assert (own["objective"][lost] < best[lost]).all()


def test_a_rejected_proposal_costs_one_scan_and_is_marked() -> None:
    X = np.random.default_rng(0).normal(size=(400, 2))
    models = [GaussianMixture(3, acceleration="squarem", random_state=s, max_iter=5000).fit(X) for s in range(6)]
    assert any((~m.history_["accepted"]).any() for m in models)
    for model in models:
        assert len(model.history_) == model.n_maps_ == model.n_iter_ + 1
        assert_climbs(model)


@pytest.mark.parametrize("method", METHODS)
def test_candidates_do_not_know_of_each_other(method: Any) -> None:
    """A start goes its way whatever runs beside it, but for rounding, which proposals amplify."""
    X = np.random.default_rng(1).normal(size=(300, 2))
    X[:120] += 2.5
    settings: dict[str, Any] = {"acceleration": method, "random_state": 5, "max_iter": 300}
    together, alone = (GaussianMixture(2, n_init=n, **settings).fit(X).history_ for n in (3, 1))
    first = together[together["candidate"] == 0]
    assert len(alone) > 10
    assert_allclose(first["objective"], alone["objective"], rtol=1e-10)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="acceleration must be None, 'squarem' or 'daarem'"):
        GaussianMixture(2, acceleration="fast").fit(np.random.default_rng(0).normal(size=(30, 2)))


# --- coordinates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_coordinates_lead_back(case: Case) -> None:
    model = case.model(case.table(np.random.default_rng(4), 150), "weak")
    sizes = [1, 2, 3]
    parameters = model.start(sizes)
    there = model.mixture.at(model.mixture.coordinates(parameters, sizes), parameters, sizes)
    assert_allclose(there.weights, parameters.weights, rtol=1e-12)
    for one, two in zip(there.parts, parameters.parts, strict=True):
        for name in one.__dataclass_fields__:
            assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-7, atol=1e-9)


# --- the accelerators by themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [Squarem(), Daarem()], ids=["squarem", "daarem"])
def test_a_linear_map_is_solved(way: Any) -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0.99, 0.9, 0.5, 0.1])
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    slope, goal = turn @ np.diag(rates) @ turn.T, rng.normal(size=4)
    x = np.zeros(4)
    for _ in range(150):
        mapped = goal + slope @ (x - goal)
        way, move = way.told(x, mapped)
        x = mapped if move is None else move
    plain = np.abs(np.linalg.matrix_power(slope, 150) @ goal).max()
    assert np.abs(x - goal).max() < 1e-3 * plain

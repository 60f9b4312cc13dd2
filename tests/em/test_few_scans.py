"""Starts on a sample, survivors on all rows: as high as plain EM in a handful of scans, whatever the partitions and the executor."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_em import GaussianMixture, LatentClassAnalysis, MixtureModel
from dask_em.em.coarse import Ahead, Coarse, anticipate
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.threads import at_root, spread
from dask_em.few_scans import cut, merged, some_rows
from tests.laws.table import CASES, Case

N = 80_000


def groups(n: int = N, share: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Three overlapping groups in four columns, with holes."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0, 0, 0, 0], [1.5, 1.0, -1.0, 0.5], [-1.0, 1.5, 1.0, 1.0]])
    which = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    X = means[which] + rng.normal(size=(n, 4)) * np.array([1.0, 0.7, 1.2])[which][:, None]
    X[:, 1] += 0.5 * X[:, 0]
    X[rng.random(X.shape) < share] = np.nan
    return pd.DataFrame(X, columns=list("abcd"))


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("covariance_type", ["full", "diag", "EVE"])
def test_as_high_as_plain_em_in_a_handful_of_scans(covariance_type: str, share: float, monkeypatch: Any) -> None:
    X = groups(share=share)
    settings: dict[str, Any] = {"covariance_type": covariance_type, "n_init": 3, "random_state": 1, "max_iter": 3000}
    few = GaussianMixture(3, **settings).fit(X)
    monkeypatch.setattr("dask_em.fitting.WORTHWHILE_ROWS", 10**9)
    plain = GaussianMixture(3, **settings).fit(X)
    assert few.converged_
    assert few.n_scans_ <= 8 < plain.n_scans_
    assert few.log_likelihood_ >= plain.log_likelihood_ - 2e-5 * N
    assert_allclose(few.means_, plain.means_, atol=0.05)
    trace = few.history_[(few.history_["stage"] == "all rows") & few.history_["accepted"]]
    for _, own in trace.groupby("candidate"):
        assert (np.diff(own["objective"]) >= 0).all()
    assert set(few.history_["stage"]) == {"sample", "all rows"}
    assert few.history_[few.history_["stage"] == "sample"]["candidate"].nunique() == 3


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")  # whether the hundred steps were enough
def test_mixed_columns_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    X = groups(share=0.1)
    X["kind"] = np.where(rng.random(N) < 0.5, np.where(X["a"].fillna(0) > 0, "x", "y"), "z")
    X["count"] = rng.poisson(2 + np.exp(X["b"].fillna(0).clip(-2, 2)))
    weight = rng.integers(1, 4, N).astype(float)
    roles: dict[str, Any] = {"gaussian": list("abcd"), "categorical": ["kind"], "poisson": ["count"]}
    model = MixtureModel(3, **roles, random_state=0).fit(X, sample_weight=weight)
    assert model.converged_
    assert model.n_scans_ <= 10
    # From where it ended, plain EM gains next to nothing.
    fitted = model.model_
    further = MixtureModel(3, **roles, max_iter=100, tol=1e-9)
    monkeypatch.setattr(type(further), "_has_given", lambda self: True)
    monkeypatch.setattr(type(further), "_start", lambda self, *_, **__: fitted.parameters)
    further.fit(X, sample_weight=weight)
    assert further.n_iter_ > 1
    assert model.log_likelihood_ >= further.log_likelihood_ - 1e-5 * weight.sum()


def test_identical_rows_are_solved_on_their_sample() -> None:
    """Few distinct rows: the sample holds them all, so the first scan of all rows confirms what was found there."""
    rng = np.random.default_rng(0)
    group = rng.random(N) < 0.4
    chances = np.where(group[:, None], [0.9, 0.8, 0.7, 0.9, 0.8], [0.2, 0.3, 0.1, 0.2, 0.4])
    X = pd.DataFrame((rng.random((N, 5)) < chances).astype(int), columns=list("abcde"))
    model = LatentClassAnalysis(2, random_state=0).fit(X)
    cells = X.value_counts()
    same = LatentClassAnalysis(2, random_state=0, tol=1e-10, max_iter=5000).fit(
        cells.index.to_frame(index=False), sample_weight=cells.to_numpy()
    )
    assert model.n_scans_ <= 5
    assert model.log_likelihood_ == pytest.approx(same.log_likelihood_, abs=1e-6 * N)


def test_order_and_partitions_do_not_matter() -> None:
    X = groups()
    one = GaussianMixture(3, random_state=0).fit(X)
    other = GaussianMixture(3, random_state=0).fit(X.sample(frac=1.0, random_state=1))
    assert other.n_scans_ <= 8
    assert_allclose(other.means_, one.means_, atol=1e-2)


def test_starts_of_one_size_are_compared_by_what_they_maximise() -> None:
    """A start may lead by the log-likelihood and lag by the objective: whoever was given up for it must not win in the end."""
    rng, n, k, d = np.random.default_rng(0), 70_000, 4, 3
    which, means = rng.choice(k, n, p=[0.4, 0.3, 0.2, 0.1]), rng.normal(0, 2.2, (k, d))
    roots = np.array([np.linalg.cholesky(np.cov(rng.normal(size=(d, 8)))) for _ in range(k)])
    X = means[which] + np.einsum("nij,nj->ni", roots[which], rng.normal(size=(n, d)))
    X[rng.random(X.shape) < 0.1] = np.nan
    model = GaussianMixture(5, n_init=2, random_state=0).fit(X)
    assert model.converged_
    ends = model.history_[(model.history_["stage"] == "all rows") & model.history_["accepted"]]
    last = ends.groupby("candidate").last()
    finished = last[~last["outcome"].str.startswith("stopped early")]
    assert model.log_likelihood_ == finished.loc[finished["objective"].idxmax(), "log_likelihood"]


def test_a_cluster_finds_the_same() -> None:
    X = groups()
    here = GaussianMixture(3, random_state=0).fit(X)
    cluster = DaskExecutor(n_workers=2)
    try:
        frame = GaussianMixture(3, random_state=0, executor=cluster).fit(X)
        lazy = GaussianMixture(3, random_state=0, executor=cluster).fit(dd.from_pandas(X, npartitions=5))
    finally:
        cluster.close()
    assert_array_equal(frame.means_, here.means_)
    assert frame.n_scans_ == here.n_scans_
    assert_allclose(lazy.means_, here.means_, atol=1e-2)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_sample_that_is_the_table_finds_its_optimum(case: Case) -> None:
    """With all rows as the sample there is nothing to correct, so solving it again and again is the fit."""
    model = case.model(case.table(np.random.default_rng(7), 400), "weak")
    coarse = Coarse((model.block,), 1.0)
    here = model.start([2])

    def objective(parameters: Any) -> float:
        sums = coarse.sums(model.mixture, parameters)
        return float((sums.log_likelihood + model.mixture.log_prior(parameters, [2]))[0])

    for _ in range(20):
        ahead = anticipate(coarse, model.mixture, here, coarse.sums(model.mixture, here), 1e-6)
        assert ahead is not None
        assert objective(ahead.parameters) - objective(here) == pytest.approx(ahead.gain, abs=1e-6)
        assert ahead.gain >= -1e-9
        here = ahead.parameters
        if ahead.gain < 1e-6:
            break
    after = model.mixture.m_step(coarse.sums(model.mixture, here), here, [2])
    assert objective(after) - objective(here) <= 1e-5


@pytest.mark.parametrize(("name", "k", "seed"), [("poisson", 3, 2), ("poisson", 4, 2), ("VVV", 4, 5)])
def test_a_small_gain_is_the_end_only_where_the_sample_is_solved(name: str, k: int, seed: int) -> None:
    """Where it says that no more than the tolerance is left, no more than that is left: small steps alone do not say so."""
    case = next(c for c in CASES if c.name == name)
    model = case.model(case.table(np.random.default_rng(7), 1000), "weak")
    coarse, tol = Coarse((model.block,), 1.0), 1e-4 * 1000

    def ahead(here: Any, tol: float) -> Ahead:
        found = anticipate(coarse, model.mixture, here, coarse.sums(model.mixture, here), tol)
        assert found is not None
        return found

    end = ahead(model.start([k], seed), tol)
    while not (end.solved and end.gain <= tol):
        end = ahead(end.parameters, tol)
    left = 0.0
    for _ in range(5):
        end = ahead(end.parameters, 1e-6)
        left += end.gain
    assert left <= tol


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_sample_in_blocks_for_threads_sums_to_the_whole(case: Case) -> None:
    model = case.model(case.table(np.random.default_rng(4), 300), "weak")
    blocks = tuple(cut(model.block, 70))
    assert [b.n_rows for b in blocks] == [70, 70, 70, 70, 20]
    here = model.start([2])
    whole = Coarse((model.block,), 1.0).sums(model.mixture, here)
    one = Coarse(blocks, 1.0).sums(model.mixture, here)
    with at_root(3):
        threads = Coarse(blocks, 1.0, spread).sums(model.mixture, here)
    for a, b, c in zip(whole.stats, one.stats, threads.stats, strict=True):
        assert_allclose(b, a, rtol=1e-9, atol=1e-9 * np.abs(a).max())
        assert_array_equal(c, b)


def test_the_sample_is_the_same_however_rows_are_cut() -> None:
    case = next(c for c in CASES if c.name == "product")
    model = case.model(case.table(np.random.default_rng(3), 500), "weak")
    whole = merged([some_rows(model.block, 0.3)])[0]
    parts = merged([some_rows(b, 0.3) for b in model.blocks(4)])[0]
    assert 90 < whole.n_rows < 210
    assert_array_equal(whole.runs, parts.runs)
    for one, two in zip(whole.values, parts.values, strict=True):
        assert_array_equal(one, two)

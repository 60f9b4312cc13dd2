"""A fit to the distinct rows is the fit to all of them, for every estimator, in this process and on a cluster; and it is said."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_em import (
    BinomialMixture,
    GaussianMixture,
    Imputer,
    LatentClassAnalysis,
    MixtureModel,
    PoissonMixture,
    select_model,
)
from dask_em.errors import ConfigurationError, ConvergenceWarning
from dask_em.execution.dask import DaskExecutor

N = 3000
COLUMNS = ("weights_", "means_", "covariances_", "rates_", "probabilities_")


def table() -> pd.DataFrame:
    """Two groups of rows that hold little, with holes, and row weights."""
    rng = np.random.default_rng(0)
    group = (rng.random(N) < 0.4).astype(int)
    X = pd.DataFrame(
        {
            "red": np.clip(3 + 4 * group + rng.integers(0, 3, N), 0, 8),
            "blue": np.clip(6 - 3 * group + rng.integers(0, 3, N), 0, 8),
            "answer": rng.binomial(2, np.where(group, 0.7, 0.2)),
            "other": rng.binomial(2, np.where(group, 0.3, 0.6)),
            "visits": rng.poisson(np.where(group, 0.4, 1.5)),
            "calls": rng.poisson(np.where(group, 1.0, 0.3)),
            "hits": rng.binomial(4, np.where(group, 0.8, 0.3)),
            "weight": rng.integers(0, 3, N),
        }
    ).astype(float)
    X = X.mask((rng.random(X.shape) < 0.05) & (X.columns != "weight"))
    return X.astype({"answer": "Int64", "other": "Int64"})


MIXED: dict[str, Any] = {
    "gaussian": ["red"],
    "categorical": ["answer"],
    "poisson": ["visits"],
    "binomial": {"hits": 4},
    "transforms": {"red": "log1p"},
}
MODELS: dict[str, tuple[Any, list[str], dict[str, Any]]] = {
    "latent classes": (LatentClassAnalysis, ["answer", "other"], {}),
    "counts": (PoissonMixture, ["visits", "calls"], {}),
    "tosses": (BinomialMixture, ["hits"], {"trials": 4}),
    "tosses, expected": (BinomialMixture, ["hits"], {"trials": 4, "missing": "expected"}),
    "small integers": (GaussianMixture, ["red", "blue"], {}),
    "columns by themselves": (GaussianMixture, ["red", "blue"], {"covariance_type": "diag"}),
    "mixed": (MixtureModel, list(table().columns[:-1]), MIXED),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskExecutor]:
    executor = DaskExecutor(n_workers=2)
    yield executor
    executor.close()


def same(one: Any, two: Any, rtol: float = 1e-10) -> None:
    assert one.n_iter_ == two.n_iter_
    assert one.log_likelihood_ == pytest.approx(two.log_likelihood_, rel=rtol)
    for name in COLUMNS:
        own = getattr(one, name, None)
        if isinstance(own, dict):
            for column, p in own.items():
                assert_allclose(p, two.probabilities_[column], rtol=rtol, atol=1e-12)
        elif own is not None:
            assert_allclose(own, getattr(two, name), rtol=rtol, atol=1e-10)


def quietly(model: Any, X: Any, **given: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # thirty steps are enough to compare
        return model.fit(X, **given)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weight", [None, "weight"])
@pytest.mark.parametrize("start", ["seeded", "labels", "random"])
def test_a_fit_is_the_same(name: str, weight: str | None, start: str) -> None:
    kind, columns, settings = MODELS[name]
    X = table()
    own = X[[*columns, *([weight] if weight else [])]]
    init = {"seeded": "kmeans++", "random": "random", "labels": np.arange(N) % 2}[start]
    both = [
        quietly(kind(2, **settings, compress=c, init=init, random_state=1, max_iter=30), own, sample_weight=weight)
        for c in (True, False)
    ]
    same(*both)
    short, long = both
    assert short.n_distinct_ < N / 2
    assert short.n_scans_ == 2
    assert long.n_distinct_ is None
    assert short.n_rows_ == long.n_rows_ == N
    assert short.sum_of_weights_ == long.sum_of_weights_
    assert_allclose(short.predict_proba(own), long.predict_proba(own), atol=1e-9)
    assert short.bic(own, weight) == pytest.approx(long.bic(own, weight), rel=1e-10)


def test_given_values_are_a_start_too() -> None:
    X = table()[["red", "blue"]]
    means = [[4.0, 7.0], [8.0, 4.0]]
    same(
        *(
            quietly(GaussianMixture(2, means_init=means, compress=c, max_iter=30, acceleration="squarem"), X)
            for c in (True, False)
        )
    )


@pytest.mark.parametrize("name", ["latent classes", "mixed"])
def test_weights_are_repetition(name: str) -> None:
    kind, columns, settings = MODELS[name]
    X = table()
    often = X.index.repeat(X["weight"].astype(int))
    labels = np.arange(N) % 2
    one, two = (kind(2, **settings, compress=True, init=own, max_iter=30) for own in (labels, labels[often]))
    quietly(one, X[[*columns, "weight"]], sample_weight="weight")
    quietly(two, X.loc[often, columns])
    same(one, two)
    assert one.n_distinct_ == two.n_distinct_ < len(often)


@pytest.mark.parametrize("name", ["latent classes", "mixed"])
def test_a_cluster_collapses_to_the_same_bits(name: str, cluster: DaskExecutor) -> None:
    kind, columns, settings = MODELS[name]
    X = table()
    lazy = dd.from_pandas(X, npartitions=6)[[*columns, "weight"]]
    fits = [
        quietly(kind(2, **settings, compress=c, random_state=1, max_iter=30, executor=e), lazy, sample_weight="weight")
        for c, e in ((True, cluster), (True, "local"), (False, cluster))
    ]
    assert fits[0].log_likelihood_ == fits[1].log_likelihood_
    assert_array_equal(fits[0].weights_, fits[1].weights_)
    assert fits[0].n_distinct_ == fits[1].n_distinct_ < N
    assert fits[0].n_scans_ == fits[1].n_scans_ == 2
    same(fits[0], fits[2])


def test_distinct_rows_of_several_blocks_are_shared_out(cluster: DaskExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask_em.fitting.BLOCK_ROWS", 100)
    monkeypatch.setattr("dask_em.execution.base.BLOCK_ROWS", 100)
    monkeypatch.setattr("dask_em.execution.base.ROWS_PER_PATTERN", 1)
    monkeypatch.setattr("dask_em.data.sources.PIECE_ROWS", 70)
    kind, columns, settings = MODELS["mixed"]
    X = table()[columns]
    fits = [
        quietly(kind(2, **settings, compress=c, random_state=1, max_iter=30, executor=e), X)
        for c, e in ((True, cluster), (True, "local"), (False, "local"))
    ]
    assert fits[0].n_distinct_ > 300
    assert fits[0].log_likelihood_ == fits[1].log_likelihood_
    same(fits[0], fits[2])


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("executor", ["local", "cluster"])
def test_parts_of_the_rows_are_the_same(executor: str, cluster: DaskExecutor) -> None:
    """A part is chosen by the row, so a distinct row has some of its weight in each."""
    X = table()[["answer", "other", "visits", "weight"]]
    estimator = MixtureModel(
        1, categorical=["answer", "other"], poisson=["visits"], random_state=0, max_iter=40, acceleration=None
    )
    where = cluster if executor == "cluster" else "local"
    given: dict[str, Any] = {"criterion": "held-out", "folds": 3, "estimator": estimator, "sample_weight": "weight"}
    short, long = (select_model(X, [1, 2], compress=c, executor=where, **given) for c in (True, False))
    assert short.best.n_distinct_ is not None
    assert short.best.n_scans_ == 2 < long.best.n_scans_
    names = ["log_likelihood", "bic", "icl", "entropy", "held_out"]
    assert_allclose(short.table[names], long.table[names], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
def test_an_imputer_draws_the_same() -> None:
    X = table()[["answer", "other", "visits"]].astype({"visits": float})
    X.insert(0, "key", np.arange(N) + 7)
    drawn = []
    for compress in (True, False):
        roles: dict[str, Any] = {"categorical": ["answer", "other"], "poisson": ["visits"]}
        model = MixtureModel(2, **roles, compress=compress, max_iter=25, random_state=0)
        imputer = Imputer(model=model, n_replicates=3, key="key", random_state=5).fit(X)
        drawn.append(imputer.draw(X)[2])
        assert (imputer.n_distinct_ is not None) is compress
    pd.testing.assert_frame_equal(*drawn)


def test_many_rows_that_are_few_in_kind_are_solved_fast() -> None:
    """By the rule, from a table on which starts would otherwise run on a sample: to the same optimum, accelerated as on a sample, and the summary says how."""
    X = pd.concat([table()[["answer", "other", "visits", "calls"]]] * 30, ignore_index=True)
    roles: dict[str, Any] = {"categorical": ["answer", "other"], "poisson": ["visits", "calls"], "random_state": 0}
    short, long = (MixtureModel(2, **roles, compress=c).fit(X) for c in ("auto", False))
    plain = MixtureModel(2, **roles).fit(X.iloc[: 20 * N])
    assert plain.n_distinct_ == short.n_distinct_
    assert short.n_maps_ < 0.7 * plain.n_maps_
    assert short.n_distinct_ is not None
    assert short.converged_
    assert short.n_scans_ == 2
    assert short.log_likelihood_ >= long.log_likelihood_ - 1e-5 * len(X)
    told = f"90,000 rows, fitted on the {short.n_distinct_:,} distinct rows that stand for them"
    assert told in " ".join(short.summary().split())
    assert "distinct rows" not in long.summary()


def test_compress_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="compress must be"):
        LatentClassAnalysis(2, compress="yes").fit(table()[["answer", "other"]])

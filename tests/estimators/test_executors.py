"""An executor is a connection and not a setting: clones share it, pickles leave it out, and a closed one is named."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from distributed import Client
from sklearn.base import clone

from dask_em import GaussianMixture, Imputer, MixtureModel, MultivariateNormal
from dask_em.errors import TryAgainError

X = np.random.default_rng(0).normal(size=(50, 2))
HOLES = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(
        processes=False,
        n_workers=1,
        threads_per_worker=1,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as own:
        yield own


MODELS: list[Any] = [
    GaussianMixture(2, random_state=0),
    MultivariateNormal(),
    Imputer(n_replicates=2, random_state=0),
    Imputer("mixture", n_components=2, n_init=1, n_replicates=2, random_state=0),
    Imputer(GaussianMixture(2, random_state=0), n_replicates=2, random_state=0),
]


def test_a_clone_works_on_the_same_client(client: Client) -> None:
    for model in (MixtureModel(2, gaussian=["a"]), *MODELS):
        given = model.set_params(executor=client).get_params(deep=False)
        twin = clone(model)
        assert twin.executor is client
        assert twin.get_params().keys() == model.get_params().keys()
        assert {name: value for name, value in given.items() if name != "model"}.items() <= twin.get_params().items()
        model.set_params(executor=None)


def test_a_clone_of_an_imputer_works_on_the_client_of_its_model(client: Client) -> None:
    assert clone(Imputer(GaussianMixture(2, executor=client))).model.executor is client


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_pickle_leaves_the_client_behind(client: Client, model: Any) -> None:
    score = "transform" if isinstance(model, Imputer) else "score_samples" if model is MODELS[0] else "summary"
    table = () if score == "summary" else (HOLES,)
    twin = clone(model).set_params(executor=client).fit(HOLES)
    again = pickle.loads(pickle.dumps(twin))
    assert again.executor is None
    assert twin.executor is client
    expected, found = (getattr(own, score)(*table) for own in (clone(model).fit(HOLES), again))
    assert np.array_equal(expected, found)
    assert pickle.loads(pickle.dumps(clone(model).set_params(executor="dask"))).executor == "dask"


def test_a_closed_client_is_named(client: Client) -> None:
    client.close()
    with pytest.raises(TryAgainError, match="closed"):
        GaussianMixture(1, executor=client).fit(X)

"""An executor is a connection and not a setting: clones share it, pickles leave it out, and a closed one is named."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from distributed import Client
from sklearn.base import clone

from dask_em import GaussianMixture, MixtureModel
from dask_em.errors import TryAgainError

X = np.random.default_rng(0).normal(size=(50, 2))


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


def test_a_clone_works_on_the_same_client(client: Client) -> None:
    model = MixtureModel(2, gaussian=["a"], executor=client)
    twin = clone(model)
    assert twin.executor is client
    assert twin.gaussian == ["a"]
    assert twin.get_params().keys() == model.get_params().keys()


def test_a_pickle_leaves_the_client_behind(client: Client) -> None:
    model = GaussianMixture(1, executor=client).fit(X)
    again = pickle.loads(pickle.dumps(model))
    assert again.executor is None
    assert model.executor is client
    assert np.array_equal(again.score_samples(X), GaussianMixture(1).fit(X).score_samples(X))
    assert pickle.loads(pickle.dumps(GaussianMixture(1, executor="dask"))).executor == "dask"


def test_a_closed_client_is_named(client: Client) -> None:
    client.close()
    with pytest.raises(TryAgainError, match="closed"):
        GaussianMixture(1, executor=client).fit(X)

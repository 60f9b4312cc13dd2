"""Given starting values that leave a component without rows: the argument at fault is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dask_em import BinomialMixture, GaussianMixture, PoissonMixture
from dask_em.errors import ConfigurationError

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(60, 2)) + 5 * (np.arange(60) % 2)[:, None]
COUNTS = RNG.poisson(4, size=(60, 1))

STARTS: dict[str, tuple[Any, Any, str]] = {
    "equal means": (GaussianMixture(2, means_init=[[1.0, 1.0], [1.0, 1.0]]), NUMBERS, "means_init"),
    "a mean far from all rows": (GaussianMixture(2, means_init=[[1.0, 1.0], [1e9, 1e9]]), NUMBERS, "means_init"),
    "a weight of 0": (GaussianMixture(2, weights_init=[1.0, 0.0]), NUMBERS, "weights_init"),
    "a weight of 0 beside means": (
        GaussianMixture(2, weights_init=[1.0, 0.0], means_init=[[0.0, 0.0], [5.0, 5.0]]),
        NUMBERS,
        "weights_init",
    ),
    "a count's weight of 0": (PoissonMixture(2, weights_init=[0.0, 1.0]), COUNTS, "weights_init"),
    "a fixed weight of 0": (
        BinomialMixture(2, trials=30, weights_init=[0.0, 1.0], fix_weights=True),
        COUNTS,
        "weights_init",
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_the_argument_at_fault_is_named(name: str) -> None:
    model, X, argument = STARTS[name]
    with pytest.raises(ConfigurationError, match=argument):
        model.fit(X)

"""Arguments of estimators, checked."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.errors import ConfigurationError


def seed_of(random_state: Any) -> int:
    """A seed from an integer, a generator, or None (a new one each time)."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**63))
    if isinstance(random_state, numbers.Integral):
        if int(random_state) < 0:
            raise ConfigurationError("random_state must not be negative")
        return int(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    raise ConfigurationError("random_state must be an integer, a numpy generator, or None")


def checked_number(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "an integer" if kind is numbers.Integral else "a number"
        raise ConfigurationError(f"{name} must be {what}")
    convert: Any = int if kind is numbers.Integral else float
    return convert(value)


def given_array(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A given starting value of a known shape."""
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ConfigurationError(f"{name} must have the shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ConfigurationError(f"{name} must be finite")
    return array


def checked_labels(labels: Any, k: int) -> NDArray[np.int64]:
    """Starting labels of some rows."""
    array = np.asarray(labels)
    if len(array) and (array.dtype.kind not in "iub" or array.min() < 0 or array.max() >= k):
        raise wrong_labels()
    return array.astype(np.int64)


def wrong_labels() -> ConfigurationError:
    return ConfigurationError(
        "init labels must be integers from 0 to n_components - 1, one a row, and each component needs at least one row "
        "(init may also be 'kmeans++' or 'random')"
    )

"""Arguments of estimators, checked."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dask_em.errors import ConfigurationError

Criterion = Literal["bic", "icl", "aic", "held-out"]
"""How to choose among models."""


def check_criterion(criterion: Any) -> None:
    """Raise ConfigurationError unless it is one."""
    if not (isinstance(criterion, str) and criterion in get_args(Criterion)):
        raise ConfigurationError("criterion must be 'bic', 'icl', 'aic' or 'held-out'")


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


def numbers_of(name: str, value: Any) -> NDArray[np.float64]:
    """A given array of numbers."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} must be an array of numbers, with rows of equal length") from None


def given_array(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A given starting value of a known shape."""
    array = numbers_of(name, value)
    if array.shape != shape:
        raise ConfigurationError(f"{name} must have the shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ConfigurationError(f"{name} must be finite")
    return array


def checked_names(argument: str, value: Any) -> tuple[str, ...]:
    """Column names given in a list."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{argument} must be a list of column names, not one of them")
    names = tuple(value)
    if not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"{argument} must give column names as text: write '0' for a column without a name")
    return names


def checked_trials(value: Any, *, of: str = "") -> str | int:
    """The column of trials, or their number."""
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise ConfigurationError(f"trials{of} must be a whole number or the name of a column")


def checked_pairs(argument: str, value: Any) -> tuple[tuple[str, Any], ...]:
    """Pairs (column name, what belongs to it), given as a mapping or in a list."""
    own = value.items() if isinstance(value, Mapping) else () if value is None else value
    pairs = list(own) if isinstance(own, Iterable) else [own]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise ConfigurationError(f"{argument} must be a mapping from column names, or a list of pairs with them")
    return tuple((name, what) for name, what in pairs)


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

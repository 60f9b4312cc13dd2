"""Arguments of the imputer: whatever cannot be meant is refused in one sentence.

What can be told from an argument alone is checked before a table is read; whether columns and levels are those of the table, as soon as these are known.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dask_em.data.columns import TRANSFORMS
from dask_em.data.profile import Profile
from dask_em.data.schema import Design, Level
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.arguments import checked_names, checked_number
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.normal import MultivariateNormal
from dask_em.imputation.roles import as_level
from dask_em.priors import check_prior

EXACT = 2.0**53
"""The whole numbers up to which floats tell every one."""

KINDS: dict[type, str] = {bool: "yes/no", int: "whole numbers", str: "text"}

# ---- arguments alone -------------------------------------------------------------------------------------------------


def check_arguments(imputer: Any) -> None:
    """Raise ConfigurationError for the first argument of an Imputer that no table could go with."""
    _check_model(imputer.model, imputer.n_components)
    for name, choice in (("method", ("draw", "donor")), ("unseen", ("error", "missing"))):
        if not _is_one_of(getattr(imputer, name), choice):
            raise ConfigurationError(f"{name} must be {choice[0]!r} or {choice[1]!r}")
    if checked_number("n_replicates", imputer.n_replicates, numbers.Integral) < 0 or imputer.n_replicates == 1:
        raise ConfigurationError("n_replicates must be 0 or at least 2: uncertainty needs more than one")
    _check_stopping(imputer)
    if checked_number("n_init", imputer.n_init, numbers.Integral) < 1:
        raise ConfigurationError("n_init must be at least 1")
    for name in ("columns", "predictors", "integer"):
        if not (name == "columns" and imputer.columns is None):
            checked_names(name, getattr(imputer, name))
    check_prior(imputer.prior)
    key_columns(imputer.key)
    ordered_levels(imputer.ordered)
    for name, (low, high) in bounds_of(imputer.bounds):
        if name in imputer.integer and np.ceil(low) > np.floor(high):
            raise ConfigurationError(
                f"no whole number is within the bounds of {name!r}: widen them, or leave it out of integer"
            )
    for name, how in _mapping("transforms", imputer.transforms):
        if not _is_one_of(how, TRANSFORMS):
            raise ConfigurationError(f"transform of {name!r} must be one of {', '.join(TRANSFORMS)}")
    for name, condition in _mapping("universe", imputer.universe):
        if not isinstance(condition, str):
            raise ConfigurationError(f"the universe of {name!r} must be a condition as text, such as 'age >= 20'")
    for name, shift in _mapping("delta", imputer.delta):
        if not _is_number(shift) or not np.isfinite(shift):
            raise ConfigurationError(f"the delta of {name!r} must be a finite number")


def key_columns(key: Any) -> tuple[str, ...]:
    """The columns that name a row."""
    if key is None or isinstance(key, str):
        return () if key is None else (key,)
    if not isinstance(key, Iterable) or not all(isinstance(name, str) for name in key):
        raise ConfigurationError("key must be the name of a column, or a list of names")
    return tuple(key)


def ordered_levels(ordered: Any) -> dict[str, tuple[Level, ...]]:
    """The levels of ordered columns as the table's cells are read: numpy's numbers and whole floats as integers."""
    out = {}
    for name, levels in _mapping("ordered", ordered):
        if isinstance(levels, (str, bytes, set, frozenset)) or not isinstance(levels, Iterable):
            raise ConfigurationError(f"ordered must give the levels of {name!r} as a list, in order")
        own = tuple(as_level(level) for level in levels)
        if len({type(level) for level in own}) != 1 or type(own[0]) not in KINDS:
            raise ConfigurationError(f"ordered must give levels of {name!r} that are all text, all whole or all yes/no")
        if len(set(own)) < len(own):
            raise ConfigurationError(f"ordered names a level of {name!r} more than once: name each once, in order")
        out[name] = own
    return out


def bounds_of(bounds: Any) -> tuple[tuple[str, tuple[float, float]], ...]:
    """Pairs (column, (lowest, highest)), infinite where there is no bound."""
    out = []
    for name, pair in _mapping("bounds", bounds):
        own = list(pair) if isinstance(pair, (tuple, list, np.ndarray)) else []
        if len(own) == 2 and all(bound is None or _is_number(bound) for bound in own):
            low = -np.inf if own[0] is None else float(own[0])
            high = np.inf if own[1] is None else float(own[1])
            if low < high:
                out.append((name, (low, high)))
                continue
        raise ConfigurationError(
            f"the bounds of {name!r} must be two numbers (lowest, highest), None for no bound, with lowest below highest"
        )
    return tuple(out)


def _check_model(model: Any, n_components: Any) -> None:
    own = isinstance(model, (MultivariateNormal, BaseMixture))
    if not (own or model is None or _is_one_of(model, ("normal", "mixture"))):
        raise ConfigurationError("model must be 'normal', 'mixture', an unfitted estimator, or None")
    if n_components is None:
        return
    if checked_number("n_components", n_components, numbers.Integral) < 1:
        raise ConfigurationError("n_components must be at least 1")
    if own or model == "normal":
        raise ConfigurationError("n_components is for model='mixture': leave it out, or use that")


def _check_stopping(imputer: Any) -> None:
    for estimator in (imputer, imputer.model):
        if estimator is imputer or isinstance(estimator, MultivariateNormal):
            if estimator.tol is not None:
                tol = checked_number("tol", estimator.tol, numbers.Real)
                if not (np.isfinite(tol) and tol >= 0):
                    raise ConfigurationError("tol must be 0 or more: it bounds the gain in log-likelihood per row")
            if checked_number("max_iter", estimator.max_iter, numbers.Integral) < 1:
                raise ConfigurationError("max_iter must be at least 1")


def _mapping(argument: str, value: Any) -> list[tuple[str, Any]]:
    """The pairs of an argument that says something of columns."""
    if value is None:
        return []
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigurationError(f"{argument} must be a mapping from the names of columns")
    return list(value.items())


def _is_one_of(value: Any, choice: Sequence[str]) -> bool:
    return isinstance(value, str) and value in choice


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)) and not np.isnan(float(value))


# ---- with the columns of the table -----------------------------------------------------------------------------------


def check_predictors(predictors: Sequence[str], modelled: Any, apart: Collection[str | None], source: Any) -> None:
    """Raise an error for a predictor that is not in the table, or that has another role."""
    for name in predictors:
        Design(categorical=(name,)).check(source.columns, source.where)
        if name in (modelled or ()):
            raise ConfigurationError(
                f"predictor {name!r} is in columns, too: a column is modelled or predicts, not both"
            )
        if name in apart:
            raise ConfigurationError(f"predictor {name!r} is the key or the weights: leave it out of predictors")


def check_roles(design: Design, table: Sequence[str], given: Mapping[str, Iterable[str] | None]) -> None:
    """Raise ConfigurationError where an argument names a column that cannot have what it gives.

    Parameters
    ----------
    table : all columns of the table
    given : the names in each argument
    """
    numbers_ = design.numbers
    takes = {
        "ordered": (design.features, "modelled columns"),
        "transforms": (numbers_, "numbers"),
        "bounds": (numbers_, "numbers"),
        "integer": ((*numbers_, *design.poisson), "numbers"),
        "delta": (
            tuple(n for n in design.gaussian if n in design.features),
            "numbers, and in a normal for ordered columns",
        ),
        "universe": (design.features, "modelled columns"),
    }
    for argument, names in given.items():
        known, what = takes[argument]
        for name in names or ():
            if name in known:
                continue
            if name in design.features:
                reason = f"which the model takes as {_role(design, name)}: {argument} is for {what}"
            elif name in table:
                reason = f"which is not modelled: add it to columns, or leave it out of {argument}"
            else:
                near = difflib.get_close_matches(name, list(known), n=1)
                reason = "which is not in the table" + (
                    f"; did you mean {near[0]!r}?" if near else ": check the spelling"
                )
            raise ConfigurationError(f"{argument} names {name!r}, {reason}")


def _role(design: Design, name: str) -> str:
    if design.levels(name) is not None:
        return "an ordered column"
    return "a category" if name in design.categorical else "a count"


# ---- with what a scan found ------------------------------------------------------------------------------------------


def check_found(design: Design, named: Mapping[str, tuple[Level, ...]], found: Profile) -> None:
    """Raise an error for levels that nobody ordered or that tell nothing, and for numbers that floats cannot tell apart.

    Parameters
    ----------
    named : the levels in order that the caller gave; in `design` are also those that the type of a column gives
    """
    for name, levels in (dict(design.ordered) | dict(named)).items():
        if name not in found.levels:
            continue  # a number of an estimator that was given as the model
        seen = [level for level, weight in found.levels[name].items() if weight > 0]
        if name in named and seen and type(seen[0]) is not type(levels[0]):
            raise ConfigurationError(
                f"ordered gives the levels of {name!r} as {KINDS[type(levels[0])]}, but the column holds "
                f"{KINDS[type(seen[0])]}: write them as the column has them"
            )
        left_out = len(set(seen) - set(levels))
        if left_out and name in named:
            raise ConfigurationError(
                f"ordered leaves out {left_out} level(s) of column {name!r}: name all of them, in order"
            )
        if left_out:
            raise DataError(
                f"column {name!r} has {left_out} level(s) that the order in its first part leaves out: name all levels in ordered"
            )
    for name in design.categorical:
        if sum(weight > 0 for weight in found.levels[name].values()) == 1:
            raise DataError(f"column {name!r} has one level only: it tells nothing, so leave it out of the model")
    for name in design.gaussian:
        moments = found.moments.get(name)
        if moments is None or not moments.count or moments.deviation > abs(moments.mean) * 1e-15:
            continue
        if moments.deviation > 0 or abs(moments.mean) >= EXACT:
            raise DataError(
                f"column {name!r} varies too little beside its size for a number: name it as the key, leave it out of the model, "
                "or subtract its least value"
            )

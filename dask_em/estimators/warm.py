"""Starting where another fit ended: last month's model, on this month's table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.schema import Schema
from dask_em.errors import ConfigurationError
from dask_em.families.binomial import BinomialParams
from dask_em.families.categorical import CategoricalParams
from dask_em.families.diagonal import DiagonalParams
from dask_em.families.gaussian import GaussianParams
from dask_em.families.poisson import PoissonParams
from dask_em.mixture import Mixture, Parameters
from dask_em.model import FittedMixture

UNSEEN = 0.01
"""Share, of what it has in the table, that a level starts with if the model did not know it."""


def model_of(init: Any) -> FittedMixture | None:
    """The fitted mixture that `init` is or names; None where it is something else."""
    if isinstance(init, FittedMixture):
        return init
    if hasattr(init, "get_params"):
        model = getattr(init, "model_", None)
        if not isinstance(model, FittedMixture):
            raise ConfigurationError("init is a model that is not a fitted mixture: fit it first")
        return model
    folder = isinstance(init, os.PathLike) or (isinstance(init, str) and (Path(init) / "model.json").exists())
    if not folder:
        return None
    from dask_em.artifact import load

    return model_of(load(init))


def warm_start(model: FittedMixture, schema: Schema, mixture: Mixture, k: int) -> Parameters:
    """The parameters of a fitted mixture in the units, columns and levels of another table.

    Raises
    ------
    ConfigurationError
        The model has other columns, transforms or numbers of components, or rows are named for components that have no name there.

    Notes
    -----
    Another covariance model may not hold these parameters: whoever starts there projects them.
    """
    if model.n_components != k:
        raise ConfigurationError(
            f"init is a model with {model.n_components} components and n_components is {k}: ask for as many, or start otherwise"
        )
    old, new = model.schema.design, schema.design
    roles = ("gaussian", "categorical", "poisson")
    for role in (*roles, "binomial"):
        had, has = _names(getattr(old, role)), _names(getattr(new, role))
        if role == "categorical" and new.known is not None:
            has.remove(new.known)  # it is no part of the model of init, whose components have its names
        differ = sorted(set(had) ^ set(has))
        if differ:
            where = "the model of init has and this one has not" if differ[0] in had else "the model of init has not"
            raise ConfigurationError(
                f"column {differ[0]!r} is one that {where} among its {role} columns: fit the same columns"
            )
    for name in new.gaussian:
        if old.transform(name) != new.transform(name):
            raise ConfigurationError(f"column {name!r} was transformed otherwise in the model of init: use the same")
    if new.known is not None and set(schema.levels[-1]) - set(model.names):
        raise ConfigurationError(
            f"column {new.known!r} names a component that has no name in the model of init: start otherwise"
        )
    like, had = mixture.margin([k]), list(model.parameters.parts)
    parts = []
    for target in like.parts:
        named_only = isinstance(target, CategoricalParams) and not old.categorical
        own = None if named_only else had.pop(0)
        parts.append(_translated(own, target, model, schema))
    return Parameters(
        np.maximum(model.parameters.weights, 1e-6) / np.maximum(model.parameters.weights, 1e-6).sum(), tuple(parts)
    )


def _names(columns: Sequence[Any]) -> list[str]:
    return [c if isinstance(c, str) else c[0] for c in columns]


def _places(old: Sequence[Any], new: Sequence[Any]) -> list[int]:
    """Where the new columns stood."""
    had = _names(old)
    return [had.index(name) for name in _names(new)]


def _translated(own: Any, like: Any, model: FittedMixture, new: Schema) -> Any:
    old = model.schema
    if isinstance(like, (GaussianParams, DiagonalParams)):
        at = _places(old.design.gaussian, new.design.gaussian)
        ratio = np.asarray(old.scale)[at] / np.asarray(new.scale)
        shift = (np.asarray(old.shift)[at] - np.asarray(new.shift)) / np.asarray(new.scale)
        means = own.means[:, at] * ratio + shift
        if isinstance(own, DiagonalParams):
            spread: NDArray[np.float64] = own.variances[:, at, None] * np.eye(len(at))
        else:
            spread = own.covariances[:, at][:, :, at]
        spread = spread * ratio[:, None] * ratio
        if isinstance(like, DiagonalParams):
            return DiagonalParams(means, np.diagonal(spread, axis1=1, axis2=2).copy())
        return GaussianParams(means, spread)
    if isinstance(like, CategoricalParams):
        out, start = [], 0
        begins = np.concatenate([[0], np.cumsum([len(levels) for levels in old.levels])])
        for name, levels in zip(new.design.categorical, new.levels):
            if name == new.design.known:
                out.append(np.array([[float(level == called) for level in levels] for called in model.names]))
                continue
            j = old.design.categorical.index(name)
            usual = like.probabilities[:, start : start + len(levels)]
            known = {level: begins[j] + i for i, level in enumerate(old.levels[j])}
            share = np.stack(
                [own.probabilities[:, known[v]] if v in known else UNSEEN * usual[:, i] for i, v in enumerate(levels)],
                axis=1,
            )
            # A level that the model gave no share to may have come: it must not be impossible.
            share = np.maximum(share, UNSEEN * 1e-2 * usual)
            out.append(share / share.sum(axis=1, keepdims=True))
            start += len(levels)
        return CategoricalParams(np.concatenate(out, axis=1))
    if isinstance(like, PoissonParams):
        return PoissonParams(np.maximum(own.rates[:, _places(old.design.poisson, new.design.poisson)], 1e-6))
    at = _places(old.design.binomial, new.design.binomial)
    return BinomialParams(np.clip(own.probabilities[:, at], 1e-6, 1 - 1e-6))

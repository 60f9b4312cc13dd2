"""Latent class analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dask_em.data.schema import Design, Schema
from dask_em.errors import ConfigurationError
from dask_em.estimators.arguments import given_array
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.doc import documented
from dask_em.model import FittedMixture


@documented
class LatentClassAnalysis(BaseMixture):
    """Latent classes of categorical answers (Lazarsfeld and Henry 1968); every column is a category.

    Text, categories, booleans and integers are levels; None, NaN, NA and null are missing.

    Parameters
    ----------
    n_components : int
        Number of classes, k.
    weights_init : (k,), probabilities_init : {column: (k, levels)} : optional
        Where to start; levels in sorted order.
    {shared}

    Attributes
    ----------
    probabilities_ : {column: DataFrame (k, levels)}
        Probability of each level in each class.
    {fitted}
    """

    def __init__(
        self,
        n_components: int,
        *,
        prior: str | None = "weak",
        tol: float = 1e-6,
        max_iter: int = 1000,
        acceleration: str | None = None,
        n_init: int = 1,
        init: Any = "kmeans++",
        weights_init: Any = None,
        probabilities_init: Any = None,
        compress: bool | str = "auto",
        random_state: Any = None,
        executor: Any = None,
    ) -> None:
        self._keep(locals())

    def _design(self, names: tuple[str, ...]) -> Design:
        return Design(categorical=names)

    def _given_parts(self, schema: Schema, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.probabilities_init is None:
            return parts
        if not isinstance(self.probabilities_init, Mapping):
            raise ConfigurationError("probabilities_init must map each column to an array (n_components, levels)")
        columns = []
        for name, levels in zip(schema.design.categorical, schema.levels):
            if name not in self.probabilities_init:
                raise ConfigurationError(f"probabilities_init has no column {name!r}: give every column")
            own = given_array(
                f"probabilities_init[{name!r}]", self.probabilities_init[name], (self.n_components, len(levels))
            )
            if (own < 0).any() or not np.allclose(own.sum(axis=1), 1.0, rtol=1e-6):
                raise ConfigurationError(
                    f"probabilities_init[{name!r}] must have rows that are not negative and sum to 1"
                )
            columns.append(own)
        return (replace(parts[0], probabilities=np.concatenate(columns, axis=1)),)

    def _publish(self, model: FittedMixture) -> None:
        super()._publish(model)
        self.probabilities_ = probability_frames(model)


def probability_frames(model: FittedMixture) -> dict[str, pd.DataFrame]:
    """Level probabilities of each categorical column as a (k, levels) frame."""
    return {
        name: pd.DataFrame(p, columns=pd.Index(levels, name=name))
        for (name, p), levels in zip(model.category_probabilities.items(), model.schema.levels)
    }

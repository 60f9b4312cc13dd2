"""Mixtures of Poisson counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dask_em.data.schema import Design, Schema
from dask_em.errors import ConfigurationError
from dask_em.estimators.arguments import given_array, numbers_of
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.doc import documented
from dask_em.model import FittedMixture


@documented
class PoissonMixture(BaseMixture):
    """Mixture of independent Poisson counts; every column is a count.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    weights_init : (k,), rates_init : (k, d), or (k,) for one column : optional
        Where to start.
    {shared}

    Attributes
    ----------
    rates_ : (k, d)
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
        rates_init: Any = None,
        compress: bool | str = "auto",
        random_state: Any = None,
        executor: Any = None,
    ) -> None:
        self._keep(locals())

    def _design(self, names: tuple[str, ...]) -> Design:
        return Design(poisson=names)

    def _given_parts(self, schema: Schema, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.rates_init is None:
            return parts
        shape = (self.n_components, len(schema.design.poisson))
        given = numbers_of("rates_init", self.rates_init)
        rates = given_array("rates_init", given[:, None] if given.ndim == 1 and shape[1] == 1 else given, shape)
        if (rates < 0).any():
            raise ConfigurationError("rates_init must not be negative")
        return (replace(parts[0], rates=rates),)

    def _publish(self, model: FittedMixture) -> None:
        super()._publish(model)
        self.rates_ = model.rates

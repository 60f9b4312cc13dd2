"""Mixtures over columns of several kinds: segments of customers, respondents, machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dask_em.data.schema import Design
from dask_em.errors import ConfigurationError
from dask_em.estimators.arguments import checked_names, checked_pairs, checked_trials
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.doc import documented
from dask_em.estimators.latent_class import probability_frames
from dask_em.families.covariance import FULL
from dask_em.model import FittedMixture
from dask_em.specification import covariance_model


@documented
class MixtureModel(BaseMixture):
    """Mixture of gaussian, categorical, count and binomial columns, independent of each other given the component.

    Columns that are not named are not used, so keys and notes may stay in the table.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    gaussian, categorical, poisson : sequences of column names
        Numbers, categories and counts.
    binomial : mapping from a column of successes to its trials (a column or an integer), or a list of such pairs
    covariance_type : str, default "full"
        Of the gaussian columns: "full" (VVV), "tied" (EEE), "diag" (VVI), "spherical" (VII), or another of mclust's names, as in GaussianMixture.
    transforms : mapping from a gaussian column to "log", "log1p" or "asinh"
        Heavy tails make useless segments; densities stay in the table's units, means_ are those of the transformed column.
    known : str, optional
        Column that names the component of the rows for which it is known, and is missing in the others: semi-supervised. Such a row always belongs to its own component, whatever its
        cells say. The column is not needed to score rows, where all are judged by their cells.
    {shared}

    Attributes
    ----------
    means_, covariances_ : (k, d) and (k, d, d) of the gaussian columns; absent, like rates_, where there are none
    rates_ : (k, d) of the Poisson columns
    probabilities_ : {column: DataFrame (k, levels)} of the categorical columns, {column: (k,)} of the binomial ones
    component_names_ : (k,) with `known`, names of the components, None where they have none
    {fitted}
    """

    weights_init = None

    def __init__(
        self,
        n_components: int,
        *,
        gaussian: Sequence[str] = (),
        categorical: Sequence[str] = (),
        poisson: Sequence[str] = (),
        binomial: Mapping[str, str | int] | Sequence[tuple[str, str | int]] | None = None,
        covariance_type: str = "full",
        transforms: Mapping[str, str] | None = None,
        known: str | None = None,
        prior: str | None = "weak",
        tol: float = 1e-6,
        max_iter: int = 1000,
        acceleration: str | None = None,
        n_init: int = 1,
        init: Any = "kmeans++",
        compress: bool | str = "auto",
        precision: str = "double",
        random_state: Any = None,
        executor: Any = None,
    ) -> None:
        self._keep(locals())

    def _design(self, names: tuple[str, ...]) -> Design:
        if not (self.known is None or isinstance(self.known, str)):
            raise ConfigurationError("known must be the name of a column")
        return Design(
            gaussian=checked_names("gaussian", self.gaussian),
            categorical=checked_names("categorical", self.categorical) + (() if self.known is None else (self.known,)),
            poisson=checked_names("poisson", self.poisson),
            binomial=tuple(
                (name, checked_trials(t, of=f" of {name!r}")) for name, t in checked_pairs("binomial", self.binomial)
            ),
            transforms=checked_pairs("transforms", self.transforms),
            pattern=covariance_model(self.covariance_type) in FULL,
            known=self.known,
        )

    @property
    def design(self) -> Design:
        """Which columns are modelled, and how."""
        return self._design(())

    def _settings(self) -> dict[str, Any]:
        return {"covariance_type": self.covariance_type, "precision": self.precision}

    def _publish(self, model: FittedMixture) -> None:
        super()._publish(model)
        for name in ("means_", "covariances_", "rates_", "probabilities_", "component_names_"):
            if hasattr(self, name):
                delattr(self, name)
        design, chances = model.schema.design, model.success_probabilities
        if model.names:
            self.component_names_ = model.names
        if design.gaussian:
            self.means_, self.covariances_ = model.means, model.covariances
        if design.poisson:
            self.rates_ = model.rates
        self.probabilities_: dict[str, Any] = dict(probability_frames(model))
        if chances is not None:
            self.probabilities_ |= {name: p for (name, _), p in zip(design.binomial, chances.T)}

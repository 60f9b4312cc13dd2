"""Mixtures of multivariate normals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.schema import Design, Schema
from dask_em.errors import ConfigurationError
from dask_em.estimators.arguments import given_array, numbers_of
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.doc import documented
from dask_em.families.covariance import FULL
from dask_em.families.diagonal import DiagonalParams
from dask_em.model import FittedMixture
from dask_em.specification import covariance_model


@documented
class GaussianMixture(BaseMixture):
    """Gaussian mixture with missing cells and row weights.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    covariance_type : str, default "full"
        "full" (VVV), "tied" (EEE), "diag" (VVI), "spherical" (VII), or any of mclust's fourteen names: three letters for volume, shape and orientation, each
        E (equal over components), V (varies) or I (the identity): EII VII EEI VEI EVI VVI EEE VEE EVE VVE EEV VEV EVV VVV (Celeux and Govaert 1995).
        Those that other units of a column would change (EII VII EVE VVE EEV VEV) hold in the table's units.
    weights_init : (k,), means_init : (k, d), covariances_init : optional
        Where to start, in the table's units; covariances as (k, d, d) or in scikit-learn's shape for the covariance type.
    {shared}

    Attributes
    ----------
    means_ : (k, d); covariances_ : (k, d, d), whatever the covariance type
    {fitted}

    Notes
    -----
    Rows are grouped by missingness pattern; missing cells are integrated out, never filled (Ghahramani and Jordan 1994).
    Components are ordered by descending weight, or as given by labels or starting values.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> X = np.array([[0.0], [0.1], [np.nan], [5.0], [5.2]])
    >>> GaussianMixture(2, random_state=0).fit(X).predict([[0.2], [4.9]]).tolist() in ([0, 1], [1, 0])
    True
    """

    def __init__(
        self,
        n_components: int,
        *,
        covariance_type: str = "full",
        prior: str | None = "weak",
        tol: float = 1e-6,
        max_iter: int = 1000,
        acceleration: str | None = None,
        n_init: int = 1,
        init: Any = "kmeans++",
        weights_init: Any = None,
        means_init: Any = None,
        covariances_init: Any = None,
        compress: bool | str = "auto",
        precision: str = "double",
        random_state: Any = None,
        executor: Any = None,
    ) -> None:
        self._keep(locals())

    def _design(self, names: tuple[str, ...]) -> Design:
        return Design(gaussian=names, pattern=covariance_model(self.covariance_type) in FULL)

    def _settings(self) -> dict[str, Any]:
        return {"covariance_type": self.covariance_type, "precision": self.precision}

    def _centres(self, schema: Schema) -> list[NDArray[Any]] | None:
        if self.means_init is None:
            return None
        means = given_array("means_init", self.means_init, (self.n_components, len(schema.shift)))
        return [((means - schema.shift) / schema.scale).T]

    def _given_parts(self, schema: Schema, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        (own,) = parts
        centres = self._centres(schema)
        if centres is not None:
            own = replace(own, means=centres[0].T)
        if self.covariances_init is not None:
            scale = np.asarray(schema.scale)
            covariances = self._covariances(len(scale)) / (scale[:, None] * scale)
            if isinstance(own, DiagonalParams):
                own = replace(own, variances=np.diagonal(covariances, axis1=1, axis2=2).copy())
            else:
                own = replace(own, covariances=covariances)
        return (own,)

    def _covariances(self, d: int) -> NDArray[np.float64]:
        """covariances_init as (k, d, d)."""
        k, given = self.n_components, numbers_of("covariances_init", self.covariances_init)
        model = covariance_model(self.covariance_type)
        short = {"EEE": (d, d), "VVI": (k, d), "VII": (k,), "EII": ()}.get(model)
        if given.shape != (k, d, d) and given.shape == short:
            if model == "VVI":
                given = given[:, :, None] * np.eye(d)
            elif model in ("VII", "EII"):
                given = np.broadcast_to(given, (k,))[:, None, None] * np.eye(d)
            else:
                given = np.broadcast_to(given, (k, d, d))
        given = given_array("covariances_init", given, (k, d, d))
        if not np.allclose(given, np.swapaxes(given, 1, 2)) or (np.linalg.eigvalsh(given)[:, 0] <= 0).any():
            raise ConfigurationError("covariances_init must be symmetric and positive definite")
        return given

    def _publish(self, model: FittedMixture) -> None:
        super()._publish(model)
        self.means_, self.covariances_ = model.means, model.covariances

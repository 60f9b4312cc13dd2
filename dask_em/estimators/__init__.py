"""Estimators in scikit-learn's manners: thin faces of the engine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_em.estimators.binomial import BinomialMixture
    from dask_em.estimators.gaussian import GaussianMixture
    from dask_em.estimators.imputer import Imputer
    from dask_em.estimators.latent_class import LatentClassAnalysis
    from dask_em.estimators.mixed import MixtureModel
    from dask_em.estimators.normal import MultivariateNormal
    from dask_em.estimators.poisson import PoissonMixture

_HOME = {
    "BinomialMixture": "binomial",
    "GaussianMixture": "gaussian",
    "Imputer": "imputer",
    "LatentClassAnalysis": "latent_class",
    "MixtureModel": "mixed",
    "MultivariateNormal": "normal",
    "PoissonMixture": "poisson",
}

__all__ = [
    "BinomialMixture",
    "GaussianMixture",
    "Imputer",
    "LatentClassAnalysis",
    "MixtureModel",
    "MultivariateNormal",
    "PoissonMixture",
]


def __getattr__(name: str) -> Any:
    # Names are imported when they are used: who only checks arguments does not pay for scikit-learn.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

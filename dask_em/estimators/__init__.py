"""Estimators in scikit-learn's manners: thin faces of the engine."""

from dask_em.estimators.binomial import BinomialMixture
from dask_em.estimators.gaussian import GaussianMixture
from dask_em.estimators.imputer import Imputer
from dask_em.estimators.latent_class import LatentClassAnalysis
from dask_em.estimators.mixed import MixtureModel
from dask_em.estimators.normal import MultivariateNormal
from dask_em.estimators.poisson import PoissonMixture

__all__ = [
    "BinomialMixture",
    "GaussianMixture",
    "Imputer",
    "LatentClassAnalysis",
    "MixtureModel",
    "MultivariateNormal",
    "PoissonMixture",
]

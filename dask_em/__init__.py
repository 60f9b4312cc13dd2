"""Expectation-Maximization on dataframes: mixtures, segments and missing cells, from a notebook to a Dask cluster."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_em.artifact import load, save
    from dask_em.estimators import (
        BinomialMixture,
        GaussianMixture,
        Imputer,
        LatentClassAnalysis,
        MixtureModel,
        MultivariateNormal,
        PoissonMixture,
    )
    from dask_em.images.segment import segment_image
    from dask_em.imputation.pooling import pool
    from dask_em.inference import k_against_k_plus_1
    from dask_em.priors import InverseWishart, Ridge
    from dask_em.search import select_model

__version__ = "0.1.0"

_HOME = {
    "BinomialMixture": "dask_em.estimators",
    "GaussianMixture": "dask_em.estimators",
    "Imputer": "dask_em.estimators",
    "InverseWishart": "dask_em.priors",
    "LatentClassAnalysis": "dask_em.estimators",
    "MixtureModel": "dask_em.estimators",
    "MultivariateNormal": "dask_em.estimators",
    "PoissonMixture": "dask_em.estimators",
    "Ridge": "dask_em.priors",
    "k_against_k_plus_1": "dask_em.inference",
    "load": "dask_em.artifact",
    "pool": "dask_em.imputation.pooling",
    "save": "dask_em.artifact",
    "segment_image": "dask_em.images.segment",
    "select_model": "dask_em.search",
}

__all__ = [
    "BinomialMixture",
    "GaussianMixture",
    "Imputer",
    "InverseWishart",
    "LatentClassAnalysis",
    "MixtureModel",
    "MultivariateNormal",
    "PoissonMixture",
    "Ridge",
    "k_against_k_plus_1",
    "load",
    "pool",
    "save",
    "segment_image",
    "select_model",
]


def __getattr__(name: str) -> Any:
    # Names are imported when they are used: workers and the command line never pay for scikit-learn.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'dask_em' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

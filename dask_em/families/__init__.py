"""Distributions, one file each. Everything here is NumPy: no pandas, no Arrow, no Dask."""

from dask_em.families.base import Family, Params, take
from dask_em.families.binomial import Binomial
from dask_em.families.categorical import Categorical
from dask_em.families.diagonal import DiagonalGaussian
from dask_em.families.gaussian import Gaussian
from dask_em.families.poisson import Poisson

__all__ = ["Binomial", "Categorical", "DiagonalGaussian", "Family", "Gaussian", "Params", "Poisson", "take"]

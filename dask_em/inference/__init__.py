"""How sure one may be of a fitted mixture: standard errors from one scan, the bootstrap, and a test for one component more."""

from dask_em.inference.information import louis_cost, standard_errors
from dask_em.inference.likelihood_ratio import LikelihoodRatioTest, k_against_k_plus_1
from dask_em.inference.record import StandardErrors
from dask_em.inference.replicates import bootstrap

__all__ = ["LikelihoodRatioTest", "StandardErrors", "bootstrap", "k_against_k_plus_1", "louis_cost", "standard_errors"]

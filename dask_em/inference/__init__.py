"""How sure one may be of a fitted mixture: standard errors from one scan, and the bootstrap."""

from dask_em.inference.information import louis_cost, standard_errors
from dask_em.inference.record import StandardErrors
from dask_em.inference.replicates import bootstrap

__all__ = ["StandardErrors", "bootstrap", "louis_cost", "standard_errors"]

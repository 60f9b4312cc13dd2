"""How sure one may be of a fitted mixture: standard errors from one scan, and the bootstrap."""

from dask_em.inference.information import louis_cost, standard_errors
from dask_em.inference.record import StandardErrors

__all__ = ["StandardErrors", "louis_cost", "standard_errors"]

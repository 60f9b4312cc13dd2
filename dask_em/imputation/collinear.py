"""Which numbers of a mixture are collinear, told from a sample before hours of work.

Columns of which one is a linear combination of the others are so whatever component a row belongs to, so one normal fitted to the sample shows them. Only the prior
keeps the covariances of a mixture invertible then, and the fit says nothing of it.
"""

from __future__ import annotations

import warnings

import pyarrow as pa

from dask_em import normal_fitting
from dask_em.data.columns import WEIGHT, missing_cells
from dask_em.data.schema import Design
from dask_em.data.sources import open_source
from dask_em.errors import DataError
from dask_em.execution.base import Executor

TOL, MAX_ITER = 1e-6, 200
"""Enough for the columns that vary together to be seen; nothing else is read off this fit."""


def warn_of_collinear(design: Design, sample: pa.Table, executor: Executor) -> None:
    """Warn with the names of numbers that are collinear over the rows of a profile's sample in which all of them are observed.

    Columns that do not depend on each other within a component (a diagonal covariance) may well be collinear.
    """
    names = [name for name in design.numbers if missing_cells(sample.column(name)).mean() < 1.0]
    if len(names) < 2 or not design.pattern:
        return
    transforms = tuple(pair for pair in design.transforms if pair[0] in names)
    own = Design(gaussian=tuple(names), transforms=transforms, weight=WEIGHT)
    rows = sample.select([*names, WEIGHT])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            normal_fitting.fit(open_source(rows), own, "weak", TOL, MAX_ITER, executor)
        except DataError:
            return  # the sample is too small to tell
    for one in said:
        if one.category is UserWarning:
            warnings.warn(str(one.message), UserWarning, stacklevel=3)

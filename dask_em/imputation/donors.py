"""Predictive mean matching: a missing number is taken from one of the observed rows that are expected to be most like it (Little 1988).

What is drawn has been observed somewhere, so heaps, gaps and brackets of the answers stay. Donors are the rows of the profile's sample; their expected values
are those of the model fitted to the table, the recipients' those of a bootstrap replicate ("type 1" matching, Morris, White and Royston 2014).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.columns import missing_cells, numeric
from dask_em.families.base import Array

N_NEAREST = 5
"""Donors among whom one is chosen: mice's default, a compromise of likeness and variety."""


@dataclass(frozen=True)
class Donors:
    """For each column, (3, n) expected values, observed values and weights of its donors, by expected value."""

    columns: tuple[tuple[str, Array], ...]

    def draw(self, name: str, expected: Array, uniforms: Array) -> NDArray[np.float64]:
        """(n,) observed values of donors near the expected ones."""
        own, values, weight = dict(self.columns)[name]
        reach = min(N_NEAREST, len(own))
        place = np.searchsorted(own, expected)
        around = np.clip(place[:, None] + np.arange(-reach, reach), 0, len(own) - 1)
        # A donor at the end of the list stands there several times: only the first counts.
        again = np.zeros(around.shape, dtype=bool)
        again[:, 1:] = around[:, 1:] == around[:, :-1]
        distance = np.where(again, np.inf, np.abs(own[around] - expected[:, None]))
        nearest = np.take_along_axis(around, np.argsort(distance, axis=1, kind="stable")[:, :reach], axis=1)
        cumulative = np.cumsum(weight[nearest], axis=1)
        chosen = (uniforms[:, None] * cumulative[:, -1:] >= cumulative[:, :-1]).sum(axis=1)
        return values[np.take_along_axis(nearest, chosen[:, None], axis=1)[:, 0]]


def make_donors(model: Any, sample: pa.Table) -> Donors:
    """Donors for every number of an ImputationModel, from the rows of a profile's sample that have it.

    A delta is for those who did not answer: donors did, so they are expected what the model says without it.
    """
    model = replace(model, delta=())
    columns = []
    for name in model.schema.design.numbers:
        rows = sample.filter(pa.array(~missing_cells(sample.column(name))))
        values, weight = numeric(rows, name), rows.column("#weight").to_numpy()
        index = rows.column_names.index(name)
        hidden = rows.set_column(index, name, pa.nulls(len(rows), rows.schema.field(index).type))
        expected = model.expected(hidden, name)
        order = np.argsort(expected, kind="stable")
        columns.append((name, np.stack([expected, values, weight])[:, order]))
    return Donors(tuple(columns))

"""Means by group of completed tables, as sums that add up over rows: what is pooled in a report.

The variance of a weighted mean is linearised: Σ w² (x - mean)² / (Σ w)², times n / (n - 1). It takes the moments of a column under the weights and under their squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import t

from dask_em.data.columns import missing_cells, numeric, plain
from dask_em.data.profile import Moments
from dask_em.errors import DataError
from dask_em.imputation.model import Cells
from dask_em.imputation.pooling import pool

LISTWISE = "listwise"
"""The rows in which nothing that is modelled was missing."""

ALL = "all"
"""What the group of all rows is called."""

MAX_GROUPS = 1000
"""A column with more groups is an identifier or a number."""

Key = tuple[str | int, str | None, str]
"""Which table, which group (None for all rows) and which column."""


@dataclass(frozen=True)
class GroupSums:
    """For each (which table, group, column) the moments under the weights and under their squares.

    Attributes
    ----------
    columns : numbers (or yes/no) whose means are wanted
    by : column of groups, or None for all rows together only
    weight : column of row weights; rows without weight are nobody
    """

    columns: tuple[str, ...]
    by: str | None
    weight: str | None
    sums: Mapping[Key, tuple[Moments, Moments]] = field(default_factory=dict)

    def __add__(self, other: GroupSums) -> GroupSums:
        sums = dict(self.sums)
        for key, own in other.sums.items():
            sums[key] = (sums[key][0] + own[0], sums[key][1] + own[1]) if key in sums else own
        self._check(len({key[1] for key in sums} - {None}))
        return replace(self, sums=sums)

    def listwise(self, table: pa.Table, cells: Mapping[str, Cells]) -> GroupSums:
        """With the rows of an incomplete table in which no modelled cell is missing."""
        whole = np.ones(table.num_rows, dtype=bool)
        for own in cells.values():
            whole &= ~own.mask
        return self.add(table.filter(pa.array(whole)), LISTWISE)

    def add(self, table: pa.Table, which: str | int) -> GroupSums:
        """With the rows of a table in which the column is there."""
        weight = np.ones(table.num_rows) if self.weight is None else numeric(table, self.weight)
        found = dict[Key, tuple[Moments, Moments]]()
        groups = self._groups(table)
        for name in self.columns:
            values = numeric(table, name)
            seen = ~missing_cells(table.column(name)) & (weight > 0)
            for label, members in groups.items():
                own = seen & members
                if own.any():
                    found[which, label, name] = (
                        Moments.of(values[own], weight[own]),
                        Moments.of(values[own], weight[own] ** 2),
                    )
        return self + replace(self, sums=found)

    def _groups(self, table: pa.Table) -> dict[str | None, NDArray[np.bool_]]:
        """Who belongs to each group; all rows are a group of their own, which no level can have the name of."""
        out: dict[str | None, NDArray[np.bool_]] = {None: np.ones(table.num_rows, dtype=bool)}
        if self.by is not None:
            encoded = plain(table.column(self.by)).dictionary_encode()
            self._check(len(encoded.dictionary))
            codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
            out |= {str(v): codes == code for code, v in enumerate(encoded.dictionary.to_pylist()) if v is not None}
        return out

    def _check(self, groups: int) -> None:
        if groups > MAX_GROUPS:
            raise DataError(
                f"column {self.by!r} has more than {MAX_GROUPS} groups, which is an identifier or a number rather than a category: "
                "group by another, or cut it into classes"
            )

    def _called(self, group: str | None) -> str:
        """The name of a group; a level that is called as all rows are has its column's name before it."""
        return ALL if group is None else f"{self.by}=all" if group == ALL else group

    def _mean(self, key: Key) -> tuple[float, float, int]:
        """Mean, its variance (none of one row), and the rows."""
        own, squared = self.sums[key]
        n = own.count
        about_the_mean = squared.m2 + squared.weight * (squared.mean - own.mean) ** 2
        return own.mean, about_the_mean / own.weight**2 * n / (n - 1) if n > 1 else np.nan, n

    def pooled(self, level: float = 0.95) -> pd.DataFrame:
        """Pooled means over the draws, and those of the complete rows only, with intervals."""
        rows: list[dict[str, Any]] = []
        draws = sorted({k[0] for k in self.sums if isinstance(k[0], int)})
        for group in sorted({k[1] for k in self.sums}, key=lambda own: (own is not None, own)):
            called = self._called(group)
            for name in self.columns:
                if len(draws) > 1:
                    found = [self._mean((i, group, name)) for i in draws if (i, group, name) in self.sums]
                    found = [f for f in found if np.isfinite(f[1])]
                    if len(found) < 2:
                        continue  # a group of one row has no variance
                    own = pool([f[0] for f in found], [f[1] for f in found], n=found[0][2], k=1)
                    low, high = own.interval(level)
                    rows.append(_row(name, called, "imputed", found[0][2], own.estimate, own.total, low, high, own.fmi))
                if (LISTWISE, group, name) in self.sums:
                    mean, variance, n = self._mean((LISTWISE, group, name))
                    if n > 1:
                        reach = t.ppf((1 + level) / 2, n - 1) * np.sqrt(variance)
                        rows.append(
                            _row(
                                name,
                                called,
                                "complete rows only",
                                n,
                                mean,
                                variance,
                                mean - reach,
                                mean + reach,
                                np.nan,
                            )
                        )
        return pd.DataFrame(rows)


def _row(
    column: str, group: str, method: str, rows: int, estimate: Any, variance: Any, low: Any, high: Any, fmi: Any
) -> dict[str, Any]:
    return {
        "column": column,
        "group": group,
        "method": method,
        "rows": rows,
        "estimate": float(estimate),
        "standard_error": float(np.sqrt(variance)),
        "low": float(low),
        "high": float(high),
        "fraction_missing_information": float(fmi),
    }

"""What is shown of an imputation: the tables of its report, without what rests on so few rows that it could describe a person.

Counts of cells by column, patterns of missing cells, means by group, distributions and overimputed cells go in as they are and come out as they may be published. With
`smallest` 0 they come out as they went in. A total of all rows or of all filled cells is always told.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dask_em.disclosure import hidden_in_line, hidden_in_table, is_small
from dask_em.imputation.missingness import Missingness
from dask_em.imputation.overimputation import OverimputedLevels, OverimputedNumbers
from dask_em.imputation.summaries import ALL

FEW = "(levels of few rows)"
"""Under which name the levels stand that are not named."""


def missingness(counted: Missingness, smallest: int) -> pd.DataFrame:
    """Cells by column, as from `Missingness.table`; null where a number would be too small, or give one away."""
    table = counted.table()
    names = ["observed", "missing", "not_asked"]
    hidden = hidden_in_table(counted.cells, smallest, known_totals=True)[:-1, :-1]
    if hidden.any():
        for name, own in zip(names, hidden):
            table[name] = table[name].astype("Int64").mask(own)
        table["missing_share"] = table["missing_share"].mask(hidden[0] | hidden[1])
    return table


def patterns(counted: Missingness, smallest: int, most: int | None = None) -> pd.DataFrame:
    """The most frequent patterns, as from `Missingness.patterns`; those of few rows are among all others."""
    known = counted.patterns()
    rows = known["rows"][known["missing"].notna()].to_numpy()
    shown = int((rows >= smallest).sum())
    while shown and is_small(counted.rows - rows[:shown].sum(), smallest):
        shown -= 1
    return counted.patterns(shown if most is None else min(shown, most))


def complete_rows(counted: Missingness, smallest: int) -> int | None:
    """Rows without a missing cell; None where these, or all others, are few."""
    complete = counted.complete_rows()
    return None if is_small([complete, counted.rows - complete], smallest).any() else complete


def means(pooled: pd.DataFrame, smallest: int) -> pd.DataFrame:
    """Means by group, as from `GroupSums.pooled`, without groups of few rows and those from which these would follow."""
    if pooled.empty:
        return pooled
    hidden = pd.Series(False, index=pooled.index)
    for _, own in pooled.groupby(["column", "method"], sort=False):
        groups = own[own["group"] != ALL]
        every = own.loc[own["group"] == ALL, "rows"]
        # Rows of groups that were left out already are a cell of the line, too.
        others = max(int(every.iloc[0]) - int(groups["rows"].sum()), 0) if len(every) else 0
        hidden[groups.index] = hidden_in_line([*groups["rows"], others], smallest)[:-1]
        hidden[every.index] = is_small(every, smallest)
    few = pooled[is_small(pooled["rows"], smallest) & (pooled["method"] == "imputed")]
    return pooled[~hidden & ~pooled["group"].isin(few["group"])].reset_index(drop=True)


def distributions(frame: pd.DataFrame, smallest: int) -> pd.DataFrame:
    """Cells by class, as from `Distributions.frame`: classes of numbers are joined until each has enough observed cells, and levels of few are one."""
    if not smallest or frame.empty:
        return frame
    parts = []
    for _, own in frame.groupby("column", sort=False):
        parts.append(_joined_levels(own, smallest) if own["level"].notna().any() else _joined_classes(own, smallest))
    kept = [own for own in parts if len(own)]
    return pd.concat(kept, ignore_index=True) if kept else frame.iloc[:0]


def _joined_levels(own: pd.DataFrame, smallest: int) -> pd.DataFrame:
    hidden = hidden_in_line(own["observed"], smallest)
    if not hidden.any():
        return own
    if hidden.sum() == len(own) or own["observed"][hidden].sum() < smallest:
        return own.iloc[:0]
    joined = (
        own[hidden]
        .iloc[:1]
        .assign(level=FEW, observed=own["observed"][hidden].sum(), imputed=own["imputed"][hidden].sum())
    )
    return pd.concat([own[~hidden], joined])


def _joined_classes(own: pd.DataFrame, smallest: int) -> pd.DataFrame:
    """The open classes at both ends stay; of those between, the last takes what is left over."""
    inner = own.iloc[1:-1]
    reached = np.cumsum(inner["observed"].to_numpy())
    if not len(reached) or reached[-1] < smallest:
        return own.iloc[:0]
    group, done, groups = 0, 0, []
    for total in reached:
        groups.append(group)
        if total - done >= smallest and reached[-1] - total >= smallest:
            group, done = group + 1, total
    joined = inner.groupby(np.array(groups), sort=False).agg(
        {name: {"high": "last", "observed": "sum", "imputed": "sum"}.get(name, "first") for name in own.columns}
    )
    # As an aggregate, a transform that is None everywhere would be one of numbers.
    joined["transform"], joined["level"] = own["transform"].iloc[0], None
    return pd.concat([own.iloc[:1], joined.astype(own.dtypes.to_dict()), own.iloc[-1:]])


def checked(
    overimputed: Sequence[OverimputedNumbers | OverimputedLevels], smallest: int
) -> list[OverimputedNumbers | OverimputedLevels]:
    """The columns of which enough cells were hidden and imputed again."""
    return [own for own in overimputed if len(own.cells) >= smallest]


def coverage(overimputed: Sequence[OverimputedNumbers | OverimputedLevels], smallest: int) -> pd.DataFrame:
    """What overimputation found: one row a column, and with `smallest` 0 one row a cell."""
    shown = checked(overimputed, smallest)
    if not smallest and shown:
        cells = [own.cells.assign(column=own.column) for own in shown]
        return pd.concat(cells, ignore_index=True).drop(columns=["observed"])
    rows = [
        (own.column, len(own.cells), own.level, own.coverage, None, None)
        if isinstance(own, OverimputedNumbers)
        else (own.column, len(own.cells), None, own.most_probable, own.promised, own.mean_probability)
        for own in shown
    ]
    return pd.DataFrame(rows, columns=["column", "cells", "level", "inside", "promised", "mean_probability"])

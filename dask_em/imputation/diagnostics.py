"""What can be seen of an imputation: what was missing together, how imputed cells are spread beside observed ones, how the fit went.

Everything here is a count over rows, gathered piece by piece with +; no row is kept. Classes of numbers are fixed before the first piece is read, from the sample of the
profile, so that the counts of any two pieces fit together. Hiding observed cells to impute them again is in `overimputation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.data import columns as col
from dask_em.data.keys import row_keys
from dask_em.data.profile import Profile, pattern_groups, profile
from dask_em.data.reading import read_rows, without_unasked
from dask_em.data.schema import Design, Level
from dask_em.data.sources import Source
from dask_em.data.universe import asked
from dask_em.execution.base import Executor
from dask_em.imputation.model import Cells, ImputationModel
from dask_em.imputation.overimputation import OverimputedLevels, OverimputedNumbers, overimpute
from dask_em.randomness import Words

__all__ = [
    "Bins",
    "Diagnosis",
    "Distributions",
    "Missingness",
    "OverimputedLevels",
    "OverimputedNumbers",
    "bins_of",
    "convergence",
    "diagnose",
    "overimpute",
    "sample_of",
]

MAX_PATTERNS = 8192
"""Patterns that are counted one by one; a few hundred kilobytes."""

N_BINS = 40
"""Classes of a number: enough to see a second peak, few enough for a few hundred imputed cells."""

N_DRAWS = 5
"""Draws whose imputed cells are counted: the shape needs no more."""

OBSERVED, MISSING, NOT_ASKED = range(3)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Missingness:
    """Counts of observed, missing and unasked cells, and of the patterns in which they come; those of disjoint rows add up.

    Attributes
    ----------
    columns : the modelled columns
    rows : number of rows
    cells : (3, d) observed, missing and unasked cells by column
    patterns : rows by pattern, a byte for each column: 0 observed, 1 missing, 2 not asked
    rest : rows whose pattern is not listed: when a sum has more than 8192 patterns, the rarest half is put here, and the counts that stay may be
        short by what was put here before
    """

    columns: tuple[str, ...]
    rows: int
    cells: Counts
    patterns: Mapping[bytes, int]
    rest: int = 0

    @staticmethod
    def of(table: pa.Table, design: Design) -> Missingness:
        """Count the cells of some rows.

        Parameters
        ----------
        table : rows with at least the columns of the design
        design : the modelled columns, and who was asked for them; an answer to a question that was not asked counts as not asked
        """
        names, rules = design.features, dict(design.universe)
        missing = np.empty((len(names), table.num_rows), dtype=bool)
        was_asked = np.ones((len(rules), table.num_rows), dtype=bool)
        place = {name: i for i, name in enumerate(rules)}
        for own, name in zip(missing, names):
            own[:] = col.missing_cells(table.column(name))
            if name in rules:
                was_asked[place[name]] = asked(table, rules[name], name)
                own &= was_asked[place[name]]
        masks, which = pattern_groups(np.concatenate([missing, was_asked]))
        states = masks[:, : len(names)].astype(np.uint8)
        for i, name in enumerate(names):
            if name in rules:
                states[~masks[:, len(names) + place[name]], i] = NOT_ASKED
        rows = np.bincount(which, minlength=len(states))
        cells = np.stack([rows @ (states == state) for state in (OBSERVED, MISSING, NOT_ASKED)])
        patterns = {state.tobytes(): int(n) for state, n in zip(states, rows) if n}
        return Missingness(names, table.num_rows, cells.astype(np.int64), patterns)._bounded()

    def __add__(self, other: Missingness) -> Missingness:
        patterns = dict(self.patterns)
        for pattern, rows in other.patterns.items():
            patterns[pattern] = patterns.get(pattern, 0) + rows
        both = Missingness(
            self.columns, self.rows + other.rows, self.cells + other.cells, patterns, self.rest + other.rest
        )
        return both._bounded()

    def _bounded(self) -> Missingness:
        if len(self.patterns) <= MAX_PATTERNS:
            return self
        kept = dict(self._most_frequent()[: MAX_PATTERNS // 2])
        return replace(self, patterns=kept, rest=self.rows - sum(kept.values()))

    def _most_frequent(self) -> list[tuple[bytes, int]]:
        return sorted(self.patterns.items(), key=lambda item: (-item[1], item[0]))

    def table(self) -> pd.DataFrame:
        """One row a column: cells observed, missing and not asked, and the share that is missing of what was asked."""
        observed, missing, unasked = self.cells
        share = missing / np.maximum(observed + missing, 1)
        return pd.DataFrame(
            {
                "column": self.columns,
                "observed": observed,
                "missing": missing,
                "not_asked": unasked,
                "missing_share": share,
            }
        )

    def complete_rows(self) -> int:
        """Rows in which nothing that was asked is missing, as far as patterns are listed."""
        return sum(rows for pattern, rows in self.patterns.items() if MISSING not in pattern)

    def patterns_table(self, most: int | None = None) -> pd.DataFrame:
        """The most frequent patterns, at most `most` of them, and in a last row all others, if there are any.

        Columns: rows, share of all rows, and the tuples `missing` and `not_asked` of column names (None in the last row); `n_patterns` is 1, and in the
        last row how many patterns it stands for (0 where they were not kept).
        """
        ordered = self._most_frequent()
        shown = ordered[:most]
        records: list[dict[str, Any]] = [
            {
                "rows": rows,
                "missing": self._named(pattern, MISSING),
                "not_asked": self._named(pattern, NOT_ASKED),
                "n_patterns": 1,
            }
            for pattern, rows in shown
        ]
        others = self.rows - sum(rows for _, rows in shown)
        if others:
            more = 0 if self.rest else len(ordered) - len(shown)
            records.append({"rows": others, "missing": None, "not_asked": None, "n_patterns": more})
        frame = pd.DataFrame(records, columns=["rows", "missing", "not_asked", "n_patterns"])
        frame.insert(1, "share", frame["rows"] / max(self.rows, 1))
        return frame

    def _named(self, pattern: bytes, state: int) -> tuple[str, ...]:
        return tuple(name for name, own in zip(self.columns, pattern) if own == state)

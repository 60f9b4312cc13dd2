"""What was missing, and together with what: counts of cells by column and of rows by pattern, which add up over rows.

A cell is observed, missing, or not asked: outside the universe of its question. Knows tables and their design, and nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.columns import missing_cells
from dask_em.data.profile import pattern_groups
from dask_em.data.schema import Design
from dask_em.data.universe import asked

MAX_PATTERNS = 8192
"""Patterns that are counted one by one; a few hundred kilobytes."""

OBSERVED, MISSING, NOT_ASKED = range(3)


@dataclass(frozen=True)
class Missingness:
    """NDArray[np.int64] of observed, missing and unasked cells, and of the patterns in which they come; those of disjoint rows add up.

    Attributes
    ----------
    columns : the modelled columns
    rows : number of rows
    cells : (3, d) observed, missing and unasked cells by column
    by_pattern : rows by pattern, a byte for each column: 0 observed, 1 missing, 2 not asked
    rest : rows whose pattern is not listed: when a sum has more than 8192 patterns, the rarest half is put here, and the counts that stay may be
        short by what was put here before
    """

    columns: tuple[str, ...]
    rows: int
    cells: NDArray[np.int64]
    by_pattern: Mapping[bytes, int]
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
            own[:] = missing_cells(table.column(name))
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
        patterns = dict(self.by_pattern)
        for pattern, rows in other.by_pattern.items():
            patterns[pattern] = patterns.get(pattern, 0) + rows
        both = Missingness(
            self.columns, self.rows + other.rows, self.cells + other.cells, patterns, self.rest + other.rest
        )
        return both._bounded()

    def _bounded(self) -> Missingness:
        if len(self.by_pattern) <= MAX_PATTERNS:
            return self
        kept = dict(self._most_frequent()[: MAX_PATTERNS // 2])
        return replace(self, by_pattern=kept, rest=self.rows - sum(kept.values()))

    def _most_frequent(self) -> list[tuple[bytes, int]]:
        return sorted(self.by_pattern.items(), key=lambda item: (-item[1], item[0]))

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
        return sum(rows for pattern, rows in self.by_pattern.items() if MISSING not in pattern)

    def patterns(self, most: int | None = None) -> pd.DataFrame:
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

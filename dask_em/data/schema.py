"""What the columns mean (Design) and what a fit fixed about them (Schema).

A Design is the user's: which column belongs to which family. A Schema adds what the profile found: levels of the categories, shift
and scale of the numbers. Both are plain values that go to JSON and to workers; scoring needs nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dask_em.data.columns import TRANSFORMS
from dask_em.errors import ConfigurationError, DataError

Level = str | int | bool


@dataclass(frozen=True)
class Design:
    """Columns by family.

    Attributes
    ----------
    gaussian, categorical, poisson : column names
    binomial : pairs (successes column, trials column or number of trials)
    transforms : pairs (gaussian column, "log" | "log1p" | "asinh")
    pattern : whether gaussian columns depend on each other, so that rows are grouped by missingness pattern
    weight, labels : columns that hold the row weights and the starting labels
    """

    gaussian: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    poisson: tuple[str, ...] = ()
    binomial: tuple[tuple[str, str | int], ...] = ()
    transforms: tuple[tuple[str, str], ...] = ()
    pattern: bool = True
    weight: str | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        names = self.features
        if not names:
            raise ConfigurationError("the model has no columns: name at least one")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConfigurationError(f"column {twice[0]!r} is used twice: give each column one role")
        for name, how in self.transforms:
            if name not in self.gaussian:
                raise ConfigurationError(
                    f"transforms names {name!r}, which is not a gaussian column: add it to gaussian or drop it"
                )
            if how not in TRANSFORMS:
                raise ConfigurationError(f"transform of {name!r} must be one of {', '.join(TRANSFORMS)}")
        for name, trials in self.binomial:
            if isinstance(trials, int) and trials < 1:
                raise ConfigurationError(f"trials of {name!r} must be at least 1")

    @property
    def features(self) -> tuple[str, ...]:
        """The modelled columns, family by family."""
        return (*self.gaussian, *self.categorical, *self.poisson, *(s for s, _ in self.binomial))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that has to be read, each once."""
        trials = (t for _, t in self.binomial if isinstance(t, str))
        extra = (c for c in (self.weight, self.labels) if c is not None)
        return tuple(dict.fromkeys((*self.features, *trials, *extra)))

    def transform(self, name: str) -> str | None:
        return dict(self.transforms).get(name)

    def check(self, available: Sequence[str], where: str) -> None:
        """Raise DataError for the first column that the table does not have."""
        for name in self.columns:
            if name not in available:
                near = difflib.get_close_matches(name, list(available), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ": check the spelling or the table"
                raise DataError(f"column {name!r} is not in {where}{hint}")


@dataclass(frozen=True)
class Schema:
    """A design with what a fit fixed.

    Attributes
    ----------
    shift, scale : one number for each gaussian column, after its transform: mean and standard deviation of the fitted table
    levels : the sorted levels of each categorical column
    """

    design: Design
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    levels: tuple[tuple[Level, ...], ...]

    def for_rows(self) -> Schema:
        """The same without weights and labels, which belong to a fit and not to the rows that are scored."""
        return replace(self, design=replace(self.design, weight=None, labels=None))

"""What the columns mean (Design) and what a fit fixed about them (Schema).

A Design is the user's: which column belongs to which family. A Schema adds what the profile found: levels of the categories, shift
and scale of the numbers. Both are plain values that go to JSON and to workers; scoring needs nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dask_em.data.columns import HASH, LABELS, TRANSFORMS, WEIGHT
from dask_em.data.universe import columns_of
from dask_em.errors import ConfigurationError, DataError

Level = str | int | bool


def indicator(column: str, level: Level) -> str:
    """The name of the 0/1 column that says whether a category has this level."""
    return f"{column}={level}"


@dataclass(frozen=True)
class Design:
    """Columns by family.

    Attributes
    ----------
    gaussian, categorical, poisson : column names
    known : the last of the categorical columns, where it names the component of a row, or is missing where that is not known
    binomial : pairs (successes column, trials column or number of trials)
    transforms : pairs (gaussian column, "log" | "log1p" | "asinh")
    pattern : whether gaussian columns depend on each other, so that rows are grouped by missingness pattern
    weight, labels : columns that hold the row weights and the starting labels
    ordered : pairs (gaussian column, its levels in order): a category that the model sees as a normal cut into classes
    bounds : pairs (gaussian column, (lowest, highest)), in the table's units
    universe : pairs (column, condition): where the condition is false the column was not asked, and counts as not observed
    indicators : pairs (category, its levels): unordered categories that predict, but are not modelled, as one 0/1 column for every level but the first;
        these stand in `gaussian` under the names of `indicator`
    unseen : what to do when scored rows have a level that the fitted table did not have
    """

    gaussian: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    poisson: tuple[str, ...] = ()
    binomial: tuple[tuple[str, str | int], ...] = ()
    transforms: tuple[tuple[str, str], ...] = ()
    pattern: bool = True
    weight: str | None = None
    labels: str | None = None
    ordered: tuple[tuple[str, tuple[Level, ...]], ...] = ()
    bounds: tuple[tuple[str, tuple[float, float]], ...] = ()
    universe: tuple[tuple[str, str], ...] = ()
    indicators: tuple[tuple[str, tuple[Level, ...]], ...] = ()
    unseen: Literal["error", "missing"] = "error"
    known: str | None = None

    def __post_init__(self) -> None:
        names = self.features
        if not names:
            raise ConfigurationError("the model has no columns: name at least one")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConfigurationError(f"column {twice[0]!r} is used twice: give each column one role")
        for name in self.columns:
            if name in (WEIGHT, LABELS, HASH) and name not in (self.weight, self.labels):
                raise ConfigurationError(f"column {name!r} has a name that is used inside: rename it")
        if self.weight in names:
            raise ConfigurationError(
                f"column {self.weight!r} is modelled and holds the row weights: leave it out of the model or weigh by another"
            )
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
        """The modelled columns of the table, family by family."""
        derived = {indicator(name, level) for name, levels in self.indicators for level in levels[1:]}
        return (
            *(name for name in self.gaussian if name not in derived),
            *self.categorical,
            *self.poisson,
            *(s for s, _ in self.binomial),
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """Every column that is read as levels."""
        return (*self.categorical, *(name for name, _ in self.ordered))

    @property
    def measures(self) -> tuple[str, ...]:
        """Every column that is read as numbers."""
        trials = (t for _, t in self.binomial if isinstance(t, str))
        extra = (c for c in (self.weight, self.labels) if c is not None)
        return (*self.numbers, *self.poisson, *(s for s, _ in self.binomial), *trials, *extra)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that has to be read, each once."""
        conditions = (c for _, condition in self.universe for c in columns_of(condition))
        predictors = (name for name, _ in self.indicators)
        return tuple(dict.fromkeys((*self.features, *self.measures, *conditions, *predictors)))

    def transform(self, name: str) -> str | None:
        return dict(self.transforms).get(name)

    def levels(self, name: str) -> tuple[Level, ...] | None:
        """The levels of an ordered column, None for a number."""
        return dict(self.ordered).get(name)

    def untouched(self, name: str) -> bool:
        """Whether a gaussian column is modelled as it stands in the table."""
        return all(name not in dict(pairs) for pairs in (self.transforms, self.ordered, self.bounds))

    @property
    def numbers(self) -> tuple[str, ...]:
        """The gaussian columns that are numbers of the table."""
        own = set(self.features)
        return tuple(name for name in self.gaussian if self.levels(name) is None and name in own)

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
    cuts : for each ordered column, where a standard normal is cut into its levels
    """

    design: Design
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    levels: tuple[tuple[Level, ...], ...]
    cuts: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def for_rows(self) -> Schema:
        """The same without weights, labels and names, which belong to a fit and not to the rows that are scored."""
        design = replace(self.design, weight=None, labels=None)
        if design.known is None:
            return replace(self, design=design)
        design = replace(design, categorical=design.categorical[:-1], known=None)
        return replace(self, design=design, levels=self.levels[:-1])

"""A fitted model as a summary, which says what was fitted, how it ended, the parameters, and what to beware of; and that summary as text.

Everything is in the table's units. Of a gaussian column with a transform the median is shown, the transform of the mean undone; its standard deviation is that
of the transformed column.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.columns import undo
from dask_em.errors import ConfigurationError
from dask_em.families.base import Array
from dask_em.inference.charts import BOUNDARY
from dask_em.inference.record import Layout, StandardErrors, record_of, stored
from dask_em.inference.replicates import aligned
from dask_em.model import FittedMixture
from dask_em.report.findings import findings

WIDTH = 100
"""Characters of a line: components that do not fit stand in a further block."""

MOST_COVARIANCES = 100
"""Covariances with intervals that a table lists; a reader of more wants them as a dataframe."""

FEWEST_REPLICATES = 10
"""Of an imputer; the spread of fewer says too little of standard errors."""

LEVEL = 0.95

HOW_EQUAL = {"E": "the same for all components", "V": "each component's own"}


@dataclass(frozen=True)
class Row:
    """One parameter of all components: column, what it is of the column, (k,) estimates, and (k,) ends of their intervals."""

    column: str
    what: str
    values: Array
    low: Array | None = None
    high: Array | None = None

    @property
    def label(self) -> str:
        if not (self.column and self.what):
            return self.column or self.what
        return f"{self.column} {self.what}" if self.what.startswith("=") else f"{self.column} ({self.what})"

    def cells(self) -> list[str]:
        """The estimates as text, with their intervals where there are any; what is held on a boundary has none."""
        if self.low is None or self.high is None:
            return [number(v) for v in self.values]
        return [
            number(v) + (f" [{number(a)}, {number(b)}]" if b > a else "")
            for v, a, b in zip(self.values, self.low, self.high)
        ]


@dataclass(frozen=True)
class Summary:
    """What is told of a fitted model.

    Attributes
    ----------
    title : what it is
    facts : pairs (what, value)
    warnings : sentences
    components : what the components are called
    rows, covariances : parameters; covariances only where they have intervals
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    components: tuple[str, ...]
    rows: tuple[Row, ...]
    covariances: tuple[Row, ...]


def summarise(estimator: Any, errors: StandardErrors | None = None) -> Summary:
    """The summary of a fitted mixture, MultivariateNormal or Imputer.

    Parameters
    ----------
    estimator : fitted
    errors : from `standard_errors` or `bootstrap` of this very fit; without it there are no intervals, but for those from an imputer's replicates

    Raises
    ------
    ConfigurationError
        The errors are none, or those of another fit.
    """
    imputation = getattr(estimator, "imputation_", None)
    model: FittedMixture = estimator.model_ if imputation is None else imputation.model
    if errors is not None:
        _check(errors, model)
    elif imputation is not None:
        errors = _of_replicates(imputation)
    k, weight = model.n_components, float(estimator.sum_of_weights_)
    names = [str(s) for s in getattr(estimator, "notes_", {}).get("segments", range(k))]
    parameters = _Parameters(model, errors)
    facts = [*_fitted(estimator, model), *_intervals(errors)]
    if imputation is not None:
        facts += _imputation(estimator, imputation)
    return Summary(
        f"{type(estimator).__name__} with {k} component{'s' if k > 1 else ''}, {model.n_parameters} free parameters",
        tuple(facts),
        tuple(findings(model, weight, estimator.converged_, estimator.stopped_because_, names)),
        tuple(f"component {name}" if k > 1 else "estimate" for name in names),
        tuple(parameters.rows()),
        () if errors is None else tuple(parameters.covariances()),
    )


def describe(estimator: Any, errors: StandardErrors | None = None) -> str:
    """The summary as text, for a terminal."""
    own = summarise(estimator, errors)
    wide = max(len(name) for name, _ in own.facts) + 2
    facts = [
        textwrap.fill(value, WIDTH, initial_indent=name.ljust(wide), subsequent_indent=" " * wide)
        for name, value in own.facts
    ]
    told = [textwrap.fill(w, WIDTH, initial_indent="  - ", subsequent_indent="    ") for w in own.warnings]
    parts = [own.title, *facts, *(["", "Beware:", *told] if told else []), "", *_blocks(own, own.rows)]
    if own.covariances:
        parts += ["", "Covariances", *_blocks(own, own.covariances)]
    return "\n".join(line.rstrip() for line in parts)


def number(value: float) -> str:
    """Four significant digits, and whole numbers with all of theirs up to ten million."""
    size = abs(value)
    return f"{value:,.0f}" if 1e4 <= size < 1e7 else f"{value:,.4g}"


# ---- facts ----------------------------------------------------------------------------------------------------------


def _fitted(estimator: Any, model: FittedMixture) -> Iterator[tuple[str, str]]:
    yield from _columns(model)
    weight, rows, objective = estimator.sum_of_weights_, estimator.n_rows_, estimator.log_likelihood_
    distinct = getattr(estimator, "n_distinct_", None)
    collapsed = "" if distinct is None else f", fitted on the {distinct:,} distinct rows that stand for them"
    yield "table", f"{rows:,} rows" + ("" if weight == rows else f", sum of weights {weight:,.6g}") + collapsed
    maps = getattr(estimator, "n_maps_", None)
    work = [_counted(estimator.n_iter_, "iteration")]
    work += [] if maps is None else [_counted(maps, "evaluation") + " of the EM map"]
    yield "work", ", ".join([*work, _counted(estimator.n_scans_, "scan") + " of the table"])
    yield "ended", estimator.stopped_because_
    yield "log-likelihood", f"{objective:,.2f}"
    n = model.n_parameters
    yield "BIC, AIC", f"{-2 * objective + n * np.log(weight):,.2f}, {-2 * objective + 2 * n:,.2f} (smaller is better)"


def _columns(model: FittedMixture) -> Iterator[tuple[str, str]]:
    design = model.schema.design
    ordered = dict(design.ordered)
    numbers = [f"{n} ({how})" if (how := design.transform(n)) else n for n in design.gaussian if n not in ordered]
    coins = [f"{n} of {t}" for n, t in design.binomial]
    kinds = (
        ("numbers", numbers),
        ("ordered", list(ordered)),
        ("categories", design.categorical),
        ("counts", design.poisson),
        ("successes", coins),
    )
    yield from ((kind, _few(own)) for kind, own in kinds if own)
    for family in model.mixture.families:
        if hasattr(family, "model"):
            yield "covariance", covariance_in_words(family.model, model.n_components)


def covariance_in_words(model: str, k: int) -> str:
    """One of mclust's fourteen names in words."""
    volume, shape, orientation = tuple(model)
    if k == 1:
        if orientation != "I":
            return "full"
        return "one variance for all columns" if shape == "I" else "columns are uncorrelated"
    if model in ("EEE", "VVV"):
        return f"full, {HOW_EQUAL[volume]} ({model})"
    if shape == "I":
        return f"one variance for all columns, {HOW_EQUAL[volume]} ({model})"
    parts = [("volume", volume), ("shape", shape), ("orientation", orientation)]
    equal = [name for name, letter in parts if letter == "E"]
    own = [name for name, letter in parts if letter == "V"]
    told = [f"{' and '.join(names)} {HOW_EQUAL[how]}" for names, how in ((equal, "E"), (own, "V")) if names]
    return ("columns are uncorrelated; " if orientation == "I" else "") + f"{', '.join(told)} ({model})"


def _intervals(errors: StandardErrors | None) -> Iterator[tuple[str, str]]:
    if errors is None:
        return
    how = {"bootstrap": "the bootstrap", "sandwich": "the sandwich"}.get(errors.kind, f"the {errors.kind} information")
    note = "" if errors.replicates is None else f" (percentiles of {len(errors.replicates)} replicates)"
    yield "intervals", f"{100 * LEVEL:.0f} %, from {how}{note}"
    if len(_off_diagonal(errors.layout)) > MOST_COVARIANCES:
        yield "covariances", "too many to list: see to_frame() of the standard errors"


def _off_diagonal(layout: Layout) -> list[tuple[int, int, int]]:
    """Where among the covariances of a component those of different columns i and j stand."""
    return [(n, at[0], at[1]) for n, at in enumerate(_positions(layout)) if at[0] != at[1]]


def _positions(layout: Layout) -> list[tuple[int, ...]]:
    own = zip(layout.parameters, layout.components, layout.positions)
    return [at for p, c, at in own if p == "covariances" and c == 0]


def _imputation(estimator: Any, imputation: Any) -> Iterator[tuple[str, str]]:
    key = "the key " + ", ".join(imputation.key) if imputation.key else "the position of a row"
    yield "draws", f"{len(imputation.replicates)} bootstrap replicates; random numbers hang on {key}"
    yield from (("left alone", f"{name}: {why}") for name, why in estimator.roles_.other)


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _few(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ---- parameters -----------------------------------------------------------------------------------------------------


class _Parameters:
    """Estimates and intervals by (k, entries) arrays, and the rows that show them."""

    def __init__(self, model: FittedMixture, errors: StandardErrors | None) -> None:
        self.model, self.layout = model, Layout.of(model)
        ends = () if errors is None else errors.interval(LEVEL)
        columns = (self.layout.shift + self.layout.unit * stored(model), *ends)
        kinds = np.array(self.layout.parameters)
        self.tables = {
            kind: [values[kinds == kind].reshape(model.n_components, -1) for values in columns]
            for kind in dict.fromkeys(self.layout.parameters)
        }

    def rows(self) -> Iterator[Row]:
        design, schema = self.model.schema.design, self.model.schema
        if self.model.n_components > 1:
            yield self._row("weights", 0, "", "weight")
        at = _positions(self.layout)
        for j, name in enumerate(design.gaussian):
            how = design.transform(name)
            what = "score" if design.levels(name) else "median" if how else "mean"
            yield Row(name, what, *(undo(v, how) for v in self._values("means", j)))
            deviations = [np.sqrt(np.maximum(v, 0.0)) for v in self._values("covariances", at.index((j, j)))]
            yield Row(name, f"sd of {how}" if how else "sd", *deviations)
        for j, name in enumerate(design.poisson):
            yield self._row("rates", j, name, "rate")
        for j, (name, _) in enumerate(design.binomial):
            yield self._row("chances", j, name, "probability")
        levels = [(name, level) for name, own in zip(design.categorical, schema.levels) for level in own]
        for j, (name, level) in enumerate(levels):
            yield self._row("probabilities", j, name, f"= {level}")

    def covariances(self) -> list[Row]:
        """Of different columns, where there are not too many."""
        names = self.model.schema.design.gaussian
        off = _off_diagonal(self.layout)
        if len(off) > MOST_COVARIANCES:
            return []
        return [self._row("covariances", n, f"{names[i]}, {names[j]}", "") for n, i, j in off]

    def _row(self, parameter: str, entry: int, column: str, what: str) -> Row:
        return Row(column, what, *self._values(parameter, entry))

    def _values(self, parameter: str, entry: int) -> list[NDArray[np.float64]]:
        own = [table[:, entry] for table in self.tables[parameter]]
        # On the boundary there is nothing to tell but that.
        return [np.where(v <= BOUNDARY, 0.0, v) for v in own] if parameter in ("probabilities", "chances") else own


def _of_replicates(imputation: Any) -> StandardErrors | None:
    """Standard errors from the bootstrap replicates that an imputer draws with; too few for percentiles."""
    model: FittedMixture = imputation.model
    if len(imputation.replicates) < FEWEST_REPLICATES:
        return None
    drawn = [stored(FittedMixture(model.schema, model.mixture, p)) for p in imputation.replicates]
    values = Layout.of(model).unit * aligned(stored(model), drawn, model.n_components)
    return record_of(model, "bootstrap", np.atleast_2d(np.cov(values, rowvar=False)))


def _check(errors: Any, model: FittedMixture) -> None:
    """Raise ConfigurationError unless the errors are of this very fit."""
    if not isinstance(errors, StandardErrors):
        raise ConfigurationError("errors must be what standard_errors() or bootstrap() returned")
    own = record_of(model, errors.kind, errors.covariance)
    if own.names != errors.names or not np.allclose(own.estimates, errors.estimates, rtol=1e-9, atol=1e-12):
        raise ConfigurationError("errors belong to another fit: compute them again from this one")


# ---- layout ---------------------------------------------------------------------------------------------------------


def _blocks(summary: Summary, rows: Sequence[Row]) -> Iterator[str]:
    """The lines of a table, as many components beside each other as fit."""
    labels = [row.label for row in rows]
    first = max(map(len, labels), default=0)
    cells = [row.cells() for row in rows]
    widths = [max(map(len, (name, *own))) + 2 for name, own in zip(summary.components, zip(*cells))]
    start = 0
    while start < len(widths):
        stop, used = start + 1, first + widths[start]
        while stop < len(widths) and used + widths[stop] <= WIDTH:
            used, stop = used + widths[stop], stop + 1
        if start:
            yield ""
        own = range(start, stop)
        yield " " * first + "".join(summary.components[c].rjust(widths[c]) for c in own)
        for label, row in zip(labels, cells):
            yield label.ljust(first) + "".join(row[c].rjust(widths[c]) for c in own)
        start = stop

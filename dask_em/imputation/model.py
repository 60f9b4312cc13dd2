"""A fitted model that fills holes: the expected value of every missing cell, or a draw from its distribution.

Given a table, both return for each column the rows that had a hole and what goes into it, in the user's units. Nothing here changes a table, and nothing depends
on other rows than the one at hand: random numbers are counted from (seed, replicate, row key, column).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import binom, poisson

from dask_em.data.columns import missing_cells, normal_scores, transformed, undo
from dask_em.data.encode import encode_rows
from dask_em.data.keys import word
from dask_em.data.reading import prepared
from dask_em.data.schema import Level, Schema
from dask_em.data.universe import asked
from dask_em.families import Binomial, Categorical, Poisson
from dask_em.families.base import Array, Mask
from dask_em.imputation.conditional import Holes, holes, limits, responsibilities
from dask_em.imputation.donors import Donors
from dask_em.imputation.ordered import Probits, predicted, spare_variance
from dask_em.imputation.truncated_draws import draw_joint
from dask_em.imputation.truncated_joint import joint_mass_and_means
from dask_em.mixture import Parameters
from dask_em.model import FittedMixture
from dask_em.randomness import DONOR, DRAW, Words, mix, uniforms
from dask_em.scan import Block

CHUNK_ROWS = 1 << 16
"""Rows filled at once, so that memory does not grow with the size of a piece."""

INVERSE: dict[str | None, Any] = {None: None, "log": np.exp, "log1p": np.expm1, "asinh": np.sinh}


LEAST_WHOLE = {"log": 1.0, "log1p": 0.0}
"""The least whole number that a transform takes."""


class Cells(NamedTuple):
    """mask : (n,) rows that had a hole; values : what goes into them, numbers or levels."""

    mask: Mask
    values: NDArray[Any]


@dataclass(frozen=True)
class ImputationModel:
    """A mixture (a normal is one of one component) with what filling needs.

    Attributes
    ----------
    model : schema, families and the parameters that were fitted to the table itself
    replicates : parameters fitted to each bootstrap replicate of the table
    seed : of all draws
    key : columns that name a row
    integer : columns of whole numbers
    delta : added to what is expected of the missing cells of a column, on the scale of the model
    donors : where numbers are taken from observed rows instead of drawn
    probits : how ordered columns follow from the others, for the table and then for each replicate
    """

    model: FittedMixture
    replicates: tuple[Parameters, ...]
    seed: int
    key: tuple[str, ...] = ()
    integer: frozenset[str] = frozenset()
    delta: tuple[tuple[str, float], ...] = ()
    donors: Donors | None = None
    probits: tuple[Probits, ...] = ()

    @property
    def schema(self) -> Schema:
        return self.model.schema

    def mean(self, table: pa.Table) -> dict[str, Cells]:
        """The expected value of every missing number, in the user's units, and the most probable level of every missing category."""
        return self._filled(table, lambda rows: _Means(self, rows).columns())

    def draw(self, table: pa.Table, keys: Words, replicate: int) -> dict[str, Cells]:
        """One draw of all missing cells of each row from their joint distribution, under the parameters of a replicate."""
        words = mix(keys, self.seed, DRAW, replicate)
        return self._filled(
            table,
            lambda rows: _Draws(self, rows, replicate, words[rows.start : rows.stop]).columns(),
        )

    def probabilities(self, table: pa.Table, name: str) -> tuple[tuple[Level, ...], Array]:
        """Levels of a categorical or ordered column, and their (n, levels) probabilities given the other observed cells of the row.

        What a row itself says of the column is not looked at.
        """
        index = table.column_names.index(name)
        hidden = table.set_column(index, name, pa.nulls(table.num_rows, table.schema.field(index).type))
        parts = []
        for start in range(0, max(table.num_rows, 1), CHUNK_ROWS):
            rows = _Rows(prepared(hidden.slice(start, CHUNK_ROWS), self.schema.design), start, self.schema)
            parts.append(_Means(self, rows).level_probabilities(name))
        return self.levels(name), np.concatenate(parts)

    def expected(self, table: pa.Table, name: str) -> Array:
        """(n,) what is expected of a missing number, on the scale of the model and without regard to bounds."""
        rows = _Rows(prepared(table, self.schema.design), 0, self.schema)
        return rows.in_order(_Means(self, rows).on_model_scale(name))

    def levels(self, name: str) -> tuple[Level, ...]:
        """The levels that a column can take."""
        own = self.schema.design.levels(name)
        return own if own is not None else self.schema.levels[self.schema.design.categorical.index(name)]

    def _filled(self, table: pa.Table, columns: Callable[[_Rows], dict[str, NDArray[Any]]]) -> dict[str, Cells]:
        design = self.schema.design
        rules = dict(design.universe)
        masks = {}
        for name in design.features:
            masks[name] = missing_cells(table.column(name))
            if name in rules and masks[name].any():
                masks[name] &= asked(table, rules[name], name)
        values: dict[str, list[NDArray[Any]]] = {name: [] for name in design.features}
        for start in range(0, max(table.num_rows, 1), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, table.num_rows)
            rows = _Rows(prepared(table.slice(start, CHUNK_ROWS), design), start, self.schema)
            found = columns(rows)
            for name, own in values.items():
                own.append(found[name][masks[name][start:stop]])
        return {name: Cells(masks[name], np.concatenate(own)) for name, own in values.items()}


class _Rows:
    """Some rows of a table, encoded, and the way back to their order."""

    def __init__(self, table: pa.Table, start: int, schema: Schema) -> None:
        self.start, self.stop = start, start + table.num_rows
        self.block, self.order = encode_rows(table, schema)

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """(..., n) values of the block's rows, in the order of the table."""
        out = np.empty_like(values)
        out[..., self.order] = values
        return out


class _Answers:
    """What both ways of filling share: who belongs to which component, given bounds."""

    def __init__(self, imputation: ImputationModel, rows: _Rows, parameters: Parameters, probits: int) -> None:
        self.imputation, self.rows, self.parameters = imputation, rows, parameters
        self.probits = imputation.probits[probits] if imputation.probits else None
        self.schema, self.mixture = imputation.schema, imputation.model.mixture
        self.design = self.schema.design
        self.block: Block = rows.block
        self.responsibilities = responsibilities(self.mixture, parameters, self.block)
        self.groups: list[list[Holes]] = []
        if self.design.gaussian:
            lower, upper = limits(self.schema, imputation.integer)
            delta = dict(imputation.delta)
            shift = np.array([delta.get(name, 0.0) for name in self.design.gaussian])
            # A shift of an ordered column is in deviations of its scores.
            own = [self.design.levels(name) is not None for name in self.design.gaussian]
            shift = np.where(own, shift * np.array(self.schema.scale), shift)
            self.groups = list(holes(self.schema, self.mixture, parameters, self.block, lower, upper, shift))
        if len(parameters.weights) > 1:
            for group in self.groups:
                if group[0].bounded:
                    self._weigh_by_mass(group)

    def _weigh_by_mass(self, group: list[Holes]) -> None:
        """A component under which the bounds are improbable is less probable itself."""
        rows = group[0].rows
        log_mass = np.stack([joint_mass_and_means(h.means, h.covariance, h.lower, h.upper).log_mass for h in group])
        top = log_mass.max(axis=0)
        weight = self.responsibilities[:, rows] * np.exp(log_mass - np.where(np.isfinite(top), top, 0.0))
        total = weight.sum(axis=0)
        self.responsibilities[:, rows] = np.where(
            total > 0, weight / np.where(total > 0, total, 1.0), self.responsibilities[:, rows]
        )

    def on_model_scale(self, name: str) -> Array:
        """(n,) what is expected of a number where it is missing, on the scale of the model; rows of the block."""
        column = self.design.gaussian.index(name)
        out = np.zeros(self.block.n_rows)
        for group in self.groups:
            for h in group:
                for at in np.flatnonzero(h.columns == column):
                    out[h.rows] += self.responsibilities[h.component, h.rows] * h.means[at]
        return out

    def part(self, *kinds: type) -> tuple[int, Any] | None:
        """Where the family of one of these kinds is, and its parameters."""
        for index, (family, own) in enumerate(zip(self.mixture.families, self.parameters.parts)):
            if isinstance(family, kinds):
                return index, own
        return None

    def level_shares(self, name: str) -> Array:
        """(K, levels) of a categorical column."""
        found = self.part(Categorical)
        assert found is not None
        j = self.design.categorical.index(name)
        start = sum(len(levels) for levels in self.schema.levels[:j])
        return found[1].probabilities[:, start : start + len(self.schema.levels[j])]

    def as_levels(self, name: str, codes: NDArray[np.int64]) -> NDArray[Any]:
        levels = self.imputation.levels(name)
        out = np.empty(len(levels), dtype=object)
        out[:] = levels
        return out[codes]

    def standard(self, column: int, values: Array) -> Array:
        """Values of a gaussian column, standardised."""
        return (values - self.schema.shift[column]) / self.schema.scale[column]

    def rounded(self, name: str, values: Array) -> Array:
        """Whole numbers where the column has them."""
        if name not in self.imputation.integer:
            return values
        low, high = dict(self.design.bounds).get(name, (-np.inf, np.inf))
        least = LEAST_WHOLE.get(self.design.transform(name) or "", -np.inf)
        # A number that rounds to half a unit beyond a bound belongs to it.
        return np.clip(np.rint(values), max(np.ceil(low), least), np.floor(high)) + 0.0


class _Means(_Answers):
    """Expected values, under the parameters of the table."""

    def __init__(self, imputation: ImputationModel, rows: _Rows) -> None:
        super().__init__(imputation, rows, imputation.model.parameters, 0)

    def columns(self) -> dict[str, NDArray[Any]]:
        out: dict[str, NDArray[Any]] = {}
        numbers = self._numbers()
        for i, name in enumerate(self.design.gaussian):
            if self.design.levels(name) is None:
                out[name] = self.rounded(name, self.rows.in_order(numbers[i]))
        for name in (*(n for n, _ in self.design.ordered), *self.design.categorical):
            out[name] = self.as_levels(name, self.level_probabilities(name).argmax(axis=1))
        for kind, names in ((Poisson, self.design.poisson), (Binomial, [s for s, _ in self.design.binomial])):
            found = self.part(kind)
            if found is not None:
                index, own = found
                chance = own.rates if kind is Poisson else own.probabilities
                for j, name in enumerate(names):
                    expected = self._weighted(chance[:, j, None])
                    if kind is Binomial:
                        expected = expected * self.block.values[index][len(names) + j]
                    out[name] = self.rounded(name, self.rows.in_order(expected))
        return out

    def level_probabilities(self, name: str) -> Array:
        """(n, levels), in the order of the table; for an ordered column they hold where it is missing."""
        if name in self.design.categorical:
            return self.rows.in_order(np.stack([self._weighted(s[:, None]) for s in self.level_shares(name).T])).T
        assert self.probits is not None
        j = [n for n, _ in self.schema.cuts].index(name)
        out = np.zeros((len(self.imputation.levels(name)), self.block.n_rows))
        column = self.design.gaussian.index(name)
        least = spare_variance(self.parameters.parts[0], column)
        for (h,) in self.groups:
            for at in np.flatnonzero(h.columns == column):
                spare = max(h.covariance[at, at] / self.schema.scale[column] ** 2 - least, 0.0)
                out[:, h.rows] = self.probits.shares(j, self.standard(column, h.means[at]), spare)
        return self.rows.in_order(out).T

    def _weighted(self, by_component: Array) -> Array:
        """(n,) means over the components, added in their order."""
        out = np.zeros(self.block.n_rows)
        for r, value in zip(self.responsibilities, by_component):
            out += r * value
        return out

    def _numbers(self) -> Array:
        """(d, n) expected values of the missing numbers, in the user's units."""
        out = np.zeros((len(self.design.gaussian), self.block.n_rows))
        inverse = [INVERSE[self.design.transform(name)] for name in self.design.gaussian]
        for group in self.groups:
            for h in group:
                functions = [inverse[c] for c in h.columns]
                expected = h.means
                if h.bounded or any(f is not None for f in functions):
                    expected = joint_mass_and_means(h.means, h.covariance, h.lower, h.upper, functions).transformed
                own = out[np.ix_(h.columns, h.rows)]
                out[np.ix_(h.columns, h.rows)] = own + self.responsibilities[h.component, h.rows] * expected
        return out


class _Draws(_Answers):
    """Random draws; `words` are those of the rows in the order of the table."""

    def __init__(self, imputation: ImputationModel, rows: _Rows, replicate: int, words: Words) -> None:
        super().__init__(imputation, rows, imputation.replicates[replicate], replicate + 1)
        self.words = words[rows.order]
        cumulative = np.cumsum(self.responsibilities, axis=0)
        self.component = (self._uniform("#component") * cumulative[-1] >= cumulative[:-1]).sum(axis=0)

    def _uniform(self, column: str, count: int = 0, rows: Any = slice(None)) -> Array:
        return uniforms(mix(self.words[rows], word(column), count))

    def columns(self) -> dict[str, NDArray[Any]]:
        out: dict[str, NDArray[Any]] = {}
        drawn = self._numbers()
        for name in self.design.numbers:
            i, how = self.design.gaussian.index(name), self.design.transform(name)
            values = undo(drawn[i], how)
            if self.imputation.donors is not None:
                values = self._from_donors(self.imputation.donors, name)
                drawn[i] = transformed(values, name, how)[0]
            out[name] = self.rounded(name, self.rows.in_order(values))
        for name, codes in self._ordered(drawn).items():
            out[name] = self.as_levels(name, self.rows.in_order(codes))
        for name in self.design.categorical:
            share = self.level_shares(name)[self.component].T
            cumulative = np.cumsum(share, axis=0)
            codes = (self._uniform(name) * cumulative[-1] >= cumulative[:-1]).sum(axis=0)
            out[name] = self.as_levels(name, self.rows.in_order(codes))
        found = self.part(Poisson)
        for j, name in enumerate(self.design.poisson):
            assert found is not None
            out[name] = self.rows.in_order(poisson.ppf(self._uniform(name), found[1].rates[self.component, j]))
        found = self.part(Binomial)
        for j, (name, _) in enumerate(self.design.binomial):
            assert found is not None
            trials = self.block.values[found[0]][len(self.design.binomial) + j]
            own = binom.ppf(self._uniform(name), np.nan_to_num(trials), found[1].probabilities[self.component, j])
            out[name] = self.rows.in_order(np.where(np.isnan(trials), np.nan, own))
        return out

    def _numbers(self) -> Array:
        """(d, n) draws of the missing numbers, on the scale of the model."""
        out = np.zeros((len(self.design.gaussian), self.block.n_rows))
        for group in self.groups:
            for h in group:
                own = h.take(np.flatnonzero(self.component[h.rows] == h.component))
                if len(own.rows):
                    names = [self.design.gaussian[c] for c in own.columns]

                    def random(purpose: int, at: Any, own: Holes = own, names: list[str] = names) -> Array:
                        return np.stack([self._uniform(name, purpose, own.rows[at]) for name in names])

                    cells = draw_joint(own.means, own.covariance, own.lower, own.upper, random)
                    out[np.ix_(own.columns, own.rows)] = cells
        return out

    def _ordered(self, drawn: Array) -> dict[str, NDArray[np.int64]]:
        """Codes of the ordered columns: each is drawn given the observed cells, the drawn numbers and the ordered columns before it."""
        names = [name for name, _ in self.schema.cuts]
        codes = {name: np.zeros(self.block.n_rows, dtype=np.int64) for name in names}
        delta = dict(self.imputation.delta)
        for (h,) in self.groups if names else ():
            values = self.block.values[0][:, h.rows]
            for column in h.columns:
                values[column] = self.standard(column, drawn[column, h.rows])
            open_ = [j for j, name in enumerate(names) if self.design.gaussian.index(name) in h.columns]
            waiting = np.array([self.design.gaussian.index(names[j]) for j in open_], dtype=np.int64)
            for place, j in enumerate(open_):
                name, column = names[j], waiting[place]
                seen = np.ones(len(values), dtype=bool)
                seen[waiting[place:]] = False
                centre, spare = predicted(self.parameters.parts[0], column, seen, values)
                assert self.probits is not None
                below = np.cumsum(self.probits.shares(j, centre + delta.get(name, 0.0), spare), axis=0)[:-1]
                own = (self._uniform(name, rows=h.rows) >= below).sum(axis=0)
                codes[name][h.rows] = own
                scores = normal_scores(self.schema.cuts[j][1])
                values[column] = self.standard(column, scores[own])
        return codes

    def _from_donors(self, donors: Donors, name: str) -> Array:
        """(n,) values of observed rows that look alike."""
        return donors.draw(name, self.on_model_scale(name), uniforms(mix(self.words, word(name), DONOR)))

"""What the observed cells of a row say about its missing ones, under a fitted mixture.

    ρ_k ∝ π_k p_k(observed) P_k(bounds | observed)             which component
    x_m | x_o, k  ~  N(μ_m + B (x_o - μ_o), C),  B = Σ_mo Σ_oo⁻¹,  C = Σ_mm - B Σ_om        numbers, within their bounds
    p_kj                                                       categories and counts, independent of the rest given k

A multivariate normal is the mixture of one component. Numbers are on the scale of the model (after transforms) and in its units. Sums over columns run in a fixed
order with elementwise operations, so that a row's numbers have the same bits whatever rows stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.columns import transformed
from dask_em.data.profile import pattern_groups
from dask_em.data.schema import Schema
from dask_em.families import DiagonalGaussian, Gaussian
from dask_em.families.base import Array, Mask
from dask_em.mixture import Mixture, Parameters
from dask_em.scan import Block

PATTERN_SLICE = 512
"""Patterns whose inverses are held at once."""


@dataclass(frozen=True)
class Holes:
    """Rows with the same numbers missing, under one component.

    Attributes
    ----------
    component : which
    rows : (n,) of the block
    columns : (m,) the missing gaussian columns
    means, covariance : (m, n) and (m, m) of the missing cells given the observed ones
    lower, upper : (m,) bounds
    """

    component: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    means: Array
    covariance: Array
    lower: Array
    upper: Array

    @property
    def bounded(self) -> bool:
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    def take(self, own: NDArray[Any]) -> Holes:
        """Some of the rows."""
        return Holes(
            self.component, self.rows[own], self.columns, np.ascontiguousarray(self.means[:, own]), self.covariance,
            self.lower, self.upper,
        )  # fmt: skip


def limits(schema: Schema, integer: frozenset[str]) -> tuple[Array, Array]:
    """(d,) bounds of the gaussian columns on the scale of the model.

    A column of integers may be half a unit beyond its bounds, as it is rounded.
    """
    design = schema.design
    bounds = dict(design.bounds)
    lower, upper = np.full(len(design.gaussian), -np.inf), np.full(len(design.gaussian), np.inf)
    for i, name in enumerate(design.gaussian):
        low, high = bounds.get(name, (-np.inf, np.inf))
        half = 0.5 if name in integer else 0.0
        lower[i] = _on_scale(low - half, name, design.transform(name))
        upper[i] = _on_scale(high + half, name, design.transform(name))
    return lower, upper


def _on_scale(bound: float, name: str, how: str | None) -> float:
    lowest = {"log": 0.0, "log1p": -1.0}.get(how or "", -np.inf)
    if bound <= lowest or not np.isfinite(bound):
        return -np.inf if bound <= lowest else np.inf
    return float(transformed(np.array([bound]), name, how)[0][0])


def responsibilities(mixture: Mixture, parameters: Parameters, block: Block) -> Array:
    """(K, n) probabilities of the components given the observed cells, without regard to bounds."""
    if len(parameters.weights) == 1:
        return np.ones((1, block.n_rows))
    return mixture.posterior(parameters, block)[0]


def holes(
    schema: Schema, mixture: Mixture, parameters: Parameters, block: Block, lower: Array, upper: Array, shift: Array
) -> Iterator[list[Holes]]:
    """Every group of rows that miss the same numbers: its missing cells under each component.

    `shift` (d,) is added to the means of missing cells.
    """
    family, part = mixture.families[0], parameters.parts[0]
    unit, centre = np.asarray(schema.scale), np.asarray(schema.shift)
    masks, groups = _groups(family, block)
    some = [p for p, rows in enumerate(groups) if len(rows) and not masks[p].all()]
    for start in range(0, len(some), PATTERN_SLICE):
        own = some[start : start + PATTERN_SLICE]
        if isinstance(family, Gaussian):
            precision = _precisions(part.covariances, masks[own])
        for at, p in enumerate(own):
            seen, rows = masks[p], groups[p]
            missing = np.flatnonzero(~seen)
            values = np.ascontiguousarray(block.values[0][seen][:, rows])
            out = []
            for k, mean in enumerate(part.means):
                if isinstance(family, Gaussian):
                    sigma = part.covariances[k]
                    slope = sigma[missing] @ precision[k, at][:, seen]
                    covariance = sigma[np.ix_(missing, missing)] - slope @ sigma[np.ix_(seen, missing)]
                    covariance = 0.5 * (covariance + covariance.T)
                else:
                    slope = np.zeros((len(missing), int(seen.sum())))
                    covariance = np.diag(part.variances[k][missing])
                expected = np.repeat(mean[missing][:, None], len(rows), axis=1)
                for j, x in enumerate(values):
                    expected += slope[:, j, None] * (x - mean[seen][j])
                expected = expected * unit[missing, None] + (centre + shift)[missing, None]
                scaled = covariance * unit[missing, None] * unit[missing]
                out.append(Holes(k, rows, missing, expected, scaled, lower[missing], upper[missing]))
            yield out


def _precisions(covariances: Array, observed: Mask) -> Array:
    """(K, P, d, d) inverses of the observed parts, one by one: other patterns must not change a bit of a row's numbers."""
    both = (observed[:, :, None] & observed[:, None, :])[None]
    return np.linalg.inv(np.where(both, covariances[:, None], np.eye(observed.shape[1]))) * both


def _groups(family: Any, block: Block) -> tuple[Mask, list[NDArray[np.int64]]]:
    """Masks of observed numbers, and the rows that have each."""
    if isinstance(family, DiagonalGaussian):
        masks, which = pattern_groups(~np.isnan(block.values[0]))
        order = np.argsort(which, kind="stable")
        edges = np.searchsorted(which[order], np.arange(len(masks) + 1))
        return masks, [order[a:b] for a, b in pairwise(edges)]
    edges = block.runs.tolist()
    return block.observed, [np.arange(a, b) for a, b in pairwise(edges)]

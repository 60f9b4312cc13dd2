"""The multivariate normal with missing cells, from one scan.

With one component the responsibilities are the row weights, so per missingness pattern the sums

    n,  sum x,  sum x xᵀ        of the observed cells

hold whatever the parameters are (Little and Rubin 2020, section 11.2). They add up over rows, and everything else runs on them in memory: EM, every prior, all
bootstrap replicates side by side, the observed information and Little's test. Nothing here reads a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import Array, Mask
from dask_em.families.gaussian import Gaussian, GaussianParams
from dask_em.kernels import precisions
from dask_em.mixture import Mixture, Parameters
from dask_em.scan import Block, Sums, weighted_features

WORD = 8
"""Bytes of a mask that is sorted as one number."""

CONSTANT = 1e-10
"""Variance, as a share of the column's own over all rows, that is nothing but rounding."""


@dataclass(frozen=True)
class NormalSums:
    """Sums over rows by missingness pattern, under R vectors of row weights.

    Attributes
    ----------
    observed : (P, d) masks, in the order of their bits
    rows : (P,) rows of each pattern
    sums : (P, R, 1 + q) weight, values and upper triangle of their products, in the units of `shift` and `scale`
    base : (R,) weighted sum of the rows' base measures
    shift, scale : (d,) what the values were standardised with
    """

    observed: Mask
    rows: NDArray[np.int64]
    sums: Array
    base: Array
    shift: Array
    scale: Array

    def __add__(self, other: NormalSums) -> NormalSums:
        both = np.concatenate([self.observed, other.observed])
        observed, place = distinct(both)
        rows = np.zeros(len(observed), dtype=np.int64)
        sums = np.zeros((len(observed), *self.sums.shape[1:]))
        ends = len(self.rows)
        for own, at in ((self, place[:ends]), (other, place[ends:])):
            rows[at] += own.rows
            sums[at] += own.sums
        return replace(self, observed=observed, rows=rows, sums=sums, base=self.base + other.base)

    @property
    def n_columns(self) -> int:
        return self.observed.shape[1]

    @property
    def weight(self) -> Array:
        """(P, R) weight of each pattern."""
        return self.sums[:, :, 0]

    def under(self, weights: slice) -> NormalSums:
        """The sums under some of the vectors of weights."""
        return replace(self, sums=self.sums[:, weights], base=self.base[weights])

    def moments(self) -> tuple[Array, Array, Array]:
        """Weight, mean and standard deviation (divisor n) of the observed cells of each column, under the first weights; user's units."""
        d = self.n_columns
        first, diagonal = self.sums[:, 0], _diagonal(d)
        weight = self.observed.T @ first[:, 0]
        safe = np.where(weight > 0, weight, 1.0)
        mean = first[:, 1 : d + 1].sum(axis=0) / safe
        variance = first[:, 1 + diagonal].sum(axis=0) / safe - mean**2
        return weight, self.shift + self.scale * mean, self.scale * np.sqrt(np.maximum(variance, 0.0))

    def standardised(self, shift: Array, scale: Array) -> NormalSums:
        """The same sums of values standardised with another shift and scale."""
        d = self.n_columns
        i, j = np.triu_indices(d)
        slope = self.scale / scale
        step = (self.shift - shift) / scale
        n, x, xx = self.sums[..., :1], self.sums[..., 1 : d + 1], self.sums[..., d + 1 :]
        seen = self.observed[:, None, :]
        linear = slope * x + np.where(seen, step, 0.0) * n
        square = slope[i] * slope[j] * xx + np.where(
            (seen[..., i] & seen[..., j]),
            slope[i] * x[..., i] * step[j] + step[i] * slope[j] * x[..., j] + step[i] * step[j] * n,
            0.0,
        )
        jacobian = (self.observed @ np.log(slope)) @ self.weight
        return replace(
            self, sums=np.concatenate([n, linear, square], axis=-1), base=self.base + jacobian, shift=shift, scale=scale
        )


def distinct(masks: Mask) -> tuple[Mask, NDArray[np.int64]]:
    """Distinct rows of a (P, d) mask in the order of their bits, and where each row went."""
    packed = np.packbits(masks, axis=1)
    if packed.shape[1] <= WORD:  # numbers are sorted several times as fast as rows
        words = np.zeros((len(packed), WORD), dtype=np.uint8)
        words[:, : packed.shape[1]] = packed
        packed = words.view(">u8")[:, 0].astype(np.uint64)
    _, first, place = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return masks[first], place.reshape(-1)


def collect(block: Block, weights: Array, shift: Array, scale: Array) -> NormalSums:
    """Sums of a block of one full gaussian family under (R, n) row weights."""
    d = block.observed.shape[1]
    family = Gaussian("VVV", d)
    sums = weighted_features(family, block, weights)
    observed, place = distinct(block.observed)
    assert len(observed) == len(block.observed)
    order = np.argsort(place)
    return NormalSums(observed, np.diff(block.runs)[order], sums[order], weights @ block.base, shift, scale)


def e_step(mixture: Mixture, parameters: Parameters, sums: Array, base: Array, observed: Mask) -> Sums:
    """The E-step of one-component candidates from (P, C, 1 + q) sums, in slices of the patterns bounded by bytes."""

    def lifted(own: slice) -> Sums:
        scorer = mixture.scorer(parameters, observed[own])
        return scorer.lift(scorer.evaluate(sums[own], base if own.start == 0 else np.zeros_like(base)))

    return reduce(add, map(lifted, mixture.slices(parameters, len(observed))))


@dataclass(frozen=True)
class Information:
    """Observed and complete-data information of (μ, upper triangle of Σ): both (p, p), with p = d + d(d + 1)/2."""

    observed: Array
    complete: Array


def information(sums: NormalSums, params: GaussianParams, family: Gaussian) -> Information:
    """Minus the second derivatives of the log-likelihood at one (K = 1) set of parameters, exact, in standardised units.

    With A = Σ_oo⁻¹, the scatter S of a pattern about μ (both padded with zeros) and C = A S A - n/2 A, the term of dΣ and dΣ' is tr(dΣ A dΣ' C), symmetrised:
    the sum over patterns is one product of the stacked A and C. A prior adds its own second derivatives. The complete-data information is that of EM's own
    objective, the expected log-likelihood plus log prior, at its maximum.
    """
    d = sums.n_columns
    mean, covariance = params.means[0], params.covariances[0]
    precision = precisions(params.covariances, sums.observed)[0][0]
    n = sums.weight[:, 0]
    x, scatter = _about(sums, mean)
    curved = precision @ scatter @ precision - 0.5 * n[:, None, None] * precision
    pulled = (precision @ x[:, :, None])[:, :, 0]
    observed = _assembled(
        np.einsum("p,pij->ij", n, precision),
        np.einsum("pij,pk->ijk", precision, pulled),
        _paired(precision, curved),
    )
    inverse = np.linalg.inv(covariance)
    total = float(n[sums.observed.any(axis=1)].sum())
    none = np.zeros((d, d, d))
    # At the maximum the expected scatter and the prior's add up to (n + prior) Σ.
    complete = _assembled(total * inverse, none, _paired(inverse[None], 0.5 * (total + family.prior) * inverse[None]))
    if family.prior:
        leaning = inverse @ (family.prior * family._prior_covariance([1]).reshape(d, d)) @ inverse
        extra = _paired(inverse[None], (leaning - 0.5 * family.prior * inverse)[None])
        observed = observed + _assembled(np.zeros((d, d)), none, extra)
    return Information(observed, complete)


def little_statistic(sums: NormalSums, params: GaussianParams) -> tuple[float, int]:
    """Little's (1988) statistic for missing completely at random, and its degrees of freedom."""
    seen = sums.observed.any(axis=1) & (sums.weight[:, 0] > 0)
    observed, n = sums.observed[seen], sums.weight[seen, 0]
    precision = precisions(params.covariances, observed)[0][0]
    x = sums.sums[seen, 0, 1 : sums.n_columns + 1] - n[:, None] * np.where(observed, params.means[0], 0.0)
    statistic = float((np.einsum("pi,pij,pj->p", x, precision, x) / n).sum())
    return statistic, int(observed.sum() - observed.any(axis=0).sum())


def smallest_share(sums: NormalSums, columns: NDArray[np.intp]) -> float:
    """The smallest eigenvalue of the correlations of some columns, over the rows that observe all of them.

    1 where these rows cannot tell: they are too few, or one of the columns is constant there (who is asked how much they smoke, smokes).
    """
    d = sums.n_columns
    own = sums.observed[:, columns].all(axis=1)
    total = sums.sums[own, 0].sum(axis=0)
    if not (sums.rows[own].sum() > len(columns) and total[0] > 0):
        return 1.0
    square = np.zeros((d, d))
    i, j = np.triu_indices(d)
    square[i, j] = square[j, i] = total[d + 1 :]
    mean = total[1 : d + 1] / total[0]
    covariance = (square / total[0] - mean[:, None] * mean)[np.ix_(columns, columns)]
    variance = np.diagonal(covariance)
    if not (variance > CONSTANT).all():
        return 1.0
    return float(np.linalg.eigvalsh(covariance / np.sqrt(variance[:, None] * variance))[0])


def _about(sums: NormalSums, mean: Array) -> tuple[Array, Array]:
    """(P, d) sums and (P, d, d) scatter of the first weights about a mean, 0 where not observed."""
    d = sums.n_columns
    n, x = sums.sums[:, 0, :1], sums.sums[:, 0, 1 : d + 1]
    i, j = np.triu_indices(d)
    square = np.empty((len(x), d, d))
    square[:, i, j] = square[:, j, i] = sums.sums[:, 0, d + 1 :]
    own = np.where(sums.observed, mean, 0.0)
    centred = x - n * own
    square -= own[:, :, None] * x[:, None, :] + centred[:, :, None] * own[:, None, :]
    return centred, square


def _paired(a: Array, b: Array) -> Array:
    """(d, d, d, d) sums over patterns of a_ij b_kl."""
    d = a.shape[-1]
    flat = a.reshape(len(a), -1).T @ b.reshape(len(b), -1)
    return flat.reshape(d, d, d, d)


def _assembled(mean: Array, cross: Array, pair: Array) -> Array:
    """The (p, p) information from sums over patterns: mean A_ij, cross A_ij (A x)_k, pair A_bc C_ea."""
    d = len(mean)
    i, j = np.triu_indices(d)
    # dΣ is e_i e_jᵀ + e_j e_iᵀ, and only one of the two on the diagonal.
    once = np.where(i == j, 0.5, 1.0)
    out = np.empty((d + len(i), d + len(i)))
    out[:d, :d] = mean
    out[:d, d:] = (cross[:, i, j] + cross[:, j, i]) * once
    out[d:, :d] = out[:d, d:].T
    sides = [(i[:, None], j[:, None]), (j[:, None], i[:, None])]
    terms = np.sum([pair[b, c.T, e.T, a] for a, b in sides for c, e in sides], axis=0) * once[:, None] * once
    out[d:, d:] = 0.5 * (terms + terms.T)
    return out


def _diagonal(d: int) -> NDArray[np.int64]:
    """Where the squares stand among the features of d columns."""
    i, j = np.triu_indices(d)
    return d + np.flatnonzero(i == j)

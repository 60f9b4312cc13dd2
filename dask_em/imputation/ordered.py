"""Levels of ordered and yes/no columns given the other columns: an ordered probit on what the normal predicts.

    η = E[score | all other columns]                                            linear, from the normal
    P(level <= l | observed) = Φ((τ_l - κ η_o) / sqrt(1 + κ² W_o)),   η_o = E[η | observed],   W_o = var(η | observed)

The normal sees a level as its score (the mean of a standard normal within its class), which serves to predict other columns; but a score levels off where
levels run out, so cutting a predicted score gives too modest probabilities, and biased ones where the missing are not like the observed. Slope κ and cuts τ are therefore
fitted to the observed levels (McCullagh 1980), for the table and for each bootstrap replicate: Newton on the profile's sample with the scores' products as information (Berndt, Hall,
Hall and Hausman 1974), then one step of it on all rows, which is efficient and costs one scan (Le Cam's one-step estimator).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtr

from dask_em.data.columns import normal_scores
from dask_em.data.encode import encode_sample
from dask_em.data.gather import Bootstrap, weighted_block
from dask_em.data.schema import Schema
from dask_em.data.sources import Source
from dask_em.execution.base import Executor
from dask_em.families.base import Array, Mask
from dask_em.families.gaussian import GaussianParams
from dask_em.kernels import precisions
from dask_em.scan import Block

N_STEPS = 100
"""Newton steps on the sample at most: it takes about ten."""

GAIN = 1e-9
"""Expected gain in log-likelihood per row below which the fit to the sample ends."""

LARGEST = 10.0
"""Standard deviation of the prior on the slope times the spread of η: without it a level that follows from the others has no finite slope."""


@dataclass(frozen=True)
class Probits:
    """slopes : (J,) κ; cuts : (J, L) τ, infinite beyond a column's own; for all ordered columns in the order of the schema's cuts."""

    slopes: Array
    cuts: Array

    def shares(self, j: int, centre: Array, spare: Array | float) -> Array:
        """(levels, n) probabilities of the levels of ordered column j.

        Parameters
        ----------
        centre : (n,) η_o, in standardised units
        spare : W_o
        """
        cuts = self.cuts[j][np.isfinite(self.cuts[j])]
        below = ndtr((cuts[:, None] - self.slopes[j] * centre) / np.sqrt(1.0 + self.slopes[j] ** 2 * spare))
        return np.diff(below, axis=0, prepend=0.0, append=1.0)

    @property
    def possible(self) -> bool:
        """Whether the cuts ascend."""
        with np.errstate(invalid="ignore"):
            steps = np.diff(self.cuts, axis=1)
        return bool(np.isfinite(self.slopes).all() and ((steps > 0) | np.isposinf(self.cuts[:, 1:])).all())


@dataclass(frozen=True)
class _Sums:
    """log_likelihood (R, J), gradient (R, J, p) and information (R, J, p, p) by slope and cuts; adds up over rows."""

    log_likelihood: Array
    gradient: Array
    information: Array

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.log_likelihood + other.log_likelihood,
            self.gradient + other.gradient,
            self.information + other.information,
        )


def spare_variance(params: GaussianParams, column: int) -> float:
    """The variance of a column that no other column explains."""
    return float(1.0 / np.linalg.inv(params.covariances[0])[column, column])


def predicted(params: GaussianParams, column: int, seen: Mask, values: Array) -> tuple[Array, float]:
    """η_o (n,) and W_o of a column given the seen ones among (d, n) standardised values.

    Sums run column by column, so that a row's numbers have the same bits whatever rows stand beside it.
    """
    both = seen.copy()
    both[column] = True
    own = np.flatnonzero(both)
    precision = np.linalg.inv(params.covariances[0][np.ix_(own, own)])[np.searchsorted(own, column)]
    at = precision[np.searchsorted(own, column)]
    centre = np.full(values.shape[1], params.means[0, column])
    for weight, other in zip(precision, own):
        if other != column:
            centre -= weight / at * (values[other] - params.means[0, other])
    return centre, max(1.0 / at - spare_variance(params, column), 0.0)


def fit_probits(
    source: Source,
    schema: Schema,
    fitted: Mapping[int, GaussianParams],
    bootstrap: Bootstrap,
    sample: pa.Table,
    executor: Executor,
) -> tuple[Probits, ...]:
    """Fit the ordered columns of a normal, for the table and for each of its bootstrap replicates, in one scan.

    Parameters
    ----------
    fitted : parameters of one component, for the table (0) and for the replicates that have some (from 1)
    sample : the profile's, with weights
    """
    block = encode_sample(sample, schema)
    base = _fit_sample(schema, fitted[0], _start(schema, fitted[0]), block)
    sums: _Sums = executor.reduce(source.pieces, partial(_sums_of_piece, schema, dict(fitted), base, bootstrap))
    out = []
    for r, params in enumerate(fitted.values()):
        own = _Sums(sums.log_likelihood[r : r + 1], sums.gradient[r : r + 1], sums.information[r : r + 1])
        step = _newton(own + _prior(schema, params, base))
        stepped = [
            next(t for t in (_moved(base, j, step[j], size) for size in (1.0, 0.5, 0.25, 0.0)) if t.possible)
            for j in range(len(base.slopes))
        ]
        out.append(_together(stepped))
    return tuple(out)


def _places(schema: Schema) -> list[int]:
    """Where the ordered columns stand among the gaussian ones."""
    return [schema.design.gaussian.index(name) for name, _ in schema.cuts]


def _start(schema: Schema, params: GaussianParams) -> Probits:
    """What slope and cuts are where the scores come from a normal: prediction and explained share, undone for what the classes hide."""
    width = max(len(cuts) for _, cuts in schema.cuts)
    slopes, edges = np.empty(len(schema.cuts)), np.full((len(schema.cuts), width), np.inf)
    precision = np.diagonal(np.linalg.inv(params.covariances[0]))
    for j, (column, (_, cuts)) in enumerate(zip(_places(schema), schema.cuts)):
        shares = np.diff(ndtr(np.array([-np.inf, *cuts, np.inf])))
        shown = float(shares @ normal_scores(cuts) ** 2)
        explained = min(max(params.covariances[0, column, column] - 1.0 / precision[column], 0.0) / shown, 0.9)
        slopes[j] = 1.0 / np.sqrt(shown * (1.0 - explained))
        edges[j, : len(cuts)] = np.array(cuts) / np.sqrt(1.0 - explained)
    return Probits(slopes, edges)


def _fit_sample(schema: Schema, params: GaussianParams, probits: Probits, block: Block) -> Probits:
    """The probits with the largest posterior on the rows of a block."""
    prediction = _predictions(schema, params, block)
    weight = block.weight[None]
    enough = GAIN * max(float(block.weight.sum()), 1.0)

    def judged(probits: Probits) -> _Sums:
        return _sums(schema, [prediction], probits, block, weight) + _prior(schema, params, probits)

    now = judged(probits)
    running = set(range(len(probits.slopes)))
    for _ in range(N_STEPS):
        step = _newton(now)
        running = {j for j in running if now.gradient[0, j] @ step[j] > enough}
        if not running:
            break
        size = np.ones(len(step))
        for _ in range(30):
            tried = _together([_moved(probits, j, step[j], size[j] if j in running else 0.0) for j in range(len(step))])
            if tried.possible:
                found = judged(tried)
                worse = found.log_likelihood[0] < now.log_likelihood[0] - 1e-12 * abs(now.log_likelihood[0])
                if not worse.any():
                    probits, now = tried, found
                    break
                size[worse] *= 0.5
            else:
                size *= 0.5
        else:
            break
    return probits


def _moved(probits: Probits, j: int, step: Array, size: float) -> Probits:
    """The probit of one column after a step."""
    own = slice(j, j + 1)
    return Probits(probits.slopes[own] + size * step[0], probits.cuts[own] + size * step[1:])


def _together(parts: Sequence[Probits]) -> Probits:
    return Probits(np.concatenate([p.slopes for p in parts]), np.concatenate([p.cuts for p in parts]))


def _newton(sums: _Sums) -> Array:
    """(J, p) steps of the first parameters."""
    gradient, information = sums.gradient[0], sums.information[0]
    # What a column does not have (cuts beyond its own) has no gradient: its row becomes that of the identity.
    idle = np.diagonal(information, axis1=1, axis2=2) == 0
    safe = information + np.eye(gradient.shape[1]) * (idle[:, :, None] + 1e-12)
    return np.linalg.solve(safe, gradient[:, :, None])[:, :, 0]


def _prior(schema: Schema, params: GaussianParams, probits: Probits) -> _Sums:
    """One pseudo-observation at the shares of the table, and a normal prior on the slope: the weak prior of the other families."""
    J, p = len(probits.slopes), probits.cuts.shape[1] + 1
    log_prior, gradient, information = np.zeros((1, J)), np.zeros((1, J, p)), np.zeros((1, J, p, p))
    for j, (column, (_, cuts)) in enumerate(zip(_places(schema), schema.cuts)):
        levels = np.arange(len(cuts) + 1)
        shares = np.diff(ndtr(np.array([-np.inf, *cuts, np.inf])))
        _accumulate(
            probits, j, np.zeros(len(levels)), np.zeros(len(levels)), levels, shares,
            log_prior[0], gradient[0], information[0],
        )  # fmt: skip
        spread2 = params.covariances[0, column, column] - spare_variance(params, column)
        precision = max(spread2, 1e-6) / LARGEST**2
        log_prior[0, j] -= 0.5 * precision * probits.slopes[j] ** 2
        gradient[0, j, 0] -= precision * probits.slopes[j]
        information[0, j, 0, 0] += precision
    return _Sums(log_prior, gradient, information)


def _sums_of_piece(
    schema: Schema, fitted: dict[int, GaussianParams], probits: Probits, bootstrap: Bootstrap, i: int, piece: Any
) -> _Sums:
    block, weights = weighted_block(piece, schema, bootstrap)
    predictions = [_predictions(schema, params, block) for params in fitted.values()]
    return _sums(schema, predictions, probits, block, weights[list(fitted)])


def _sums(
    schema: Schema, predictions: Sequence[tuple[Array, Array]], probits: Probits, block: Block, weights: Array
) -> _Sums:
    """Sums over the rows of a block, under R predictions and (R, n) weights."""
    R, J, p = len(predictions), len(probits.slopes), probits.cuts.shape[1] + 1
    out = _Sums(np.zeros((R, J)), np.zeros((R, J, p)), np.zeros((R, J, p, p)))
    seen = np.repeat(block.observed, np.diff(block.runs), axis=0)
    for j, (column, (_, cuts)) in enumerate(zip(_places(schema), schema.cuts)):
        rows = np.flatnonzero(seen[:, column])
        scores = (normal_scores(cuts) - schema.shift[column]) / schema.scale[column]
        level = np.searchsorted((scores[1:] + scores[:-1]) / 2, block.values[0][column, rows])
        for r, (centre, spare) in enumerate(predictions):
            _accumulate(
                probits, j, centre[j, rows], spare[j, rows], level, weights[r, rows],
                out.log_likelihood[r], out.gradient[r], out.information[r],
            )  # fmt: skip
    return out


def _accumulate(
    probits: Probits, j: int, centre: Array, spare: Array, level: NDArray[np.int64], weight: Array,
    log_likelihood: Array, gradient: Array, information: Array,
) -> None:  # fmt: skip
    """Add what rows say of column j: a row speaks of the slope and of the two cuts around its level."""
    edges = np.concatenate([[-np.inf], probits.cuts[j], [np.inf]])
    slope, n_levels = probits.slopes[j], int(np.isfinite(probits.cuts[j]).sum()) + 1
    wide = np.sqrt(1.0 + slope * slope * spare)
    upper, lower = ((edges[level + up] - slope * centre) / wide for up in (1, 0))
    right = lower > 0
    share = np.maximum(
        ndtr(np.where(right, -lower, upper)) - ndtr(np.where(right, -upper, lower)), np.finfo(np.float64).tiny
    )

    def by_edge(edge: Array) -> tuple[Array, Array]:
        density = np.exp(-0.5 * edge * edge) / np.sqrt(2 * np.pi) / share
        finite = np.where(np.isfinite(edge), edge, 0.0)
        return density / wide, density * (-centre / wide - finite * slope * spare / (wide * wide))

    (d_upper, slope_upper), (d_lower, slope_lower) = by_edge(upper), by_edge(lower)
    d_slope = slope_upper - slope_lower

    def total(values: Array) -> Array:
        out: Array = np.bincount(level, weights=weight * values, minlength=n_levels).astype(np.float64)
        return out

    # Cut l stands at place l + 1, above level l and below level l + 1.
    at = np.arange(1, n_levels)
    log_likelihood[j] += weight @ np.log(share)
    gradient[j, 0] += total(d_slope).sum()
    gradient[j, at] += total(d_upper)[:-1] - total(d_lower)[1:]
    own = information[j]
    own[0, 0] += total(d_slope**2).sum()
    beside = total(d_slope * d_upper)[:-1] - total(d_slope * d_lower)[1:]
    own[0, at] += beside
    own[at, 0] += beside
    own[at, at] += total(d_upper**2)[:-1] + total(d_lower**2)[1:]
    between = total(d_upper * d_lower)[1:-1]
    own[at[:-1], at[1:]] -= between
    own[at[1:], at[:-1]] -= between


def _predictions(schema: Schema, params: GaussianParams, block: Block) -> tuple[Array, Array]:
    """(J, n) η_o of the ordered columns, and (J, n) what of η the row's missing cells leave open."""
    places = _places(schema)
    least = [spare_variance(params, column) for column in places]
    centre, spare = np.zeros((len(places), block.n_rows)), np.zeros((len(places), block.n_rows))
    some = np.flatnonzero(np.diff(block.runs))
    precision = precisions(params.covariances, block.observed[some])[0][0]
    edges = list(pairwise(block.runs.tolist()))
    for own, p in zip(precision, some):
        rows = slice(*edges[p])
        seen: Mask = block.observed[p]
        values = block.values[0][:, rows]
        for j, column in enumerate(places):
            if seen[column]:
                # x_j - (Λ (x - μ))_j / Λ_jj is the prediction of x_j from the others.
                rest = own[column] / own[column, column]
                centre[j, rows] = values[column] - rest @ (values - params.means[0][:, None])
                spare[j, rows] = max(1.0 / own[column, column] - least[j], 0.0)
    return centre, spare

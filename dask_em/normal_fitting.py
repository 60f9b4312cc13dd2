"""From a table to a fitted multivariate normal: one scan to gather, EM in memory.

    gather (1 scan, shift and scale provisional) -> sums in the right units -> ask/tell on the sums

Where the table has too many missingness patterns to keep their sums, rows are scanned in every iteration instead, by the same fit as a mixture of one component.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import eigh

from dask_em import fitting, specification
from dask_em.data.files import check_sizes
from dask_em.data.gather import NO_REPLICATES, Bootstrap, Gathered, gather, provisional
from dask_em.data.schema import Design, Schema
from dask_em.data.sources import Source
from dask_em.em import loop
from dask_em.em.stopping import Verdict
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError, ObjectiveDecreasedError
from dask_em.execution.base import Executor
from dask_em.execution.threads import single_blas
from dask_em.families import Gaussian
from dask_em.families.base import Array
from dask_em.families.gaussian import GaussianParams
from dask_em.mixture import Mixture, Parameters
from dask_em.model import FittedMixture
from dask_em.normal import NormalSums, e_step, information, smallest_share
from dask_em.priors import Prior, check_prior, pseudo_rows

FAR = 100.0
"""Deviations between the provisional shift and the mean beyond which the sums have lost digits and are gathered again."""

NEWTON_COLUMNS = 40
"""Columns up to which the information matrix, of d^4 / 4 entries, is cheaper than the EM steps that it saves."""

SEEN = 0.02
"""Share of the information on a direction that must be observed for a Newton step along it."""

COLLINEAR = 1e-10
"""Smallest eigenvalue of a correlation matrix that is nothing but rounding."""


@dataclass(frozen=True)
class NormalFit:
    """A fitted normal, with what its uncertainty is computed from.

    Attributes
    ----------
    schema, family : columns with shift and scale; the normal and its prior
    candidates : the fit to the row weights, and to each bootstrap replicate
    sums : by pattern, in the units of the schema; None where rows were scanned
    weight : total row weight
    """

    schema: Schema
    family: Gaussian
    candidates: tuple[loop.Candidate, ...]
    sums: NormalSums | None
    rows: int
    weight: float
    n_scans: int

    @property
    def best(self) -> loop.Candidate:
        return self.candidates[0]

    def fitted(self, candidate: loop.Candidate) -> FittedMixture:
        assert candidate.parameters is not None
        return FittedMixture(self.schema.for_rows(), Mixture((self.family,), None), candidate.parameters)


def fit(
    source: Source,
    design: Design,
    prior: Prior,
    tol: float,
    max_iter: int,
    executor: Executor,
    *,
    schema: Schema | None = None,
    bootstrap: Bootstrap = NO_REPLICATES,
) -> NormalFit:
    """Fit one multivariate normal, and one for each bootstrap replicate, in one scan.

    Parameters
    ----------
    schema : what a profile has found already; without it shift and scale come from the first piece and are corrected afterwards
    """
    check_prior(prior)
    if not (np.isfinite(tol) and tol >= 0):
        raise ConfigurationError("tol must be 0 or more: it bounds the gain in log-likelihood per row")
    if max_iter < 1:
        raise ConfigurationError("max_iter must be at least 1")
    design.check(source.columns, source.where)
    if not source.pieces:
        raise DataError("the table has no rows (0 sample(s)): give at least one row")
    check_sizes(source.pieces, design.columns, executor.room, copies=2)  # gathered from where it was read
    n_scans = 0
    if schema is None:
        shift, scale = executor.map(source.pieces[:1], partial(provisional, design))[0]
        schema = Schema(design, tuple(shift.tolist()), tuple(scale.tolist()), ())
    for _ in range(2):
        found: Gathered = executor.reduce(source.pieces, partial(_gather, schema, bootstrap))
        n_scans += 1
        if found.sums is None:
            return _fit_by_rows(source, design, prior, tol, max_iter, executor, found, n_scans, bootstrap)
        observed, mean, deviation = found.sums.moments()
        far = np.abs(mean - np.array(schema.shift)) > FAR * deviation
        if not far.any():
            break
        scale = np.where(deviation > 0, deviation, 1.0)
        schema = replace(schema, shift=tuple(mean.tolist()), scale=tuple(scale.tolist()))
    _check(design, found, observed, mean, deviation)
    schema = replace(schema, shift=tuple(mean.tolist()), scale=tuple(deviation.tolist()))
    assert found.sums is not None
    sums = found.sums.standardised(mean, deviation)
    family = make_family(prior, deviation)
    # Thousands of small products: a second BLAS thread would only stand in the way.
    with single_blas():
        candidates = _fit_all(family, sums, bootstrap, tol, max_iter)
    result = NormalFit(schema, family, candidates, sums.under(slice(0, 1)), found.rows, found.weight, n_scans)
    _judge(result)
    return result


def _gather(schema: Schema, bootstrap: Bootstrap, i: int, piece: Any) -> Gathered:
    return gather(piece, schema, bootstrap)


def make_family(prior: Prior, scale: Array) -> Gaussian:
    """The normal on standardised columns with its prior."""
    return Gaussian("VVV", len(scale), *pseudo_rows(prior, scale))


def _fit_all(
    family: Gaussian, sums: NormalSums, bootstrap: Bootstrap, tol: float, max_iter: int
) -> tuple[loop.Candidate, ...]:
    """The fit to the row weights, and from there those to the bootstrap replicates."""
    # What NumPy puts aside for a moment, glibc maps anew every time, until it has seen as large an array freed (mallopt, M_MMAP_THRESHOLD): EM steps took
    # twice as long. Where the environment sets a threshold, as Dask's workers do to stay small, this changes nothing.
    np.empty(1 << 21)
    candidates = em(family, sums.under(slice(0, 1)), family.margin(1), tol, max_iter)
    own = candidates[0].parameters
    if own is not None and bootstrap.n_replicates:
        near = start_near(family, sums, own.parts[0])
        candidates += em(family, sums.under(slice(1, None)), near, tol, max_iter)
    return candidates


def start_near(family: Gaussian, sums: NormalSums, params: GaussianParams) -> GaussianParams:
    """Where the bootstrap replicates start: one Newton step from the fit to the table itself, where they end but for sampling error.

    An EM step moves by M(θ) - θ = I_complete⁻¹ score; in a direction of which the share s of the information is observed Newton's step is 1 / s times as
    long (Louis 1982). Directions of which next to nothing is observed are left to EM: there the likelihood is flat, and no quadratic.
    """
    d, m = family.n_columns, sums.sums.shape[1] - 1
    here = GaussianParams(np.repeat(params.means, m, axis=0), np.repeat(params.covariances, m, axis=0))
    own = sums.under(slice(1, None))
    mixture = Mixture((family,), None)
    total = e_step(mixture, Parameters(np.ones(m), (here,)), own.sums, own.base, own.observed)
    moved: GaussianParams = family.m_step(total.stats[0], here, [1] * m)
    if d > NEWTON_COLUMNS:
        return moved
    i, j = np.triu_indices(d)
    step = np.concatenate([moved.means - here.means, (moved.covariances - here.covariances)[:, i, j]], axis=1)
    known = information(sums.under(slice(0, 1)), params, family)
    share, directions = eigh(known.observed, known.complete)
    stretch = np.where(share > SEEN, 1.0 / np.maximum(share, SEEN), 1.0)
    newton = ((step @ known.complete @ directions) * stretch) @ directions.T
    covariances = here.covariances.copy()
    covariances[:, i, j] += newton[:, d:]
    covariances[:, j, i] = covariances[:, i, j]
    far = GaussianParams(here.means + newton[:, :d], covariances)
    fine = ~family.collapsed(far)
    return GaussianParams(
        np.where(fine[:, None], far.means, moved.means),
        np.where(fine[:, None, None], far.covariances, moved.covariances),
    )


def em(
    family: Gaussian, sums: NormalSums, start: GaussianParams, tol: float, max_iter: int
) -> tuple[loop.Candidate, ...]:
    """EM on sums by pattern, for all their vectors of weights side by side."""
    mixture = Mixture((family,), None)
    n = sums.sums.shape[1]
    total = float(sums.weight.sum(axis=0).mean())
    state = loop.start(loop.Settings(mixture, total, tol, max_iter), [1] * n, Parameters(np.ones(n), (start,)))
    while not state.done:
        own = list(state.running)
        assert state.parameters is not None
        try:
            step = e_step(mixture, state.parameters, sums.sums[:, own], sums.base[own], sums.observed)
            state = loop.tell(state, step)
        except (ObjectiveDecreasedError, np.linalg.LinAlgError):
            if family.prior:
                raise
            # Towards a singular covariance the likelihood grows without end, and rounding with it.
            lost = replace(state.candidates[0], verdict=Verdict.COLLAPSED, parameters=None)
            return (lost, *state.candidates[1:])
    return state.candidates


def _fit_by_rows(
    source: Source,
    design: Design,
    prior: Prior,
    tol: float,
    max_iter: int,
    executor: Executor,
    found: Gathered,
    n_scans: int,
    bootstrap: Bootstrap,
) -> NormalFit:
    settings = specification.Settings(
        prior=prior, tol=tol, max_iter=max_iter, given=_at_the_margins, bootstrap=bootstrap
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, once
        try:
            own = fitting.fit(source, design, settings, [1], executor)
        except (DataError, ObjectiveDecreasedError):
            if prior is None:
                raise _no_maximum("there are too few rows for its columns, or some are collinear") from None
            raise
    family = own.mixture.families[0]
    assert isinstance(family, Gaussian)
    candidates = (*own.candidates, *own.replicates)
    result = NormalFit(own.schema, family, candidates, None, found.rows, found.weight, n_scans + own.n_scans)
    _judge(result)
    return result


def _at_the_margins(schema: Schema, mixture: Mixture, sample: Any) -> Parameters:
    return mixture.margin([1])


def _check(design: Design, found: Gathered, observed: Array, mean: Array, deviation: Array) -> None:
    if not sum(found.piece_rows):
        raise DataError("the table has no rows (0 sample(s)): give at least one row")
    if not found.weight > 0:
        raise DataError("the row weights are all zero: give at least some rows a positive weight")
    for name, own, m, s in zip(design.gaussian, observed, mean, deviation):
        if not own > 0:
            raise DataError(f"column {name!r} has no observed cell: leave it out of the model")
        if not s > abs(m) * 1e-15:
            raise specification.constant(name, m, f"{found.rows} sample(s)")


def _judge(found: NormalFit) -> None:
    """Refuse a fit without a maximum, and warn of collinear columns and of max_iter."""
    names = _collinear(found)
    if any(c.verdict is Verdict.COLLAPSED for c in found.candidates):
        why = f"columns {_listed(names)} are collinear" if names else "there are too few rows for its columns"
        raise _no_maximum(why)
    if names:
        warnings.warn(
            f"columns {_listed(names)} are collinear: only the prior keeps the covariance invertible, so leave one of them out",
            UserWarning,
            stacklevel=4,
        )
    late = [c for c in found.candidates if c.verdict is Verdict.MAX_ITER]
    if late:
        warnings.warn(
            f"the fit reached max_iter={late[0].n_iter} before it converged: raise max_iter or tol",
            ConvergenceWarning,
            stacklevel=4,
        )


def _no_maximum(why: str) -> DataError:
    return DataError(
        f"the likelihood has no maximum, because {why}: use prior='weak' or Ridge(df), or leave columns out"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _collinear(found: NormalFit) -> list[str]:
    """Columns of a combination that does not vary over the rows in which all of them are observed."""
    parameters = found.best.parameters
    if found.sums is None:
        return _flat(found)
    d = found.family.n_columns
    covariance = np.eye(d) if parameters is None else parameters.parts[0].covariances[0]
    if parameters is None:
        covariance = _pairwise(found.sums)
    deviation = np.sqrt(np.diagonal(covariance))
    _, vectors = np.linalg.eigh(covariance / (deviation[:, None] * deviation))
    for vector in vectors.T:
        support = np.flatnonzero(np.abs(vector) > 0.05 * np.abs(vector).max())
        if smallest_share(found.sums, support) < COLLINEAR:
            for column in support.tolist():
                fewer = support[support != column]
                if len(fewer) > 1 and smallest_share(found.sums, fewer) < COLLINEAR:
                    support = fewer  # the others are collinear without it
            return [found.schema.design.gaussian[i] for i in support]
    return []


def _flat(found: NormalFit) -> list[str]:
    """Columns of a combination that hardly varies beyond what the prior gives it: what can be said without sums."""
    assert found.best.parameters is not None
    covariance = found.best.parameters.parts[0].covariances[0]
    deviation = np.sqrt(np.diagonal(covariance))
    values, vectors = np.linalg.eigh(covariance / (deviation[:, None] * deviation))
    if found.family.prior_covariance is not None or values[0] > 2 * found.family.prior / found.weight:
        return []
    support = np.abs(vectors[:, 0]) > 0.1 * np.abs(vectors[:, 0]).max()
    return [name for name, own in zip(found.schema.design.gaussian, support) if own]


def _pairwise(sums: NormalSums) -> Array:
    """Correlations over the rows that observe both columns: what can be said where there is no fit."""
    d = sums.n_columns
    i, j = np.triu_indices(d)
    both = (sums.observed[:, i] & sums.observed[:, j]).astype(float)
    n = both.T @ sums.weight[:, 0]
    out = np.eye(d)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[i, j] = out[j, i] = np.nan_to_num(sums.sums[:, 0, d + 1 :].sum(axis=0) / n)
    np.fill_diagonal(out, 1.0)
    return np.clip(out, -1.0, 1.0)

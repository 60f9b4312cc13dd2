"""The weighted-likelihood bootstrap of a fitted mixture: all replicates are fitted again, from the optimum, in the same scans.

A row of a replicate counts as often as a Poisson number says, which stands for drawing rows with replacement where they come in a stream (Chamandy, Muralidharan, Najmi
and Naidu 2012; Newton and Raftery 1994 for weights in place of rows). Starting at the fitted parameters keeps a replicate at their optimum and its components in
their places; those that changed places nevertheless are put back.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import pdtr

from dask_em import kernels
from dask_em.data.columns import numeric
from dask_em.data.encode import encode_fit, row_bytes
from dask_em.data.keys import row_keys
from dask_em.data.pins import pinned
from dask_em.data.profile import weighted_rows
from dask_em.data.reading import read_rows
from dask_em.data.schema import Schema
from dask_em.em import loop
from dask_em.em.stopping import Verdict
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.estimators.arguments import checked_number, seed_of
from dask_em.estimators.tables import opened, to_source
from dask_em.execution.base import Executor, Unit, make_units
from dask_em.execution.choose import is_dask_frame, open_executor
from dask_em.families import Binomial
from dask_em.families.base import Array
from dask_em.few_scans import scan
from dask_em.fitting import profile_source
from dask_em.inference.information import WeightType, check_choice, check_not_named, check_weight, free
from dask_em.inference.record import Layout, StandardErrors, published, stored
from dask_em.kernels import worthwhile
from dask_em.mixture import Mixture
from dask_em.model import FittedMixture
from dask_em.randomness import BOOTSTRAP, Words, mix, uniforms, word_of
from dask_em.scan import Block

UNGAINED = 1e-3
"""Log-likelihood in all that a replicate may still gain: its parameters are then within sqrt(2 x 0.001), 5 %, of a standard error of their optimum."""

DRAWN_AT_ONCE = 1 << 14
"""Rows whose counts are drawn at once, so that the numbers they are drawn from stay in cache."""


def bootstrap(
    estimator: Any, X: Any, n_replicates: int, random_state: Any, sample_weight: Any, weight_type: str
) -> StandardErrors:
    """See `BaseMixture.bootstrap`."""
    check_choice("weight_type", weight_type, get_args(WeightType))
    n_replicates = checked_number("n_replicates", n_replicates, numbers.Integral)
    if n_replicates < 2:
        raise ConfigurationError(
            "n_replicates must be at least 2: some 200 for standard errors, 1000 or more for intervals"
        )
    seed = seed_of(random_state)
    table = estimator._named(opened(X))
    model: FittedMixture = estimator.model_
    check_not_named(model)
    design = model.schema.design
    columns = (*design.columns, sample_weight) if isinstance(sample_weight, str) else design.columns
    source, weight, _ = to_source(table, columns, sample_weight, None)
    schema = replace(model.schema, design=replace(design, weight=weight))
    with open_executor(estimator.executor, lazy_table=is_dask_frame(table)) as executor:
        candidates = _refitted(estimator, source, schema, executor, n_replicates, seed, weight_type)
    kept = [c for c in candidates if c.verdict is not Verdict.COLLAPSED]
    _warn(kept, n_replicates)
    replicates = [FittedMixture(model.schema, model.mixture, c.parameters) for c in kept if c.parameters is not None]
    return _record(estimator, replicates)


def _refitted(
    estimator: Any, source: Any, schema: Schema, executor: Executor, m: int, seed: int, weight_type: str
) -> Sequence[loop.Candidate]:
    """The fitted mixture, fitted again to m replicates."""
    model: FittedMixture = estimator.model_
    found = profile_source(source, schema.design, executor) if source.pieces else None
    if found is None or not sum(found.piece_rows):
        raise DataError("the table has no rows: give at least one row")
    if not found.weight > 0:
        raise DataError("the row weights are all zero: give at least some rows a positive weight")
    check_weight(estimator, found.weight, weight_type)
    source, mixture = pinned(source, found.marks), model.mixture
    if schema.design.gaussian and schema.design.pattern:
        # The table may have holes that the fitted one did not have.
        mixture = replace(mixture, patterns=found.masks(len(schema.design.gaussian)))
    mixture = replace(mixture, compiled=worthwhile(mixture.families, found.rows, m * model.n_components))
    units = make_units(source.pieces, found.piece_rows, 1 if mixture.patterns is None else len(mixture.patterns))
    encode = partial(_encode, schema, mixture, m, seed, weight_type == "frequency")
    blocks = executor.open(units, encode, row_bytes(schema.design, m))
    tol = min(float(estimator.tol), UNGAINED / found.weight)
    rules = loop.Settings(
        mixture, found.weight, tol, int(estimator.max_iter), replicates=tuple(range(m)), acceleration="squarem"
    )
    k = model.n_components
    start = loop.start(rules, [k] * m, model.parameters.take(np.tile(np.arange(k), m)))
    try:
        (done,) = scan(executor, blocks, [start], None)
        return done.candidates
    finally:
        executor.release(blocks)


def _encode(
    schema: Schema, mixture: Mixture, m: int, seed: int, frequency: bool, unit: Unit, pieces: Sequence[Any]
) -> list[Block]:
    """The blocks of a unit, with how often each row counts in each replicate.

    A row of frequency w is w rows: its count is a Poisson number of mean w, and takes the place of its weight.
    """
    tables, counts = [], []
    for piece in pieces:
        table = read_rows(piece, schema.design)
        keys = row_keys(table, (), piece.origin)
        if schema.design.weight is not None:
            keys = keys[numeric(table, schema.design.weight) > 0]
        kept, weight = weighted_rows(table, schema.design)
        tables.append(kept)
        counts.append(poisson_counts(keys, weight if frequency else np.ones(len(weight)), seed, m))
    table = pa.concat_tables(tables, promote_options="permissive")
    if frequency:
        schema = schema.for_rows()
    expected = any(isinstance(f, Binomial) and f.missing == "expected" for f in mixture.families)
    return encode_fit(table, schema, mixture.patterns, unit.n_blocks, expected, np.concatenate(counts, axis=1))


def poisson_counts(keys: Words, mean: Array, seed: int, m: int) -> NDArray[Any]:
    """(m, n) Poisson numbers with the means of the rows, in the smallest integers that hold them."""
    if (mean == 1.0).all():
        return np.asarray(kernels.bootstrap_counts(keys, seed, m))
    base = mix(keys, seed, BOOTSTRAP)
    replicates = np.array([word_of(r) for r in range(m)], dtype=np.uint64)[:, None]
    values, which = np.unique(mean, return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(values)))
    out = np.empty((m, len(keys)), dtype=np.min_scalar_type(_most(float(mean.max(initial=0.0)))))
    for value, start, stop in zip(values.tolist(), np.append(0, ends), ends):
        limits = pdtr(np.arange(_most(value)), value)
        for first in range(start, stop, DRAWN_AT_ONCE):
            rows = order[first : min(first + DRAWN_AT_ONCE, stop)]
            for some in np.array_split(np.arange(m), max(1, m * len(rows) // (4 * DRAWN_AT_ONCE))):
                u = uniforms(mix(base[rows][None, :], replicates[some]))
                out[some[:, None], rows] = np.searchsorted(limits, u)
    return out


def _most(mean: float) -> int:
    """A count that a Poisson number of this mean does not reach with the 52 bits of a uniform number."""
    return int(mean + 10.0 * np.sqrt(mean) + 40.0)


def _record(estimator: Any, replicates: Sequence[FittedMixture]) -> StandardErrors:
    model: FittedMixture = estimator.model_
    layout = Layout.of(model)
    vectors = aligned(stored(model), [stored(r) for r in replicates], model.n_components)
    values = layout.shift + layout.unit * vectors
    jacobian, boundary = free(model)
    names = tuple(name for name, held in zip(layout.names, boundary) if held)
    estimates = layout.shift + layout.unit * stored(model)
    covariance = np.cov(values, rowvar=False).reshape(len(estimates), -1)
    return StandardErrors(
        "bootstrap", layout, estimates, covariance, names, jacobian.shape[1], published(estimator), values
    )


def aligned(fitted: Array, replicates: Sequence[Array], k: int) -> Array:
    """(R, m) stored parameters of the replicates, with their components in the order of the fitted ones.

    Differences are counted in the typical deviation of a parameter over the replicates, which a few swapped ones do not move, and the assignment with
    the smallest sum of squares is taken (Stephens 2000).
    """
    if k == 1:
        return np.array(replicates)
    own = _by_component(fitted, k)
    all_parts = np.array([_by_component(r, k) for r in replicates])
    deviation = np.median(np.abs(all_parts - own), axis=0)
    usual = np.where(deviation > 0, deviation, np.inf)
    out = []
    for vector, parts in zip(replicates, all_parts):
        cost = (((parts[:, None, :] - own) / usual) ** 2).sum(axis=2)
        rows, columns = linear_sum_assignment(cost)
        order = rows[np.argsort(columns)]
        out.append(np.concatenate([vector[:k][order], vector[k:].reshape(k, -1)[order].ravel()]))
    return np.array(out)


def _by_component(vector: Array, k: int) -> Array:
    """(k, 1 + q) mixing weight and parameters of every component."""
    return np.column_stack([vector[:k], vector[k:].reshape(k, -1)])


def _warn(kept: Sequence[loop.Candidate], n_replicates: int) -> None:
    if len(kept) < 2:
        raise DataError(
            f"{n_replicates - len(kept)} of {n_replicates} replicates collapsed onto too few rows: fit fewer components, or with prior='weak'"
        )
    if lost := n_replicates - len(kept):
        warnings.warn(
            f"{lost} of {n_replicates} replicates collapsed onto too few rows and were dropped",
            ConvergenceWarning,
            stacklevel=5,
        )
    if short := sum(c.verdict is Verdict.MAX_ITER for c in kept):
        warnings.warn(
            f"{short} of {n_replicates} replicates reached max_iter before they converged: raise max_iter",
            ConvergenceWarning,
            stacklevel=5,
        )

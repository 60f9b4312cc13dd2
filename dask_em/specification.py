"""What is to be fitted: the settings, and from what a profile found the schema, the families with their priors, and where the fit starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dask_em.data.columns import cut_points, normal_scores
from dask_em.data.compact import Compress
from dask_em.data.encode import encode_sample
from dask_em.data.gather import NO_REPLICATES, Bootstrap
from dask_em.data.profile import Moments, Profile, binomial, trials_of
from dask_em.data.schema import Design, Schema
from dask_em.em import seeding
from dask_em.em.acceleration import Acceleration
from dask_em.errors import ConfigurationError, DataError
from dask_em.families import Binomial, Categorical, DiagonalGaussian, Family, Gaussian, Poisson
from dask_em.families.binomial import typical_trials
from dask_em.families.covariance import FULL, MODELS
from dask_em.mixture import Mixture, Parameters
from dask_em.priors import WEAK, Prior, check_prior, pseudo_rows
from dask_em.scan import Block, Sums

Precision = Literal["double", "single"]

SINGLE_ROUNDING = 1e-7
"""Share of a log-likelihood that is noise where rows are scanned in single precision."""

TINY = 1e-150
"""Below this the square of a number is none."""

COVARIANCE_TYPES = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}
"""scikit-learn's names and mclust's."""


@dataclass(frozen=True)
class Settings:
    """How to fit; see the estimators for what each means and why its default is what it is.

    given : from schema and mixture to the starting parameters, one (k) candidate; None to seed
    bootstrap : replicates of the rows to which the best candidate is fitted again, starting from it
    precision : of the encoded gaussian columns and of the scan over them; sums are double in any case
    compress : whether the fit runs on the distinct rows of the table, with weights; "auto" where that pays (see data/compact.py)
    """

    covariance_type: str = "VVV"
    prior: Prior = "weak"
    tol: float = 1e-6
    max_iter: int = 1000
    n_init: int = 1
    init: str = "kmeans++"
    seed: int = 0
    fix_weights: bool = False
    missing: Literal["ignored", "expected"] = "ignored"
    given: Callable[[Schema, Mixture, Block], Parameters] | None = None
    bootstrap: Bootstrap = NO_REPLICATES
    acceleration: Acceleration | None = None
    compress: Compress = "auto"
    precision: Precision = "double"

    def __post_init__(self) -> None:
        check_prior(self.prior)
        if not isinstance(self.compress, bool) and not (isinstance(self.compress, str) and self.compress == "auto"):
            raise ConfigurationError("compress must be 'auto', True or False")
        if self.precision not in ("double", "single"):
            raise ConfigurationError("precision must be 'double' or 'single'")
        if not (np.isfinite(self.tol) and self.tol >= 0):
            raise ConfigurationError("tol must be 0 or more: it bounds the gain in log-likelihood per row")
        for name in ("max_iter", "n_init"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1")
        if self.acceleration not in (None, "squarem", "daarem"):
            raise ConfigurationError("acceleration must be None, 'squarem' or 'daarem'")
        if self.init not in ("kmeans++", "random", "labels"):
            raise ConfigurationError(
                "init must be 'kmeans++', 'random', labels, one a row, or a fitted model or the folder of a saved one"
            )


def constant(name: str, mean: float, n: str) -> DataError:
    """What is said of a column that does not vary, or not enough for numbers of this size to be squared."""
    if 0 < abs(mean) < TINY:
        return DataError(f"column {name!r} holds values too small to square: multiply it by a power of ten")
    return DataError(f"column {name!r} is constant over {n}: it tells nothing, so leave it out of the model")


def check_table(found: Profile | None, design: Design, k: int) -> None:
    """Refuse a table that cannot carry the model."""
    if found is None or not found.piece_rows or sum(found.piece_rows) == 0:
        raise DataError("the table has no rows (0 sample(s)): give at least one row")
    if not found.weight > 0:
        raise DataError("the row weights are all zero: give at least some rows a positive weight")
    n = f"{found.rows} sample(s)"
    if found.n_distinct < k:
        raise DataError(
            f"the table has {int(found.n_distinct)} distinct row(s) in {n}, fewer than n_components={k}: ask for fewer components"
        )
    if design.known is not None and sum(w > 0 for w in found.levels[design.known].values()) > k:
        raise DataError(f"column {design.known!r} names more than n_components={k} components: ask for more components")
    for name in design.features:
        moments = found.moments.get(name)
        if (moments is not None and not moments.count) or (
            name in found.levels and not any(found.levels[name].values())
        ):
            raise DataError(f"column {name!r} has no observed cell: leave it out of the model")
        if design.levels(name) is not None and sum(w > 0 for w in found.levels[name].values()) < 2:
            raise DataError(f"column {name!r} has one level only: it tells nothing, so leave it out of the model")
        if moments is not None and not np.isfinite(moments.deviation):
            raise DataError(
                f"column {name!r} holds values too large to square: divide it by a power of ten, or transform it"
            )
        if name in design.gaussian and moments is not None and not moments.deviation > abs(moments.mean) * 1e-15:
            raise constant(name, moments.mean, n)


def make_schema(design: Design, found: Profile) -> Schema:
    """Fix levels, cuts, shift and scale."""
    weights = {name: [found.levels[name].get(level, 0.0) for level in levels] for name, levels in design.ordered}
    # Levels that nobody has cannot be modelled.
    ordered = tuple(
        (name, tuple(level for level, w in zip(levels, weights[name]) if w > 0)) for name, levels in design.ordered
    )
    cuts = {name: cut_points([w for w in weights[name] if w > 0]) for name, _ in ordered}
    shift, scale = [], []
    for name in design.gaussian:
        moments = found.moments[name] if name not in cuts else _score_moments(cuts[name])
        shift.append(moments.mean)
        scale.append(moments.deviation)
    levels = tuple(tuple(sorted(lv for lv, w in found.levels[name].items() if w > 0)) for name in design.categorical)
    return Schema(replace(design, ordered=ordered), tuple(shift), tuple(scale), levels, tuple(cuts.items()))


def _score_moments(cuts: Sequence[float]) -> Moments:
    """Of the scores of an ordered column: they are 0 on average."""
    shares = np.diff(ndtr([-np.inf, *cuts, np.inf]))
    return Moments(1, 1.0, 0.0, float(shares @ normal_scores(cuts) ** 2))


def make_mixture(schema: Schema, found: Profile, settings: Settings) -> Mixture:
    """The families of a design, with the margins that the weak prior leans on."""
    design = schema.design
    families: list[Family] = []
    prior, covariance = pseudo_rows(settings.prior, schema.scale)
    if design.gaussian:
        model = covariance_model(settings.covariance_type)
        if model in FULL:
            families.append(Gaussian(model, len(design.gaussian), prior, covariance, schema.scale))
        else:
            families.append(DiagonalGaussian(model, schema.scale, prior))
    if design.categorical:
        shares: list[float] = []
        for name, levels in zip(design.categorical, schema.levels):
            weights = np.array([found.levels[name][level] for level in levels])
            shares += (weights / weights.sum()).tolist() if name != design.known else [0.0] * len(levels)
        n_levels = tuple(len(levels) for levels in schema.levels)
        families.append(Categorical(n_levels, tuple(shares), prior, names=design.known is not None))
    if design.poisson:
        families.append(Poisson(tuple(found.moments[name].mean for name in design.poisson), prior))
    if design.binomial:
        margins = tuple(
            found.moments[name].mean / found.moments[trials_of(name)].mean
            if found.moments[trials_of(name)].mean
            else 0.5
            for name, _ in design.binomial
        )
        families.append(Binomial(margins, prior, settings.missing, _trials(found, design)))
    rounding = SINGLE_ROUNDING if settings.precision == "single" else Mixture.rounding
    return Mixture(tuple(families), masks(schema, found), settings.fix_weights, rounding)


def masks(schema: Schema, found: Profile) -> NDArray[np.bool_] | None:
    """The masks by which rows are grouped."""
    d = len(schema.design.gaussian)
    return found.masks(d) if d and schema.design.pattern else np.ones((1, d), bool)


def by_itself(schema: Schema, settings: Settings) -> Schema:
    """The schema that the rows of one model would have: grouped by pattern only where its columns depend on each other."""
    design = schema.design
    full = covariance_model(settings.covariance_type) in FULL
    return replace(schema, design=replace(design, pattern=design.pattern and full))


def _trials(found: Profile, design: Design) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The trials of typical rows, of those where all are known; where there is no such row, a hole counts as the mean."""
    means = np.array([[found.moments[trials_of(name)].mean] for name, _ in design.binomial])
    trials = np.stack([binomial(found.sample, name, n)[1] for name, n in design.binomial])
    weight = found.sample.column("#weight").to_numpy()
    known = ~np.isnan(trials).any(axis=0)
    if not known.any():
        return typical_trials(np.where(np.isnan(trials), np.round(means), trials), weight)
    return typical_trials(trials[:, known], weight[known])


def covariance_model(name: Any) -> str:
    """mclust's name of a covariance type."""
    model = COVARIANCE_TYPES.get(name, name) if isinstance(name, str) else ""
    if model not in MODELS:
        raise ConfigurationError(
            "covariance_type must be full (VVV), tied (EEE), diag (VVI), spherical (VII) or another of mclust's models: "
            + ", ".join(MODELS)
        )
    return model


def starts(schema: Schema, mixture: Mixture, found: Profile, settings: Settings, sizes: Sequence[int]) -> Parameters:
    """Stacked starting parameters from the profile's sample."""
    block = encode_sample(found.starting, by_itself(schema, settings))
    if settings.given is not None:
        return settings.given(schema, mixture, block)
    known = None if schema.design.known is None else block.values[1 if schema.design.gaussian else 0][-1]
    labels = []
    for c, k in enumerate(sizes):
        rng = np.random.default_rng([settings.seed, k, c % settings.n_init])
        labels.append(seeding.labels(mixture.families, block, k, settings.init, rng, known))
    return parameters_of_labels(mixture, block, np.array(labels), sizes)


def parameters_of_labels(mixture: Mixture, block: Block, labels: NDArray[np.int64], sizes: Sequence[int]) -> Parameters:
    """One M-step on the labels (C, n) of the sample, always with the weak prior: a start may not be singular."""
    guarded = Mixture(tuple(replace(f, prior=WEAK) for f in mixture.families), None, mixture.fix_weights)  # type: ignore[type-var]
    total = guarded.label_step(sizes)(replace(block, labels=labels))
    assert isinstance(total, Sums)
    return guarded.m_step(total, None, sizes)

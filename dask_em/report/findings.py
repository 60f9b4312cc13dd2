"""What a reader should be warned of in a fitted mixture, in sentences.

    overlap            sum over x of sqrt(p q), for two normals in closed form (Bhattacharyya 1943)
    total variation    half the sum over x of |p - q|; of independent columns at most 1 - prod (1 - own)

Pure functions from a fitted model to sentences; an empty list is good news.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import bdtr, pdtr

from dask_em.families import Binomial, Categorical, DiagonalGaussian, Gaussian, Poisson
from dask_em.families.base import Array
from dask_em.model import FittedMixture

SMALL = 0.01
"""Share of the weight below which a component is called small."""

OVERLAP, VARIATION = 0.95, 0.02
"""Overlap of normals above which, and total variation below which, two components nearly coincide."""

SINGULAR = 1e-6
"""A variance this small, of the table's, or left over of a column given the others, is close to none."""

HELD = 1.1
"""A variance below this multiple of what the prior alone gives comes from the prior by nine tenths."""

NEAR = 1e-6
"""A probability this close to 0 or 1, or a rate this close to 0 of the column's mean, is on its way to the boundary: EM gets there by ever smaller steps."""

LOADING = 0.2
"""Entries of a unit vector that count when columns are named."""

MOST = 5
"""Examples that are named; the rest is counted."""


def findings(
    model: FittedMixture, weight: float, converged: bool, why: str, names: Sequence[str] | None = None
) -> list[str]:
    """Everything that a reader should know before trusting the numbers.

    Parameters
    ----------
    model : FittedMixture
    weight : sum of the row weights; a row of weight w counts as w rows
    converged, why : whether the stopping rule was met, and the sentence of the fit
    names : of the components, by default 0 to k - 1

    Returns
    -------
    list of str : whole sentences, the gravest first
    """
    own = [str(c) for c in range(model.n_components)] if names is None else list(names)
    return [
        *not_converged(converged, why),
        *small(model, weight, own),
        *merged(model, own),
        *nearly_singular(model, weight, own),
        *on_the_boundary(model, own),
    ]


def not_converged(converged: bool, why: str) -> list[str]:
    if converged:
        return []
    if why.startswith("converged"):
        return ["Not every bootstrap replicate converged: raise max_iter."]
    if why.startswith("stopped early"):
        return ["The fit was stopped early, behind one that then collapsed: fit again with this model as init."]
    return [f"The fit has not converged ({why}), so the estimates may still move: raise max_iter."]


def small(model: FittedMixture, weight: float, names: Sequence[str]) -> list[str]:
    """Components with fewer rows than parameters, or with less than 1 % of the weight."""
    k, families = model.n_components, model.mixture.families
    if k == 1:
        n = sum(f.n_free(1) for f in families)
        return [f"The table has {weight:,.6g} rows, fewer than the {n} parameters of the model."] if weight < n else []
    # What one component more would add: parameters that components share are no burden to any of them.
    own = sum(f.n_free(k + 1) - f.n_free(k) for f in families)
    out = []
    for name, share in zip(names, model.parameters.weights):
        rows = share * weight
        count = f"{rows:,.0f}" if rows >= 100 else f"{rows:.3g}"
        holds = f"Component {name} holds about {count} rows ({100 * share:.2g} % of the weight)"
        if rows < own:
            out.append(f"{holds}, fewer than its {own} parameters: fit fewer components, or simpler ones.")
        elif share < SMALL:
            out.append(f"{holds}: look whether these rows are a group or a few odd ones.")
    return _first(out, "more components are as small")


# ---- components that coincide ---------------------------------------------------------------------------------------


def merged(model: FittedMixture, names: Sequence[str]) -> list[str]:
    """Pairs of components that are nearly the same."""
    found = []
    for a in range(model.n_components - 1):
        rest = np.arange(a + 1, model.n_components, dtype=np.int64)
        overlap, variation = normal_overlap(model, a, rest), total_variation(model, a, rest)
        for i in np.flatnonzero((overlap > OVERLAP) & (variation < VARIATION)):
            how = [f"their normals overlap by {100 * overlap[i]:.1f} %"] if model.means is not None else []
            if any(not isinstance(f, Gaussian | DiagonalGaussian) for f in model.mixture.families):
                how.append(f"their probabilities and rates differ by a total variation of at most {variation[i]:.2g}")
            found.append((1.0 - overlap[i] + variation[i], f"{names[a]} and {names[rest[i]]}", " and ".join(how)))
    told = [
        f"Components {pair} nearly coincide ({how}): fewer components may say the same."
        for _, pair, how in sorted(found)
    ]
    return _first(told, "more pairs of components nearly coincide")


def normal_overlap(model: FittedMixture, a: int, others: NDArray[np.int64]) -> Array:
    """(m,) Bhattacharyya overlaps of component a with others; 1 where there are no gaussian columns."""
    found = _normals(model)
    if found is None:
        return np.ones(len(others))
    means, covariances = found
    middle = (covariances[a] + covariances[others]) / 2.0
    shift = means[others] - means[a]
    _, volume = np.linalg.slogdet(middle)
    _, own = np.linalg.slogdet(covariances)
    far = np.linalg.solve(middle, shift[:, :, None])[:, :, 0]
    distance = (shift * far).sum(axis=1) / 8.0 + (volume - (own[a] + own[others]) / 2.0) / 2.0
    return np.asarray(np.exp(-np.maximum(distance, 0.0)))


def total_variation(model: FittedMixture, a: int, others: NDArray[np.int64]) -> Array:
    """(m,) bounds on the total variation between component a and others over their categories, counts and coins."""
    same = np.ones(len(others))
    for family, part in zip(model.mixture.families, model.parameters.parts):
        if isinstance(family, Categorical):
            half = np.abs(part.probabilities[others] - part.probabilities[a]) / 2.0
            own = np.add.reduceat(half, family.offsets, axis=1)
        elif isinstance(family, Poisson):
            own = _between_poissons(part.rates[a], part.rates[others])
        elif isinstance(family, Binomial):
            own = _between_binomials(family, part.probabilities[a], part.probabilities[others])
        else:
            continue
        same *= np.prod(1.0 - np.clip(own, 0.0, 1.0), axis=1)
    return 1.0 - same


def _between_poissons(a: Array, b: Array) -> Array:
    """The likelihood ratio rises with the count, so the difference is that of the distribution functions where it crosses 1."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.floor((high - low) / np.log(high / low))
    crossing = np.where(np.isfinite(crossing), crossing, 0.0)
    return np.asarray(pdtr(crossing, low) - pdtr(crossing, high))


def _between_binomials(family: Binomial, a: Array, b: Array) -> Array:
    """As between Poissons, averaged over the trials of typical rows."""
    typical = family.trials or (((1,) * family.n_columns, 1),)
    times = np.array([n for _, n in typical], dtype=float)
    tiny = np.finfo(float).tiny
    low, high = np.minimum(a, b), np.maximum(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        failure = np.log1p(-np.minimum(low, 1 - 1e-15)) - np.log1p(-np.minimum(high, 1 - 1e-15))
        share = failure / (failure + np.log(np.maximum(high, tiny)) - np.log(np.maximum(low, tiny)))
    share = np.where(np.isfinite(share), share, 0.0)
    out = np.zeros(low.shape)
    for j in range(family.n_columns):
        trials = np.array([row[j] for row, _ in typical], dtype=float)
        counts, which = np.unique(trials, return_inverse=True)
        for t, w in zip(counts, np.bincount(which, weights=times) / times.sum()):
            if t > 0:
                crossing = np.clip(np.ceil(share[:, j] * t) - 1.0, 0.0, t - 1.0)
                out[:, j] += w * (bdtr(crossing, int(t), low[:, j]) - bdtr(crossing, int(t), high[:, j]))
    return out


def _normals(model: FittedMixture) -> tuple[Array, Array] | None:
    """Means and covariances in units of the table's standard deviations, where nothing is lost to the columns' own units."""
    part = model.part(Gaussian, DiagonalGaussian)
    if part is None:
        return None
    if hasattr(part, "covariances"):
        return part.means, part.covariances
    return part.means, part.variances[:, :, None] * np.eye(part.variances.shape[1])


# ---- covariances without a volume -----------------------------------------------------------------------------------


def nearly_singular(model: FittedMixture, weight: float, names: Sequence[str]) -> list[str]:
    """Covariances that are flat along some columns, or would be but for the prior."""
    normals = _normals(model)
    if normals is None:
        return []
    columns = model.schema.design.gaussian
    told: dict[str, list[str]] = {}
    for name, covariance, prior in zip(names, normals[1], _from_prior(model, weight)):
        for flat in _flat(covariance, prior, columns):
            told.setdefault(flat, []).append(name)
    out = [f"{_covariance_of(own, model.n_components)} is close to singular: {flat}." for flat, own in told.items()]
    return _first(out, "more covariances are close to singular")


def _flat(covariance: Array, prior: Array | None, columns: Sequence[str]) -> Iterator[str]:
    deviation = np.sqrt(np.diagonal(covariance))
    thin = [c for c, own in zip(columns, deviation) if own**2 < SINGULAR]
    if thin:
        yield f"{_listed(thin)} hardly {'varies' if len(thin) == 1 else 'vary'}"
        return
    values, axes = np.linalg.eigh(covariance / (deviation[:, None] * deviation))
    if values[0] < SINGULAR:
        yield f"{_along(axes[:, 0], columns)} nearly determine each other"
    elif prior is not None:
        values, axes = eigh(covariance, prior)
        if values[0] < HELD:
            most = axes[:, 0] * deviation
            yield f"along {_along(most / np.linalg.norm(most), columns)} nearly all of its variance comes from the prior"


def _from_prior(model: FittedMixture, weight: float) -> list[Array | None]:
    """What the prior adds to each covariance, where the model makes that a plain average with the rows' own."""
    k = model.n_components
    family = next(f for f in model.mixture.families if isinstance(f, Gaussian | DiagonalGaussian))
    if not family.prior or family.model not in ("VVV", "VVI", "EEE", "EEI"):
        return [None] * k
    d = family.n_columns
    given = getattr(family, "prior_covariance", None)
    own = np.eye(d) * float(k) ** (-2.0 / d) if given is None else np.asarray(given, dtype=float)
    rows = weight * (model.parameters.weights if family.model.startswith("V") else np.full(k, 1.0 / k))
    return [own * family.prior / (n + family.prior) for n in rows]


def _along(direction: Array, columns: Sequence[str]) -> str:
    return _listed([c for c, own in zip(columns, np.abs(direction)) if own > LOADING])


def _covariance_of(names: Sequence[str], k: int) -> str:
    if k == 1:
        return "The covariance"
    return f"The covariance of {'component' if len(names) == 1 else 'each of the components'} {_listed(names)}"


# ---- boundaries -----------------------------------------------------------------------------------------------------


def on_the_boundary(model: FittedMixture, names: Sequence[str]) -> list[str]:
    """Probabilities of 0 or 1 and rates of 0, which have no standard error."""
    told = list(_held(model, names))
    if not told:
        return []
    more = f"; and {len(told) - MOST} more" if len(told) > MOST else ""
    return [f"On the boundary, where nothing is known of their spread: {'; '.join(told[:MOST])}{more}."]


def _held(model: FittedMixture, names: Sequence[str]) -> Iterator[str]:
    design, k = model.schema.design, model.n_components

    def where(c: int) -> str:
        return f" in component {names[c]}" if k > 1 else ""

    for (column, p), levels in zip(model.category_probabilities.items(), model.schema.levels):
        if len(levels) < 2:
            continue
        for c in range(k):
            sure = np.flatnonzero(p[c] >= 1.0 - NEAR)
            kept = sure if len(sure) else np.flatnonzero(p[c] <= NEAR)
            how = "always" if len(sure) else "never"
            yield from (f"{column} is {how} {levels[j]}{where(c)}" for j in kept)
    poisson = next((f for f in model.mixture.families if isinstance(f, Poisson)), None)
    if poisson is not None and model.rates is not None:
        none = model.rates <= NEAR * np.asarray(poisson.margins)
        yield from (f"{design.poisson[j]} is always 0{where(c)}" for c, j in np.argwhere(none))
    if model.success_probabilities is not None:
        for c, own in enumerate(model.success_probabilities):
            for (column, _), p in zip(design.binomial, own):
                if p <= NEAR or p >= 1.0 - NEAR:
                    yield f"{column} {'never' if p <= NEAR else 'always'} succeeds{where(c)}"


def _listed(names: Iterable[str]) -> str:
    """a, b and c."""
    own = list(names)
    if len(own) > MOST + 1:
        own = [*own[:MOST], f"{len(own) - MOST} more"]
    return own[0] if len(own) == 1 else f"{', '.join(own[:-1])} and {own[-1]}"


def _first(sentences: list[str], more: str) -> list[str]:
    left = len(sentences) - MOST
    return sentences if left < 2 else [*sentences[:MOST], f"{left} {more}."]

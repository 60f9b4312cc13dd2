"""What the engine asks of a distribution.

A family is an exponential family on d columns, written so that a mixture of it is two matrix products:

    T       = features(x)             (q, n)   what a row contributes; a missing cell contributes 0
    log p   = constant + W T          (K, n)   for K components at once
    stats   = lift(R Tᵀ)              (K, s)   expected complete-data statistics of the rows, which add up
    params' = m_step(stats)                    closed form

A family object holds *settings* (columns, levels, scales, prior); *parameters* are frozen dataclasses of arrays
whose first axis is the component, stacked over all candidates; *statistics* are plain (K, s) arrays.
`sizes` always lists the number of components of each candidate along that axis.

A family knows nothing of mixing weights, of loops or of where rows come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LOG_TINY = float(np.log(1e-300))
"""Floor of log probabilities: it keeps natural parameters finite, so that 0 times infinity cannot occur."""

COLLAPSED_VARIANCE = 1e-20
"""A variance below this share of the column's own variance (a standard deviation of 1e-10) is a point, not a cloud."""

HIDDEN = 2.0**-43
"""Share of a sum of squares about 0 that rounding may add or take, with a margin: a smaller scatter about the mean is not known from it."""


@dataclass(frozen=True)
class Params:
    """Parameters of a family: every field is an array with components first."""


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Plan:
    """A family's parameters made ready to score rows, for a list of missingness patterns.

    Attributes
    ----------
    constant : (P, K) array
        The part of the log density that does not depend on the values.
    weights : (P, K, q) array
        Natural parameters, one row per component, in the order of the features.
    origins : {component: (d,) array}
        Components so tight and so far from 0 that x'Λx - 2x'Λμ + μ'Λμ would lose digits: their weights are 0 here, and their
        densities and sums are taken about their own mean.
    extra : object
        What `lift` and `log_prob_centred` need besides.
    """

    constant: Array
    weights: Array
    origins: dict[int, Array] = field(default_factory=dict)
    extra: Any = None


class Family(Protocol):
    """One distribution on `n_columns` columns."""

    by_pattern: bool
    """Whether rows must be grouped by the mask of this family's columns (columns depend on each other)."""

    in_patterns: bool
    """Whether its rows may be grouped by the mask of its columns for another model, with 0 in the place of NaN."""

    kind: str
    """How the compiled scan makes its features: products, squares, levels, counts or pairs; nothing if it does not know how."""

    @property
    def n_indicators(self) -> int:
        """How many of the first features are 1 where a cell is observed and 0 where it is missing."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of each column whose features are one-hot."""

    @property
    def n_columns(self) -> int: ...

    @property
    def n_features(self) -> int: ...

    @property
    def n_stats(self) -> int: ...

    def features(self, values: NDArray[Any], out: Array) -> None:
        """Write the (q, n) features of the encoded values, rows last."""

    def plan(self, params: Any, observed: Mask) -> Plan:
        """Prepare the parameters for the (P, d) masks of observed columns."""

    def lift(self, params: Any, plan: Plan, observed: Mask, weight: Array, sums: Array) -> Array:
        """Turn (P, K) weights and (P, K, q) feature sums per pattern into (K, s) expected statistics."""

    def log_prob_centred(self, plan: Plan, pattern: int, component: int, centred: Array) -> Array:
        """The value-dependent log density of a component with an origin of its own, from values minus that origin."""

    def sums_about(self, plan: Plan, component: int, weight: Array, sums: Array) -> tuple[Array, Array]:
        """(P, q) feature sums of a component with an origin, turned into sums about it, and their (P,) log densities."""

    def m_step(self, stats: Array, params: Any, sizes: Sequence[int]) -> Any:
        """The parameters that maximise expected log-likelihood plus log prior."""

    def log_prior(self, params: Any, sizes: Sequence[int]) -> Array:
        """The (K,) terms that the prior adds to the objective."""

    def collapsed(self, params: Any) -> Mask:
        """Which of the (K,) components have no usable density."""

    def fragile(self, params: Any) -> bool:
        """Whether some component is so close to having no usable density that its own rounding may lower the objective."""

    def coordinates(self, params: Any) -> Array:
        """(K, c) coordinates of the parameters without constraints, such as logarithms."""

    def at(self, coordinates: Array) -> Any:
        """The parameters that have these coordinates; ties between components may not hold until they are projected."""

    def project(self, params: Any, weight: Array, sizes: Sequence[int]) -> Any:
        """The parameters of the covariance model that are nearest: what an M-step makes of (K,) rows that have exactly these."""

    def possible(self, params: Any) -> bool:
        """Whether finite parameters lie where the distribution is defined."""

    def margin(self, n_components: int) -> Any:
        """Parameters at the column margins: what is known before any responsibility is."""

    def n_free(self, n_components: int) -> int:
        """Number of free parameters of one candidate."""

    def dissimilarity(self, values: NDArray[Any], centres: NDArray[Any]) -> tuple[Array, Array]:
        """Summed squared distance (m, n) of rows to m centres over cells seen in both, and how many cells."""

    def draw(self, params: Any, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        """Draw one row of encoded values for each entry of `components`."""


class Plain:
    """What a family is when its columns are independent given the component: no patterns, no own origin."""

    by_pattern = False
    in_patterns = False
    kind = ""

    @property
    def n_indicators(self) -> int:
        return 0

    @property
    def levels(self) -> tuple[int, ...]:
        return ()

    def lift(self, params: Any, plan: Plan, observed: Mask, weight: Array, sums: Array) -> Array:
        return sums.sum(axis=0)

    def project(self, params: Any, weight: Array, sizes: Sequence[int]) -> Any:
        return params

    def fragile(self, params: Any) -> bool:
        return False

    def log_prob_centred(self, plan: Plan, pattern: int, component: int, centred: Array) -> Array:
        raise AssertionError("a family without origins has no centred form")

    def sums_about(self, plan: Plan, component: int, weight: Array, sums: Array) -> tuple[Array, Array]:
        raise AssertionError("a family without origins has no centred form")


def take(params: P, index: NDArray[np.int64]) -> P:
    """Select components of a parameter record along the stacked axis."""
    return replace(params, **{f.name: getattr(params, f.name)[index] for f in fields(params)})


def per_candidate(values: Array, sizes: Sequence[int]) -> Array:
    """Sum over the components of each candidate and repeat the sum for each of its components."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.repeat(np.add.reduceat(values, starts, axis=0), sizes, axis=0)


def ratio(numerator: Array, denominator: Array, otherwise: Array) -> Array:
    """Divide where the denominator is positive; elsewhere keep `otherwise` (nothing was observed there)."""
    out = np.array(np.broadcast_to(otherwise, numerator.shape), dtype=np.float64)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


LARGEST_LOG = 690.0
"""Logarithms are kept within what an exponential can undo."""


def exp_clipped(values: Array) -> Array:
    """exp of values within -690 and 690."""
    return np.exp(np.clip(values, -LARGEST_LOG, LARGEST_LOG))


def log_floored(values: Array) -> Array:
    """log(max(values, 1e-300))."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(values), LOG_TINY)

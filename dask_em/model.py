"""A fitted mixture without ceremony: schema, settings and parameters of one candidate, and what it says of rows.

This is what goes to workers and into files; it needs neither scikit-learn nor Dask.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.columns import undo
from dask_em.data.encode import encode_rows
from dask_em.data.schema import Level, Schema
from dask_em.families import Binomial, Categorical, DiagonalGaussian, Gaussian, Poisson
from dask_em.mixture import Mixture, Parameters

CHUNK_ROWS = 1 << 16
"""Rows scored at once, so that memory does not grow with the size of a piece."""


@dataclass(frozen=True)
class FittedMixture:
    """One mixture with its parameters.

    Attributes
    ----------
    schema : columns, levels, shift and scale
    mixture : families and settings
    parameters : in the engine's units, components in the order that users see
    names : of the components, None where they have none; empty where nobody named any
    """

    schema: Schema
    mixture: Mixture
    parameters: Parameters
    names: tuple[Level | None, ...] = ()

    @property
    def n_components(self) -> int:
        return len(self.parameters.weights)

    @property
    def n_parameters(self) -> int:
        """Number of free parameters."""
        return self.mixture.n_free(self.n_components)

    def reordered(self, order: NDArray[np.int64]) -> FittedMixture:
        """The same mixture with its components in another order."""
        names = tuple(self.names[int(i)] for i in order) if self.names else ()
        return replace(self, parameters=self.parameters.take(order), names=names)

    def for_rows(self) -> FittedMixture:
        """The same for rows that are scored: without weights, labels, and the column that named the components of fitted rows, whose names it takes."""
        known, schema = self.schema.design.known, self.schema.for_rows()
        if known is None:
            return replace(self, schema=schema)
        levels = self.schema.levels[-1]
        families, parts = [], []
        for family, own in zip(self.mixture.families, self.parameters.parts):
            if isinstance(family, Categorical):
                n = family.n_features - len(levels)
                named = own.probabilities[:, n:] > 0
                family = replace(family, n_levels=family.n_levels[:-1], margins=family.margins[:n], names=False)
                own = replace(own, probabilities=own.probabilities[:, :n])
                if not n:
                    continue
            families.append(family)
            parts.append(own)
        names = tuple(levels[int(row.argmax())] if row.any() else None for row in named)
        mixture = replace(self.mixture, families=tuple(families))
        return FittedMixture(schema, mixture, Parameters(self.parameters.weights, tuple(parts)), names)

    def check(self) -> None:
        """Raise ValueError unless schema, families and parameters belong together and are what a fit can find."""
        weights, k = self.parameters.weights, self.n_components
        fits = (
            self._fits_schema()
            and weights.shape == (k,)
            and (weights >= 0).all()
            and len(self.names) in (0, k)
            and abs(weights.sum() - 1) < 1e-6
        )
        like = self.mixture.margin([k])
        for family, own, usual in zip(self.mixture.families, self.parameters.parts, like.parts, strict=True):
            for f in fields(own):
                value = getattr(own, f.name)
                fits = fits and value.shape == getattr(usual, f.name).shape and np.isfinite(value).all()
            fits = fits and family.possible(own)
        if not fits:
            raise ValueError("schema, families and parameters do not belong together")

    def _fits_schema(self) -> bool:
        """Whether the families are those of the columns, in order, with as many of them."""
        schema, design = self.schema, self.schema.design
        kinds: list[tuple[bool, tuple[type, ...], int]] = [
            (bool(design.gaussian), (Gaussian, DiagonalGaussian), len(design.gaussian)),
            (bool(design.categorical), (Categorical,), len(design.categorical)),
            (bool(design.poisson), (Poisson,), len(design.poisson)),
            (bool(design.binomial), (Binomial,), len(design.binomial)),
        ]
        wanted = [(kind, n) for there, kind, n in kinds if there]
        families = self.mixture.families
        return (
            len(families) == len(wanted)
            and all(isinstance(f, kind) and f.n_columns == n for f, (kind, n) in zip(families, wanted))
            and all(f.n_levels == tuple(map(len, schema.levels)) for f in families if isinstance(f, Categorical))
            and len(schema.shift) == len(schema.scale) == len(design.gaussian)
            and bool(np.isfinite([*schema.shift, *schema.scale]).all())
            and min(schema.scale, default=1.0) > 0
        )

    def score(self, table: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Responsibilities (n, k) and log densities (n,) of the rows, in their order and in the user's units."""
        responsibilities = np.empty((table.num_rows, self.n_components))
        log_density = np.empty(table.num_rows)
        for start in range(0, table.num_rows, CHUNK_ROWS):
            block, order = encode_rows(table.slice(start, CHUNK_ROWS), self.schema)
            own, density = self.mixture.posterior(self.parameters, block)
            responsibilities[start + order] = own.T
            log_density[start + order] = density
        return responsibilities, log_density

    def part(self, *kinds: type) -> Any | None:
        """The parameters of the family of one of these kinds, or None."""
        for family, own in zip(self.mixture.families, self.parameters.parts):
            if isinstance(family, kinds):
                return own
        return None

    @property
    def means(self) -> NDArray[np.float64] | None:
        """(k, d) means of the gaussian columns, in the user's units (after their transform)."""
        own = self.part(Gaussian, DiagonalGaussian)
        return None if own is None else np.asarray(self.schema.shift) + own.means * np.asarray(self.schema.scale)

    @property
    def covariances(self) -> NDArray[np.float64] | None:
        """(k, d, d) covariances of the gaussian columns, in the user's units (after their transform)."""
        own, scale = self.part(Gaussian, DiagonalGaussian), np.asarray(self.schema.scale)
        if own is None:
            return None
        full = own.covariances if hasattr(own, "covariances") else own.variances[:, :, None] * np.eye(len(scale))
        return full * scale[:, None] * scale

    @property
    def category_probabilities(self) -> dict[str, NDArray[np.float64]]:
        """(k, levels) for each categorical column."""
        own = self.part(Categorical)
        if own is None:
            return {}
        ends = np.cumsum([len(levels) for levels in self.schema.levels])[:-1]
        return dict(zip(self.schema.design.categorical, np.split(own.probabilities, ends, axis=1)))

    @property
    def rates(self) -> NDArray[np.float64] | None:
        """(k, d) rates of the Poisson columns."""
        own = self.part(Poisson)
        return None if own is None else own.rates

    @property
    def success_probabilities(self) -> NDArray[np.float64] | None:
        """(k, d) success probabilities of the binomial columns."""
        own = self.part(Binomial)
        return None if own is None else own.probabilities

    def sample(self, n: int, rng: np.random.Generator) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Draw n rows: columns in the user's units, trials as in the fitted table, and the component of each row."""
        components = np.sort(
            rng.choice(self.n_components, size=n, p=self.parameters.weights / self.parameters.weights.sum())
        )
        design = self.schema.design
        out: dict[str, Any] = {}
        for family, own in zip(self.mixture.families, self.parameters.parts):
            values = family.draw(own, components, rng)
            if isinstance(family, Binomial):
                successes, trials = np.split(values, 2)
                out |= {name: v for (name, _), v in zip(design.binomial, successes)}
                out |= {t: v for (_, t), v in zip(design.binomial, trials) if isinstance(t, str)}
            elif isinstance(family, Categorical):
                out |= {
                    name: np.array(levels, dtype=object)[codes]
                    for name, levels, codes in zip(design.categorical, self.schema.levels, values)
                }
            elif isinstance(family, Poisson):
                out |= dict(zip(design.poisson, values))
            else:
                for name, v, shift, scale in zip(design.gaussian, values, self.schema.shift, self.schema.scale):
                    out[name] = undo(shift + scale * v, design.transform(name))
        return out, components

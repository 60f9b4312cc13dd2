"""The one table of families that every law runs over, and how a case becomes a model of a made-up table.

A new family is one more row of CASES. The columns of all cases come from one generator of rows: two groups that lie apart in every kind of
column, with holes anywhere. A case goes the way of a real fit, profile, schema, encoding, so the laws hold for what users get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em import specification
from dask_em.data.encode import encode_fit
from dask_em.data.profile import profile
from dask_em.data.schema import Design, Schema
from dask_em.em import seeding
from dask_em.families.covariance import FULL, MODELS
from dask_em.mixture import Mixture, Parameters
from dask_em.model import FittedMixture
from dask_em.scan import Block, Sums
from dask_em.specification import covariance_model
from tests.oracle import Data, Params

GAUSSIAN, COUNTS, CATEGORIES = ("g0", "g1", "g2"), ("y0", "y1"), ("c0", "c1")
COINS: tuple[tuple[str, str | int], ...] = (("s0", "t0"), ("s1", 5))


@dataclass(frozen=True)
class Case:
    """A model, and the share of cells that its table lacks."""

    name: str
    roles: dict[str, Any]
    holes: float = 0.2
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def expected(self) -> bool:
        return self.settings.get("missing") == "expected"

    def design(self, weight: str | None = None) -> Design:
        return Design(**self.roles, weight=weight)

    def table(self, rng: np.random.Generator, n: int) -> pa.Table:
        """Rows with this case's columns, and holes."""
        columns = rows(rng, n)
        names = self.design().columns
        return pa.table({name: _with_holes(rng, columns[name], self.holes, name) for name in names})

    def model(self, table: pa.Table, prior: str | None, weight: str | None = None) -> Model:
        """What a fit makes of the table before its first scan."""
        design = self.design(weight)
        found = profile(table, design)
        schema = specification.make_schema(design, found)
        settings = specification.Settings(prior=prior, **self.settings)  # type: ignore[arg-type]
        return Model(table, schema, specification.make_mixture(schema, found, settings), self.expected)


def _gaussian(covariance_type: str, columns: tuple[str, ...] = GAUSSIAN) -> tuple[dict[str, Any], dict[str, Any]]:
    pattern = covariance_model(covariance_type) in FULL
    return {"gaussian": columns, "pattern": pattern}, {"covariance_type": covariance_type}


def _case(name: str, roles: dict[str, Any], settings: dict[str, Any] | None = None, holes: float = 0.2) -> Case:
    return Case(name, roles, holes, settings or {})


NAMED = ("VVV", "EEE", "VVI", "VII", "EII")

CASES = (
    _case("VVV complete", *_gaussian("full"), holes=0.0),
    _case("VVV", *_gaussian("full")),
    _case("VVV one column", *_gaussian("full", ("g0",))),
    _case("EEE complete", *_gaussian("tied"), holes=0.0),
    _case("EEE", *_gaussian("tied")),
    _case("VVI", *_gaussian("diag")),
    _case("VII", *_gaussian("spherical")),
    _case("EII", *_gaussian("EII")),
    *(_case(f"{model} complete", *_gaussian(model), holes=0.0) for model in MODELS if model not in NAMED),
    *(_case(model, *_gaussian(model)) for model in MODELS if model not in NAMED),
    _case("categorical", {"categorical": CATEGORIES}),
    _case("poisson", {"poisson": COUNTS}),
    _case("binomial", {"binomial": COINS}),
    _case("binomial expected", {"binomial": COINS}, {"missing": "expected"}),
    _case(
        "product",
        {"gaussian": GAUSSIAN, "categorical": CATEGORIES, "poisson": COUNTS, "binomial": COINS},
    ),
    _case(
        "product VVI",
        {"gaussian": GAUSSIAN, "pattern": False, "categorical": CATEGORIES, "poisson": COUNTS},
        {"covariance_type": "diag"},
    ),
)


def rows(rng: np.random.Generator, n: int) -> dict[str, NDArray[Any]]:
    """Columns of every kind from two groups, in units of their own."""
    group = (rng.random(n) < 0.4).astype(np.int64)
    root = np.array([[[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 1.1]], [[0.6, 0, 0], [-0.4, 0.7, 0], [0.1, 0.5, 0.9]]])
    middle = np.array([[0.0, 0, 0], [3.0, -2, 2]])
    standard = middle[group] + np.einsum("nij,nj->ni", root[group], rng.standard_normal((n, 3)))
    numbers = np.array([5.0, -20.0, 0.3]) + standard * np.array([2.0, 0.1, 30.0])
    trials = rng.integers(1, 9, n)
    return {
        **dict(zip(GAUSSIAN, numbers.T)),
        "c0": np.array(["low", "middle", "high"], dtype=object)[_level(rng, [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], group)],
        "c1": _level(rng, [[0.8, 0.2], [0.25, 0.75]], group),
        "y0": rng.poisson(np.array([1.0, 6.0])[group]).astype(float),
        "y1": rng.poisson(np.array([4.0, 2.0])[group]).astype(float),
        "s0": rng.binomial(trials, np.array([0.2, 0.8])[group]).astype(float),
        "t0": trials.astype(float),
        "s1": rng.binomial(5, np.array([0.7, 0.3])[group]).astype(float),
    }


def _level(rng: np.random.Generator, shares: list[list[float]], group: NDArray[np.int64]) -> NDArray[np.int64]:
    edges = np.cumsum(np.array(shares), axis=1)[group][:, :-1]
    return (rng.random(len(group))[:, None] > edges).sum(axis=1)


def _with_holes(rng: np.random.Generator, column: NDArray[Any], share: float, name: str) -> pa.Array:
    # Trials keep theirs: "expected" needs them where the successes are missing.
    absent = (rng.random(len(column)) < share) & (name != "t0")
    return pa.array(column.tolist(), mask=absent)


@dataclass(frozen=True)
class Model:
    """A mixture on a table, with short ways to what the laws speak of."""

    table: pa.Table
    schema: Schema
    mixture: Mixture
    expected: bool

    def blocks(self, n_blocks: int = 1, table: pa.Table | None = None) -> list[Block]:
        """The rows encoded for a fit."""
        own = self.table if table is None else table
        return encode_fit(own, self.schema, self.mixture.patterns, n_blocks, self.expected)

    @cached_property
    def block(self) -> Block:
        return self.blocks()[0]

    def start(self, sizes: Sequence[int], seed: int = 0) -> Parameters:
        """Seeded parameters, candidates side by side."""
        rng = np.random.default_rng(seed)
        labels = [seeding.labels(self.mixture.families, self.block, k, "kmeans++", rng) for k in sizes]
        return specification.parameters_of_labels(self.mixture, self.block, np.array(labels), sizes)

    def e_step(self, parameters: Parameters, sizes: Sequence[int], blocks: Sequence[Block] | None = None) -> Sums:
        """Expected statistics of all rows."""
        return e_step(self.mixture, parameters, sizes, [self.block] if blocks is None else blocks)

    def objective(self, parameters: Parameters, sizes: Sequence[int]) -> NDArray[np.float64]:
        own = self.e_step(parameters, sizes).log_likelihood + self.mixture.log_prior(parameters, sizes)
        return np.asarray(own)

    def fitted(self, parameters: Parameters) -> FittedMixture:
        return FittedMixture(self.schema.for_rows(), self.mixture, parameters)


def e_step(mixture: Mixture, parameters: Parameters, sizes: Sequence[int], blocks: Sequence[Block]) -> Sums:
    """Sums of the blocks, added and lifted as a scan does it."""
    step = mixture.e_step(parameters, sizes)
    total = step(blocks[0])
    for block in blocks[1:]:
        total = total + step(block)  # type: ignore[operator]
    return mixture.lift(total, parameters, sizes)


def oracle_data(table: pa.Table, schema: Schema) -> Data:
    """The same rows as the oracle takes them."""
    design, n = schema.design, table.num_rows

    def stack(columns: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array(columns).T if columns else np.empty((n, 0))

    def number(name: str | int) -> NDArray[np.float64]:
        if isinstance(name, int):
            return np.full(n, float(name))
        return np.array([np.nan if v is None else v for v in table.column(name).to_pylist()], dtype=float)

    def code(name: str, levels: tuple[Any, ...]) -> NDArray[np.float64]:
        return np.array([np.nan if v is None else levels.index(v) for v in table.column(name).to_pylist()])

    return Data(
        gaussian=stack([number(c) for c in design.gaussian]),
        categorical=stack([code(c, levels) for c, levels in zip(design.categorical, schema.levels)]),
        poisson=stack([number(c) for c in design.poisson]),
        successes=stack([number(s) for s, _ in design.binomial]),
        trials=stack([number(t) for _, t in design.binomial]),
    )


def oracle_params(fitted: FittedMixture) -> Params:
    """Parameters in the units of the table."""
    return Params(
        fitted.parameters.weights,
        fitted.means,
        fitted.covariances,
        tuple(fitted.category_probabilities.values()),
        fitted.rates,
        fitted.success_probabilities,
    )

"""What every family must obey, whatever its formulas: each law is written once and runs over the table of cases."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.linalg import expm

from dask_em import fitting, kernels, mixture, specification
from dask_em.data.schema import Design
from dask_em.data.sources import open_source, with_columns
from dask_em.execution.local import LocalExecutor
from dask_em.families import DiagonalGaussian, Family, Gaussian
from dask_em.families.covariance import IN_USER_UNITS
from dask_em.mixture import Mixture, Parameters
from dask_em.scan import Sums
from tests import oracle
from tests.laws.table import CASES, Case, Model, e_step, oracle_data, oracle_params

SIZES = (2, 3, 1)

Array = NDArray[np.float64]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
every_prior = pytest.mark.parametrize("prior", [None, "weak"], ids=["prior 0", "prior 1"])


def made(case: Case, prior: str | None, n: int = 80, seed: int = 1) -> Model:
    return case.model(case.table(np.random.default_rng(seed), n), prior)


def arrays(value: Any) -> list[Array]:
    """Every array of parameters or sums, in order."""
    if isinstance(value, Parameters):
        return [value.weights, *(getattr(p, f.name) for p in value.parts for f in fields(p))]
    return [value.log_likelihood, value.weight, *value.stats]


def assert_same(a: Any, b: Any, rtol: float = 1e-10) -> None:
    for one, two in zip(arrays(a), arrays(b), strict=True):
        # Cells that sum to nothing are noise, relative to the largest or to the standardised units.
        assert_allclose(one, two, rtol=rtol, atol=rtol * max(np.abs(one).max(initial=0.0), 0.1))


# --- sums --------------------------------------------------------------------------------------------------------


@every_case
@every_prior
def test_sums_are_additive_over_any_split_of_rows(case: Case, prior: str | None) -> None:
    model = made(case, prior)
    parameters = model.start(SIZES)
    whole = model.e_step(parameters, SIZES)

    @settings(max_examples=8)
    @given(st.lists(st.integers(0, model.table.num_rows), max_size=5))
    def check(cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), model.table.num_rows]
        parts = [model.table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
        blocks = [block for part in parts for block in model.blocks(1, part)]
        assert_same(model.e_step(parameters, SIZES, blocks), whole)

    check()


@every_case
@every_prior
def test_an_integer_weight_is_a_repetition(case: Case, prior: str | None) -> None:
    rng = np.random.default_rng(2)
    table, weight = case.table(rng, 40), rng.integers(0, 4, 40)
    repeated = case.model(table.take(np.repeat(np.arange(40), weight)), prior)
    weighted = case.model(table.append_column("w", pa.array(weight)), prior, weight="w")
    assert_allclose(weighted.schema.shift, repeated.schema.shift, rtol=1e-12)
    assert_allclose(weighted.schema.scale, repeated.schema.scale, rtol=1e-12)
    parameters = repeated.start((2,))
    one, two = (m.e_step(parameters, (2,)) for m in (weighted, repeated))
    assert_same(one, two)
    assert_same(weighted.mixture.m_step(one, parameters, (2,)), repeated.mixture.m_step(two, parameters, (2,)))
    assert_allclose(
        weighted.mixture.log_prior(parameters, (2,)), repeated.mixture.log_prior(parameters, (2,)), rtol=1e-10
    )


@every_case
@every_prior
def test_a_fully_missing_row_adds_nothing(case: Case, prior: str | None) -> None:
    model = made(case, prior)
    parameters = model.start(SIZES)
    silent = {f.name: pa.nulls(3, f.type) for f in model.table.schema}
    if "t0" in silent:
        silent["t0"] = pa.array([4.0, 1.0, 0.0])
    more = case.model(pa.concat_tables([model.table, pa.table(silent)]), prior)
    before, after = model.e_step(parameters, SIZES), more.e_step(parameters, SIZES)
    assert_allclose(after.log_likelihood, before.log_likelihood, rtol=1e-13)
    if not case.expected:
        assert_same(after, before, rtol=1e-13)
        return
    # The textbook's version counts the coin that was tossed unseen: 3 rows, with 5 trials each in the second column.
    assert after.weight.sum() - before.weight.sum() == pytest.approx(3 * len(SIZES))
    assert (after.stats[0] - before.stats[0])[:, 1].sum() == pytest.approx(15 * len(SIZES))


@every_case
def test_candidates_together_are_each_alone(case: Case) -> None:
    model = made(case, "weak")
    together = model.start(SIZES)
    sums = model.e_step(together, SIZES)
    after = model.mixture.m_step(sums, together, SIZES)
    first = 0
    for c, k in enumerate(SIZES):
        own = np.arange(first, first + k)
        first += k
        alone = together.take(own)
        single = model.e_step(alone, (k,))
        assert_same(single, Sums(sums.log_likelihood[[c]], sums.weight[own], tuple(s[own] for s in sums.stats)))
        assert_same(model.mixture.m_step(single, alone, (k,)), after.take(own))
        assert_allclose(model.mixture.log_prior(alone, (k,)), model.mixture.log_prior(together, SIZES)[[c]], rtol=1e-12)


@every_case
def test_order_does_not_matter(case: Case) -> None:
    model, rng = made(case, None), np.random.default_rng(4)
    parameters = model.start((3,))
    sums = model.e_step(parameters, (3,))
    shuffled = model.table.take(rng.permutation(model.table.num_rows))
    assert_same(model.e_step(parameters, (3,), model.blocks(1, shuffled)), sums)
    assert_same(model.e_step(parameters, (3,), model.blocks(4)[::-1]), sums)
    order = np.array([2, 0, 1])
    turned = model.e_step(parameters.take(order), (3,))
    assert_same(turned, Sums(sums.log_likelihood, sums.weight[order], tuple(s[order] for s in sums.stats)))
    assert_same(
        model.mixture.m_step(turned, parameters.take(order), (3,)),
        model.mixture.m_step(sums, parameters, (3,)).take(order),
    )


# --- densities ---------------------------------------------------------------------------------------------------


@every_case
@every_prior
def test_densities_are_the_marginals_of_what_is_seen(case: Case, prior: str | None) -> None:
    model = made(case, prior, n=60)
    fitted = model.fitted(model.start((3,)))
    data, params = oracle_data(model.table, model.schema), oracle_params(fitted)
    responsibilities, log_density = fitted.score(model.table)
    assert_allclose(log_density, oracle.score_samples(data, params), rtol=1e-9, atol=1e-9)
    assert_allclose(responsibilities, oracle.responsibilities(data, params), rtol=1e-8, atol=1e-12)
    total = model.e_step(fitted.parameters, (3,)).log_likelihood[0]
    assert total == pytest.approx(oracle.log_likelihood(data, params), rel=1e-10)
    assert model.mixture.log_prior(fitted.parameters, (3,))[0] == (
        0.0 if prior is None else pytest.approx(in_our_units(model, data, params), rel=1e-9)
    )


def in_our_units(model: Model, data: oracle.Data, params: oracle.Params) -> float:
    """The oracle's log prior; the determinants of standardised covariances differ from its own by the columns' scales."""
    return oracle.log_prior(data, params) + len(params.weights) * float(np.log(model.schema.scale).sum())


@every_case
def test_samples_lead_back_to_where_they_came_from(case: Case) -> None:
    model = made(case, None, n=2000, seed=5)
    truth = model.fitted(model.start((2,)))
    columns, components = truth.sample(4000, np.random.default_rng(6))
    again = pa.table({name: pa.array(values.tolist()) for name, values in columns.items()})
    source = open_source(again.append_column("start", pa.array(components)))
    design = replace(case.design(), labels="start")
    own = specification.Settings(prior=None, init="labels", tol=1e-9, **case.settings)
    found = fitting.fit(source, design, own, [2], LocalExecutor(1))
    fitted = found.fitted(found.best(2))
    fresh, _ = truth.sample(4000, np.random.default_rng(7))
    table = pa.table({name: pa.array(values.tolist()) for name, values in fresh.items()})
    loss = truth.score(table)[1] - fitted.score(table)[1]
    # The expected loss is half a parameter a row, and the truth cannot be beaten by more than noise.
    allowed = truth.n_parameters / 4000 + 4 * loss.std() / np.sqrt(4000)
    assert abs(loss.mean()) < allowed
    one, two = (standardised(oracle_params(m), np.asarray(truth.schema.scale)) for m in (fitted, truth))
    for found_array, true_array in zip(one.arrays(), two.arrays(), strict=True):
        assert_allclose(found_array, true_array, rtol=0.12, atol=0.12)


def standardised(params: oracle.Params, scale: Array) -> oracle.Params:
    if params.means is None or params.covariances is None:
        return params
    return replace(params, means=params.means / scale, covariances=params.covariances / (scale[:, None] * scale))


# --- steps -------------------------------------------------------------------------------------------------------


@every_case
@every_prior
def test_a_step_never_lowers_the_objective(case: Case, prior: str | None) -> None:
    @settings(max_examples=12)
    @given(seed=st.integers(0, 2**32), n=st.integers(6, 40), k=st.integers(1, 4), decimals=st.sampled_from([0, 1, 9]))
    def check(seed: int, n: int, k: int, decimals: int) -> None:
        table = coarse(case.table(np.random.default_rng(seed), n), decimals)
        model = usable(case, table, prior)
        parameters, before = model.start((k,), seed), -np.inf
        for _ in range(8):
            if model.mixture.collapsed(parameters).any():
                return
            sums = model.e_step(parameters, (k,))
            now = float((sums.log_likelihood + model.mixture.log_prior(parameters, (k,)))[0])
            assert now >= before - 1e-9 * (1 + abs(before))
            parameters, before = model.mixture.m_step(sums, parameters, (k,)), now

    check()


@every_case
def test_a_projection_is_in_the_model_and_em_climbs_from_it(case: Case) -> None:
    """Elsewhere EM need not climb: its next step has to come back first."""
    model, sizes = case.model(case.table(np.random.default_rng(6), 200), "weak"), [2, 3]
    mixture = model.mixture
    x = mixture.coordinates(model.start(sizes), sizes)
    x += 0.4 * np.random.default_rng(0).normal(size=x.shape)
    near = mixture.at(x, model.start(sizes), sizes)
    again = mixture.project(near, sizes)
    for one, two in zip(near.parts, again.parts, strict=True):
        for name in one.__dataclass_fields__:
            assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-6, atol=1e-9)
    sums = model.e_step(near, sizes)
    after = mixture.m_step(sums, near, sizes)
    before = sums.log_likelihood + mixture.log_prior(near, sizes)
    assert (model.e_step(after, sizes).log_likelihood + mixture.log_prior(after, sizes) > before).all()


def coarse(table: pa.Table, decimals: int) -> pa.Table:
    """Rounded numbers: ties, and components that would collapse onto them."""
    columns = [
        pa.compute.round(c, ndigits=decimals) if pa.types.is_floating(c.type) else c for c in table.itercolumns()
    ]
    return pa.table(columns, names=table.column_names)


def usable(case: Case, table: pa.Table, prior: str | None) -> Model:
    """The model of a table that a fit would not refuse."""
    for name in case.design().features:
        seen = table.column(name).drop_null().unique()
        assume(len(seen) >= (2 if name in case.design().gaussian else 1))
    return case.model(table, prior)


@every_case
@every_prior
def test_the_m_step_is_stationary(case: Case, prior: str | None) -> None:
    model, rng = made(case, prior), np.random.default_rng(8)
    old = model.start(SIZES)
    for _ in range(2):
        sums = model.e_step(old, SIZES)
        best = model.mixture.m_step(sums, old, SIZES)
        top, step = expected_objective(model.mixture, sums, best), 1e-4
        for _ in range(6):
            direction = [rng.standard_normal(a.shape) for a in arrays(best)]
            up, down = (
                expected_objective(model.mixture, sums, moved(model.mixture, best, direction, s)) for s in (step, -step)
            )
            scale = sums.weight.sum()
            assert max(up, down) <= top + 1e-12 * abs(top)
            assert abs(up - down) / (2 * step) <= 1e-5 * scale, "the gradient is not 0"
            assert up + down - 2 * top < -1e-12 * scale, "the step was too small to be seen"
        old = best


def expected_objective(mix: Mixture, sums: Sums, parameters: Parameters) -> float:
    """Expected complete-data log-likelihood plus log prior, from the sums and the densities of complete rows."""
    total = float(sums.weight @ np.log(parameters.weights)) + float(mix.log_prior(parameters, SIZES).sum())
    for family, part, stats in zip(mix.families, parameters.parts, sums.stats, strict=True):
        plan = family.plan(part, np.ones((1, family.n_columns if family.by_pattern else 0), dtype=bool))
        assert not plan.origins
        own = stats
        if family.by_pattern:
            total += float(stats[:, 0] @ plan.constant[0])
            own = stats[:, 1:]
        total += float((own * plan.weights[0][:, : own.shape[1]]).sum())
    return total


def moved(mix: Mixture, parameters: Parameters, direction: Sequence[Array], step: float) -> Parameters:
    """Parameters a small step away, inside what the model allows."""
    given = iter(direction)
    bounds = np.cumsum([0, *SIZES])

    def shared(values: Array) -> Array:
        """One value for all components of a candidate."""
        return np.concatenate([np.repeat(values[a : a + 1], b - a, axis=0) for a, b in itertools.pairwise(bounds)])

    weights = parameters.weights * np.exp(step * next(given))
    weights = np.concatenate([weights[a:b] / weights[a:b].sum() for a, b in itertools.pairwise(bounds)])
    parts = []
    for family, part in zip(mix.families, parameters.parts, strict=True):
        changes: dict[str, Array] = {}
        for f in fields(part):
            value, way = getattr(part, f.name), step * next(given)
            if f.name == "means":
                changes[f.name] = value + way
            elif f.name in ("covariances", "variances"):
                volume, shape, orientation = tuple(family.model)
                diagonal = f.name == "variances"
                each = way if diagonal else np.diagonal(way, axis1=1, axis2=2)
                size = shared(each[:, :1]) if volume == "E" else each[:, :1]
                stretch = each - each.mean(axis=1, keepdims=True)
                stretch = shared(stretch) if shape == "E" else stretch if shape == "V" else 0.0
                if diagonal:
                    changes[f.name] = value * np.exp(size + stretch)
                    continue
                unit = np.asarray(family.scale) if family.model in IN_USER_UNITS else np.ones(value.shape[1])
                both = unit[:, None] * unit
                along, axes = np.linalg.eigh(value * both)
                # Turned about the axes of one of them, less where the two are very unlike.
                base, around = (shared(own) if orientation == "E" else own for own in (along, axes))
                ratio = np.sqrt(base[:, :, None] / base[:, None, :])
                turn = (way - np.swapaxes(way, 1, 2)) * np.minimum(ratio, 1 / ratio)
                turn = shared(turn) if orientation == "E" else turn
                axes = around @ expm(turn) @ np.swapaxes(around, 1, 2) @ axes
                after = (axes * (along * np.exp(size + stretch))[:, None, :]) @ np.swapaxes(axes, 1, 2)
                changes[f.name] = after / both
            elif f.name == "rates":
                changes[f.name] = value * np.exp(way)
            elif hasattr(family, "n_levels"):
                odds = value * np.exp(way)
                sums = np.add.reduceat(odds, family.offsets, axis=1)
                changes[f.name] = odds / np.repeat(sums, family.n_levels, axis=1)
            else:
                odds = value / (1 - value) * np.exp(way)
                changes[f.name] = odds / (1 + odds)
        parts.append(replace(part, **changes))
    return Parameters(weights, tuple(parts))


@every_case
def test_nothing_given_is_changed(case: Case) -> None:
    model = made(case, "weak")
    parameters = model.start(SIZES)
    block = model.block
    given = [*arrays(parameters), *block.values, block.weight, block.base, block.observed, block.runs]
    before = [a.copy() for a in given]
    for a in given:
        a.flags.writeable = False
    sums = model.e_step(parameters, SIZES)
    kept = [a.copy() for a in arrays(sums)]
    for a in arrays(sums):
        a.flags.writeable = False
    model.mixture.m_step(sums, parameters, SIZES)
    model.mixture.posterior(parameters.take(np.arange(2)), block)
    for now, then in zip([*given, *arrays(sums)], [*before, *kept], strict=True):
        assert_array_equal(now, then)


# --- fast paths --------------------------------------------------------------------------------------------------


@every_case
def test_patterns_in_slices_are_patterns_at_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(case, "weak")
    parameters = model.start(SIZES)
    at_once = model.e_step(parameters, SIZES)
    scores = model.fitted(parameters.take(np.arange(2))).score(model.table)
    listed = replace(model.mixture, patterns=None)
    unlisted = Model(model.table, model.schema, listed, model.expected)
    assert_same(unlisted.e_step(parameters, SIZES, unlisted.blocks(3)), at_once)
    monkeypatch.setattr(mixture, "PLAN_BYTES", 1)
    monkeypatch.setattr(mixture, "SLICE_BYTES", 1)
    assert_same(unlisted.e_step(parameters, SIZES, unlisted.blocks(3)), at_once)
    assert_same(model.e_step(parameters, SIZES, model.blocks(3)), at_once)
    for one, two in zip(model.fitted(parameters.take(np.arange(2))).score(model.table), scores, strict=True):
        assert_allclose(one, two, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("case", [c for c in CASES if "gaussian" in c.roles], ids=lambda c: c.name)
def test_the_centred_form_is_the_expanded_form(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(case, "weak")
    parameters = model.start(SIZES)
    results = []
    for limit in (np.inf, 0.0):
        for module in ("gaussian", "diagonal"):
            monkeypatch.setattr(f"dask_em.families.{module}.EXPANDED_LIMIT", limit)
        fresh = parameters.take(np.arange(sum(SIZES)))  # plans are kept for the parameters that they belong to
        sums = model.e_step(fresh, SIZES)
        after = model.mixture.m_step(sums, fresh, SIZES)
        results.append((sums.log_likelihood, after, model.fitted(fresh.take(np.arange(2))).score(model.table)))
    (ll, after, scores), (centred_ll, centred_after, centred_scores) = results
    assert_allclose(centred_ll, ll, rtol=1e-12)
    assert_same(centred_after, after, rtol=1e-11)
    for one, two in zip(centred_scores, scores, strict=True):
        assert_allclose(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(not kernels.AVAILABLE, reason="numba is not installed")
@pytest.mark.parametrize(
    ("case", "many"),
    [(c, 12) for c in CASES] + [(c, 2) for c in CASES if c.design().categorical],
    ids=lambda it: it.name if isinstance(it, Case) else f"{it} levels",
)
def test_the_compiled_scan_is_the_plain_one(case: Case, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MANY_LEVELS", many)
    table = case.table(np.random.default_rng(12), 700)  # some tiles, and a rest
    weight = np.random.default_rng(13).integers(0, 3, 700) + 0.5
    model = case.model(table.append_column("w", pa.array(weight)), "weak", weight="w")
    parameters = model.start(SIZES)
    parameters.weights[:] = np.array([1.0, 0.0, 0.2, 0.5, 0.3, 1.0])
    plain = model.e_step(parameters, SIZES)
    monkeypatch.setattr(kernels, "WORTHWHILE_PATTERNS", 0)
    model = Model(model.table, model.schema, replace(model.mixture, compiled=True), model.expected)
    listed = Model(model.table, model.schema, replace(model.mixture, patterns=None), model.expected)
    fresh = parameters.take(np.arange(sum(SIZES)))
    assert_same(model.e_step(fresh, SIZES, model.blocks(2)), plain)
    monkeypatch.setattr(mixture, "PLAN_BYTES", 1 << 12)
    monkeypatch.setattr(mixture, "SLICE_BYTES", 1 << 12)
    assert_same(listed.e_step(fresh, SIZES, listed.blocks(2)), plain)


def precise_log_density(x: Array, mean: Array, covariance: Array) -> NDArray[np.longdouble]:
    """log N(x | mean, covariance) of the rows of x, in extended precision, by elimination."""
    wide = np.longdouble
    d = len(mean)
    root = np.zeros((d, d), dtype=wide)
    for j in range(d):
        for i in range(j, d):
            left = wide(covariance[i, j]) - root[i, :j] @ root[j, :j]
            root[i, j] = np.sqrt(left) if i == j else left / root[j, j]
    z = np.zeros((len(x), d), dtype=wide)
    for j in range(d):
        z[:, j] = (x[:, j].astype(wide) - wide(mean[j]) - z[:, :j] @ root[j, :j]) / root[j, j]
    pi = wide("3.14159265358979323846264338327950288")
    return -(z * z).sum(axis=1) / 2 - np.log(np.diag(root)).sum() - d * np.log(2 * pi) / 2


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="this machine has no extended precision")
@pytest.mark.parametrize("tight", 10.0 ** np.arange(0, -9, -1))
@pytest.mark.parametrize("model", ["VVV", "VVI"])
def test_a_tight_component_far_away_keeps_nine_digits(model: str, tight: float) -> None:
    rng = np.random.default_rng(9)
    mean = np.array([3.0, -2.0, 1.5])
    root = np.array([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 1.1]]) * (np.eye(3) if model == "VVI" else 1.0)
    x = mean + tight * rng.standard_normal((200, 3)) @ root.T
    covariance = tight**2 * root @ root.T
    family: Family = Gaussian("VVV", 3)
    part: Any = family.margin(2)
    one = {"means": np.stack([mean, np.zeros(3)])}
    if model == "VVI":
        family = DiagonalGaussian("VVI", (1.0, 1.0, 1.0))
        part = replace(family.margin(2), **one, variances=np.stack([np.diag(covariance), np.ones(3)]))
    else:
        part = replace(part, **one, covariances=np.stack([covariance, np.eye(3)]))
    mix = Mixture((family,), np.ones((1, 3), dtype=bool))
    block = fitting.Block((np.ascontiguousarray(x.T),), np.ones(200), np.zeros(200), mix.patterns, np.array([0, 200]))
    # All weight on the far component: the density of the mixture is its own.
    parameters = Parameters(np.array([1.0, 0.0]), (part,))
    _, log_density = mix.posterior(parameters, block)
    exact = precise_log_density(x, mean, covariance)
    assert np.abs((log_density - exact) / (np.abs(exact) + 1)).max() < 1e-9
    # Its scatter must be that of the rows, too.
    sums = e_step(mix, parameters, (2,), [block])
    after = mix.m_step(sums, parameters, (2,)).parts[0]
    own = np.cov(x.astype(np.longdouble).T, ddof=0).astype(float)
    found = after.covariances[0] if model == "VVV" else np.diag(after.variances[0])
    expected = own if model == "VVV" else np.diag(np.diag(own))
    assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * tight**2)
    assert_allclose(after.means[0], x.mean(axis=0), rtol=1e-13)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical", "EII"])
@pytest.mark.parametrize("prior", [None, "weak"])
@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (0.0, 2.0**-40), (-(2.0**33), 2.0**13)])
def test_units_and_offsets_only_shift_the_answer(
    covariance_type: str, prior: str | None, offset: float, scale: float
) -> None:
    rng = np.random.default_rng(10)
    x = np.concatenate([rng.standard_normal((60, 2)), rng.standard_normal((40, 2)) * 0.5 + 3])
    x = np.round(x * 2**18) / 2**18  # so that adding the offset loses nothing
    x[rng.random(x.shape) < 0.1] = np.nan
    design = Design(gaussian=("x0", "x1"), pattern=covariance_type in ("full", "tied"), labels="start")
    own = specification.Settings(
        prior=prior,  # type: ignore[arg-type]
        covariance_type=covariance_type,
        init="labels",
        tol=1e-12,
    )

    def fit(values: Array) -> tuple[Any, float]:
        source = with_columns(open_source(values), start=np.repeat([0, 1], [60, 40]))
        found = fitting.fit(source, design, own, [2], LocalExecutor(1))
        return found.fitted(found.best(2)), found.best(2).log_likelihoods[-1]

    plain, log_likelihood = fit(x)
    other, moved_log_likelihood = fit(offset + scale * x)
    assert_allclose(other.parameters.weights, plain.parameters.weights, rtol=1e-6)
    assert_allclose(other.covariances / scale**2, plain.covariances, rtol=1e-6, atol=1e-9)
    ulp = np.spacing(abs(offset)) / scale if offset else 0.0
    assert_allclose((other.means - offset) / scale, plain.means, atol=1e-6 + ulp)
    cells = np.count_nonzero(~np.isnan(x))
    assert moved_log_likelihood + cells * np.log(scale) == pytest.approx(log_likelihood, rel=1e-9)

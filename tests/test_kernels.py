"""The compiled scan gives the sums of the plain one."""

from dataclasses import replace

import numpy as np
import pytest

from dask_em import kernels
from dask_em.families import Gaussian
from dask_em.families.gaussian import GaussianParams
from dask_em.mixture import Mixture, Parameters
from dask_em.scan import Block, PatternSums

pytestmark = pytest.mark.skipif(not kernels.AVAILABLE, reason="numba is not installed")

SHAPES = [((1,), 1), ((2,), 3), ((8,), 10), ((3, 4), 4), ((1, 2, 5), 2), ((17,), 12), ((5,), 7)]


def problem(sizes, d, missing):
    """A block of awkward size with weights of 0, patterns of one row and of none, and parameters near the data."""
    rng = np.random.default_rng(len(sizes) * 100 + d)
    n = 2771
    values = rng.normal(size=(d, n)) * 2
    seen = rng.random((d, n)) >= missing
    key = (seen * (1 << np.arange(d))[:, None]).sum(axis=0)
    order = np.argsort(key, kind="stable")
    found, counts = np.unique(key[order], return_counts=True)
    observed = (found[:, None] >> np.arange(d)) & 1 == 1
    absent = len(observed) // 2
    observed = np.insert(observed, absent, observed[absent], axis=0)
    counts = np.insert(counts, absent, 0)
    weight = rng.integers(0, 3, n).astype(float)
    block = Block(((values * seen)[:, order],), weight, rng.normal(size=n), observed, np.cumsum([0, *counts]))
    k = sum(sizes)
    roots = rng.normal(size=(k, d, d)) / np.sqrt(d)
    weights = np.concatenate([rng.dirichlet(np.ones(size)) for size in sizes])
    part = GaussianParams(rng.normal(size=(k, d)), roots @ roots.swapaxes(1, 2) + 0.5 * np.eye(d))
    return Mixture((Gaussian("VVV", d),), observed), Parameters(weights, (part,)), block


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(("sizes", "d"), SHAPES)
def test_compiled_equals_plain(sizes, d, missing, monkeypatch):
    mixture, parameters, block = problem(sizes, d, missing)
    results = []
    for compiled, limit in ((False, np.inf), (True, 0.0)):
        monkeypatch.setattr(kernels, "WORTHWHILE_PATTERNS", limit)
        fresh = Parameters(parameters.weights.copy(), parameters.parts)
        total = replace(mixture, compiled=compiled).e_step(fresh, sizes)(block)
        results.append((total, mixture.lift(total, fresh, sizes)))
    (plain, plain_lifted), (compiled, compiled_lifted) = results
    if isinstance(plain, PatternSums):  # too many patterns to hold are lifted at once
        np.testing.assert_allclose(compiled.sums, plain.sums, rtol=1e-11, atol=1e-13 * np.abs(plain.sums).max())
    np.testing.assert_allclose(compiled.log_likelihood, plain.log_likelihood, rtol=1e-13)
    np.testing.assert_allclose(
        compiled_lifted.stats[0], plain_lifted.stats[0], rtol=1e-11, atol=1e-13 * np.abs(plain_lifted.stats[0]).max()
    )


@pytest.mark.parametrize(("sizes", "d"), SHAPES)
def test_single_precision_keeps_six_digits(sizes, d):
    mixture, parameters, block = problem(sizes, d, 0.3)
    mixture = replace(mixture, compiled=True)
    near = np.float32(block.values[0])
    single, double = (
        mixture.lift(mixture.e_step(parameters, sizes)(replace(block, values=(values,))), parameters, sizes)
        for values in (near, near.astype(float))
    )
    np.testing.assert_allclose(single.log_likelihood, double.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(single.stats[0], double.stats[0], atol=2e-6 * np.abs(double.stats[0]).max())
    assert (single.stats[0] != double.stats[0]).any()


def test_large_parameters_are_scanned_in_double_precision():
    mixture, parameters, block = problem((2,), 3, 0.0)
    mixture = replace(mixture, compiled=True)
    part = parameters.parts[0]
    tight = Parameters(parameters.weights, (replace(part, covariances=part.covariances * 1e-4),))
    near = np.float32(block.values[0])
    single, double = (
        mixture.lift(mixture.e_step(tight, (2,))(replace(block, values=(values,))), tight, (2,))
        for values in (near, near.astype(float))
    )
    np.testing.assert_array_equal(single.stats[0], double.stats[0])


def test_exponential_is_exact_to_two_units_in_the_last_place():
    from dask_em import compiled

    x = -np.concatenate([[0.0, 1e-300, 1e-17], np.geomspace(1e-12, 699.9, 5000), np.linspace(0, 40, 5000)])
    out, scratch = x.copy(), np.empty_like(x)
    compiled._exponential(out, len(x), scratch, scratch.view(np.int64))
    exact = np.exp(x)
    assert np.abs(out / exact - 1).max() < 4.5e-16


def test_exponential_in_single_precision():
    from dask_em import compiled

    x = -np.concatenate([[0.0], np.geomspace(1e-7, 79.9, 5000)]).astype(np.float32)
    out, scratch = x.copy(), np.empty_like(x)
    compiled._exponential_single(out, len(x), scratch, scratch.view(np.int32))
    assert np.abs(out / np.exp(x.astype(float)) - 1).max() < 2.5e-7


def test_a_row_that_nothing_explains_leaves_no_trace():
    from dask_em import compiled

    x, scratch = np.array([-1e4, -800.0, -np.inf]), np.empty(3)
    compiled._exponential(x, 3, scratch, scratch.view(np.int64))
    assert (x < 1e-300).all()
    assert (x >= 0).all()


@pytest.mark.parametrize("d", [1, 2, 6, 11])
def test_precisions_agree_with_lapack(d, monkeypatch):
    rng = np.random.default_rng(d)
    roots = rng.normal(size=(4, d, d))
    covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(d)
    observed = rng.random((9, d)) < 0.6
    observed[0], observed[1] = True, False
    found = []
    for limit in (np.inf, 0.0):
        monkeypatch.setattr(kernels, "WORTHWHILE_PATTERNS", limit)
        found.append(kernels.precisions(covariances, observed))
    (plain, plain_det), (compiled, compiled_det) = found
    np.testing.assert_allclose(compiled, plain, rtol=1e-9, atol=1e-9 * np.abs(plain).max())
    np.testing.assert_allclose(compiled_det, plain_det, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("d", [1, 3, 4, 7, 8, 12, 16])
def test_sums_by_pattern_are_those_of_the_rows(d):
    """Whole blocks of columns and broken ones, cells that are NaN or null, more rows than a tile and more patterns in later tiles."""
    rng = np.random.default_rng(d)
    n, first = kernels.PATTERN_TILE + 1234, 3
    X, weight = rng.normal(size=(n, d)) + 5, rng.integers(0, 3, n).astype(float)
    seen = rng.random((n, d)) < np.where(np.arange(n) < n // 2, 0.9, 0.4)[:, None]
    columns = []
    for j in range(d):
        values, bits = np.append(np.full(first, 7.0), X[:, j]), np.append(np.ones(first, dtype=bool), seen[:, j])
        if j % 2:
            values[~bits] = np.nan
        valid = (
            np.zeros(0, np.uint8) if j % 2 else np.append(np.packbits(bits, bitorder="little"), np.zeros(2, np.uint8))
        )
        columns.append(kernels.Cells(values, valid, first))
    shift, scale = np.linspace(4, 6, d), np.linspace(1, 2, d)
    observed, rows, sums, infinite = kernels.sums_by_pattern(columns, weight, shift, scale)
    Z = np.where(seen, (X - shift) / scale, 0.0)
    upper = np.triu_indices(d)
    features = np.concatenate([np.ones((n, 1)), Z, Z[:, upper[0]] * Z[:, upper[1]]], axis=1) * weight[:, None]
    masks, place, counts = np.unique(seen, axis=0, return_inverse=True, return_counts=True)
    expected = np.zeros((len(masks), features.shape[1]))
    np.add.at(expected, place.reshape(-1), features)
    assert (observed == masks).all()
    assert (rows == counts).all()
    np.testing.assert_allclose(sums, expected, rtol=1e-11, atol=1e-11)
    assert not infinite.any()

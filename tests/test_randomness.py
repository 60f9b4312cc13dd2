"""Random numbers by counter: distributed as they should be, and a function of their words alone."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from dask_em import kernels
from dask_em.data.keys import row_keys
from dask_em.randomness import (
    BOOTSTRAP,
    DONOR,
    DRAW,
    POISSON_LIMITS,
    SIMULATION,
    bootstrap_counts,
    mix,
    uniforms,
    word_of,
)

PURPOSES = (BOOTSTRAP, DRAW, DONOR, SIMULATION)
N = 40_000


def keys(n: int = N, first: int = 0) -> np.ndarray:
    """Words of a row's position: the most regular input there is."""
    return row_keys(pa.table({"x": np.zeros(n)}), (), ("people", first))


def close_to(mean: float, deviation: float, n: int) -> object:
    """A mean of n numbers: within 5 standard errors, which one in a million misses."""
    return pytest.approx(mean, abs=5 * deviation / np.sqrt(n))


# --- uniforms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2**63])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_uniforms_are_uniform(purpose: int, seed: int) -> None:
    u = uniforms(mix(keys(), seed, purpose))
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert 0 < u.min() < u.max() < 1


def test_uniforms_never_reach_their_ends() -> None:
    ends = uniforms(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert 0 < ends[0] < 1e-15
    assert 1 - 1e-15 < ends[1] < 1


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numbers that must have nothing to do with each other."""
    words = keys()
    return {
        **{
            f"purposes {i} and {j}": (mix(words, 7, PURPOSES[i]), mix(words, 7, PURPOSES[j]))
            for i, j in itertools.combinations(range(len(PURPOSES)), 2)
        },
        "seeds": (mix(words, 7, DRAW), mix(words, 8, DRAW)),
        "columns": (mix(words, 7, DRAW, 0), mix(words, 7, DRAW, 1)),
        "counts": (mix(words, 7, DRAW, 0, 0), mix(words, 7, DRAW, 0, 1)),
        "column and count": (mix(words, 7, DRAW, 0, 1), mix(words, 7, DRAW, 1, 0)),
        "neighbours": (mix(words, 7, DRAW)[1:], mix(words, 7, DRAW)[:-1]),
        "integers as keys": (mix(np.arange(N, dtype=np.uint64), 7, DRAW), mix(np.arange(N, dtype=np.uint64), 8, DRAW)),
    }


@pytest.mark.parametrize("name", pairs())
def test_numbers_are_independent(name: str) -> None:
    one, two = (uniforms(words) for words in pairs()[name])
    n = len(one)
    for shape in (np.asarray, lambda u: np.abs(u - 0.5), lambda u: u * 64 % 1):
        assert np.corrcoef(shape(one), shape(two))[0, 1] == close_to(0.0, 1.0, n)
    table = np.histogram2d(one, two, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-4
    assert (one != two).all()


def test_words_do_not_collide() -> None:
    words = mix(keys(), 7, DRAW)
    assert len(np.unique(words)) == N
    assert len({int(word_of(i)) for i in range(-500, 500)}) == 1000


def test_every_bit_matters() -> None:
    """Turning one bit of a key turns half of the bits of the word."""
    words, one = keys(2000), np.uint64(1)
    for bit in range(64):
        turned = mix(words, 3) ^ mix(words ^ (one << np.uint64(bit)), 3)
        assert np.unpackbits(turned.view(np.uint8)).sum() / len(words) == close_to(32.0, 4.0, len(words))


# --- bootstrap counts --------------------------------------------------------------------------------------------


def test_counts_are_poisson() -> None:
    counts = bootstrap_counts(keys(), 5, range(8))
    assert counts.shape == (8, N)
    assert counts.mean() == close_to(1.0, 1.0, counts.size)
    assert counts.var() == close_to(1.0, np.sqrt(3.0), counts.size)
    seen = np.bincount(np.minimum(counts.ravel(), 6), minlength=7)
    expected = stats.poisson.pmf(np.arange(7), 1.0)
    expected[-1] = stats.poisson.sf(5, 1.0)
    assert stats.chisquare(seen, expected * counts.size).pvalue > 1e-4


def test_limits_are_the_distribution_function() -> None:
    shares = np.array([int(limit) / 2**64 for limit in POISSON_LIMITS])
    np.testing.assert_allclose(shares, stats.poisson.cdf(np.arange(17), 1.0), rtol=1e-14)
    assert (np.diff(POISSON_LIMITS.astype(object)) >= 0).all()


def test_replicates_and_rows_are_independent() -> None:
    counts = bootstrap_counts(keys(), 5, range(12)).astype(float)
    among = np.corrcoef(counts)[np.triu_indices(12, 1)]
    assert np.abs(among).max() < 5 / np.sqrt(N)
    np.testing.assert_allclose(among.std() * np.sqrt(N), 1.0, atol=0.4)
    neighbours = np.corrcoef(counts[0, 1:], counts[0, :-1])[0, 1]
    assert neighbours == close_to(0.0, 1.0, N)
    joint = np.histogram2d(np.minimum(counts[0], 3), np.minimum(counts[1], 3), bins=range(5))[0]
    assert stats.chi2_contingency(joint).pvalue > 1e-4


def test_seeds_give_other_replicates() -> None:
    one, two = (bootstrap_counts(keys(), seed, range(1))[0].astype(float) for seed in (5, 6))
    assert np.corrcoef(one, two)[0, 1] == close_to(0.0, 1.0, N)


def test_counts_depend_on_the_row_alone() -> None:
    """Not on the order of the rows, nor on which other rows or replicates are computed along with them."""
    words, rng = keys(5000), np.random.default_rng(0)
    whole = bootstrap_counts(words, 5, range(6))
    order = rng.permutation(5000)
    assert (bootstrap_counts(words[order], 5, range(6)) == whole[:, order]).all()
    some = order[:70]
    assert (bootstrap_counts(words[some], 5, [4, 1]) == whole[[4, 1]][:, some]).all()
    parts = [bootstrap_counts(keys(b - a, a), 5, range(6)) for a, b in ((0, 1), (1, 3000), (3000, 5000))]
    assert (np.concatenate(parts, axis=1) == whole).all()


def test_compiled_counts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    plain = bootstrap_counts(keys(), 5, range(4))
    called = []
    compiled = kernels._compiled_sums()
    monkeypatch.setattr(kernels, "_compiled_sums", lambda: called.append(1) or compiled)
    assert (kernels.bootstrap_counts(keys(), 5, 4) == plain).all()
    assert called
    assert (kernels.bootstrap_counts(keys(50), 5, 4) == plain[:, :50]).all()


def test_no_rows_have_no_counts() -> None:
    assert bootstrap_counts(keys(0), 5, range(3)).shape == (3, 0)
    assert uniforms(mix(keys(0), 5, DRAW)).shape == (0,)

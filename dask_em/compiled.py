"""The scan of a mixture, compiled by numba; see kernels, which decides when it is used.

Tile by tile, in the first two cache levels: features, scores, softmax, sums. The two products are blocked by registers, because these matrices are
too thin for BLAS, which spends half of its time packing them. Loops run over the rows, so that they become vector instructions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

FAST = {"reassoc", "contract", "nsz"}
EXACT = {"contract"}

TILE = 256
"""Rows of a tile: its features fit into the second cache level, a row of them into the first."""


class Columns(NamedTuple):
    """The encoded rows of a block, for each kind of family; a family that the model lacks has no columns.

    normal (d, n), `full` if its features are products of pairs and not squares alone; codes (c, n) with `levels`, and which of them have so `many` that
    they are looked up; counts (c, n); pairs (2 c, n), successes above trials, `expected` if missing successes are
    """

    normal: Any
    full: bool
    codes: Any
    levels: Any
    many: Any
    counts: Any
    pairs: Any
    expected: bool


@njit(nogil=True, cache=True, fastmath=FAST)
def _present(values: Any, n: int, out: Any) -> bool:
    """Copy cells, 0 where missing; whether all are there."""
    zero = out.dtype.type(0)
    probe = zero  # 0 times a number is 0, and 0 times NaN is NaN: counting would take twice as long
    for r in range(n):
        x = values[r]
        out[r] = x if x == x else zero
        probe += x * zero
    return probe == zero


@njit(nogil=True, cache=True, fastmath=FAST)
def _indicators(values: Any, n: int, here: bool, out: Any) -> None:
    """1 where a cell is observed."""
    for r in range(n):
        x = values[r]
        out[r] = 1.0 if here and x == x else 0.0


@njit(nogil=True, cache=True, fastmath=FAST)
def _normal(columns: Any, start: int, n: int, T: Any) -> tuple[int, bool]:
    """x, and x_i x_j for i <= j or for i = j alone."""
    d, complete = len(columns.normal), True
    f = d + 1
    for i in range(d):
        if columns.full:
            x, t = columns.normal[i, start : start + n], T[1 + i]
            for r in range(n):
                t[r] = x[r]
        else:
            complete &= _present(columns.normal[i, start : start + n], n, T[1 + i])
    for i in range(d):
        x = T[1 + i]
        for j in range(i, d if columns.full else i + 1):
            y, t = T[1 + j], T[f]
            for r in range(n):
                t[r] = x[r] * y[r]
            f += 1
    return f, complete


@njit(nogil=True, cache=True, fastmath=FAST)
def _levels(columns: Any, start: int, n: int, T: Any, f: int) -> int:
    """One-hot indicators of the columns with few levels."""
    for c in range(len(columns.codes)):
        if not columns.many[c]:
            code = columns.codes[c, start : start + n]
            for level in range(columns.levels[c]):
                t = T[f + level]
                for r in range(n):
                    t[r] = 1.0 if code[r] == level else 0.0
            f += columns.levels[c]
    return f


@njit(nogil=True, cache=True, fastmath=FAST)
def _pairs(columns: Any, start: int, n: int, T: Any, f: int) -> int:
    """Trials, successes and, where missing successes are expected, the trials of those."""
    d = len(columns.pairs) // 2
    for c in range(d):
        y, m = columns.pairs[c, start : start + n], columns.pairs[d + c, start : start + n]
        trials, successes, unseen = T[f + c], T[f + d + c], T[f + 2 * d * columns.expected + c]
        for r in range(n):
            known = m[r] == m[r]
            both = known & (y[r] == y[r])
            if columns.expected:
                unseen[r] = m[r] if known and not both else 0.0
            trials[r] = m[r] if both else 0.0
            successes[r] = y[r] if both else 0.0
    return f + (3 if columns.expected else 2) * d


@njit(nogil=True, cache=True, fastmath=FAST)
def _features(columns: Any, observed: Any, start: int, n: int, T: Any) -> bool:
    """The features of some rows of one pattern: 1, those of values, and then the indicators of observed cells; these only where a cell is missing.

    Returns whether none is.
    """
    T[0, :n] = 1.0
    f, complete = _normal(columns, start, n, T)
    f = _levels(columns, start, n, T, f)
    for c in range(len(columns.counts)):
        complete &= _present(columns.counts[c, start : start + n], n, T[f + c])
    f = _pairs(columns, start, n, T, f + len(columns.counts))
    if columns.full:
        d = 0
    else:
        d = len(columns.normal)
        for i in range(d):
            complete &= observed[i]
    if not complete:
        for i in range(d):
            _indicators(columns.normal[i, start : start + n], n, observed[i], T[f + i])
        for c in range(len(columns.counts)):
            _indicators(columns.counts[c, start : start + n], n, True, T[f + d + c])
    return complete


@njit(nogil=True, cache=True, fastmath=FAST)
def _look_up(columns: Any, W: Any, start: int, n: int, S: Any) -> None:
    """Add the natural parameters of each row's level, for columns of many levels; W (K, all levels of all those columns)."""
    first = 0
    for c in range(len(columns.codes)):
        if columns.many[c]:
            code = columns.codes[c, start : start + n]
            for k in range(len(S)):
                w, s = W[k, first : first + columns.levels[c]], S[k]
                for r in range(n):
                    if code[r] >= 0:
                        s[r] += w[code[r]]
            first += columns.levels[c]


@njit(nogil=True, cache=True, fastmath=FAST)
def _count_up(columns: Any, R: Any, start: int, n: int, out: Any) -> None:
    """Add responsibilities to the sums of each row's level."""
    first = 0
    for c in range(len(columns.codes)):
        if columns.many[c]:
            code = columns.codes[c, start : start + n]
            for k in range(len(R)):
                w, s = out[k, first : first + columns.levels[c]], R[k]
                for r in range(n):
                    if code[r] >= 0:
                        w[code[r]] += s[r]
            first += columns.levels[c]


@njit(nogil=True, cache=True, fastmath=FAST)
def _score(W: Any, T: Any, n: int, S: Any) -> None:
    """S = W T, four components and six features at a time."""
    K, q = W.shape
    for k in range(K):
        for r in range(n):
            S[k, r] = 0.0
    for k in range(0, K - 3, 4):
        s0, s1, s2, s3 = S[k], S[k + 1], S[k + 2], S[k + 3]
        for f in range(0, q - 5, 6):
            t0, t1, t2, t3, t4, t5 = T[f], T[f + 1], T[f + 2], T[f + 3], T[f + 4], T[f + 5]
            a0, a1, a2, a3, a4, a5 = W[k, f], W[k, f + 1], W[k, f + 2], W[k, f + 3], W[k, f + 4], W[k, f + 5]
            k1, k2, k3 = k + 1, k + 2, k + 3
            b0, b1, b2, b3, b4, b5 = W[k1, f], W[k1, f + 1], W[k1, f + 2], W[k1, f + 3], W[k1, f + 4], W[k1, f + 5]
            c0, c1, c2, c3, c4, c5 = W[k2, f], W[k2, f + 1], W[k2, f + 2], W[k2, f + 3], W[k2, f + 4], W[k2, f + 5]
            d0, d1, d2, d3, d4, d5 = W[k3, f], W[k3, f + 1], W[k3, f + 2], W[k3, f + 3], W[k3, f + 4], W[k3, f + 5]
            for r in range(n):
                x0, x1, x2, x3, x4, x5 = t0[r], t1[r], t2[r], t3[r], t4[r], t5[r]
                s0[r] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4 + a5 * x5
                s1[r] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4 + b5 * x5
                s2[r] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3 + c4 * x4 + c5 * x5
                s3[r] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3 + d4 * x4 + d5 * x5
        for f in range(q - q % 6, q):
            t0 = T[f]
            a0, b0, c0, d0 = W[k, f], W[k + 1, f], W[k + 2, f], W[k + 3, f]
            for r in range(n):
                x0 = t0[r]
                s0[r] += a0 * x0
                s1[r] += b0 * x0
                s2[r] += c0 * x0
                s3[r] += d0 * x0
    for k in range(K - K % 4, K):
        s0 = S[k]
        for f in range(0, q - 5, 6):
            t0, t1, t2, t3, t4, t5 = T[f], T[f + 1], T[f + 2], T[f + 3], T[f + 4], T[f + 5]
            a0, a1, a2, a3, a4, a5 = W[k, f], W[k, f + 1], W[k, f + 2], W[k, f + 3], W[k, f + 4], W[k, f + 5]
            for r in range(n):
                s0[r] += a0 * t0[r] + a1 * t1[r] + a2 * t2[r] + a3 * t3[r] + a4 * t4[r] + a5 * t5[r]
        for f in range(q - q % 6, q):
            t0, a0 = T[f], W[k, f]
            for r in range(n):
                s0[r] += a0 * t0[r]


@njit(nogil=True, cache=True, fastmath=EXACT)
def _exponential(x: Any, n: int, scratch: Any, bits: Any) -> None:
    """exp(x) for x <= 0 in place, as 2^m times a polynomial on [-log 2 / 2, log 2 / 2]; exp(-700) below that.

    Adding 1.5 x 2^52 rounds and leaves m in the low bits, which shifted up are the exponent of 2^m. Reassociation would optimise the
    rounding away.
    """
    for r in range(n):
        y = max(x[r], -700.0)
        t = y * 1.4426950408889634 + 6755399441055744.0
        m = t - 6755399441055744.0
        z = (y - m * 0.693147180369123816490) - m * 1.90821492927058770002e-10
        p = 1.6059043836821613e-10
        p = p * z + 2.08767569878681e-09
        p = p * z + 2.505210838544172e-08
        p = p * z + 2.755731922398589e-07
        p = p * z + 2.7557319223985893e-06
        p = p * z + 2.48015873015873e-05
        p = p * z + 0.0001984126984126984
        p = p * z + 0.001388888888888889
        p = p * z + 0.008333333333333333
        p = p * z + 0.041666666666666664
        p = p * z + 0.16666666666666666
        p = p * z + 0.5
        p = p * z + 1.0
        x[r] = p * z + 1.0
        scratch[r] = t
    for r in range(n):
        bits[r] = (bits[r] + 1023) << 52
    for r in range(n):
        x[r] *= scratch[r]


F = np.float32


@njit(nogil=True, cache=True, fastmath=EXACT)
def _exponential_single(x: Any, n: int, scratch: Any, bits: Any) -> None:
    """The same in single precision; exp(-80) below that."""
    for r in range(n):
        y = max(x[r], F(-80.0))
        t = y * F(1.44269504) + F(12582912.0)
        m = t - F(12582912.0)
        z = (y - m * F(0.693359375)) - m * F(-2.12194440e-4)
        p = F(0.0001984126984)
        p = p * z + F(0.001388888889)
        p = p * z + F(0.008333333333)
        p = p * z + F(0.041666666667)
        p = p * z + F(0.166666666667)
        p = p * z + F(0.5)
        p = p * z + F(1.0)
        x[r] = p * z + F(1.0)
        scratch[r] = t
    for r in range(n):
        bits[r] = (bits[r] + np.int32(127)) << np.int32(23)
    for r in range(n):
        x[r] *= scratch[r]


def _exponentiate(x: Any, n: int, scratch: Any) -> None:
    """exp(x) in place, in the precision of x."""
    raise NotImplementedError


@overload(_exponentiate, inline="always")
def _of_this_precision(x, n, scratch):  # type: ignore[no-untyped-def]  # numba compares annotations
    if x.dtype == types.float32:
        return lambda x, n, scratch: _exponential_single(x, n, scratch, scratch.view(np.int32))
    return lambda x, n, scratch: _exponential(x, n, scratch, scratch.view(np.int64))


@njit(nogil=True, cache=True, fastmath=EXACT)
def _softmax(S: Any, n: int, weight: Any, top: Any, total: Any, scratch: Any) -> None:
    K = len(S)
    for r in range(n):
        top[r] = S[0, r]
        total[r] = 0.0
    for k in range(1, K):
        s = S[k]
        for r in range(n):
            top[r] = max(top[r], s[r])
    for k in range(K):
        s = S[k]
        for r in range(n):
            s[r] -= top[r]
        _exponentiate(s, n, scratch)
        for r in range(n):
            total[r] += s[r]
    for r in range(n):
        scratch[r] = weight[r] / total[r]
    for k in range(K):
        s = S[k]
        for r in range(n):
            s[r] *= scratch[r]


@njit(nogil=True, cache=True, fastmath=FAST)
def _add(R: Any, T: Any, n: int, out: Any) -> None:
    """out += R Tᵀ, four components by three features at a time: inner products over the rows, held in registers."""
    K, q = out.shape
    zero = T.dtype.type(0)
    for k in range(0, K - 3, 4):
        r0, r1, r2, r3 = R[k], R[k + 1], R[k + 2], R[k + 3]
        for f in range(0, q - 2, 3):
            t0, t1, t2 = T[f], T[f + 1], T[f + 2]
            a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = d0 = d1 = d2 = zero
            for r in range(n):
                x0, x1, x2 = t0[r], t1[r], t2[r]
                y = r0[r]
                a0 += y * x0
                a1 += y * x1
                a2 += y * x2
                y = r1[r]
                b0 += y * x0
                b1 += y * x1
                b2 += y * x2
                y = r2[r]
                c0 += y * x0
                c1 += y * x1
                c2 += y * x2
                y = r3[r]
                d0 += y * x0
                d1 += y * x1
                d2 += y * x2
            out[k, f] += a0
            out[k, f + 1] += a1
            out[k, f + 2] += a2
            out[k + 1, f] += b0
            out[k + 1, f + 1] += b1
            out[k + 1, f + 2] += b2
            out[k + 2, f] += c0
            out[k + 2, f + 1] += c1
            out[k + 2, f + 2] += c2
            out[k + 3, f] += d0
            out[k + 3, f + 1] += d1
            out[k + 3, f + 2] += d2
        for f in range(q - q % 3, q):
            t0 = T[f]
            a0 = b0 = c0 = d0 = zero
            for r in range(n):
                x0 = t0[r]
                a0 += r0[r] * x0
                b0 += r1[r] * x0
                c0 += r2[r] * x0
                d0 += r3[r] * x0
            out[k, f] += a0
            out[k + 1, f] += b0
            out[k + 2, f] += c0
            out[k + 3, f] += d0
    for k in range(K - K % 4, K):
        r0 = R[k]
        for f in range(0, q - 2, 3):
            t0, t1, t2 = T[f], T[f + 1], T[f + 2]
            a0 = a1 = a2 = zero
            for r in range(n):
                y = r0[r]
                a0 += y * t0[r]
                a1 += y * t1[r]
                a2 += y * t2[r]
            out[k, f] += a0
            out[k, f + 1] += a1
            out[k, f + 2] += a2
        for f in range(q - q % 3, q):
            t0 = T[f]
            a0 = zero
            for r in range(n):
                a0 += r0[r] * t0[r]
            out[k, f] += a0


@njit(nogil=True, cache=True, fastmath=FAST)
def _log_sum(highest: Any, summed: Any, n: int) -> float:
    """Sum of highest + log(summed): the product of 32 numbers from 1 to the number of components needs one logarithm."""
    out = 0.0
    for r in range(n):
        out += highest[r]
    for start in range(0, n, 32):
        product = 1.0
        for r in range(start, min(start + 32, n)):
            product *= summed[r]
        out += np.log(product)
    return out


@njit(nogil=True, cache=True)
def scan(
    natural: Any,
    complete: Any,
    table: Any,
    columns: Any,
    observed: Any,
    runs: Any,
    weight: Any,
    bounds: Any,
    sums: Any,
    complete_sums: Any,
    table_sums: Any,
    top: Any,
    total: Any,
    log_likelihood: Any,
    even: bool,
    buffer: Any,
) -> None:
    """Scan the rows runs[0] to runs[P] of P patterns.

    natural (P, K, q) : parameters in the order of `_features`; complete (P, K, <= q) : for rows without a missing cell, whose indicators
    are all 1; table (P, K, l) : those of the columns that are looked up. Their sums are added to the arrays of the same shapes.
    With `even` weights of 1, top and total need no more columns than a tile, and the log-likelihoods are summed here.
    """
    P, K, q = natural.shape
    T, S, scratch = buffer[:q], buffer[q : q + K], buffer[q + K]
    tile = buffer.shape[1]
    for p in range(P):
        for start in range(runs[p], runs[p + 1], tile):
            stop = min(start + tile, runs[p + 1])
            n = stop - start
            whole = _features(columns, observed[p], start, n, T)
            _score(complete[p] if whole else natural[p], T, n, S)
            _look_up(columns, table[p], start, n, S)
            for c in range(len(bounds) - 1):
                own = S[bounds[c] : bounds[c + 1]]
                first = 0 if even else start
                highest, summed = top[c, first : first + n], total[c, first : first + n]
                _softmax(own, n, weight[min(c, len(weight) - 1), start:stop], highest, summed, scratch)
                if even:
                    log_likelihood[c] += _log_sum(highest, summed, n)
            _add(S, T, n, complete_sums[p] if whole else sums[p])
            _count_up(columns, S, start, n, table_sums[p])

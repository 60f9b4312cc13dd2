"""The scan of a full-covariance normal mixture, compiled by numba; see kernels, which decides when it is used.

Tile by tile, in the first two cache levels: features, scores, softmax, sums. The two products are blocked by registers, because these matrices are
too thin for BLAS, which spends half of its time packing them. Loops run over the rows, so that they become vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

FAST = {"reassoc", "contract", "nsz"}
EXACT = {"contract"}

TILE = 256
"""Rows of a tile: its features fit into the second cache level, a row of them into the first."""


@njit(nogil=True, cache=True, fastmath=FAST)
def _features(values: Any, start: int, n: int, T: Any) -> None:
    d = len(values)
    T[0, :n] = 1.0
    f = d + 1
    for i in range(d):
        x, t = values[i, start : start + n], T[1 + i]
        for r in range(n):
            t[r] = x[r]
    for i in range(d):
        x = T[1 + i]
        for j in range(i, d):
            y, t = T[1 + j], T[f]
            for r in range(n):
                t[r] = x[r] * y[r]
            f += 1


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


@njit(nogil=True, cache=True, fastmath=EXACT)
def _softmax(S: Any, n: int, weight: Any, top: Any, total: Any, scratch: Any, bits: Any) -> None:
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
        _exponential(s, n, scratch, bits)
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
    for k in range(0, K - 3, 4):
        r0, r1, r2, r3 = R[k], R[k + 1], R[k + 2], R[k + 3]
        for f in range(0, q - 2, 3):
            t0, t1, t2 = T[f], T[f + 1], T[f + 2]
            a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = d0 = d1 = d2 = 0.0
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
            a0 = b0 = c0 = d0 = 0.0
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
            a0 = a1 = a2 = 0.0
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
            a0 = 0.0
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
    values: Any,
    runs: Any,
    weight: Any,
    bounds: Any,
    sums: Any,
    top: Any,
    total: Any,
    log_likelihood: Any,
    even: bool,
    buffer: Any,
) -> None:
    """With `even` weights of 1, top and total need no more columns than a tile, and the log-likelihoods are summed here."""
    P, K, q = natural.shape
    T, S, scratch = buffer[:q], buffer[q : q + K], buffer[q + K]
    bits = scratch.view(np.int64)
    for p in range(P):
        for start in range(runs[p], runs[p + 1], TILE):
            stop = min(start + TILE, runs[p + 1])
            n = stop - start
            _features(values, start, n, T)
            _score(natural[p], T, n, S)
            for c in range(len(bounds) - 1):
                own = S[bounds[c] : bounds[c + 1]]
                first = 0 if even else start
                highest, summed = top[c, first : first + n], total[c, first : first + n]
                _softmax(own, n, weight[min(c, len(weight) - 1), start:stop], highest, summed, scratch, bits)
                if even:
                    log_likelihood[c] += _log_sum(highest, summed, n)
            _add(S, T, n, sums[p])


@njit(nogil=True, cache=True, fastmath=EXACT)
def precisions(covariances: Any, observed: Any, out: Any, half_log_det: Any) -> None:
    """Σ_oo⁻¹ padded with zeros into out (K, P, d, d), and half of log|Σ_oo|, by sweeping the observed columns (Goodnight 1979)."""
    K, P, d = half_log_det.shape[0], half_log_det.shape[1], covariances.shape[1]
    for k in range(K):
        for p in range(P):
            A = out[k, p]
            A[:] = covariances[k]
            log_det = 0.0
            for i in range(d):
                if observed[p, i]:
                    pivot = A[i, i]
                    log_det += np.log(pivot)
                    row = A[i]
                    for j in range(d):
                        row[j] /= pivot
                    for l in range(d):
                        if l != i:
                            own, b = A[l], A[l, i]
                            for j in range(d):
                                own[j] -= b * row[j]
                            own[i] = -b / pivot
                    row[i] = 1.0 / pivot
            for i in range(d):
                for j in range(d):
                    if not (observed[p, i] and observed[p, j]):
                        A[i, j] = 0.0
            half_log_det[k, p] = 0.5 * log_det


@njit(nogil=True, cache=True, fastmath=EXACT)
def standardise(
    values: Any, valid: Any, first: int, n: int, shift: float, scale: float, bit: int, seen: Any, out: Any, pattern: Any
) -> float:
    """Write n cells from `first` on in standard units, 0 where missing, and set their bit in the patterns of the rows that have them.

    `valid` holds a bit a cell, as Arrow keeps them, or nothing where NaN alone means missing. Returns the largest magnitude, from which an
    infinity is seen.
    """
    if len(valid):
        base, skip = first >> 3, first & 7
        for b in range((skip + n + 7) >> 3):
            byte = valid[base + b]
            for i in range(8):
                seen[8 * b + i] = (byte >> i) & 1
    else:
        skip = 0
        seen[:n] = 1
    inverse, largest = 1.0 / scale, 0.0
    for r in range(n):
        x = values[first + r]
        here = (x == x) & (seen[skip + r] != 0)
        y = (x - shift) * inverse if here else 0.0
        out[r] = y
        largest = max(largest, abs(y))
        pattern[r] |= bit if here else 0
    return largest


@njit(nogil=True, cache=True)
def places(pattern: Any, place: Any, n_found: int) -> int:
    """Turn each row's pattern into its place in the order in which patterns are met; place (2^d,) is -1 before. Returns how many were met by now."""
    for r in range(len(pattern)):
        p = pattern[r]
        if place[p] < 0:
            place[p] = n_found
            n_found += 1
        pattern[r] = place[p]
    return n_found


@njit(nogil=True, cache=True, fastmath=EXACT)
def pattern_sums(values: Any, weight: Any, pattern: Any, rows: Any, sums: Any, squares: Any) -> None:
    """Add each row's weight, values and products to the sums of its pattern's place: (P, 1 + d) and (P, d, d), upper triangle and more."""
    d = len(values)
    x = np.empty(d)
    for r in range(len(weight)):
        p, w = pattern[r], weight[r]
        own, square = sums[p], squares[p]
        rows[p] += 1
        own[0] += w
        for i in range(d):
            x[i] = values[i, r]
        for i in range(d):
            y = w * x[i]
            own[1 + i] += y
            to = square[i]
            for j in range(d):
                to[j] += y * x[j]


@njit(nogil=True, cache=True)
def poisson_counts(base: Any, word: Any, limits: Any, out: Any) -> None:
    """randomness.bootstrap_counts of one replicate: mix each row's word with the replicate's and look the count up."""
    for r in range(len(base)):
        h = base[r] ^ np.uint64(0x9E3779B97F4A7C15) ^ word
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h = h ^ (h >> np.uint64(31))
        count = 0
        while count < len(limits) and h >= limits[count]:
            count += 1
        out[r] = count

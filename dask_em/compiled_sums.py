"""Loops around the normal with missing cells, compiled by numba; see kernels, which decides when they are used.

Inverses by missingness pattern, sums by pattern straight from Arrow's buffers, and the counts of bootstrap replicates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

FAST = {"reassoc", "contract", "nsz"}
EXACT = {"contract"}

BLOCK = 4
"""Products are added up in blocks of 4 x 4: vectors of four are as fast as those of eight, and fewer of their products are nobody's."""

_INT = ir.IntType(32)
_VECTOR = ir.VectorType(ir.DoubleType(), BLOCK)


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


@njit(nogil=True, cache=True, fastmath=FAST)
def standardise(
    values: Any, valid: Any, first: int, n: int, shift: float, scale: float, bit: int, seen: Any, out: Any, pattern: Any
) -> bool:
    """Write n cells from `first` on in standard units, 0 where missing, and set their bit in the patterns of the rows that have them.

    `valid` holds a bit a cell, as Arrow keeps them, or nothing where NaN alone means missing. Returns whether all are finite.
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
    inverse, probe = 1.0 / scale, 0.0  # 0 times a finite number is 0, and 0 times infinity is NaN
    own, there = values[first : first + n], seen[skip : skip + n]
    for r in range(n):
        x = own[r]
        here = (x == x) & (there[r] != 0)
        y = (x - shift) * inverse if here else 0.0
        out[r] = y
        probe += y * 0.0
        pattern[r] |= bit if here else 0
    return probe == 0.0


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


@intrinsic
def _add_block(typing, to, at, x, i, j, weight):  # type: ignore[no-untyped-def]  # numba compares annotations
    """to[at + BLOCK a + b] += weight x[i + a] x[j + b] for a, b below BLOCK, as vectors: LLVM does not find them in a loop, for it cannot know that `to` and `x` are apart."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        to, at, x, i, j, weight = arguments
        to = builder.gep(context.make_array(signature.args[0])(context, builder, to).data, [at])
        x = context.make_array(signature.args[2])(context, builder, x).data
        left, right = builder.gep(x, [i]), _load(builder, builder.gep(x, [j]))
        right = builder.fmul(right, _spread(builder, weight))
        for a in range(BLOCK):
            y = _spread(builder, builder.load(builder.gep(left, [_INT(a)])))
            row = builder.gep(to, [_INT(BLOCK * a)])
            product = builder.fmul(y, right, flags=("contract",))
            total = builder.fadd(_load(builder, row), product, flags=("contract",))
            builder.store(total, builder.bitcast(row, _VECTOR.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(to, at, x, i, j, weight), generate


def _load(builder: Any, pointer: Any) -> Any:
    return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=8)


def _spread(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, _INT(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT, BLOCK), [0] * BLOCK))


@njit(nogil=True, cache=True, fastmath=EXACT)
def pattern_sums(values: Any, weight: Any, pattern: Any, rows: Any, sums: Any) -> None:
    """Add the weighted products of each row's values and 1 to the sums of its pattern's place.

    values (d, n); rows (P,); sums (P, blocks BLOCK²): the blocks on and above the diagonal of a matrix of columns 0 .. d, the last for the 1, filled up with zeros.
    """
    d = len(values)
    x = np.zeros((d // BLOCK + 1) * BLOCK)
    x[d] = 1.0
    for r in range(len(weight)):
        p, w = pattern[r], weight[r]
        own, at = sums[p], 0
        rows[p] += 1
        for i in range(d):
            x[i] = values[i, r]
        for i in range(0, len(x), BLOCK):
            for j in range(i, len(x), BLOCK):
                _add_block(own, at, x, i, j, w)  # type: ignore[call-arg]  # `typing` is numba's
                at += BLOCK * BLOCK


@intrinsic
def _pointer(typing, address, like):  # type: ignore[no-untyped-def]  # numba compares annotations
    """The address of an array as one of numbers like this one: arrays of any number would be a type each, and be compiled each."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), generate


@njit(nogil=True, cache=True)
def sums_by_pattern(
    columns: Any, weight: Any, shift: Any, scale: Any, tile: int, place: Any, rows: Any, sums: Any, infinite: Any
) -> None:
    """Standardise rows and add them up, a tile at a time while it is in cache; see kernels. The first column is the highest bit of a pattern.

    columns (d, 4): of each the addresses of its values and of its bits, the bytes of these, and where its first cell stands in both.
    """
    d, found = len(columns), 0
    values, pattern, seen = np.empty((d, tile)), np.empty(tile, np.int32), np.empty(tile + 16, np.uint8)
    for start in range(0, len(weight), tile):
        w = weight[start : start + tile]
        n = len(w)
        pattern[:n] = 0
        for j in range(d):
            first = columns[j, 3] + start
            own = carray(_pointer(columns[j, 0], 0.0), first + n)  # type: ignore[call-arg]
            valid = carray(_pointer(columns[j, 1], np.uint8(0)), columns[j, 2])
            if not standardise(own, valid, first, n, shift[j], scale[j], 1 << (d - 1 - j), seen, values[j], pattern):
                infinite[j] = True
        found = places(pattern[:n], place, found)
        pattern_sums(values, w, pattern, rows, sums)


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


@njit(nogil=True, cache=True)
def block_sums(words: Any, key: Any, sums: Any) -> None:
    """Σ x + low(x ^ key) high(x ^ key) of each block of words, modulo 2^64."""
    low = np.uint64(0xFFFFFFFF)
    for i in range(len(words)):
        x, total = words[i], np.uint64(0)
        for j in range(len(key)):
            y = x[j] ^ key[j]
            total += (y & low) * (y >> np.uint64(32)) + x[j]
        sums[i] = total

"""A 64-bit checksum of bytes, several times as fast as they can be read: it shows that they are what they were, not that nobody meant to deceive.

Words in blocks of 8 KB, each word x with a key of its place, y = x ^ key: the block is Σ x + low(y) high(y) modulo 2^64, the product of the halves of y, as in NH (Black et al.
1999) and XXH3. The sums of blocks are bytes again, until they are one block. Compiled and plain code give the same.
"""

from __future__ import annotations

import numpy as np

from dask_em import kernels
from dask_em.randomness import Words, mix

WORDS = 1024
"""Words of a block."""

SIZE = 8 * WORDS
"""Bytes of a block."""

AT_ONCE = 16
"""Blocks that plain code takes at once: so many stay in cache."""

KEY = mix(np.arange(WORDS, dtype=np.uint64))


def checksum(data: bytes | memoryview) -> int:
    """The checksum of some bytes."""
    length = len(data)
    while True:
        n = len(data) // SIZE
        sums = np.empty(n + 1, dtype=np.uint64)
        _sum(np.frombuffer(data, np.uint64, n * WORDS).reshape(n, WORDS), sums[:n])
        _sum(np.frombuffer(bytes(data[n * SIZE :]).ljust(SIZE, b"\0"), np.uint64)[None], sums[n:])
        if n == 0:
            return (int(sums[0]) + length) % 2**64
        data = sums.tobytes()


def _sum(words: Words, sums: Words) -> None:
    """The sums of blocks (n, WORDS)."""
    if kernels.is_loaded():
        kernels.block_sums(words, KEY, sums)
        return
    for start in range(0, len(words), AT_ONCE):
        x = words[start : start + AT_ONCE]
        y = x ^ KEY
        low = y & np.uint64(0xFFFFFFFF)
        y >>= np.uint64(32)
        y *= low
        y += x
        np.add.reduce(y, axis=1, out=sums[start : start + AT_ONCE])

"""What names a row, as a 64-bit word: the contents of its key columns, or else where it stands.

Random numbers hang on these words, so they must not depend on how a table is cut: a row of a table in memory is named by its position, a row of a file by (file, row
group, offset), and a partition of a Dask dataframe, which does not know how many rows stand before it, by (partition, offset).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dask_em.data.columns import plain
from dask_em.data.sources import Source
from dask_em.errors import DataError
from dask_em.randomness import Words, mix

NONE = 1 << 64

KEPT = 1 << 20
"""Keys kept to look for repeated ones: exact up to a million rows, a sample by hash beyond."""


def check_keys(source: Source, key: Sequence[str]) -> None:
    """Raise DataError unless the table has the key columns."""
    for name in key:
        if name not in source.columns:
            raise DataError(f"key column {name!r} is not in {source.where}: check the spelling or the table")


def word(name: str) -> int:
    """A 64-bit word of a text."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def row_keys(table: pa.Table, key: Sequence[str], origin: tuple[str, int]) -> Words:
    """One word for each row, from its key columns, or from (name, position of the first row) where there are none."""
    if not key:
        name, first = origin
        return mix(np.arange(first, first + table.num_rows, dtype=np.uint64), word(name))
    words = np.zeros(table.num_rows, dtype=np.uint64)
    for name in key:
        words = mix(words, cell_words(plain(table.column(name)), name))
    return words


def cell_words(array: pa.Array, name: str) -> Words:
    """A word for each key cell; equal numbers are equal whatever their width."""
    if array.null_count:
        raise DataError(f"key column {name!r} holds missing cells: give every row a key")
    if pa.types.is_integer(array.type):
        wide = pa.uint64() if pa.types.is_uint64(array.type) else pa.int64()
        return pc.cast(array, wide).to_numpy(zero_copy_only=False).view(np.uint64)
    refused = DataError(f"key column {name!r} has the type {array.type}: use integers, text or dates as keys")
    if pa.types.is_floating(array.type) or pa.types.is_nested(array.type):
        raise refused
    own = array.storage if isinstance(array, pa.ExtensionArray) else array
    if not (
        pa.types.is_binary(own.type) or pa.types.is_large_binary(own.type) or pa.types.is_fixed_size_binary(own.type)
    ):
        try:
            own = pc.cast(own, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise refused from None
    return pd.util.hash_array(np.asarray(own.to_numpy(zero_copy_only=False), dtype=object), categorize=False)


@dataclass(frozen=True)
class KeySet:
    """What shows that two tables have the same rows: how many, the sum of their keys, and whether one came twice.

    Attributes
    ----------
    rows : number of rows
    total : sum of the keys, modulo 2^64
    smallest : the smallest keys after mixing, sorted, each once
    twice : the smallest of those that came twice, 2^64 if none did
    """

    rows: int
    total: int
    smallest: Words
    twice: int

    @staticmethod
    def of(keys: Words) -> KeySet:
        kept, twice = _once(mix(keys))
        return KeySet(len(keys), int(np.add.reduce(keys, dtype=np.uint64)), kept, twice)

    @property
    def repeated(self) -> bool:
        """Whether a key came twice, among those that were looked at: the same ones however the rows are cut."""
        return self.twice < NONE and (len(self.smallest) < KEPT or self.twice <= int(self.smallest[-1]))

    def check_unique(self, key: Sequence[str]) -> None:
        """Raise DataError if a key came twice."""
        if self.repeated:
            raise DataError(f"the key {', '.join(map(repr, key))} is not unique: name columns that tell rows apart")

    def __add__(self, other: KeySet) -> KeySet:
        both = np.concatenate([self.smallest, other.smallest])
        kept, twice = _once(both)
        total = (self.total + other.total) % 2**64
        return KeySet(self.rows + other.rows, total, kept, min(self.twice, other.twice, twice))


def _once(words: Words) -> tuple[Words, int]:
    """The smallest words, sorted, each once, and the smallest that came twice."""
    ordered = np.sort(words)
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    again = ordered[~new]
    return ordered[new][:KEPT], int(again[0]) if len(again) else NONE

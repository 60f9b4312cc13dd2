"""What shows that a table is still what it was when it was first read.

A *stamp* is what storage says about a file, its *outline* the part that tells of the rest: the footer of a Parquet file, both ends of a text. They are looked at in every read.
A *mark* is a checksum of bytes that were read: of a column of a row group as it is stored, or of a whole text; of a partition that Dask computes it is of cells. The first scan of
a table brings back the marks of its pieces; from then on the pieces know them, and what is read again must have the same, whoever reads it.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isclose
from typing import Any

import numpy as np
import pyarrow as pa
from fsspec.spec import AbstractBufferedFile
from fsspec.utils import merge_offset_ranges
from numpy.typing import NDArray

from dask_em.checksum import checksum
from dask_em.data.columns import plain
from dask_em.data.digest import cell_bits
from dask_em.randomness import mix

Marks = Mapping[Any, Any]

ENDS = 1 << 16
"""Bytes at both ends of a text that are its outline."""

ROUNDING = 1e-9
"""Relative difference of sums that were added up in another order."""

TAIL = 8
"""Bytes after the footer of a Parquet file: its length, and four that name the format."""

REQUEST = 1 << 24
"""Bytes that storage is asked for at once (16 MB, the size that object stores advise), unless one column needs more; several requests go out together."""

GAP = 1 << 16
"""Bytes that nobody wants but that cost less than another request."""


class Watched(io.RawIOBase):
    """An open file that, if it is to, keeps a mark of each read, by its place; of all reads together where a file is read as a whole, front to back.

    Attributes
    ----------
    raw : the file itself
    outline : the part of it that tells of the rest
    marks : of what was read
    parts : what was fetched ahead, by where it begins
    """

    def __init__(self, raw: Any, whole: bool, marking: bool) -> None:
        super().__init__()
        self.raw, self.whole, self.marking = raw, whole, marking
        self.outline = _ends(raw) if whole else _footer(raw)
        self.marks: dict[Any, int] = {}
        self.parts: dict[int, bytes] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of the outline."""
        return hashlib.sha256(self.outline).hexdigest()

    def read(self, n: int = -1) -> bytes:
        """The next n bytes."""
        place = self._place()
        data: bytes = self.raw.read(n)
        self._mark(place, data)
        return data

    def read_buffer(self, n: int) -> pa.Buffer:
        """The same for Arrow, in memory of its pool, which is used again: for bytes of this size new memory would be mapped every time."""
        place = self._place()
        data = self._fetched(place, n)
        if data is None:
            buffer = pa.allocate_buffer(n)
            data = buffer.slice(0, self.raw.readinto(buffer))
        self._mark(place, memoryview(data))
        return data

    @property
    def is_distant(self) -> bool:
        """Whether reads are requests to some storage, of which nobody chose how they are kept."""
        return isinstance(self.raw, AbstractBufferedFile) and self.raw.cache.name in ("readahead", "bytes")

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Ask storage for the bytes between these (start, end) together: read one by one, each would be waited for, and as much again be read ahead."""
        paths, starts, ends = merge_offset_ranges(
            [self.raw.path] * len(ranges), [a for a, _ in ranges], [b for _, b in ranges], GAP, REQUEST
        )
        parts = self.raw.fs.cat_ranges(paths, starts, ends, on_error="raise")
        self.parts = {a: part for a, b, part in zip(starts, ends, parts, strict=True) if len(part) == b - a}

    def _fetched(self, place: int, n: int) -> pa.Buffer | None:
        for start, part in self.parts.items():
            if start <= place and place + n <= start + len(part):
                self.raw.seek(place + n)
                return pa.py_buffer(part).slice(place - start, n)
        return None

    def _place(self) -> int:
        return 0 if self.whole else int(self.raw.tell())

    def _mark(self, place: int, data: bytes | memoryview) -> None:
        if self.marking:
            self.marks[place] = zlib.crc32(data, self.marks.get(0, 0)) if self.whole else checksum(data)

    def differs(self, known: Marks) -> bool:
        """Whether something that was read is not what is known of it."""
        while known and self.whole and self.marks and self.read(1 << 20):
            pass  # to the end, where reading failed in between
        return differ(known, self.marks)

    def seek(self, *where: int) -> int:
        return int(self.raw.seek(*where))

    def tell(self) -> int:
        return int(self.raw.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _footer(raw: Any) -> bytes:
    """The footer of a Parquet file, from which it can be parsed."""
    size = raw.seek(0, 2)
    start = max(size - ENDS, 0)
    raw.seek(start)
    tail: bytes = raw.read()
    n = TAIL + int.from_bytes(tail[-TAIL:-4], "little")
    if tail[-4:] != b"PAR1" or n > size:
        raise pa.ArrowInvalid("no footer of a Parquet file")
    if n > len(tail):
        raw.seek(size - n)
        tail = raw.read()
    return tail[-n:]


def _ends(raw: Any) -> bytes:
    """The first and the last bytes of a text; nothing where the file can only be read once."""
    try:
        size = raw.seek(0, 2)
    except ValueError:
        return b""
    raw.seek(max(size - ENDS, 0))
    last: bytes = raw.read()
    raw.seek(0)
    first: bytes = raw.read(ENDS)
    raw.seek(0)
    return first + last


def differ(known: Marks, marks: Marks) -> bool:
    """Whether some mark is not what is known of it: sums, which are floats, up to rounding."""
    pairs = ((known.get(place, mark), mark) for place, mark in marks.items())
    return any(not isclose(a, b, rel_tol=ROUNDING) if isinstance(b, float) else a != b for a, b in pairs)


def column_marks(name: str, column: pa.ChunkedArray) -> Marks:
    """Marks of the cells of a column in any order: how many are missing, and sums of the positive and the negative, of whole numbers and their squares, or of words of others."""
    cells = plain(column)
    if pa.types.is_floating(cells.type):
        values, missing = _filled(cells).astype(np.float64, copy=False), cells.null_count
        with np.errstate(invalid="ignore", over="ignore"):
            if np.isnan(values.sum()):
                missing += int(np.count_nonzero(np.isnan(values)))
                values = np.nan_to_num(values, posinf=np.inf, neginf=-np.inf)
            up, down = np.maximum(values, 0.0).sum(), np.minimum(values, 0.0).sum()
        return {(name, "+"): float(up), (name, "-"): float(down), (name, ""): missing}
    if pa.types.is_integer(cells.type):
        words = _filled(cells).astype(np.uint64)
        return {(name, "x"): int(words.sum()), (name, "xx"): int(words @ words), (name, ""): cells.null_count}
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        levels = cells.value_counts()
        words = mix(cell_bits(levels.field("values")), levels.field("counts").to_numpy().astype(np.uint64))
    else:
        words = cell_bits(cells)
    return {(name, ""): int(np.add.reduce(words, dtype=np.uint64))}


def _filled(cells: pa.Array) -> NDArray[Any]:
    """The values, 0 where one is missing."""
    own: NDArray[Any] = (cells.fill_null(0) if cells.null_count else cells).to_numpy(zero_copy_only=False)
    return own


def read_marked(piece: Any, columns: Sequence[str]) -> tuple[pa.Table, Marks]:
    """The rows of a piece, and marks of what was read; none where a piece cannot change."""
    own = getattr(piece, "marked", None)
    return (piece.read(columns), {}) if own is None else own(columns)


def pinned(source: Any, marks: Sequence[Marks]) -> Any:
    """The same source, of which every piece must hold what it held when these marks were taken of it."""
    pieces = (piece.pinned(own) if own else piece for piece, own in zip(source.pieces, marks, strict=True))
    return replace(source, pieces=tuple(pieces)) if any(marks) else source

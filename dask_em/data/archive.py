"""A folder of one JSON document and plain arrays (model.json, arrays.npz), which can be read without trust in who wrote it.

Nothing in it can run code: arrays are numbers whose header is checked against the bytes that are there before anything is made of it, and Python's own object format is
never read. Files, nesting and members are bounded, nothing is compressed, and a checksum in the document tells damage from content.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dask_em.errors import OutputError

DOCUMENT, ARRAYS = "model.json", "arrays.npz"

MAX_DOCUMENT, MAX_ARRAYS = 16 << 20, 1 << 30
"""Bytes of the two files. A model of 100,000 levels, and one of 100 million numbers, are below."""

MAX_MEMBERS = 1 << 16
MAX_AXES = 8

KINDS = ("<f8", "<i8", "|b1")
"""Types of arrays."""

DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile, zipfile.LargeZipFile),
)
"""What reading a damaged file, or making something of a damaged document, can raise."""


def write(folder: Path, document: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write both files into a folder that is there.

    Raises
    ------
    OutputError
        They would be larger than what `read` takes.
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: _plain(own) for name, own in arrays.items()})
    sealed = {**document, "checksum": checksum(document, buffer.getvalue())}
    text = json.dumps(sealed, indent=1, allow_nan=False).encode() + b"\n"
    if len(text) > MAX_DOCUMENT or buffer.tell() > MAX_ARRAYS or len(arrays) > MAX_MEMBERS:
        raise OutputError(
            "the model is too large to be loaded again: use columns with fewer levels, or fewer replicates"
        )
    (folder / ARRAYS).write_bytes(buffer.getbuffer())
    (folder / DOCUMENT).write_bytes(text)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The document and the arrays of a folder.

    Raises
    ------
    FileNotFoundError
        A file is not there.
    ValueError, or another of DAMAGE
        A file is larger than it may be, or not what was written.
    """
    text, raw = _bytes(folder / DOCUMENT, MAX_DOCUMENT), _bytes(folder / ARRAYS, MAX_ARRAYS)
    document = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    if not isinstance(document, dict) or document.pop("checksum", None) != checksum(document, raw):
        raise ValueError("not what was written")
    return document, _read_arrays(raw)


def checksum(document: dict[str, Any], arrays: bytes) -> str:
    """SHA-256 of a document and the file of its arrays; how the document is laid out as text does not matter."""
    own = json.dumps({k: v for k, v in document.items() if k != "checksum"}, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(own.encode()).digest() + hashlib.sha256(arrays).digest()).hexdigest()


def _plain(array: Any) -> np.ndarray:
    own = np.ascontiguousarray(array)
    if own.dtype.newbyteorder("<").str not in KINDS:
        raise TypeError(f"arrays of {own.dtype} are not written")
    return own.astype(own.dtype.newbyteorder("<"), copy=False).reshape(np.shape(array))


def _bytes(path: Path, most: int) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError("too large")
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a key is given twice")
    return out


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _read_arrays(raw: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(raw)) as members:
        listed = members.infolist()
        if len(listed) > MAX_MEMBERS or len({own.filename for own in listed}) < len(listed):
            raise ValueError("too many members, or two of one name")
        if any(own.compress_type != zipfile.ZIP_STORED or own.file_size != own.compress_size for own in listed):
            raise ValueError("compressed")
        # What is stored as it is cannot be more than the file.
        if sum(own.file_size for own in listed) > len(raw):
            raise ValueError("members overlap")
        return {own.filename.removesuffix(".npy"): _array(members.read(own)) for own in listed}


def _array(raw: bytes) -> np.ndarray:
    """An array in NumPy's format, whose header fits the bytes that follow it."""
    stream = io.BytesIO(raw)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the format")
    shape, by_column, kind = np.lib.format.read_array_header_1_0(stream)
    if kind.str not in KINDS or len(shape) > MAX_AXES or min(shape, default=1) < 0:
        raise ValueError("not a plain array")
    if math.prod(shape) * kind.itemsize != len(raw) - stream.tell():
        raise ValueError("an array that is not all there")
    values = np.frombuffer(raw, kind, offset=stream.tell()).reshape(shape, order="F" if by_column else "C")
    return values.copy(order="C")

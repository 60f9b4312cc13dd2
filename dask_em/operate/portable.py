"""Values of this package as bytes and back, without pickle: plain data, arrays, Arrow tables, and dataclasses of this package by name.

    line 1   format and version
    line 2   SHA-256 of all that follows
    line 3   JSON, in which arrays are numbers
    rest     the arrays, one after the other, as they lie in memory

Reading makes nothing but such values: a class that is named must be a dataclass or an enumeration of this package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa

FORMAT = b"dask-em checkpoint 1\n"

OWN = ("dask_em.", "pipelines.")


class NotPortableError(TypeError):
    """A value of a kind that is not kept."""


class DamagedError(ValueError):
    """Bytes that are not what was written."""


def dumps(value: Any) -> bytes:
    """The bytes of a value.

    Raises
    ------
    NotPortableError
        Some part of it is of another kind.
    """
    arrays: list[np.ndarray] = []
    document = _encode(value, arrays)
    kinds = [[a.dtype.str, list(a.shape), _order(a)] for a in arrays]
    text = json.dumps([document, kinds], separators=(",", ":")).encode() + b"\n"
    body = text + b"".join(a.tobytes(order) for a, (_, _, order) in zip(arrays, kinds))
    return FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def loads(content: bytes) -> Any:
    """The value of some bytes.

    Raises
    ------
    DamagedError
        They are not what was written.
    """
    start = len(FORMAT) + 65
    body = memoryview(content)[start:]
    if content[:start] != FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise DamagedError("not a whole checkpoint")
    end = content.index(b"\n", start) - start
    document, kinds = json.loads(bytes(body[:end]))
    arrays, at = [], end + 1
    for kind, shape, order in kinds:
        dtype = np.dtype(kind)
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(body, dtype, count, at).copy().reshape(shape, order=order))
        at += count * dtype.itemsize
    return _decode(document, arrays)


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    kind = type(value)
    if isinstance(value, Enum):
        return {"enum": _name(kind), "of": value.value}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufSU":
        return {"array": _put(value, arrays)}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"scalar": _put(np.asarray(value), arrays)}
    if isinstance(value, (bytes, pa.Table)):
        content = value if isinstance(value, bytes) else _arrow(value)
        return {"bytes" if kind is bytes else "table": _put(np.frombuffer(content, np.uint8), arrays)}
    if kind in (tuple, list, frozenset, set):
        items = sorted(value, key=repr) if kind in (frozenset, set) else value  # the same bytes in every process
        return {kind.__name__: [_encode(item, arrays) for item in items]}
    if kind is dict:
        return {"dict": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    if dataclasses.is_dataclass(kind):
        own = {f.name: _encode(getattr(value, f.name), arrays) for f in dataclasses.fields(kind) if f.init}
        return {"is": _name(kind), "with": own}
    raise NotPortableError(kind.__name__)


def _decode(document: Any, arrays: list[np.ndarray]) -> Any:
    if not isinstance(document, dict):
        return document
    if "is" in document:
        return _class(document["is"])(**{k: _decode(v, arrays) for k, v in document["with"].items()})
    if "enum" in document:
        return _class(document["enum"])(document["of"])
    ((kind, content),) = document.items()
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "bytes":
        return arrays[content].tobytes()
    if kind == "table":
        return pa.ipc.open_stream(arrays[content]).read_all()
    if kind == "dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in content}
    makers: dict[str, Any] = {"tuple": tuple, "list": list, "frozenset": frozenset, "set": set}
    return makers[kind](_decode(item, arrays) for item in content)


def _order(array: np.ndarray) -> Any:
    """How it lies in memory, on which the last bits of what is computed from it may depend."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def _put(array: np.ndarray, arrays: list[np.ndarray]) -> int:
    arrays.append(array)
    return len(arrays) - 1


def _arrow(table: pa.Table) -> Any:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _name(kind: type) -> str:
    if not kind.__module__.startswith(OWN):
        raise NotPortableError(kind.__name__)
    return f"{kind.__module__}:{kind.__qualname__}"


def _class(name: str) -> Any:
    module, _, own = name.partition(":")
    found = getattr(importlib.import_module(module), own, None) if module.startswith(OWN) else None
    if not isinstance(found, type) or not (dataclasses.is_dataclass(found) or issubclass(found, Enum)):
        raise DamagedError(f"{name} is no class of this version")
    return found

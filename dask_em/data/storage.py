"""What goes wrong between here and the files behind a URL, said in one sentence: bad addresses, refused access, storage that does not answer, files that change.

fsspec passes on whatever its backends raise, from ValueError to exceptions of their own, so they are told apart by what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa

from dask_em.errors import ConfigurationError, DaskEMError, DataError, TryAgainError

Options = Mapping[str, Any]


@contextmanager
def reached(path: str) -> Iterator[None]:
    """A block that reaches for a path or URL; its failures get their sentences.

    Raises
    ------
    ConfigurationError
        No backend reads URLs of this kind.
    DataError
        Access is refused.
    TryAgainError
        The storage does not answer.
    """
    scheme, separator, _ = path.partition("://")
    if not separator:
        yield
        return
    try:
        fsspec.get_filesystem_class(scheme)
    except (ValueError, ImportError):
        raise ConfigurationError(
            f"URLs that begin with {scheme}:// cannot be read here: correct the address, or install the package that fsspec needs for them"
        ) from None
    try:
        yield
    except (DaskEMError, FileNotFoundError):
        raise
    except Exception as error:
        raise failure(path, error) or error from None


def failure(path: str, error: Exception) -> DaskEMError | None:
    """The sentence for an error of the storage behind a URL; None where the file itself may be at fault."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, OSError):
        # Over HTTP, fsspec calls a file that cannot be reached one that does not exist.
        error = error.__cause__
    if "://" not in path or isinstance(error, (FileNotFoundError, pa.ArrowException)) or type(error) is OSError:
        return None
    name = path.rsplit("/", 1)[-1]
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return DataError(f"the storage refuses access to {name}: check the address and your credentials")
    return TryAgainError(
        f"the storage of {name} does not answer ({type(error).__name__}): check the address, then run this again"
    )


TAGS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated")
"""What storage says about a version of a file, the best first; which it says depends on the storage."""


@dataclass(frozen=True)
class Stamp:
    """A version of a file, as far as its storage tells."""

    size: int | None
    kind: str
    tag: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Stamp:
        """The stamp from what fsspec knows of a file."""
        kind = next((name for name in TAGS if info.get(name)), "")
        return cls(info.get("size"), kind, _tag(info, kind))

    @classmethod
    def of_open(cls, opened: Any) -> Stamp | None:
        """The stamp of a file of this machine that is open: of what is read, whatever has its name by now. None of other files."""
        try:
            info = os.fstat(opened.fileno())
        except (AttributeError, OSError):
            return None
        return cls(info.st_size, "mtime_ns", str(info.st_mtime_ns))

    def is_outdated(self, opened: Any, path: str, options: Options, ask: bool) -> bool:
        """Whether an open file is another than it was; storage is asked again, or else says what it said when the file was opened. What it does not say differs in nothing."""
        own = Stamp.of_open(opened)
        if own is not None:
            return own != self
        try:
            info = _told(path, options) if ask else getattr(opened, "details", None) or {}
        except FileNotFoundError:
            return True
        size, tag = info.get("size"), _tag(info, self.kind)
        return (None not in (size, self.size) and size != self.size) or (bool(tag) and tag != self.tag)


def _told(path: str, options: Options) -> Mapping[str, Any]:
    """What the storage of a file says of it now."""
    fs, inner = fsspec.core.url_to_fs(path, **options)
    fs.invalidate_cache(fs._parent(inner))
    info: Mapping[str, Any] = fs.info(inner)
    return info


def _tag(info: Mapping[str, Any], kind: str) -> str:
    return str(info.get(kind) or "").strip('"')

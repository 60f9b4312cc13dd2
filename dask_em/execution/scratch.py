"""Scratch files: blocks written once and read back in every later scan, gone at the end and after a crash.

A block is taken apart by pickle (protocol 5) into its arrays, which go to the file as they are in memory, and a skeleton of some hundred bytes, which stays in memory with
the offsets. So nothing is parsed when a block is read: its arrays are views of one buffer, which the next block of the same thread overwrites.

Files are read with preadv, not mapped: a mapped file that somebody cuts short kills the process, and Dask counts its pages as memory of the worker. The price is one copy
(docs/performance.md).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import shutil
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp, mkstemp
from typing import Any

ALIGNED = 64
"""Bytes at whose multiples arrays begin: a cache line."""

PREFIX, LOCK = "dask-em-", "lock"


class Folder:
    """A folder of this process below `parent`, for as long as somebody holds it.

    Its lock file is locked while the process lives; folders whose lock can be taken belonged to a process that crashed, and are deleted when the next one is made.
    """

    def __init__(self, parent: str) -> None:
        os.makedirs(parent, exist_ok=True)
        _sweep(Path(parent))
        self.path, lock = _locked(parent)
        while not os.path.isdir(self.path):  # swept away by another process before it was locked
            os.close(lock)
            self.path, lock = _locked(parent)
        weakref.finalize(self, _remove, self.path, lock, os.getpid())


def _locked(parent: str) -> tuple[str, int]:
    path = mkdtemp(prefix=PREFIX, dir=parent)
    lock = os.open(os.path.join(path, LOCK), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return path, lock


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # Without a lock file it is being made, or of somebody else.
        with suppress(OSError):
            lock = os.open(folder / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _remove(folder: str, lock: int, pid: int) -> None:
    # A fork has the finalizers of its parent, but not its folders.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


_folders: weakref.WeakValueDictionary[str, Folder] = weakref.WeakValueDictionary()
_making = threading.Lock()


def folder_below(parent: str) -> Folder:
    """The folder of this process below `parent`, made if nobody holds it yet."""
    with _making:
        folder = _folders.get(parent)
        if folder is None or not os.path.isdir(folder.path):
            folder = _folders[parent] = Folder(parent)
        return folder


@dataclass(frozen=True)
class Entry:
    """Where a block is: its bytes in the file, the arrays in them, and what holds these together."""

    start: int
    size: int
    spans: tuple[tuple[int, int], ...]
    skeleton: bytes


class Writer:
    """Blocks on their way into a new file."""

    def __init__(self, parent: str) -> None:
        self.folder = folder_below(parent)
        self._fd, self.path = mkstemp(prefix="blocks-", dir=self.folder.path)
        self._entries: list[Entry] = []
        self._end = 0

    def add(self, block: Any) -> None:
        """Write one block.

        Raises
        ------
        OSError
            The disk is full, or fails.
        """
        try:
            self._add(block)
        except OSError:
            self.discard()
            raise

    def _add(self, block: Any) -> None:
        arrays: list[pickle.PickleBuffer] = []
        skeleton = pickle.dumps(block, protocol=5, buffer_callback=arrays.append)
        start, spans = self._end, []
        for array in arrays:
            raw = array.raw()
            spans.append((self._end - start, raw.nbytes))
            self._write(raw)
            self._end += -self._end % ALIGNED
        self._entries.append(Entry(start, self._end - start, tuple(spans), skeleton))

    def _write(self, raw: memoryview) -> None:
        while raw.nbytes:
            n = os.pwrite(self._fd, raw, self._end)
            self._end += n
            raw = raw[n:]

    def close(self) -> ScratchFile:
        """The file, as it can be read from now on."""
        os.ftruncate(self._fd, self._end)
        self._close()
        found = ScratchFile(self.path, _identity(os.stat(self.path)), tuple(self._entries))
        found.delete = weakref.finalize(found, _unlink, self.path, os.getpid(), self.folder)
        return found

    def discard(self) -> None:
        """Give up, and leave nothing behind."""
        self._close()
        _unlink(self.path, os.getpid(), self.folder)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _unlink(path: str, pid: int, folder: Folder) -> None:
    if os.getpid() == pid:
        with suppress(OSError):
            os.unlink(path)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


class ScratchFile:
    """Blocks in a file, which is deleted with what holds it; a copy in another process of the host has a name of its own for the same file."""

    delete: Any = None

    def __init__(self, path: str, identity: tuple[int, int, int], entries: tuple[Entry, ...]) -> None:
        self.path, self.identity, self.entries = path, identity, entries

    def __reduce__(self) -> Any:
        return _arrived, (self.path, self.identity, self.entries)

    def __iter__(self) -> Iterator[Any]:
        """The blocks in order, each valid until the next.

        Raises
        ------
        OSError
            The file is gone, is not the one that was written, or cannot be read.
        """
        fd = os.open(self.path, os.O_RDONLY)
        try:
            if _identity(os.fstat(fd)) != self.identity:
                raise OSError("it is not the one that was written")
            ahead = [*self.entries[1:], None]
            for entry, following in zip(self.entries, ahead):
                if following is not None:
                    os.posix_fadvise(fd, following.start, following.size, os.POSIX_FADV_WILLNEED)
                buffer = _buffer(entry.size)
                _read(fd, buffer, entry.start)
                arrays = [buffer[a : a + n] for a, n in entry.spans]
                yield pickle.loads(entry.skeleton, buffers=arrays)
        finally:
            os.close(fd)


def _arrived(path: str, identity: tuple[int, int, int], entries: tuple[Entry, ...]) -> ScratchFile:
    """A copy of a file from another process, which may be told to drop its own at any time: Dask keeps one of two."""
    found = ScratchFile(path, identity, entries)
    if os.path.exists(path):  # on this host
        with suppress(OSError):
            folder = folder_below(os.path.dirname(os.path.dirname(path)))
            own = os.path.join(folder.path, f"blocks-{token_hex(8)}")
            os.link(path, own)
            found.path, found.delete = own, weakref.finalize(found, _unlink, own, os.getpid(), folder)
    return found


def _read(fd: int, buffer: memoryview, start: int) -> None:
    while buffer.nbytes:
        n = os.preadv(fd, [buffer], start)
        if n == 0:
            raise OSError("it is shorter than it was")
        start += n
        buffer = buffer[n:]


_kept = threading.local()


def _buffer(size: int) -> memoryview:
    """Memory of this thread, used again and again: fresh memory is many times slower."""
    kept: memoryview | None = getattr(_kept, "buffer", None)
    if kept is None or len(kept) < size:
        kept = _kept.buffer = memoryview(mmap.mmap(-1, max(size, mmap.PAGESIZE)))
    return kept[:size]

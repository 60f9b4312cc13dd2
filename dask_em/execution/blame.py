"""Which piece of a table ends the process that reads it.

Dask gives up a task after several workers died while it was theirs, but it may have been another task of theirs that killed them. So the pieces of the tasks in question are read
once more, by a worker that starts a process of its own for that, which notes each piece before it reads it. Whoever ends that process is to blame, and nobody else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from signal import Signals
from tempfile import TemporaryFile
from time import sleep
from typing import Any

import psutil  # type: ignore[import-untyped]
from distributed.protocol import deserialize_bytes, serialize_bytes

from dask_em.errors import DaskEMError, DataError, TryAgainError

LOOK = 0.02
"""Seconds between two looks at the memory of the process."""


@dataclass(frozen=True)
class Reading:
    """What a task does with some consecutive pieces: call(first, pieces[0]) and so on.

    future : the task
    resolved : the pieces, those that the cluster has to compute as futures
    """

    future: Any
    call: Callable[[int, Any], Any]
    resolved: Sequence[Any]
    first: int
    pieces: Sequence[Any]


@dataclass(frozen=True)
class Finding:
    """The position of the piece that ended the process, and how: over its limit of memory, in bytes, or else (0) with an exit code, which is minus the signal."""

    position: int
    limit: int
    code: int


def _named(piece: Any) -> tuple[str, str]:
    """What a piece is, and how to make it smaller."""
    if hasattr(piece, "as_large"):
        what, remedy = piece.as_large()
        return what, remedy
    where, row = getattr(piece, "origin", ("the table", 0))
    return where or f"the piece from row {row}", "cut the table into smaller partitions"


def probe(
    call: Callable[[int, Any], Any], pieces: Sequence[Any], first: int, limit: int, on_piece: Callable[[], Any]
) -> Finding | None:
    """Read pieces in a process of its own; what ended it, if something did.

    Parameters
    ----------
    call, pieces, first : what is done: call(first, pieces[0]) and so on
    limit : bytes of memory that the process may take; 0 for none
    on_piece : called whenever it has come to the next piece
    """
    command = [sys.executable, "-c", "from dask_em.execution.blame import read_and_note; read_and_note()"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with TemporaryFile() as notes:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=notes, stderr=subprocess.DEVNULL, env=env)
        try:
            with child.stdin as pipe, suppress(BrokenPipeError):  # type: ignore[union-attr]
                pipe.write(serialize_bytes((call, list(pieces), first)))
            over, noted = False, -1
            while child.poll() is None:
                sleep(LOOK)
                if limit and _memory(child.pid) > limit:
                    over = True
                    child.kill()
                if (size := os.fstat(notes.fileno()).st_size) != noted:
                    noted = size
                    on_piece()
        finally:
            child.kill()
            child.wait()
        at = os.fstat(notes.fileno()).st_size - 1
    return Finding(at, limit * over, child.returncode) if child.returncode and at >= 0 else None


def read_and_note() -> None:
    """In the process of its own: write a byte, read a piece, and so on; only what ends the process counts."""
    call, pieces, first = deserialize_bytes(sys.stdin.buffer.read())
    notes = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for i, piece in enumerate(pieces, first):
        os.write(notes, b".")
        with suppress(Exception):
            call(i, piece)
    os._exit(0)


def _memory(pid: int) -> int:
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def verdict(reading: Reading, finding: Finding) -> DataError:
    """The error for a piece that ends every process."""
    what, smaller = _named(reading.pieces[finding.position])
    if finding.limit:
        size = getattr(reading.pieces[finding.position], "column_bytes", 0)
        each = f" ({size / 1e6:.0f} MB a column)" if size else ""
        return DataError(
            f"{what}{each} needs more than {finding.limit / 1e6:.0f} MB of memory to be read and encoded, and workers are stopped there: "
            f"{smaller}, use fewer columns, or give workers more memory (memory_limit)"
        )
    how = Signals(-finding.code).name if finding.code < 0 else f"exit code {finding.code}"
    return DataError(f"{what} ends every process that reads it ({how}): check the file, or leave it out")


def acquitted(reading: Reading | None, task: Any, died: int, overfull: int) -> DaskEMError:
    """The error where workers died of a task, but of none of its pieces alone, or of a task that is not ours."""
    if reading is None:
        what = f"of the task {task!r}, which makes the dataframe or is none of this run"
    else:
        ends = dict.fromkeys((_named(reading.pieces[0])[0], _named(reading.pieces[-1])[0]))
        what = f"while they worked on {' to '.join(ends)}, each of which alone ends no process"
    memory = f", {overfull} of them over their memory limit" if overfull else ""
    return TryAgainError(
        f"{died} workers died one after another {what}{memory}: look at their logs, and give them more memory (memory_limit) or fewer threads"
    )

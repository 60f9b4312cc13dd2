"""An executor that remembers: what every pass over the table came to, and the state of the loop after every scan.

A pipeline is a fixed sequence of passes whose results are pure functions of the table and the job. So a run that was interrupted is the same run again, in which the passes that are remembered
are not made: it goes on behind the last of them, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dask_em.execution.base import Executor, itself
from dask_em.operate import disk
from dask_em.operate.portable import DamagedError, NotPortableError, dumps, loads

LARGEST = 1 << 26
"""Bytes of a result beyond which it is not worth keeping (64 MB)."""


class Journal:
    """Values in the files of a folder, in the order in which they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = self.found = 0
        self._next = 0

    def name(self) -> str:
        """The next name: the same one in a run that goes on."""
        self._next += 1
        return f"{self._next:04d}"

    def keep(self, name: str, value: Any) -> None:
        """Keep a value, durably."""
        try:
            content = dumps(value)
        except NotPortableError:
            return  # worked out again where it is needed
        if len(content) <= LARGEST:
            disk.replace_file(self.folder / name, content)
            self.kept += 1

    def find(self, *names: str) -> list[Any]:
        """The values under these names that are there and whole."""
        found = []
        for name in names:
            try:
                found.append(loads((self.folder / name).read_bytes()))
            except (FileNotFoundError, DamagedError):
                continue
        return found


class JournalExecutor:
    """An executor whose passes are remembered in a journal."""

    def __init__(self, executor: Executor, journal: Journal) -> None:
        self._executor, self._journal = executor, journal
        self._loop, self._turn = "", 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def remember(self, work: Callable[[], Any]) -> Any:
        """What the work comes to, or came to before the run was interrupted."""
        name = self._journal.name()
        for value in self._journal.find(name):
            self._journal.found += 1
            return value
        value = work()
        self._journal.keep(name, value)
        return value

    def reduce(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        return self.remember(partial(self._executor.reduce, pieces, function))

    def resume(self, start: Any, rank: Callable[[Any], int]) -> Any:
        """The furthest state of this loop that was kept, or its start."""
        self._loop, self._turn = self._journal.name(), 0
        states = self._journal.find(*(f"{self._loop}-{turn}" for turn in (0, 1)))
        self._journal.found += bool(states)
        return max([start, *states], key=rank)

    def keep(self, handle: Any) -> None:
        """Keep the state of this loop; the one before stays until the next is whole."""
        self._journal.keep(f"{self._loop}-{self._turn}", self._executor.look(handle, itself))
        self._turn = 1 - self._turn

"""An executor that remembers: what every pass over the table came to, and the state of the loop after every scan.

A pipeline is a fixed sequence of passes whose results are pure functions of the table and the job. So a run that was interrupted is the same run again, in which the passes that are remembered
are not made: it goes on behind the last of them, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dask_em.execution.base import Executor, itself
from dask_em.operate import disk
from dask_em.operate.portable import DamagedError, NotPortableError, dumps, loads

LARGEST = 1 << 26
"""Bytes of a result beyond which it is not worth keeping (64 MB)."""


class Journal:
    """Values in the files of a folder, in the order in which they are asked for; `found` counts those of an earlier attempt that were taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = 0
        self._next = 0

    def name(self) -> str:
        """The next name: the same one in a run that goes on."""
        self._next += 1
        return f"{self._next:04d}"

    def keep(self, name: str, value: Any) -> bool:
        """Keep a value, durably; False where it cannot be, and is worked out again where it is needed."""
        try:
            content = dumps(value)
        except NotPortableError:
            return False
        if len(content) > LARGEST:
            return False
        disk.replace_file(self.folder / name, content)
        return True

    def find(self, *names: str) -> dict[str, Any]:
        """The values under these names that are there and whole."""
        found = {}
        for name in names:
            with suppress(FileNotFoundError, DamagedError):
                found[name] = loads((self.folder / name).read_bytes())
        return found


class JournalExecutor:
    """An executor whose passes are remembered in a journal."""

    def __init__(self, executor: Executor, journal: Journal) -> None:
        self._executor, self._journal = executor, journal
        self._turns = "", ""  # where the next state of the loop goes, and where the last one is

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def remember(self, work: Callable[[], Any]) -> Any:
        """What the work comes to, or came to before the run was interrupted."""
        name = self._journal.name()
        if found := self._journal.find(name):
            self._journal.found += 1
            return found[name]
        value = work()
        self._journal.keep(name, value)
        return value

    def reduce(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        return self.remember(partial(self._executor.reduce, pieces, function))

    def resume(self, start: Any, rank: Callable[[Any], int]) -> Any:
        """The furthest state of this loop that was kept, or its start."""
        loop = self._journal.name()
        self._turns = f"{loop}-0", f"{loop}-1"
        found = self._journal.find(*self._turns)
        if not found:
            return start
        self._journal.found += 1
        furthest = max(found, key=lambda name: rank(found[name]))
        if furthest == self._turns[0]:
            self._turns = self._turns[::-1]
        return found[furthest]

    def keep(self, handle: Any) -> None:
        """Keep the state of this loop; the one before stays until the next is whole."""
        if self._journal.keep(self._turns[0], self._executor.look(handle, itself)):
            self._turns = self._turns[::-1]

"""Executors and disks that stop at a chosen moment, as a machine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dask_em.execution.local import LocalExecutor
from dask_em.operate import disk


class Crash(BaseException):
    """The machine stops: nobody may catch it and tidy up."""


class Counting(LocalExecutor):
    """Counts passes over the table, and stops in the middle of one of them; a pass is what reads or scans every piece or block."""

    def __init__(self, n_threads: int = 1, crash_in: int | None = None) -> None:
        super().__init__(n_threads)
        self.passes, self.crash_in = 0, crash_in

    def _pass(self) -> None:
        self.passes += 1
        if self.passes == self.crash_in:
            raise Crash

    def reduce(self, pieces: Any, function: Callable[[int, Any], Any]) -> Any:
        self._pass()
        return super().reduce(pieces, function)

    def _scan(self, blocks: Any, ask: Any, tell: Any, state: Any, *known: Any) -> Any:
        if ask(state) is not None:
            self._pass()
        return super()._scan(blocks, ask, tell, state, *known)


class Disk:
    """Counts what is done to the disk: the n-th operation fails, or is the last one before the machine stops."""

    def __init__(self, fail: int | None = None, crash: int | None = None) -> None:
        self.fail, self.crash, self.count, self.dead = fail, crash, 0, False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if self.dead:
                raise Crash  # a machine that has stopped tidies nothing up
            self.count += 1
            if self.count == self.fail:
                raise OSError(28, "No space left on device")
            out = function(*args, **options)
            if self.count == self.crash:
                self.dead = True
                raise Crash
            return out

        return wrapped


@contextmanager
def through(own: Disk) -> Iterator[Disk]:
    """Let everything that is done to the disk go through one that fails."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "sync", "rename", "exchange", "remove"):  # of which the other functions are made
            patch.setattr(disk, name, own.around(getattr(disk, name)))
        yield own

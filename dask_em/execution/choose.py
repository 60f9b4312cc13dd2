"""From what a user says to an executor. Dask is imported only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask_em.errors import ConfigurationError, TryAgainError
from dask_em.execution.base import Executor
from dask_em.execution.local import LocalExecutor


def is_dask_frame(X: Any) -> bool:
    """Whether X is a Dask dataframe or series, without importing Dask."""
    if "dask.dataframe" not in sys.modules:
        return False
    from dask_em.execution.frames import is_frame

    return is_frame(X)


@contextmanager
def open_executor(
    executor: Any, *, lazy_table: bool = False, blocks: str = "auto", scratch: str | None = None
) -> Iterator[Executor]:
    """The executor meant by an argument, closed at the end if it was made here.

    Parameters
    ----------
    executor : None, "local", "dask", scheduler address, distributed.Client, or an executor
        None means this process, except that a Dask dataframe (`lazy_table`) goes to the client that is open, if there is one. "dask" means the
        client that is open, or else a cluster of processes on this machine for the time of the call. An address that is not encrypted is taken as it is meant, with a
        warning where it is that of another machine.
    blocks, scratch : where encoded rows are kept, see `LocalExecutor` and `DaskExecutor`; an executor that is given has its own settings
    """
    if executor is None:
        executor = "local"
        if lazy_table:
            from dask_em.execution.dask import active_client

            executor = active_client() or "local"
    if executor == "local":
        yield LocalExecutor(blocks=blocks, scratch=scratch)
        return
    if getattr(getattr(executor, "client", executor), "status", "running") == "closed":
        raise TryAgainError("the client given as executor is closed: open a new one, or leave executor out")
    if hasattr(executor, "fold") and hasattr(executor, "look"):
        yield executor
        return
    from distributed import Client

    from dask_em.execution.cluster import is_loopback, is_plain, warn_of_plain
    from dask_em.execution.dask import DaskExecutor, active_client

    if executor == "dask":
        executor = active_client()
    elif isinstance(executor, str) and "://" not in executor and ":" not in executor:
        raise ConfigurationError(
            f"executor {executor!r} is not known: give 'local', 'dask', a scheduler address, or a distributed Client"
        )
    elif executor is not None and not isinstance(executor, (str, Client)):
        raise ConfigurationError("executor must be 'local', 'dask', a scheduler address, or a distributed Client")
    if isinstance(executor, str) and is_plain(executor) and not is_loopback(executor):
        warn_of_plain(executor)
    opened = DaskExecutor(executor, blocks=blocks, scratch=scratch)
    try:
        yield opened
    finally:
        opened.close()

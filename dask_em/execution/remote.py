"""Runs whose driver is on the cluster, as the scheduler knows them by their id: notes, the last lines of their log, and the task that hosts the driver.

Only what every scheduler answers is used, so that it needs nothing of this package. It must not know what a run is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import dask
from distributed import Future, Status, fire_and_forget, get_worker
from distributed import secede as leave_the_pool
from distributed.utils import sync

from dask_em.errors import TryAgainError
from dask_em.execution import cluster

KNOWN = 60.0
"""Seconds that a scheduler may need to take a call."""

NAME = "dask-em"
"""Under this name the scheduler keeps notes, and with it begin the names of tasks and topics."""

ANSWER = 10.0
"""Seconds that a worker waits for an answer of the scheduler."""

TLS = {"tls_ca_file": "ca-file", "tls_client_cert": "client.cert", "tls_client_key": "client.key"}
"""What a client needs, by Dask's own setting."""


@contextmanager
def connected(address: str, files: Mapping[str, Any] | None = None) -> Iterator[Board]:
    """What the scheduler at an address knows of runs.

    Parameters
    ----------
    files : paths of `ca_file`, `cert_file` and `key_file`; by default what Dask's own configuration says

    Raises
    ------
    ConfigurationError
        The address is none, or has no certificates.
    TryAgainError
        No scheduler answers, any more.
    """
    client = cluster.reach(address, None if files is None else cluster.certificates(**files))
    if cluster.is_plain(address):
        cluster.warn_of_plain(address)
    try:
        yield Board(client)
    except (OSError, TimeoutError):
        raise TryAgainError(
            f"the scheduler at {address} does not answer any more: look whether it runs, then try again"
        ) from None
    finally:
        cluster.stop(client)


class Board:
    """What a scheduler knows of runs, from any machine."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def note(self, run_id: str, name: str, value: Any) -> None:
        """Keep a value that JSON knows under a name."""
        self._client.set_metadata([NAME, run_id, name], value)

    def notes(self, run_id: str | None = None) -> dict[str, dict[str, Any]]:
        """The notes of a run, or of all, by run and name."""
        if run_id is not None:
            return {run_id: self._client.get_metadata([NAME, run_id], {})}
        found: dict[str, dict[str, Any]] = self._client.get_metadata([NAME], {})
        return found

    def lines(self, run_id: str) -> list[Any]:
        """The last things that were logged, oldest first."""
        return [message for _, message in self._client.get_events(_task(run_id))]

    def start(self, run_id: str, function: Callable[..., None], *args: Any) -> None:
        """Let the cluster work on a call, again and elsewhere when a worker is lost, until it is done or dropped.

        Raises
        ------
        ConfigurationError
            The cluster runs other versions.
        TryAgainError
            The scheduler does not say that it knows the call.
        """
        cluster.refuse_differences(self._client.get_versions(packages=list(cluster.PACKAGES)))
        future = self._client.submit(function, *args, key=_task(run_id), pure=False, priority=1)
        until = monotonic() + KNOWN
        while self.states([run_id])[run_id] is None:
            if monotonic() > until:
                raise TryAgainError(
                    f"the scheduler did not take the run within {KNOWN:.0f} s: look whether it is busy, then try again"
                )
            sleep(0.05)
        fire_and_forget(future)

    def states(self, run_ids: list[str]) -> dict[str, str | None]:
        """What the scheduler does with the calls of these runs; None if it does not know one."""
        keys = {_task(run_id): run_id for run_id in run_ids}
        found = self._client.sync(self._client.scheduler.get_task_status, keys=list(keys))
        return {keys[key]: state for key, state in found.items()}

    def drop(self, run_id: str) -> None:
        """Forget a call, wherever it is."""
        self._client.cancel([Future(_task(run_id), self._client)], force=True)


class Berth:
    """The worker on which a call that `Board.start` started is at work, and what it can tell the scheduler."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._worker: Any = get_worker()
        leave_the_pool()  # the thread goes back to those who compute

    @property
    def address(self) -> str:
        """Of the worker."""
        return str(self._worker.address)

    @property
    def scheduler(self) -> str:
        """Address of the scheduler, as this worker reaches it."""
        return str(self._worker.scheduler.address)

    @property
    def tls(self) -> dict[str, str]:
        """Dask's settings for a client that has the certificates of this worker."""
        own = self._worker.security
        cert, key = own.tls_client_cert or own.tls_worker_cert, own.tls_client_key or own.tls_worker_key
        found = {"tls_ca_file": own.tls_ca_file, "tls_client_cert": cert, "tls_client_key": key}
        return {f"distributed.comm.tls.{TLS[name]}": value for name, value in found.items() if value}

    @property
    def wanted(self) -> bool:
        """Whether this worker is still meant to work on the call."""
        task = self._worker.state.tasks.get(_task(self._run_id))
        at_work = task is not None and task.state in ("executing", "long-running")
        return at_work and self._worker.status in (Status.running, Status.paused)

    def notes(self) -> dict[str, Any] | None:
        """The notes of this run; None if the scheduler does not answer."""
        try:
            return self._ask(self._worker.scheduler.get_metadata, keys=[NAME, self._run_id], default={})
        except (OSError, TimeoutError):
            return None

    def note(self, name: str, value: Any) -> bool:
        """Keep a value that JSON knows under a name, and say whether the scheduler answered."""
        try:
            self._ask(self._worker.scheduler.set_metadata, keys=[NAME, self._run_id, name], value=value)
        except (OSError, TimeoutError):
            return False
        return True

    def log(self, message: Any) -> None:
        """Add to the log of this run, of which the scheduler keeps the end."""
        self._worker.log_event(_task(self._run_id), message)

    def _ask(self, call: Callable[..., Any], **what: Any) -> Any:
        return sync(self._worker.loop, call, callback_timeout=ANSWER, **what)


def use_tls(settings: Mapping[str, str]) -> None:
    """Make Dask's settings of `Berth.tls` those of this process."""
    dask.config.set(settings)


def _task(run_id: str) -> str:
    return f"{NAME}-{run_id}"

"""Runs whose driver is on the cluster, so that the machine that submitted them may leave.

A call on some worker starts the driver as a process beside it, passes its log to the scheduler and keeps one record of how it goes there. When that worker is lost, Dask makes the same call on another one, which goes on
from the checkpoint; that lies beside the output, so all workers must see the same output folder.

    asked   by who submitted: the job's name, its output, when
    cancel  whether the run is to be cancelled
    told    by the call: state, attempt, worker, times; at the end exit code, facts, and the last error
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dask_em.errors import ConfigurationError, OutputError, TryAgainError
from dask_em.execution.remote import Berth, Board
from dask_em.operate.driver import Driver
from dask_em.redaction import redacted

POLL = 1.0
"""Seconds between two looks at a run."""

GRACE = 15.0
"""Seconds that a driver has to keep a checkpoint when it is cancelled."""

IN_USE = 120.0
"""Seconds that the second attempt waits for the output while the driver of the first still holds it, on a worker that does not answer."""

ENDED = ("done", "failed", "cancelled", "lost")


@dataclass(frozen=True)
class Order:
    """A job file and options of `dask-em run`, which no log of a worker is to show."""

    text: str = field(repr=False)
    options: tuple[str, ...] = field(repr=False)


def submit(board: Board, text: str, options: Sequence[str], about: dict[str, Any]) -> str:
    """Start a run on the cluster, and return its id.

    Parameters
    ----------
    text : the job file
    options : of `dask-em run`
    about : what `status` tells of it
    """
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    board.note(run_id, "asked", {**redacted(about), "submitted": _now()})
    board.start(run_id, drive, run_id, Order(text, tuple(options)))
    return run_id


def status(board: Board, run_id: str | None = None) -> dict[str, dict[str, Any]]:
    """What is known of a run, or of all, by id, in the order in which they were submitted.

    Raises
    ------
    ConfigurationError
        The scheduler knows no run of this id.
    """
    # First the calls: one that is gone has told its end before.
    tasks = board.states(list(board.notes()) if run_id is None else [run_id])
    runs = {name: notes for name, notes in board.notes(run_id).items() if "asked" in notes}
    if run_id is not None and not runs:
        raise ConfigurationError(
            f"no run {run_id} is known to this scheduler: dask-em status without an id lists those that are"
        )
    return {name: _record(name, notes, tasks.get(name, "waiting")) for name, notes in sorted(runs.items())}


def wait(board: Board, run_id: str) -> dict[str, Any]:
    """The record of a run that has ended."""
    while (record := status(board, run_id)[run_id])["state"] not in ENDED:
        time.sleep(POLL)
    return record


def log(board: Board, run_id: str, *, follow: bool = False) -> Iterator[str]:
    """The last lines of a run's log, and those that come until it ends."""
    seen, ended = (0, 0), False
    while True:
        over, ended = ended, status(board, run_id)[run_id]["state"] in ENDED
        for line in board.lines(run_id):
            if (at := (line["attempt"], line["number"])) > seen:
                seen = at
                yield line["line"]
        if over or not follow:  # the last lines may come after the news of the end
            return
        time.sleep(POLL)


def cancel(board: Board, run_id: str) -> dict[str, Any]:
    """End a run, which keeps its checkpoint, and return its last record."""
    record = status(board, run_id)[run_id]
    if record["state"] in ENDED:
        return record
    board.note(run_id, "cancel", True)
    until = time.monotonic() + GRACE + 10 * POLL
    while record["state"] == "running" and time.monotonic() < until:
        time.sleep(POLL / 4)
        record = status(board, run_id)[run_id]
    if record["state"] not in ENDED:  # it has not begun, or its worker does not answer
        board.drop(run_id)
        board.note(run_id, "told", {"state": "cancelled", "ended": _now()})
    return status(board, run_id)[run_id]


def _record(run_id: str, notes: dict[str, Any], task: str | None) -> dict[str, Any]:
    """What is told of a run, from its notes and what the scheduler does with its call."""
    record = {"run": run_id, "state": "queued", **notes["asked"], **notes.get("told", {})}
    if _ended(notes):
        return record
    if task is None:
        gone = "the cluster has given up its driver, with which too many workers died, or which they could not start: look at their logs, then submit it again with --resume"
        return record | {"state": "lost", "exit": TryAgainError.exit_code, "message": gone}
    return record if task == "processing" else record | {"state": "queued"}


def _ended(notes: dict[str, Any]) -> bool:
    return notes.get("told", {}).get("state") in ENDED


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# On the worker


def drive(run_id: str, order: Order) -> None:
    """The call: run a driver beside this worker, and tell how it goes."""
    berth = Berth(run_id)
    while (notes := berth.notes()) is None:
        if not berth.wanted:
            return
    attempt = notes.get("told", {}).get("attempt", 0) + 1
    record = {"state": "running", "attempt": attempt, "worker": berth.address, "started": _now()}
    _tell(berth, record)
    numbers = itertools.count(1)

    def log(line: str) -> None:
        berth.log({"attempt": attempt, "number": next(numbers), "line": redacted(line)})

    options = [*order.options, *(["--resume"] if attempt > 1 else []), "--scheduler", berth.scheduler]
    until = time.monotonic() + IN_USE
    while True:
        driver = Driver(order.text, options, berth.tls, log)
        code = _driven(berth, attempt, driver)
        if code != OutputError.exit_code or attempt == 1 or time.monotonic() > until:
            break
        time.sleep(5 * POLL)
    if code is None:  # another worker does this now, or nobody is to do it
        return
    cancelled = code != 0 and bool((berth.notes() or {}).get("cancel"))
    end = "done" if code == 0 else "cancelled" if cancelled else "failed"
    told = {"state": end, "ended": _now(), "exit": code, "facts": driver.facts, "message": driver.message}
    _tell(berth, record | told)


def _driven(berth: Berth, attempt: int, driver: Driver) -> int | None:
    """The exit code of a driver that has ended, or None if this worker is no longer to run it."""
    until = None
    while (code := driver.wait(POLL)) is None:
        notes = berth.notes()
        replaced = notes is not None and notes.get("told", {}).get("attempt", attempt) != attempt
        if replaced or not berth.wanted:
            driver.kill()
            return None
        if notes and notes.get("cancel") and until is None:
            driver.terminate()
            until = time.monotonic() + GRACE
        if until is not None and time.monotonic() > until:
            driver.kill()
    return code


def _tell(berth: Berth, record: dict[str, Any]) -> None:
    """Keep the record at the scheduler, which may need a moment to answer."""
    for _ in range(5):
        if berth.note("told", record):
            return
        time.sleep(POLL)

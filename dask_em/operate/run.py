"""One run of a job: its own folder while it works, its output in one step when it is done.

    output/               nothing, or what an earlier run left there, until the very end
    .output.run/          beside it, for nobody else's eyes
        lock              held while the run lives; says whose it is
        plan.json         what the run is: id, settings, inputs, versions
        journal/          what passes came to, and the last two states of the loop
        parts/            the output under construction

The output appears by one rename (see places). A crash before it leaves the old output (or none), one after it the new output, of which the next run finishes the paperwork.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dask_em.data.sinks import not_made
from dask_em.errors import DaskEMError, OutputError, TryAgainError
from dask_em.execution.base import Executor
from dask_em.operate import disk
from dask_em.operate.facts import plain
from dask_em.operate.identity import Identity
from dask_em.operate.journal import Journal, JournalExecutor
from dask_em.operate.lock import locked
from dask_em.operate.places import Place, place_of
from dask_em.redaction import redacted


@dataclass(frozen=True)
class Manner:
    """How a run treats what it finds: whether it goes on with an interrupted one, and whether it takes the place of an earlier output."""

    resume: bool = False
    replace: bool = False


class NothingToDo(Exception):  # noqa: N818 - not an error
    """The output is there already, of the same job and the same inputs."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        super().__init__()
        self.record = record


@dataclass
class Run:
    """A run under way.

    id : its name, which it keeps when it goes on; begun : when; identity : what job it is
    folder : where its output is made; executor : where it works
    resumed : whether it goes on with an interrupted attempt; facts : what is told at the end
    """

    id: str
    begun: str
    identity: Identity
    folder: Path
    executor: Executor
    resumed: bool
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def open_run(
    config: Any,
    inputs: Sequence[Mapping[str, Any]],
    cluster: AbstractContextManager[Executor],
    manner: Manner,
) -> Iterator[Run]:
    """A run of a job whose output appears when the block ends well.

    Parameters
    ----------
    config : settings of the job, with `output`
    inputs : what its inputs are known by, one record a file
    cluster : opened while the run works

    Raises
    ------
    NothingToDo
        The same output is there already.
    OutputError
        The output is in use, or is something else.
    ConfigurationError, DataError
        It cannot go on where it was interrupted, for what differs.
    """
    place, identity = place_of(config.output), Identity.of(config, inputs)
    try:
        _check_output(place, identity, manner)
    except NothingToDo as done:
        _tidy_up(place, done.record)
        raise
    home = _made(place)
    run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    with locked(home / "lock", run_id, place.name):
        place.restore()
        try:
            record = _check_output(place, identity, manner)  # another run may just have ended
        except NothingToDo as done:
            _remove_over(home, done.record)
            raise
        plan = _earlier(home, record) if manner.resume else None
        if plan is not None:
            identity.check_goes_on(Identity.read(plan))
            run_id, begun = plan["run"], plan["begun"]
        else:
            begun = _now()
            _begin(home, {"run": run_id, "begun": begun, **identity.document()})
        disk.remove(home / "parts")
        (home / "parts").mkdir(mode=0o777)
        journal, since = Journal(home / "journal"), time.monotonic()
        try:
            with place.held(run_id), cluster as executor:
                run = Run(run_id, begun, identity, home / "parts", JournalExecutor(executor, journal), plan is not None)
                yield run
                record = {
                    "run": run_id,
                    "status": "done",
                    "exit": 0,
                    "begun": begun,
                    "ended": _now(),
                    "seconds": round(time.monotonic() - since, 3),
                    "resumed": run.resumed,
                    "taken_from_checkpoint": journal.found,
                    **identity.document(),
                    "job_hash": identity.job_hash,
                    "cluster": _where(config) | executor.losses(),
                    "facts": plain(run.facts),
                }
                place.publish(home / "parts", record)
        except OSError as error:
            if error.errno not in disk.FULL | disk.FAILING:
                raise
            remedy = "make room" if error.errno in disk.FULL else "look at the disk"
            raise TryAgainError(
                f"output {place.name} cannot be written ({error.strerror}): {remedy}, then run again with --resume"
            ) from None
        except DaskEMError as error:
            if not isinstance(error, TryAgainError):
                disk.remove(home)
            raise
        except Exception as error:
            if not type(error).__module__.startswith("distributed"):  # a cluster that failed may come back
                disk.remove(home)
            raise
        disk.remove(home)


def _check_output(place: Place, identity: Identity, manner: Manner) -> dict[str, Any] | None:
    """Refuse an output that is not ours to make; there is nothing to do where it is made. The record of the one that is to be replaced, if there is one."""
    record = place.record()
    if record is None:
        place.check_vacant()
    elif identity.same_work(Identity.read(record)):
        raise NothingToDo(record)
    elif not manner.replace:
        raise OutputError(
            f"output {place.name} is that of another job or of other data (run {record['run']}): choose another, or say --replace"
        )
    return record


def _tidy_up(place: Place, record: Mapping[str, Any]) -> None:
    """Remove what a run left that was stopped just after its output, with this record, had appeared; not that of one that is at work."""
    with suppress(OutputError, OSError):
        place.prepare()
        if place.home().exists():
            with locked(place.home() / "lock", "", place.name):
                _remove_over(place.home(), record)


def _remove_over(home: Path, record: Mapping[str, Any]) -> None:
    """Remove the folder of a run, unless it is that of another that was interrupted: that may go on."""
    plan = _plan(home)
    if plan is None or plan["run"] == record["run"]:
        disk.remove(home)


def _made(place: Place) -> Path:
    home = place.home()
    try:
        place.prepare()
        with suppress(FileExistsError):
            home.mkdir(mode=0o700)
    except (OSError, ValueError) as error:
        raise not_made(place.name, error) from None
    return home


def _earlier(home: Path, record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The plan of an interrupted run; one that made the output which has this record was stopped when all was done."""
    plan = _plan(home)
    return None if plan is None or (record is not None and record["run"] == plan["run"]) else plan


def _plan(home: Path) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = json.loads((home / "plan.json").read_bytes())
    except (OSError, ValueError):
        return None
    return plan if Identity.is_in(plan) else None


def _begin(home: Path, plan: Mapping[str, Any]) -> None:
    """An empty folder with a plan."""
    disk.remove(home / "plan.json")  # first: what is left without it belongs to nobody
    disk.remove(home / "journal")
    (home / "journal").mkdir(mode=0o700)
    disk.replace_file(home / "plan.json", json.dumps(plan, indent=1).encode())


def _where(config: Any) -> dict[str, Any]:
    """Where the job was done, as far as it said so: whether without encryption, too."""
    cluster = getattr(config, "cluster", None)
    return {} if cluster is None else dict(redacted(cluster.model_dump(mode="json", exclude_unset=True)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

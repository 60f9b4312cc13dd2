"""An output is the old one or the new one, at every step; one run at a time; the same run again is nothing to do."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from dask_em.errors import ConfigurationError, DataError, IntegrityError, OutputError, TryAgainError
from dask_em.execution.local import LocalExecutor
from dask_em.operate import disk, run
from dask_em.operate.places import Folder
from dask_em.operate.run import Manner, NothingToDo, open_run
from tests.operate.crashes import Crash, Disk, through


class Job(BaseModel):
    """A job with one setting."""

    k: int = 2
    output: str


OLD, NEW = Job(k=1, output=""), Job(k=2, output="")
INPUTS = [{"name": "part.parquet", "bytes": 10}]
RESUME, REPLACE = Manner(resume=True), Manner(resume=True, replace=True)


def work(job: Job, output: Path, manner: Manner = RESUME, inputs: Any = INPUTS, count: list[int] | None = None) -> None:
    """Two tables and a page, which say which job made them; one pass that is remembered."""
    job = job.model_copy(update={"output": str(output)})
    with open_run(job, inputs, nullcontext(LocalExecutor(1)), manner) as own:
        total = own.executor.reduce([1, 2, 3], lambda i, piece: _counted(count, piece))
        (own.folder / "table").mkdir()
        for i in range(2):
            pq.write_table(pa.table({"k": [job.k] * total}), own.folder / "table" / f"part-{i}.parquet")
        (own.folder / "page.html").write_text(f"k = {job.k}")
        own.facts = {"k": job.k, "total": total}


def _counted(count: list[int] | None, piece: int) -> int:
    if count is not None:
        count.append(piece)
    return piece


def state(output: Path) -> int | None:
    """Which job's output is there, whole; None where there is none. Anything between is an error."""
    if not output.exists() or not any(output.iterdir()):
        return None
    record = Folder(str(output)).record()
    assert record is not None, sorted(p.name for p in output.rglob("*"))
    for name, entry in json.loads((output / "manifest.json").read_text())["files"].items():
        assert hashlib.sha256((output / name).read_bytes()).hexdigest() == entry["sha256"]
    k = record["facts"]["k"]
    assert (output / "page.html").read_text() == f"k = {k}"
    for i in range(2):
        assert pq.read_table(output / "table" / f"part-{i}.parquet").to_pydict() == {"k": [k] * 6}
    return int(k)


@contextmanager
def without_exchange(wanted: bool) -> Iterator[None]:
    """A file system in which two folders cannot change places in one step."""
    with pytest.MonkeyPatch.context() as patch:
        if wanted:
            patch.setattr(disk, "exchange", lambda path, target: False)
        yield


def test_an_output_says_what_it_is(tmp_path: Path) -> None:
    work(NEW, tmp_path / "out")
    assert state(tmp_path / "out") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert (tmp_path / "out" / "_SUCCESS").read_bytes() == b""
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert {name: own.get("rows") for name, own in manifest.items()} == {
        "page.html": None,
        "table/part-0.parquet": 6,
        "table/part-1.parquet": 6,
    }
    record = Folder(str(tmp_path / "out")).record()
    assert record is not None
    assert record["inputs"] == INPUTS
    assert record["job"] == {"k": 2}
    assert {"numpy", "python", "BLAS kernel", "dask-em"} <= set(record["versions"])


@pytest.mark.parametrize("way", ["fail", "crash"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("together", [True, False], ids=["exchange", "two renames"])
def test_old_or_new_at_every_step(tmp_path: Path, way: str, before: bool, together: bool) -> None:
    """The n-th thing that is done to the disk fails, or is the last one, for every n; then the run goes on."""
    n, ended = 0, False
    while not ended:
        n += 1
        output = tmp_path / str(n) / "out"
        if before:
            work(OLD, output)
        expected = {1} if before else {None}
        with without_exchange(not together):
            with through(Disk(**{way: n})) as own, suppress(Crash, TryAgainError, OSError):
                work(NEW, output, REPLACE)
            ended = own.count < n
            if together or not before:
                assert state(output) in expected | {2}
            with suppress(NothingToDo):
                work(NEW, output, REPLACE)
        assert state(output) == 2
        assert (output / "_SUCCESS").exists()
        assert [p.name for p in output.parent.iterdir()] == ["out"]
    assert n > 15


def test_between_two_renames_the_old_output_is_found_again(tmp_path: Path) -> None:
    """Where folders cannot change places, a crash between the renames leaves nothing for a moment; whoever comes next puts the old one back."""
    work(OLD, tmp_path / "out")
    seen = []
    for n in range(1, 60):
        with without_exchange(True):
            with through(Disk(crash=n)), suppress(Crash):
                work(NEW, tmp_path / "out", REPLACE)
            seen.append((tmp_path / "out").exists())
            with pytest.raises(OutputError, match="another job"):
                work(Job(k=3, output=""), tmp_path / "out", Manner())
            assert state(tmp_path / "out") in (1, 2)
        if state(tmp_path / "out") == 2:
            break
    assert False in seen


def test_the_same_run_again_is_nothing_to_do(tmp_path: Path) -> None:
    work(NEW, tmp_path / "out")
    before = (tmp_path / "out" / "run.json").read_bytes()
    with pytest.raises(NothingToDo) as found:
        work(NEW, tmp_path / "out")
    assert found.value.record["facts"] == {"k": 2, "total": 6}
    assert (tmp_path / "out" / "run.json").read_bytes() == before
    with pytest.raises(OutputError, match="is that of another job or of other data"):
        work(OLD, tmp_path / "out")
    with pytest.raises(OutputError, match="other data"):
        work(NEW, tmp_path / "out", inputs=[{"name": "part.parquet", "bytes": 11}])
    assert state(tmp_path / "out") == 2
    work(OLD, tmp_path / "out", REPLACE)
    assert state(tmp_path / "out") == 1


def test_what_somebody_else_left_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    for manner in (RESUME, REPLACE):
        with pytest.raises(OutputError, match="not empty"):
            work(NEW, tmp_path / "out", manner)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300], ids=["NUL", "too long"])
def test_a_name_that_no_folder_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"output folder .* cannot be made"):
        work(NEW, tmp_path / name)
    assert not list(tmp_path.iterdir())


def interrupted(output: Path) -> None:
    """A run that has remembered its pass, and stops."""
    job = NEW.model_copy(update={"output": str(output)})
    with suppress(Crash), open_run(job, INPUTS, nullcontext(LocalExecutor(1)), RESUME) as own:
        own.executor.reduce([1, 2, 3], lambda i, piece: piece)
        raise Crash


def test_a_run_goes_on_or_begins_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    plan = json.loads((tmp_path / ".out.run" / "plan.json").read_text())
    count: list[int] = []
    work(NEW, tmp_path / "out", count=count)
    record = Folder(str(tmp_path / "out")).record()
    assert record is not None
    assert (count, record["run"], record["resumed"], record["taken_from_checkpoint"]) == ([], plan["run"], True, 1)

    interrupted(tmp_path / "two")
    work(NEW, tmp_path / "two", Manner(), count=count)
    record = Folder(str(tmp_path / "two")).record()
    assert record is not None
    assert (count, record["resumed"]) == ([1, 2, 3], False)


@pytest.mark.parametrize("what", ["settings", "data", "versions"])
def test_what_differs_is_named(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path / "out")
    job, inputs = NEW, INPUTS
    if what == "settings":
        job, error, words = OLD, ConfigurationError, "k is not as it was"
    elif what == "data":
        inputs, error, words = [{"name": "part.parquet", "bytes": 9}], DataError, "part.parquet changed"
    else:
        monkeypatch.setattr("dask_em.operate.identity.version", lambda name: "0.0")
        error, words = ConfigurationError, "the version of dask is another"
    with pytest.raises(error, match=words):
        work(job, tmp_path / "out", inputs=inputs)
    monkeypatch.undo()
    count: list[int] = []
    work(NEW, tmp_path / "out", count=count)  # what was kept is still there
    assert count == []


@pytest.mark.parametrize(
    ("error", "kept"),
    [(TryAgainError, True), (KeyboardInterrupt, True), (DataError, False), (ZeroDivisionError, False)],
)
def test_a_checkpoint_is_kept_where_trying_again_may_help(
    tmp_path: Path, error: type[BaseException], kept: bool
) -> None:
    job = NEW.model_copy(update={"output": str(tmp_path / "out")})
    with pytest.raises(error), open_run(job, INPUTS, nullcontext(LocalExecutor(1)), RESUME):
        raise error("x")
    assert [p.name for p in tmp_path.iterdir()] == ([".out.run"] if kept else [])


def test_parts_of_one_table_have_one_schema(tmp_path: Path) -> None:
    job = NEW.model_copy(update={"output": str(tmp_path / "out")})
    own = open_run(job, INPUTS, nullcontext(LocalExecutor(1)), RESUME)
    folder = own.__enter__().folder
    (folder / "table").mkdir()
    for i, name in enumerate("ab"):
        pq.write_table(pa.table({name: [1]}), folder / "table" / f"part-{i}.parquet")
    with pytest.raises(IntegrityError, match="parts of table differ"):
        own.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


# --- two processes ---------------------------------------------------------------------------------------------------


def _hold(output: str, begun: Any, end: Any) -> None:
    with open_run(NEW.model_copy(update={"output": output}), INPUTS, nullcontext(LocalExecutor(1)), RESUME) as own:
        begun.put(own.id)
        end.wait(60)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    begun, end = spawn.Queue(), spawn.Event()
    first = spawn.Process(target=_hold, args=(str(tmp_path / "out"), begun, end))
    first.start()
    run_id = begun.get(timeout=60)
    with pytest.raises(OutputError, match=f"in use by run {run_id} \\(process {first.pid} on"):
        work(NEW, tmp_path / "out", REPLACE)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    work(NEW, tmp_path / "out")  # a dead owner holds nothing
    record = Folder(str(tmp_path / "out")).record()
    assert record is not None
    assert record["run"] == run_id


def _race(output: str, gate: Any, results: Any) -> None:
    gate.wait(60)
    try:
        work(NEW, Path(output))
        results.put("done")
    except (OutputError, NothingToDo) as error:
        results.put(type(error).__name__)


def test_of_two_that_begin_together_one_makes_the_output(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    for i in range(5):
        gate, results = spawn.Barrier(2), spawn.Queue()
        both = [spawn.Process(target=_race, args=(str(tmp_path / str(i)), gate, results)) for _ in range(2)]
        for one in both:
            one.start()
        outcomes = sorted(results.get(timeout=60) for _ in both)
        for one in both:
            one.join()
        assert outcomes in (["NothingToDo", "done"], ["OutputError", "done"])
        assert state(tmp_path / str(i)) == 2
        assert not (tmp_path / f".{i}.run").exists()


def test_who_waited_for_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output appears between the first look and the lock."""
    made = run._made

    def meanwhile(place: Any) -> Path:
        monkeypatch.undo()
        work(NEW, tmp_path / "out")
        return made(place)

    monkeypatch.setattr(run, "_made", meanwhile)
    with pytest.raises(NothingToDo):
        work(NEW, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_record_of_another_version_is_not_ours(tmp_path: Path) -> None:
    work(NEW, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    del record["inputs"]
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    with pytest.raises(OutputError, match="not empty"):
        work(NEW, tmp_path / "out")
    interrupted(tmp_path / "two")
    (tmp_path / ".two.run" / "plan.json").write_text('{"run": "x", "begun": "y"}')
    work(NEW, tmp_path / "two")  # begins again
    assert state(tmp_path / "two") == 2


def test_a_run_that_was_done_is_not_gone_on_with(tmp_path: Path) -> None:
    """It was stopped between the switch and the end; the next one has other data, and takes its place."""
    work(OLD, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    interrupted(tmp_path / "out2")
    (tmp_path / ".out2.run").rename(tmp_path / ".out.run")
    plan = json.loads((tmp_path / ".out.run" / "plan.json").read_text())
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    plan["run"] = record["run"]
    (tmp_path / ".out.run" / "plan.json").write_text(json.dumps(plan))
    work(NEW, tmp_path / "out", REPLACE, inputs=[{"name": "part.parquet", "bytes": 12}])
    assert state(tmp_path / "out") == 2


def test_nothing_to_do_leaves_what_another_job_may_go_on_with(tmp_path: Path) -> None:
    work(OLD, tmp_path / "out")
    interrupted(tmp_path / "other")
    (tmp_path / ".other.run").rename(tmp_path / ".out.run")
    with pytest.raises(NothingToDo):
        work(OLD, tmp_path / "out")
    count: list[int] = []
    assert (tmp_path / ".out.run" / "plan.json").exists()
    plan = json.loads((tmp_path / ".out.run" / "plan.json").read_text())
    plan["job"] = {"k": 2}
    (tmp_path / ".out.run" / "plan.json").write_text(json.dumps(plan))
    work(NEW, tmp_path / "out", REPLACE, count=count)
    assert count == []


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "make room"), (errno.EDQUOT, "make room"), (errno.EIO, "look at the disk")]
)
def test_trouble_of_the_disk_is_worth_another_try(tmp_path: Path, number: int, remedy: str) -> None:
    job = NEW.model_copy(update={"output": str(tmp_path / "out")})
    with (
        pytest.raises(
            TryAgainError, match=rf"^output .* cannot be written \(.*\): {remedy}, then run again with --resume$"
        ),
        open_run(job, INPUTS, nullcontext(LocalExecutor(1)), RESUME),
    ):
        raise OSError(number, os.strerror(number))
    assert (tmp_path / ".out.run" / "plan.json").exists()


@pytest.mark.parametrize("text", ["5", "[]", "null", '{"run": 1}', "not JSON"])
def test_what_is_no_record_or_plan_is_nobodys(tmp_path: Path, text: str) -> None:
    work(NEW, tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text(text)
    with pytest.raises(OutputError, match="not empty"):
        work(NEW, tmp_path / "out")
    interrupted(tmp_path / "two")
    (tmp_path / ".two.run" / "plan.json").write_text(text)
    work(NEW, tmp_path / "two")  # begins again
    assert state(tmp_path / "two") == 2


def test_nothing_is_left_beside_an_output(tmp_path: Path) -> None:
    assert run.__doc__ is not None
    work(NEW, tmp_path / "a" / "b" / "out")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["out"]

"""An output in an object store: its manifest is the commit, on a real S3 server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from dask_em.errors import OutputError, TryAgainError
from dask_em.execution.local import LocalExecutor
from dask_em.operate.places import Bucket
from dask_em.operate.run import NothingToDo, open_run
from tests.operate.crashes import Crash, Disk
from tests.operate.test_run import INPUTS, NEW, OLD, REPLACE, RESUME, work

URL = "s3://results/survey"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty bucket behind the usual variables of the environment."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    fs, _ = fsspec.core.url_to_fs(URL)
    if fs.exists("results"):
        fs.rm("results", recursive=True)
    fs.mkdir("results")
    yield fs
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def state(fs: Any) -> int | None:
    """Which job's output the manifest names, whole; None where there is no manifest."""
    fs.invalidate_cache()
    if not fs.exists("results/survey/manifest.json"):
        return None
    manifest = json.loads(fs.cat_file("results/survey/manifest.json"))
    data = f"results/survey/{manifest['data']}"
    record = json.loads(fs.cat_file(f"{data}/run.json"))
    for name, entry in manifest["files"].items():
        assert fs.info(f"{data}/{name}")["size"] == entry["bytes"]
    k = record["facts"]["k"]
    for i in range(2):
        with fs.open(f"{data}/table/part-{i}.parquet") as file:
            assert pq.read_table(file).to_pydict() == {"k": [k] * 6}
    return int(k)


def put(output: str, job: Any, manner: Any = RESUME) -> None:
    work(job, output, manner)  # type: ignore[arg-type]


def test_the_manifest_names_the_output(store: Any, tmp_path: Path) -> None:
    put(URL, OLD)
    assert state(store) == 1
    assert store.exists("results/survey/_SUCCESS")
    with pytest.raises(NothingToDo):
        put(URL, OLD)
    with pytest.raises(OutputError, match="another job"):
        put(URL, NEW)
    put(URL, NEW, REPLACE)
    assert state(store) == 2
    folders = [name for name in store.ls("results/survey", detail=False, refresh=True) if "data-" in name]
    assert len(folders) == 1  # the old one is gone
    assert not store.exists("results/survey/_LOCK")
    assert not list(tmp_path.rglob("*.run"))


@pytest.mark.parametrize("way", [Crash, OSError])
def test_old_or_new_at_every_request(store: Any, monkeypatch: pytest.MonkeyPatch, way: type[BaseException]) -> None:
    put(URL, OLD)
    n, ended = 0, False
    while not ended:
        n += 1
        requests = Disk(crash=n) if way is Crash else Disk(fail=n)
        with monkeypatch.context() as patch:
            for name in ("put_file", "pipe_file", "rm_file", "rm"):
                patch.setattr(store, name, requests.around(getattr(store, name)))
            with suppress(Crash, TryAgainError, OSError):
                put(URL, NEW, REPLACE)
            ended = requests.count < n
        assert state(store) in (1, 2)
        store.invalidate_cache()
        if store.exists("results/survey/_LOCK"):  # of a machine that is gone
            with suppress(NothingToDo):
                put(URL, NEW, REPLACE)
            store.invalidate_cache()
            with suppress(FileNotFoundError):
                store.rm_file("results/survey/_LOCK")
        with suppress(NothingToDo):
            put(URL, NEW, REPLACE)
        assert state(store) == 2
        put(URL, OLD, REPLACE)
    assert n > 6


def test_a_second_machine_is_told_who_was_first(store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = NEW.model_copy(update={"output": URL})
    with open_run(job, INPUTS, nullcontext(LocalExecutor(1)), RESUME) as first:
        monkeypatch.setattr(Bucket, "home", lambda self: tmp_path / "elsewhere" / "x.run")
        with pytest.raises(OutputError, match=f"in use by run {first.id}"):
            put(URL, NEW)
        monkeypatch.undo()


def test_a_folder_of_somebody_else_is_not_used(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may make folders where temporary files are: one that others may read or own would tell them the journal."""
    shared = tmp_path / f"dask-em-{os.getuid()}"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    with pytest.raises(OutputError, match="belongs to others"):
        put(URL, NEW)
    shared.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    shared.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="belongs to others"):
        put(URL, NEW)


def test_an_output_that_is_there_needs_no_folder_here(store: Any, tmp_path: Path) -> None:
    put(URL, NEW)
    shared = tmp_path / f"dask-em-{os.getuid()}"
    shared.chmod(0o777)
    with pytest.raises(NothingToDo):
        put(URL, NEW)


@pytest.mark.parametrize("text", [b"5", b"{}", b"null"])
def test_what_is_no_record_is_not_ours(store: Any, text: bytes) -> None:
    put(URL, NEW)
    (record,) = store.glob(f"{URL.removeprefix('s3://')}/data-*/run.json")
    store.pipe_file(record, text)
    with pytest.raises(OutputError, match="is not empty"):
        put(URL, NEW)


def test_what_somebody_else_left_is_not_touched(store: Any) -> None:
    store.pipe_file("results/survey/letter.txt", b"mine")
    with pytest.raises(OutputError, match="not empty"):
        put(URL, NEW, REPLACE)
    assert store.find("results/survey") == ["results/survey/letter.txt"]

"""Where an output appears: a folder, by one rename; or an object store, which has no rename, by its manifest.

    folder/   manifest.json  run.json  _SUCCESS  and the parts
    s3://.../ manifest.json -> data-<run>/...     _SUCCESS

A manifest is one object, and to write it replaces it whole: whoever reads the parts that it names has the old output or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import fsspec

from dask_em.data.sinks import check_vacant
from dask_em.data.storage import reached
from dask_em.errors import OutputError, TryAgainError
from dask_em.operate import disk
from dask_em.operate.commit import MANIFEST, RECORD, SUCCESS, as_json, manifest_of, seal
from dask_em.operate.identity import Identity
from dask_em.redaction import redacted

OLD = "old"
"""Where an earlier output waits, beside the parts, while the new one takes its place."""

LOCK = "_LOCK"


class Place(Protocol):
    """Where the output of a run appears."""

    name: str

    def home(self) -> Path:
        """The folder of a run under way."""

    def prepare(self) -> None:
        """Make the folder that runs under way are in.

        Raises
        ------
        OutputError
            It is not ours alone.
        """

    def record(self) -> dict[str, Any] | None:
        """The record of the run whose output is here, if it is one; its paperwork is finished on the way."""

    def check_vacant(self) -> None:
        """Refuse a place in which something else is."""

    def held(self, run_id: str) -> Any:
        """A block in which no other machine makes this output."""

    def restore(self) -> None:
        """Put an earlier output back whose successor never came."""

    def publish(self, parts: Path, record: Mapping[str, Any]) -> None:
        """Let what is in a folder take the place of what is here."""


def place_of(output: str) -> Place:
    """The place that a job names."""
    return Bucket(output) if "://" in output else Folder(output)


class Folder:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, output: str) -> None:
        self.name, self.target = output, Path(output).absolute()

    def home(self) -> Path:
        return self.target.parent / f".{self.target.name}.run"

    def prepare(self) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)

    def record(self) -> dict[str, Any] | None:
        try:
            manifest = json.loads((self.target / MANIFEST).read_bytes())
            record: dict[str, Any] = json.loads((self.target / RECORD).read_bytes())
            if not Identity.is_in(record) or manifest["run"] != record["run"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._finish()
        return record

    def check_vacant(self) -> None:
        check_vacant(self.name)

    @contextmanager
    def held(self, run_id: str) -> Iterator[None]:
        yield  # the lock of its home is enough

    def restore(self) -> None:
        if (self.home() / OLD).exists() and not self.target.exists():
            disk.rename(self.home() / OLD, self.target)
            disk.sync(self.target.parent)

    def publish(self, parts: Path, record: Mapping[str, Any]) -> None:
        seal(parts, record)
        if not self.target.exists():
            disk.rename(parts, self.target)
        elif not any(self.target.iterdir()):
            self.target.rmdir()
            disk.rename(parts, self.target)
        elif not disk.exchange(parts, self.target):  # a file system that cannot: for a moment there is no output
            disk.rename(self.target, parts.with_name(OLD))
            disk.rename(parts, self.target)
        disk.sync(self.target.parent)
        self._finish()

    def _finish(self) -> None:
        if not (self.target / SUCCESS).exists():
            disk.write(self.target / SUCCESS, b"")
            disk.sync(self.target)


class Bucket:
    """A folder of an object store, reached by fsspec with the credentials of the environment. The run works in a folder of this machine."""

    def __init__(self, output: str) -> None:
        self.url, self.name = output.rstrip("/"), redacted(output)
        with reached(output):
            self.fs, self.root = fsspec.core.url_to_fs(self.url)

    def home(self) -> Path:
        folder = Path(tempfile.gettempdir()) / f"dask-em-{os.getuid()}"
        return folder / f"{hashlib.sha256(self.url.encode()).hexdigest()[:16]}.run"

    def prepare(self) -> None:
        own = self.home().parent
        own.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            own.mkdir(mode=0o700)
        state = own.lstat()  # everybody may make folders there, of this name, too
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
            raise OutputError(
                f"folder {own} belongs to others, or is open to them: remove it, or set TMPDIR to a folder of your own"
            )

    def record(self) -> dict[str, Any] | None:
        with self._reached():
            try:
                manifest = json.loads(self._read(MANIFEST))
                record: dict[str, Any] = json.loads(self._read(f"{manifest['data']}/{RECORD}"))
                if not Identity.is_in(record):
                    return None
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                return None
            if not self.fs.exists(self._at(SUCCESS)):
                self.fs.pipe_file(self._at(SUCCESS), b"")
        return record

    def check_vacant(self) -> None:
        with self._reached():
            try:
                found = self.fs.ls(self.root, detail=False, refresh=True)
            except FileNotFoundError:
                return
        names = {name.rstrip("/").rpartition("/")[2] for name in found}
        if any(not (name == LOCK or name.startswith("data-")) for name in names):
            raise OutputError(f"output {self.name} is not empty: choose another, or remove it first")

    @contextmanager
    def held(self, run_id: str) -> Iterator[None]:
        """The lock is an object that says whose it is, for there is nobody to give it back for a machine that is gone."""
        with self._reached():
            try:
                self.fs.pipe_file(self._at(LOCK), run_id.encode(), mode="create")
            except FileExistsError:
                owner = self._read(LOCK).decode(errors="replace")
                if owner != run_id:  # that of this very run, before it was interrupted, is ours
                    raise OutputError(
                        f"output {self.name} is in use by run {owner}: wait for it to end, or remove {LOCK} there if its machine is gone"
                    ) from None
        try:
            yield
        finally:
            with suppress(Exception):
                self.fs.rm_file(self._at(LOCK))

    def restore(self) -> None:
        """Nothing is ever moved."""

    def publish(self, parts: Path, record: Mapping[str, Any]) -> None:
        seal(parts, record)
        data = f"data-{record['run']}"
        with self._reached():
            before = self._before()
            manifest = manifest_of(parts)
            for name in sorted(p.relative_to(parts).as_posix() for p in parts.rglob("*") if p.is_file()):
                self.fs.put_file(os.fspath(parts / name), self._at(f"{data}/{name}"))
                if self.fs.info(self._at(f"{data}/{name}"), refresh=True)["size"] != (parts / name).stat().st_size:
                    raise TryAgainError(f"{name} did not arrive whole at {self.name}: run again with --resume")
            self.fs.pipe_file(self._at(MANIFEST), as_json({**manifest, "data": data}))
            self.fs.pipe_file(self._at(SUCCESS), b"")
            for name in before - {data}:
                self.fs.rm(self._at(name), recursive=True)

    def _before(self) -> set[str]:
        """Outputs of earlier runs, and of some that never ended."""
        try:
            found = self.fs.ls(self.root, detail=False, refresh=True)
        except FileNotFoundError:
            return set()
        return {n for name in found if (n := name.rstrip("/").rpartition("/")[2]).startswith("data-")}

    def _read(self, name: str) -> bytes:
        self.fs.invalidate_cache()
        content: bytes = self.fs.cat_file(self._at(name))
        return content

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        with reached(self.url):
            yield

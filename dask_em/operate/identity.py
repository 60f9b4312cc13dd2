"""What makes two runs the same: the job, its inputs, and the versions that work on them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from dask_em.errors import ConfigurationError, DataError
from dask_em.operate.facts import plain
from dask_em.redaction import redacted

PACKAGES = ("dask-em", "numpy", "scipy", "pandas", "pyarrow", "dask", "distributed", "numba")

ELSEWHERE = {"cluster", "output"}
"""Keys of a job that say where it is done, which its results do not depend on."""


ENDS = 1 << 16
"""Bytes at either end of a file that are looked at."""


@dataclass(frozen=True)
class Identity:
    """A job as it is known again.

    job : its settings, but for where it is done; inputs : name, size, time and digest of every file; versions : of packages, of Python and of the code that the processor runs
    """

    job: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str]

    @classmethod
    def of(cls, config: Any, inputs: Sequence[Mapping[str, Any]]) -> Identity:
        """The identity of a job here and now."""
        return cls(plain(redacted(config.model_dump(mode="json", exclude=ELSEWHERE))), plain(list(inputs)), versions())

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Identity:
        """From what `asdict` wrote."""
        return cls(document["job"], document["inputs"], document["versions"])

    @staticmethod
    def is_in(document: Any) -> bool:
        """Whether this is the plan or the record of a run, in which `read` finds one; another version may have written another."""
        return isinstance(document, Mapping) and {"run", "begun", "job", "inputs", "versions"} <= set(document)

    @property
    def job_hash(self) -> str:
        """SHA-256 of the settings."""
        return digest(self.job)

    def same_work(self, other: Identity) -> bool:
        """Whether both give the same result, as far as settings and inputs decide."""
        return (self.job, self.inputs) == (other.job, other.inputs)

    def check_goes_on(self, before: Identity) -> None:
        """Refuse to go on with what was begun with other settings, data or versions.

        Raises
        ------
        ConfigurationError, DataError
            The message names what differs.
        """
        remedy = "restore it, or leave --resume out to begin again"
        if changed := _differences(before.job, self.job):
            raise ConfigurationError(f"the run cannot go on, {changed} is not as it was: {remedy}")
        if changed := _inputs_that_differ(before.inputs, self.inputs):
            raise DataError(f"the run cannot go on, {changed} changed since it began: {remedy}")
        if changed := _differences(before.versions, self.versions):
            raise ConfigurationError(f"the run cannot go on, the version of {changed} is another: {remedy}")

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def of_path(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file that is no table is known by: name, size, time, and a digest of its ends; of a folder the digest of what is in it."""
    own = Path(path)
    if own.is_dir():
        inside = sorted(f for f in own.rglob("*") if f.is_file())
        told = [[f.relative_to(own).as_posix(), f.stat().st_size, f.stat().st_mtime_ns] for f in inside]
        return {
            "name": own.name,
            "bytes": sum(size for _, size, _ in told),
            "files": len(told),
            "outline": digest(told),
        }
    state = own.stat()
    with open(own, "rb") as file:
        outline = hashlib.sha256(file.read(ENDS))
        file.seek(max(state.st_size - ENDS, 0))
        outline.update(file.read(ENDS))
    return {"name": own.name, "bytes": state.st_size, "modified": state.st_mtime_ns, "outline": outline.hexdigest()}


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    kernels = {str(b["architecture"]) for b in threadpool_info() if b.get("architecture")}
    return found | {"BLAS kernel": ", ".join(sorted(kernels))}


def digest(value: Any) -> str:
    """SHA-256 of a value that JSON knows, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _differences(before: Any, now: Any, key: str = "") -> str:
    """The first dotted key under which two documents differ."""
    if before == now:
        return ""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            if found := _differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name)):
                return found
    return key


def _inputs_that_differ(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str:
    old, new = ({own["name"]: own for own in inputs} for inputs in (before, now))
    return next((name for name in [*old, *new] if old.get(name) != new.get(name)), "")

"""Settings of the cluster: exactly one of this process, processes of this machine, an address, and a Dask cluster class.

Keys that contradict each other are refused by name, and so is an address without encryption unless `insecure` says that it is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from dask_em.config_base import Bounds, Name, Positive, Seconds, Settings

ENCRYPTED = ("tls://", "wss://")
"""How the addresses begin that are reached through TLS."""

EXCLUDED = {
    "cluster_class": ("scheduler",),
    "n_workers": ("scheduler", "cluster_class"),
    "adaptive": ("workers",),
    "security": ("insecure", "n_workers"),
}
"""Keys that contradict one of the others."""

NEEDED = {
    "workers": ("cluster_class",),
    "adaptive": ("cluster_class",),
    "options": ("cluster_class",),
    "security": ("scheduler", "cluster_class"),
}
"""Keys that mean nothing without one of the others."""


class AdaptiveSize(Bounds):
    """A number of workers that follows the work."""


class SecurityFiles(Settings):
    """Paths of certificates in PEM form."""

    ca_file: Name
    """The authority that signed the certificates of the cluster."""
    cert_file: Name
    """The certificate of this process, and of what a class starts."""
    key_file: Name | None = None
    """Its private key; null where cert_file has it."""


class ClusterConfig(Settings):
    """Where the work is done."""

    model_config = ConfigDict(serialize_by_alias=True)

    # Each key is checked against those above it, so the order matters.
    executor: Literal["local", "dask"] = "local"
    """Threads of this process, or a Dask cluster; a key that names a cluster implies dask, which alone starts one on this machine."""
    insecure: bool = False
    """Whether a cluster without encryption is accepted, although whoever reaches it can run code on it."""
    scheduler: Name | None = None
    """Address of a running scheduler, such as tls://host:8786."""
    cluster_class: Annotated[str, Field(pattern=r"^\w+(\.\w+)+$")] | None = Field(default=None, alias="class")
    """Import path of a Dask cluster class to start, such as dask_jobqueue.SLURMCluster."""
    n_workers: Positive | None = None
    """Worker processes of a cluster that is started on this machine; null is one a core."""
    workers: Positive | None = None
    """Workers that the class starts; null leaves their number to its options."""
    adaptive: AdaptiveSize | None = None
    """Bounds of a number of workers that follows the work."""
    options: dict[Name, Any] = {}
    """Keyword arguments of the class."""
    security: SecurityFiles | None = None
    """Certificates; null is what Dask's own configuration says, or temporary ones where a class can use them."""
    worker_ttl: Seconds = 60
    """After so many seconds of silence a worker is lost."""
    no_workers: Seconds = 120
    """So many seconds work waits for a worker where there is none."""
    stalled: Seconds = 300
    """After so many seconds without progress a scan is given up; a scan that takes long has 20 times the usual."""
    tcp_timeout: Annotated[float, Field(ge=11)] = 30
    """After so many seconds of silence a connection is lost; Dask needs 11 at least."""
    blocks: Literal["auto", "resident", "mapped", "streamed"] = "auto"
    """Where encoded rows are kept between scans: in memory, in scratch files, or nowhere; auto is as fits."""
    scratch: Name | None = None
    """Folder for scratch files, here or on the workers; null is that of temporary files or of the worker."""

    @model_validator(mode="before")
    @classmethod
    def _a_cluster_implies_dask(cls, given: Any) -> Any:
        named = ("scheduler", "class", "n_workers")
        if isinstance(given, Mapping) and "executor" not in given and any(given.get(key) is not None for key in named):
            return {**given, "executor": "dask"}
        return given

    @field_validator("scheduler", "cluster_class", "n_workers", "workers", "adaptive", "options", "security")
    @classmethod
    def _exactly_one_way(cls, value: Any, info: ValidationInfo) -> Any:
        name, before = str(info.field_name), info.data
        if not value:
            return value
        needed = NEEDED.get(name, ())
        if needed and not any(before.get(other, True) for other in needed):  # what is wrong itself is not missing
            raise ValueError(f"is only for a {' or a '.join(map(_key, needed))}: add one, or remove this key")
        if before.get("executor") == "local":
            raise ValueError(f"{_key(name)} needs executor dask: remove one of the two")
        for other in EXCLUDED.get(name, ()):
            if before.get(other):
                raise ValueError(f"{_key(name)} and {_key(other)} exclude each other: remove one of the two")
        return value

    @field_validator("scheduler")
    @classmethod
    def _is_encrypted(cls, scheduler: str | None, info: ValidationInfo) -> str | None:
        insecure = info.data.get("insecure", True)
        if scheduler is not None and not scheduler.startswith(ENCRYPTED) and not insecure:
            raise ValueError("is not encrypted: give a tls:// address, or say insecure: true")
        return scheduler

    @model_validator(mode="after")
    def _insecure_is_for_others(self) -> ClusterConfig:
        if self.insecure and self.scheduler is None and self.cluster_class is None:
            raise ValueError("insecure is only for a scheduler or a class: what is started here is encrypted")
        return self


def _key(name: str) -> str:
    return "class" if name == "cluster_class" else name

"""Clusters that a class starts: of dask-jobqueue, dask-kubernetes, dask-gateway, a cloud provider, or of one's own.

The class is named by its import path and gets its keyword arguments from a job file. Encryption and the absence of status pages are asked for by those keywords that it
takes, and an address without encryption is refused.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
from distributed import Client, Security, SpecCluster, Status

from dask_em.errors import ConfigurationError, TryAgainError
from dask_em.execution import quiet
from dask_em.execution.cluster import certificates, check, is_plain, reason, settings, stop
from dask_em.execution.watch import Limits

CLUSTER = ("get_client", "scale", "adapt", "close")
"""Methods that make a class that of a Dask cluster; not all of them have Dask's own as their base."""


def start_class(
    path: str,
    options: Mapping[str, Any],
    *,
    size: int | tuple[int, int] | None,
    security: Security | None,
    insecure: bool,
    limits: Limits,
) -> tuple[Any, ...]:
    """A client of a cluster that a class starts, the cluster, and what else is to be closed after it.

    Parameters
    ----------
    path : its import path
    options : its keyword arguments
    size : a number of workers, or the bounds of one that follows the work, or what the options say
    security : certificates; by default temporary ones, where the class can use them
    insecure : whether the cluster may do without

    Raises
    ------
    ConfigurationError
        There is no such class, it refuses the options, or makes a cluster without encryption or of other versions.
    TryAgainError
        The cluster cannot be started, or no worker comes.
    """
    cls = _imported(path)
    if security is not None and "security" not in _keywords(cls):
        raise ConfigurationError(f"cluster.security: {path} takes no certificates: remove the key")
    own: list[Any] = [ExitStack()]  # what to close, the last first
    with settings(limits), _muted():
        try:
            arguments = _arguments(cls, options, None if insecure else security or _temporary(cls, options, own[0]))
            own.insert(0, _constructed(cls, path, arguments))
            own.insert(0, own[0].get_client())
            client, cluster, _ = own
            _refuse_plain(client, path, insecure)
            if size is not None:
                _scale(cluster, path, size)
            check(client, limits, wake=False)
        except BaseException:
            stop(*own)
            raise
    return tuple(own)


def _imported(path: str) -> type:
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(f"cluster.class: {module} cannot be imported: install it beside dask-em") from None
    cls = getattr(found, name, None)
    if not isinstance(cls, type) or not all(callable(getattr(cls, method, None)) for method in CLUSTER):
        raise ConfigurationError(f"cluster.class: {path} is not a class of Dask clusters: check the name")
    return cls


def _temporary(cls: type, options: Mapping[str, Any], until: ExitStack) -> Security:
    """New certificates; for jobs of dask-jobqueue in files, in a folder that they share."""
    security = Security.temporary()
    if (of_jobs := _job_settings(cls, options)) is None:
        return security
    shared = options.get("shared_temp_directory") or of_jobs.get("shared-temp-directory") or "."
    try:
        folder = Path(until.enter_context(TemporaryDirectory(prefix=".dask-em-", dir=shared))).absolute()
        for name in ("ca_file", "worker_cert", "worker_key"):
            (folder / name).write_text(getattr(security, f"tls_{name}"))
    except OSError as error:
        raise ConfigurationError(
            f"no certificates can be written into {shared} ({error.strerror}): give a folder that all jobs share as shared_temp_directory in options"
        ) from None
    return certificates(*(str(folder / name) for name in ("ca_file", "worker_cert", "worker_key")))


def _job_settings(cls: type, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What Dask's configuration says of the jobs of a class of dask-jobqueue, and None for another class."""
    if (job := getattr(cls, "job_cls", None)) is None:
        return None
    return dask.config.get(f"jobqueue.{options.get('config_name') or job.config_name}", {})


def _arguments(cls: type, options: Mapping[str, Any], security: Security | None) -> dict[str, Any]:
    """The options, with certificates, and without status pages, for a class that takes such."""
    known = _keywords(cls)
    own: dict[str, Any] = {}
    if "security" in known and security is not None:
        own["security"] = security
    if "scheduler_cls" in known and "dashboard_address" not in (options.get("scheduler_options") or {}):
        own["scheduler_cls"] = quiet.Scheduler
    if (of_jobs := _job_settings(cls, options)) is not None:
        words = options.get("worker_extra_args") or of_jobs.get("worker-extra-args") or []
        if "--worker-class" not in words:
            options = {**options, "worker_extra_args": [*words, "--worker-class", f"{quiet.__name__}.Worker"]}
    return own | dict(options)


def _keywords(cls: type) -> set[str]:
    """Names that a class takes, and its bases where it hands on what it does not know."""
    known: set[str] = set()
    for base in cls.__mro__[:-1]:
        if "__init__" in base.__dict__:
            parameters = inspect.signature(base.__dict__["__init__"]).parameters
            known |= set(parameters)
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                break
    return known


def _constructed(cls: type, path: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"cluster.options: {path} refuses them: {reason(error, arguments)}") from None
    except Exception as error:
        raise TryAgainError(f"{path} cannot start its cluster ({reason(error, arguments)})") from None


def _refuse_plain(client: Client, path: str, insecure: bool) -> None:
    address = client.scheduler.address
    if is_plain(address) and not insecure:
        raise ConfigurationError(
            f"cluster.class: what {path} starts is not encrypted ({address}): give it certificates under security or options, or say insecure: true"
        )


def _scale(cluster: Any, path: str, size: int | tuple[int, int]) -> None:
    first, *most = (size,) if isinstance(size, int) else size

    async def start() -> None:
        cluster.scale(first)
        await cluster._correct_state()

    try:
        if isinstance(cluster, SpecCluster):  # what hinders a worker is told only to who waits for its start
            cluster.sync(start)
        else:
            cluster.scale(first)
        if most:
            cluster.adapt(minimum=first, maximum=most[0])
    except Exception as error:
        for job in [own for own in getattr(cluster, "workers", {}).values() if own.status is Status.created]:
            job.status = Status.failed  # with a job that neither runs nor has failed, a cluster cannot be closed
        raise TryAgainError(f"{path} cannot start workers ({reason(error)}): look at its options") from None


@contextmanager
def _muted() -> Iterator[None]:
    """Without the tracebacks that Dask's loop writes of errors that we tell."""
    logger = logging.getLogger("tornado.application")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

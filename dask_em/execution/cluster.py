"""Clusters and their clients: started on this machine, started by a class, or found at an address, and looked at before they are used.

What is started on this machine listens on the loopback address, with certificates of its own, and shows no status pages. Every function gives a client, and what is to
be closed after it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import ssl
import warnings
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Security, SpecCluster
from distributed.system import MEMORY_LIMIT
from distributed.versions import VersionMismatchWarning

from dask_em.errors import ConfigurationError, TryAgainError
from dask_em.execution import quiet
from dask_em.execution.watch import Limits, Watch

PLAIN = ("tcp://", "ws://", "ucx://", "ucxx://")
"""How the addresses begin that are reached without TLS."""

PACKAGES = ("dask-em", "dask", "distributed", "numpy", "pandas", "pyarrow")
"""Packages of which client, scheduler and workers need the same version: they unpickle what the others made, and agree to the last bit."""

CLUSTER = ("get_client", "scale", "adapt", "close")
"""Methods that make a class that of a Dask cluster; not all of them have Dask's own as their base."""


def settings(limits: Limits) -> dask.config.set:
    """Dask's configuration with our limits, for a scheduler and workers that are started inside; logs that grow with every task are kept short."""
    return dask.config.set(
        {
            "distributed.scheduler.worker-ttl": f"{limits.worker_ttl}s",
            "distributed.scheduler.no-workers-timeout": f"{limits.no_workers}s",
            "distributed.scheduler.allowed-failures": 3,
            "distributed.comm.timeouts.tcp": f"{limits.tcp_timeout}s",
            "distributed.admin.log-length": 1000,
            "distributed.admin.low-level-log-length": 100,
            "distributed.admin.system-monitor.log-length": 100,
            "distributed.worker.profile.enabled": False,
        }
    )


def start_here(n_workers: int | None, limits: Limits) -> tuple[Client, SpecCluster]:
    """A cluster of processes with one thread each on this machine; by default one a core."""
    n = n_workers or CPU_COUNT
    listen = {"host": "127.0.0.1", "protocol": "tls://", "security": Security.temporary()}
    worker = {
        "cls": Nanny,
        "options": {
            **listen,
            "nthreads": 1,
            "memory_limit": MEMORY_LIMIT // n,
            "worker_class": quiet.Worker,
            "silence_logs": logging.WARNING,
        },
    }
    with settings(limits):
        try:
            cluster = SpecCluster(
                scheduler={"cls": quiet.Scheduler, "options": {**listen, "port": 0, "dashboard": False}},
                workers=dict.fromkeys(range(n), worker),
                worker=worker,
                security=listen["security"],
                silence_logs=logging.WARNING,
            )
        except (OSError, RuntimeError) as error:
            raise TryAgainError(f"no cluster can be started on this machine ({_reason(error)})") from None
        return Client(cluster), cluster


def connect(address: str, security: Security | None = None, limits: Limits = Limits()) -> Client:  # noqa: B008
    """A client of the scheduler at an address, which has a worker, and the same versions everywhere.

    Raises
    ------
    ConfigurationError
        The address is none, has no certificates, or runs other versions.
    TryAgainError
        Nothing answers there, or no worker comes.
    """
    security = security or Security()
    if not address.startswith(PLAIN) and security.get_connection_args("client")["ssl_context"] is None:
        raise ConfigurationError(
            f"there are no certificates for {address}: name the files under security, or in Dask's configuration (distributed.comm.tls)"
        )
    with settings(limits):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VersionMismatchWarning)  # it is an error of ours
                client = Client(address, security=security, set_as_default=False)
        except (OSError, TimeoutError):
            raise TryAgainError(
                f"no scheduler answers at {address}: check that it runs and trusts these certificates, or leave the address out to use this machine"
            ) from None
        except ValueError as error:
            raise ConfigurationError(f"{address} is no address of a scheduler: {_reason(error)}") from None
        _check(client, limits)
    return client


def start_class(
    path: str,
    options: Mapping[str, Any],
    *,
    size: int | tuple[int, int] | None,
    security: Security | None,
    insecure: bool,
    limits: Limits,
) -> tuple[Client, Any]:
    """A cluster that a class starts.

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
    arguments = {**_defaults(cls, options, security, insecure), **options}
    with settings(limits):
        cluster = _constructed(cls, path, arguments)
        try:
            client = cluster.get_client()
            _refuse_plain(client, path, insecure)
            _scale(cluster, path, size)
            _check(client, limits)
        except BaseException:
            stop(cluster)
            raise
    return client, cluster


def stop(*things: Any) -> None:
    """Close clients and clusters, in whatever state they are."""
    for thing in things:
        with suppress(Exception):
            thing.close()


def is_plain(address: str) -> bool:
    """Whether an address is reached without TLS; what has no protocol is."""
    return address.startswith(PLAIN) or "://" not in address


def is_loopback(address: str) -> bool:
    """Whether an address is one of this machine only."""
    host = address.partition("://")[2] or address
    return host.startswith(("127.", "localhost:", "[::1]:"))


def warn_of_plain(address: str) -> None:
    """Warn of a cluster without encryption."""
    warnings.warn(f"the cluster at {address} is not encrypted: whoever reaches it can run code on it", stacklevel=3)


def certificates(ca_file: str, cert_file: str, key_file: str | None) -> Security:
    """Certificates for all roles, from PEM files."""
    for key, file in (("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        if file is not None:
            try:
                open(file, "rb").close()
            except OSError as error:
                raise ConfigurationError(
                    f"cluster.security.{key}: {file} cannot be read ({error.strerror}): check the path"
                ) from None
    roles = ("client", "scheduler", "worker")
    own = {f"tls_{role}_cert": cert_file for role in roles} | {f"tls_{role}_key": key_file for role in roles}
    security = Security(require_encryption=True, tls_ca_file=ca_file, **own)
    try:
        security.get_connection_args("client")
    except ssl.SSLError:
        raise ConfigurationError(
            f"cluster.security: {cert_file} is no certificate in PEM form, or the key is that of another one"
        ) from None
    return security


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


def _defaults(cls: type, options: Mapping[str, Any], security: Security | None, insecure: bool) -> dict[str, Any]:
    """Certificates, and no status pages, for a class that takes them."""
    makers = [base.__dict__["__init__"] for base in cls.__mro__[:-1] if "__init__" in base.__dict__]
    known = {name for make in makers for name in inspect.signature(make).parameters}
    own: dict[str, Any] = {}
    if "security" in known and not insecure:
        own["security"] = security or Security.temporary()
    elif security is not None:
        raise ConfigurationError("cluster.security: the class takes no certificates: remove the key")
    if "scheduler_cls" in known and "dashboard_address" not in options.get("scheduler_options", {}):
        own["scheduler_cls"] = quiet.Scheduler
    return own


def _constructed(cls: type, path: str, arguments: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        # dask-jobqueue hands the certificates to its jobs in files of the working directory, which they share.
        warnings.filterwarnings("ignore", "(?s)Using a temporary security object")
        try:
            return cls(**arguments)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"cluster.options: {path} refuses them: {_reason(error, arguments)}") from None
        except Exception as error:
            raise TryAgainError(f"{path} cannot start its cluster ({_reason(error, arguments)})") from None


def _refuse_plain(client: Client, path: str, insecure: bool) -> None:
    address = client.scheduler.address
    if is_plain(address) and not insecure:
        raise ConfigurationError(
            f"cluster.class: what {path} starts is not encrypted ({address}): give it certificates under security or options, or say insecure: true"
        )


def _scale(cluster: Any, path: str, size: int | tuple[int, int] | None) -> None:
    if size is None:
        return
    try:
        cluster.scale(size if isinstance(size, int) else size[0])
        if isinstance(cluster, SpecCluster):  # its errors are told only to who waits for the workers to be started
            cluster.sync(cluster._correct_state)
        if not isinstance(size, int):
            cluster.adapt(minimum=size[0], maximum=size[1])
    except Exception as error:
        raise TryAgainError(f"{path} cannot start workers ({_reason(error)})") from None


def _check(client: Client, limits: Limits) -> None:
    """Wait for a worker, and compare the versions of those that are there."""
    watch = Watch(client, limits)
    try:
        waiting = client.submit(int, pure=False)  # where workers follow the work, none comes before there is some
        watch.ask(client._wait_for_workers, 1)
        waiting.release()
        found = watch.ask(client._get_versions, packages=list(PACKAGES))
    except BaseException:
        stop(client)
        raise
    if differ := differences(found):
        stop(client)
        raise ConfigurationError(f"versions differ: {'; '.join(differ)}: install the same everywhere")


def differences(found: Mapping[str, Any]) -> list[str]:
    """What `Client.get_versions` found to differ from this process, package by package."""
    own = _versions(found["client"])
    others = {"the scheduler": found["scheduler"], **{f"worker {a}": own for a, own in found["workers"].items()}}
    said = []
    for package, here in own.items():
        there: dict[str, list[str]] = defaultdict(list)
        for who, info in others.items():
            if (version := _versions(info)[package]) != here:
                there[version].append(who)
        for version, places in there.items():
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            said.append(f"{package} is {here} here, {version} on {places[0]}{more}")
    return said


def _versions(info: Mapping[str, Any]) -> dict[str, str]:
    python = ".".join(info["host"]["python"].split(".")[:2])
    return {"python": python} | {name: info["packages"].get(name) or "missing" for name in PACKAGES}


def _reason(error: Exception, arguments: Mapping[str, Any] | None = None) -> str:
    """The first line of what a library says, without the values that it was given."""
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    for value in (arguments or {}).values():
        if isinstance(value, str) and len(value) > 2:
            text = text.replace(value, "***")
    return text.strip(" .:")[:200]

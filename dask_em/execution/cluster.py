"""Clusters and their clients: started on this machine, or found at an address, and looked at before they are used.

What is started on this machine listens on the loopback address, with certificates of its own, and shows no status pages.
"""

from __future__ import annotations

import gc
import logging
import ssl
import traceback
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


def settings(limits: Limits) -> dask.config.set:
    """Dask's configuration with our limits, for a scheduler and workers that are started inside; logs that grow with every task are kept short."""
    return dask.config.set(
        {
            "distributed.scheduler.worker-ttl": f"{limits.worker_ttl:g}s",
            "distributed.scheduler.no-workers-timeout": f"{limits.no_workers:g}s",
            "distributed.scheduler.allowed-failures": 3,
            "distributed.comm.timeouts.tcp": f"{limits.tcp_timeout:g}s",
            "distributed.admin.log-length": 1000,
            "distributed.admin.low-level-log-length": 100,
            "distributed.admin.system-monitor.log-length": 100,
            "distributed.worker.profile.enabled": False,
        }
    )


def workers_here(n_workers: int | None) -> tuple[int, int]:
    """How many workers are started on this machine, and the memory of each."""
    n = n_workers or CPU_COUNT
    return n, MEMORY_LIMIT // n


class Here(SpecCluster):
    """Processes of this machine. A worker that died is waited for as long as the driver waits: after 15 seconds Dask would stop the nanny that is starting it again, which a busy machine may need."""

    patience = Limits().no_workers

    def _update_worker_status(self, op: str, msg: Any) -> None:
        with dask.config.set({"distributed.deploy.lost-worker-timeout": f"{self.patience:g}s"}):
            super()._update_worker_status(op, msg)


def start_here(n_workers: int | None, limits: Limits) -> tuple[Client, SpecCluster]:
    """A cluster of processes with one thread each on this machine; by default one a core."""
    n, memory = workers_here(n_workers)
    listen = {"host": "127.0.0.1", "protocol": "tls://", "security": Security.temporary()}
    worker = {
        "cls": Nanny,
        "options": {
            **listen,
            "nthreads": 1,
            "memory_limit": memory,
            "worker_class": quiet.Worker,
            "silence_logs": logging.WARNING,
        },
    }
    with settings(limits):
        try:
            cluster = Here(
                scheduler={"cls": quiet.Scheduler, "options": {**listen, "port": 0, "dashboard": False}},
                workers=dict.fromkeys(range(n), worker),
                worker=worker,
                security=listen["security"],
                silence_logs=logging.WARNING,
            )
        except (OSError, RuntimeError) as error:
            raise TryAgainError(f"no cluster can be started on this machine ({reason(error)})") from None
        cluster.patience = limits.no_workers
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
    with settings(limits):
        client = reach(address, security)
        check(client, limits, wake=True)
    return client


def reach(address: str, security: Security | None = None) -> Client:
    """A client of the scheduler at an address, whatever runs there; errors as of `connect`."""
    security = security or Security()
    if not address.startswith(PLAIN) and security.get_connection_args("client")["ssl_context"] is None:
        raise ConfigurationError(
            f"there are no certificates for {address}: name the files under security, or in Dask's configuration (distributed.comm.tls)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # it is an error of ours
            return Client(address, security=security, set_as_default=False)
    except (OSError, TimeoutError) as error:
        told: Exception = TryAgainError(
            f"no scheduler answers at {address}: check that it runs and trusts these certificates, or leave the address out to use this machine"
        )
        _let_go(error)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        told = ConfigurationError(f"{address} is no address to connect to: {reason(error)}")
        _let_go(error)
    raise told


def _let_go(error: Exception) -> None:
    """Close the client that was not made, now and here: if it were found by the collector while the next one starts its thread, both would wait for each other."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None
    gc.collect()


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


def check(client: Client, limits: Limits, *, wake: bool) -> None:
    """Wait for a worker, and compare the versions of those that are there."""
    watch = Watch(client, limits)
    try:
        waiting = client.submit(int, pure=False) if wake else None  # where workers follow the work, none comes before
        watch.ask(client._wait_for_workers, 1)
        del waiting
        refuse_differences(watch.ask(client._get_versions, packages=list(PACKAGES)))
    except BaseException:
        stop(client)
        raise


def refuse_differences(found: Mapping[str, Any]) -> None:
    """Raise an error for what `Client.get_versions` found to differ."""
    if differ := differences(found):
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


def reason(error: Exception, arguments: Mapping[str, Any] | None = None) -> str:
    """The first line of what a library says, and the last where nothing was given to it: otherwise it may repeat that."""
    lines = [line.strip(" .:") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = ": ".join(lines[:1] if arguments or len(lines) == 1 else (lines[0], lines[-1]))
    for value in (arguments or {}).values():
        if isinstance(value, str) and len(value) > 2:
            text = text.replace(value, "***")
    return text[:300]

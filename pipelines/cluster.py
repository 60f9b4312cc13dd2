"""The executor that a job file asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask_em.config import ClusterConfig
from dask_em.execution.base import Executor
from dask_em.execution.local import LocalExecutor


@contextmanager
def open_cluster(config: ClusterConfig) -> Iterator[Executor]:
    """Open what `config` describes; what was started here is stopped at the end."""
    if config.executor == "local":
        yield LocalExecutor(blocks=config.blocks, scratch=config.scratch)
        return
    from dask_em.execution.cluster import settings, stop
    from dask_em.execution.dask import DaskExecutor
    from dask_em.execution.watch import Limits

    limits = Limits(config.worker_ttl, config.no_workers, config.stalled, config.tcp_timeout)
    with settings(limits):  # connections are made all the time
        own = _open(config, limits)
        try:
            threads = _expected(config) * max(own[0].nthreads().values(), default=1)
            yield DaskExecutor(own[0], blocks=config.blocks, scratch=config.scratch, limits=limits, threads=threads)
        finally:
            stop(*own)


def _open(config: ClusterConfig, limits: Any) -> tuple[Any, ...]:
    """A client, and the cluster where it was started here."""
    from dask_em.execution.cluster import certificates, connect, is_plain, start_here, warn_of_plain
    from dask_em.execution.cluster_class import start_class

    files = config.security
    security = None if files is None else certificates(files.ca_file, files.cert_file, files.key_file)
    if config.cluster_class is not None:
        adaptive = config.adaptive
        size = config.workers if adaptive is None else (adaptive.minimum, adaptive.maximum)
        own: tuple[Any, ...] = start_class(
            config.cluster_class, config.options, size=size, security=security, insecure=config.insecure, limits=limits
        )
    elif config.scheduler is not None:
        own = (connect(config.scheduler, security, limits),)
    else:
        return start_here(config.n_workers, limits)
    if is_plain(address := own[0].scheduler.address):
        warn_of_plain(address)
    return own


def _expected(config: ClusterConfig) -> int:
    """Workers that are to come; for those of an adaptive cluster there has to be work before they are there."""
    return config.workers or (config.adaptive.maximum if config.adaptive else 0)

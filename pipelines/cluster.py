"""The executor that a job file asks for."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from typing import Any

from dask_em.config import ClusterConfig
from dask_em.execution.base import Executor
from dask_em.execution.choose import open_executor


def open_cluster(cluster: ClusterConfig) -> AbstractContextManager[Executor]:
    """Open what `cluster` describes; what was started here is stopped at the end."""
    if cluster.executor == "dask" and cluster.scheduler is None and cluster.n_workers is not None:
        from dask_em.execution.dask import DaskExecutor

        started: Any = DaskExecutor(n_workers=cluster.n_workers, blocks=cluster.blocks, scratch=cluster.scratch)
        return closing(started)
    where = cluster.scheduler or cluster.executor
    return open_executor(where, blocks=cluster.blocks, scratch=cluster.scratch)

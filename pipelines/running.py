"""A pipeline as a run: what it reads is known by its fingerprint, what it writes appears in one step, and it goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dask_em.execution.local import LocalExecutor
from dask_em.operate.run import Manner, Run, open_run
from pipelines.cluster import open_cluster

FRESH = Manner()


def running(config: Any, inputs: Sequence[Any], manner: Manner) -> AbstractContextManager[Run]:
    """The run of a job on the tables, or pictures, that it reads."""
    cluster = getattr(config, "cluster", None)
    where: Any = nullcontext(LocalExecutor()) if cluster is None else open_cluster(cluster)
    return open_run(config, [own for source in inputs for own in _known(source)], where, manner)


def _known(source: Any) -> Sequence[Any]:
    fingerprint = getattr(source, "fingerprint", None)
    return [] if fingerprint is None else fingerprint()

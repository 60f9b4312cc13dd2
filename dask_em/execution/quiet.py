"""A scheduler and a worker of Dask without the status pages that they serve over HTTP, even where their dashboard is off.

Workers that others start take `--worker-class dask_em.execution.quiet.Worker`.
"""

from __future__ import annotations

from typing import Any

import distributed


class Scheduler(distributed.Scheduler):
    """A scheduler that listens to the cluster only."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Open no further port."""


class Worker(distributed.Worker):
    """A worker that listens to the cluster only."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Open no further port."""

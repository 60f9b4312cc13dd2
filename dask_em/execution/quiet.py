"""A scheduler and a worker of Dask without the status pages that they serve over HTTP, even where their dashboard is off, and a worker whose log quotes no data.

Workers that others start take `--worker-class dask_em.execution.quiet.Worker`.
"""

from __future__ import annotations

import logging
from typing import Any

import distributed


class Scheduler(distributed.Scheduler):
    """A scheduler that listens to the cluster only."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Open no further port."""


class Worker(distributed.Worker):
    """A worker that listens to the cluster only, and leaves it to the driver to say what failed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        logging.getLogger("distributed.worker").addFilter(tells_no_data)
        super().__init__(*args, **options)

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Open no further port."""


def tells_no_data(record: logging.LogRecord) -> bool:
    """False for the entry of a failed task: it shows the task's arguments and what a library said, which may be cells of a table."""
    return not str(record.msg).startswith("Compute Failed")

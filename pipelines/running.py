"""A pipeline as a run: what it reads is known by its fingerprint, what it writes appears in one step, and it goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from typing import Any

from dask_em.data.sinks import check_apart
from dask_em.data.sources import Source
from dask_em.errors import DataError
from dask_em.execution.local import LocalExecutor
from dask_em.operate.identity import of_path
from dask_em.operate.run import Manner, Run, open_run
from pipelines.cluster import open_cluster

FRESH = Manner()


@contextmanager
def running(config: Any, inputs: Sequence[Source | str | PathLike[str]], manner: Manner) -> Iterator[Run]:
    """The run of a job on the tables, or files, that it reads.

    Raises
    ------
    DataError
        One of them is another at the end; then nothing is written. Tables are compared in every read besides.
    """
    cluster = getattr(config, "cluster", None)
    where: Any = nullcontext(LocalExecutor()) if cluster is None else open_cluster(cluster)
    for own in inputs:
        if isinstance(own, Source):
            check_apart(own.folder, config.output)
    files = [own for own in inputs if not isinstance(own, Source)]
    before = list(map(of_path, files))
    known = [record for own in inputs if isinstance(own, Source) for record in own.fingerprint()]
    with open_run(config, known + before, where, manner) as run:
        yield run
        for own, now in zip(before, map(of_path, files)):
            if own != now:
                raise DataError(f"{own['name']} changed while it was read: run again when nobody writes to it")

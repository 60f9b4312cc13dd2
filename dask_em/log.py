"""What a command tells while it works, on stderr: sentences for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from dask_em.redaction import redacted


class Log:
    """Sentences for people; progress on one line of a terminal, or every few seconds in a file."""

    quiet = False

    def say(self, level: str, message: str) -> None:
        """Tell an error, a warning or what goes on."""
        for line in redacted(message).splitlines():
            click.echo(f"dask-em: {level}: {line}", err=True)

    def event(self, event: str, **facts: Any) -> None:
        """Tell what happened; people are told by other means."""

    @contextmanager
    def progress(self) -> Iterator[Callable[[Any], None]]:
        """A callable that tells records with scan, candidates, objective and message."""
        if self.quiet:
            yield lambda record: None
        elif not sys.stderr.isatty() or "NO_COLOR" in os.environ:
            yield seldom(lambda record: click.echo(line_of(record), err=True))
        else:
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task("starting")
                yield lambda record: bar.update(task, description=line_of(record))


class JsonLog(Log):
    """One object a line: time, event, level, and what belongs to it; what Dask logs here and on workers that are started here, too."""

    def __init__(self) -> None:
        import dask

        handlers = {"json": {"class": "dask_em.log.JsonHandler"}}
        root = {"level": "WARNING", "handlers": ["json"]}
        rules = {"version": 1, "disable_existing_loggers": False, "handlers": handlers, "root": root}
        logging.config.dictConfig(rules)
        dask.config.set(logging=rules)  # what distributed does when it is imported
        os.environ["DASK_LOGGING"] = repr(rules)  # the same in the processes of its workers

    def say(self, level: str, message: str) -> None:
        self.event("message", level=level, message=message)

    def event(self, event: str, **facts: Any) -> None:
        _tell(event, **facts)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Any], None]]:
        def tell(record: Any) -> None:
            finite = {
                name: value
                for name in ("scan", "candidates", "objective", "change", "done")
                if (value := getattr(record, name, None)) is not None and abs(value) < float("inf")
            }
            self.event("scan", **finite)

        yield (lambda record: None) if self.quiet else tell


class JsonHandler(logging.Handler):
    """Messages of libraries in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a message."""
        _tell("message", level=record.levelname.lower(), logger=record.name, message=record.getMessage())


def _tell(event: str, **facts: Any) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    click.echo(json.dumps(redacted({"time": now, "event": event, **facts})), err=True)


def seldom(show: Callable[[Any], None], seconds: float = 2.0) -> Callable[[Any], None]:
    """Show the first record, the last, and one every few seconds: a log is read by people."""
    due = 0.0

    def maybe(record: Any) -> None:
        nonlocal due
        if time.monotonic() >= due or record.done:
            show(record)
            due = time.monotonic() + seconds

    return maybe


def line_of(record: Any) -> str:
    """The record's own words, else its facts."""
    return str(record.message or f"scan {record.scan}  {record.candidates} candidates  objective {record.objective}")

"""The process that drives a run on behalf of a worker. It is told what to do on its standard input, and ends at once when that is closed, which happens when the worker ends, however it does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

COMMAND = (sys.executable, "-m", "dask_em.cli_driver")

LONGEST_LINE = 4000
"""Characters of a line of the log that are passed on."""

LARGEST_RESULT = 1 << 20
"""Bytes of facts that are passed on."""


class Driver:
    """A driver at work.

    Parameters
    ----------
    text : the job file
    options : of `dask-em run`
    tls : Dask's settings for its client
    log : is told every line of its standard error
    """

    def __init__(self, text: str, options: Sequence[str], tls: dict[str, str], log: Callable[[str], None]) -> None:
        self._process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self.message: str | None = None
        self._result = ""
        self._readers = [
            threading.Thread(target=reader, args=args, daemon=True)
            for reader, args in ((self._read_log, (log,)), (self._read_result, ()))
        ]
        for reader in self._readers:
            reader.start()
        self._order({"text": text, "options": list(options), "tls": tls})

    def wait(self, seconds: float) -> int | None:
        """Its exit code as a shell would say it; None if it is still at work."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._close()
        return code if code >= 0 else 128 - code

    @property
    def facts(self) -> Any:
        """What it printed as results, or None."""
        try:
            return json.loads(self._result)
        except ValueError:
            return None

    def terminate(self) -> None:
        """Ask it to keep a checkpoint and end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _order(self, order: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and its exit code says why
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        for reader in self._readers:
            reader.join(5)  # what it has started and left behind may hold the other ends open

    def _read_log(self, log: Callable[[str], None]) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                log(line.rstrip("\n")[:LONGEST_LINE])
                self.message = _error_in(line) or self.message

    def _read_result(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as result:
            self._result = result.read(LARGEST_RESULT)
            while result.read(LARGEST_RESULT):
                self._result = ""  # too large to be passed on


def _error_in(line: str) -> str | None:
    """The sentence of a line that tells an error."""
    try:
        told = json.loads(line)
        return str(told["message"]) if told["level"] == "error" else None
    except (ValueError, TypeError, KeyError):
        return None

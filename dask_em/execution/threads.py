"""Threads: one of BLAS while the engine works, so that threads and workers are ours to use and the bits do not depend on BLAS; and those that have nothing to do at the root of a scan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_at_root: ContextVar[ThreadPoolExecutor | None] = ContextVar("at_root", default=None)

_lock = threading.Lock()
_holders = 0
_limiter: Any = None


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def single_blas() -> Iterator[None]:
    """Limit BLAS to one thread until the last holder in this process leaves."""
    global _holders, _limiter
    with _lock:
        if _holders == 0:
            _limiter = _controller().limit(limits=1, user_api="blas")
            _limiter.__enter__()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limiter.__exit__(None, None, None)
                _limiter = None


@contextmanager
def at_root(n_threads: int) -> Iterator[None]:
    """Let `spread` use so many threads: there is one root, and whoever walked over blocks waits for it."""
    if n_threads == 1:
        yield
        return
    with ThreadPoolExecutor(n_threads) as pool:  # starts no thread before it has work
        token = _at_root.set(pool)
        try:
            yield
        finally:
            _at_root.reset(token)


def spread(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """function(item) in order, on the threads that are free here."""
    pool = _at_root.get()
    return map(function, items) if pool is None or len(items) < 2 else pool.map(function, items)

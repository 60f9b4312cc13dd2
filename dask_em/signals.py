"""SIGINT and SIGTERM end what a command does by an exception, so that it is unwound as after any error, and none of them is lost."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

MOMENT = 0.05
"""Seconds after which a signal that was dropped is sent again."""


class Terminated(BaseException):
    """SIGTERM arrived: unwind, so that unfinished output is removed."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM raises as SIGINT does, unless it is ignored, and neither is lost.

    What is raised in a destructor, or in what Dask does whenever garbage is collected, Python reports and drops: the signal is sent again a moment later, and is
    raised at the end if it has not come through. One that arrives while a module is imported waits in the same way, for compiled modules make another error of
    it, or none, and stay half there. An error that comes out after a signal is what became of it. Other reports of what was dropped are then of a process that is torn
    down, and are not shown.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
    before = {s: own for s in kinds if (own := signal.getsignal(s)) not in (signal.SIG_IGN, None)}
    raises = {s: kinds[s] for s in before}
    lost: set[signal.Signals] = set()
    timers: list[threading.Timer] = []
    stopped: signal.Signals | None = None
    waiting = False
    main, show, importing = threading.get_ident(), sys.unraisablehook, _imports(sys._getframe())

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = own = signal.Signals(signum)
        if waiting:
            lost.add(own)
        elif _imports(frame) > importing:
            lost.add(own)
            again()
        else:
            lost.discard(own)
            raise raises[own]

    def report(dropped: sys.UnraisableHookArgs) -> None:
        nonlocal waiting
        waited, waiting = waiting, True
        lost.update(s for s, kind in raises.items() if issubclass(dropped.exc_type, kind))
        if lost:
            again()
        if stopped is None:
            show(dropped)
        waiting = waited

    def again() -> None:
        nonlocal waiting
        waited, waiting = waiting, True
        timers.append(threading.Timer(MOMENT, send))
        with suppress(RuntimeError):  # no thread can be started any more
            timers[-1].start()
        waiting = waited

    def send() -> None:
        for signum in tuple(lost):
            signal.pthread_kill(main, signum)

    try:
        for signum in raises:
            signal.signal(signum, stop)
        sys.unraisablehook = report
        yield
    except Exception as error:
        if stopped is None:
            raise
        raise raises[stopped] from error
    finally:
        waiting = True
        for timer in timers:
            timer.cancel()
            if timer.ident is not None:
                timer.join()
        sys.unraisablehook = show
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if lost:
        raise raises[lost.pop()]


def _imports(frame: FrameType | None) -> int:
    """How many modules are being imported in a frame."""
    n = 0
    while frame is not None:
        n += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return n

"""SIGINT and SIGTERM end what a command does by an exception, so that it is unwound as after any error, and none of them is lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

MOMENT = 0.05
"""Seconds between a signal that has not come through and a reminder of it."""

REMINDER = signal.SIGURG
"""What interrupts a thread that waits; where nobody listens to it, it is ignored."""

LOADERS = ("ExtensionFileLoader.create_module", "ExtensionFileLoader.exec_module")
"""In whose frames importlib runs the code of a compiled module."""


class Terminated(BaseException):
    """SIGTERM arrived: unwind, so that unfinished output is removed."""


KINDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM raises as SIGINT does, unless it is ignored, and neither is lost.

    Python drops what is raised in a destructor, or in what Dask does whenever garbage is collected; libraries swallow it while they are imported; and of a signal that
    arrives just before a call that waits Python tells only after the wait. So the main thread is reminded of a signal every moment, and it is raised again, until
    an exception that came of it unwinds the command; one that never gets so far is raised at the end. While a compiled module is imported nothing is raised, for such
    modules make another error of it, or none, and stay half there. An error that comes out after a signal is what became of it. Reports of what was dropped
    after a signal are of a process that is torn down, and are not shown.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = _Stops()
    try:
        own.listen()
        yield
    except Exception as error:
        if own.arrived is None:
            raise
        raise KINDS[own.arrived] from error
    finally:
        own.close()
    if own.arrived is not None:
        raise KINDS[own.arrived]


class _Stops:
    """Signals that become exceptions in the main thread.

    Attributes
    ----------
    arrived : the last signal
    """

    def __init__(self) -> None:
        self.arrived: signal.Signals | None = None
        self._main, self._over = threading.get_ident(), False
        heard = {s: signal.getsignal(s) for s in KINDS}
        self._before = {s: handler for s, handler in heard.items() if handler not in (signal.SIG_IGN, None)}
        self._urgent, self._show, self._wakeup = signal.getsignal(REMINDER), sys.unraisablehook, -1
        self._ears, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._reminding = threading.Thread(target=self._remind, name="signals", daemon=True)

    def listen(self) -> None:
        self._reminding.start()
        self._wakeup = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        sys.unraisablehook = self._report
        signal.signal(REMINDER, self._remember)
        for signum in self._before:
            signal.signal(signum, self._stop)

    def close(self) -> None:
        self._over = True
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.signal(REMINDER, self._urgent)
        sys.unraisablehook = self._show
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._mouth)
        if self._reminding.ident is not None:
            self._reminding.join()
        os.close(self._ears)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.arrived = signal.Signals(signum)
        self._raise(frame)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.arrived is not None and not _unwinds():
            self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        if self.arrived is not None and not self._over and not _loads_compiled(frame):
            raise KINDS[self.arrived]

    def _report(self, dropped: sys.UnraisableHookArgs) -> None:
        """In place of Python's report of what was raised where nothing can be."""
        if self.arrived is None:
            self._show(dropped)

    def _remind(self) -> None:
        """From the first signal on, send reminders."""
        # The interpreter writes the number of each signal as it arrives, before the main thread knows.
        while heard := os.read(self._ears, 1):
            while heard[0] in self._before and not self._over:
                time.sleep(MOMENT)
                signal.pthread_kill(self._main, REMINDER)


def _unwinds() -> bool:
    """Whether what is handled in this thread at the moment came of a signal."""
    error = sys.exception()
    while error is not None and not isinstance(error, tuple(KINDS.values())):
        error = error.__cause__ or error.__context__
    return error is not None


def _loads_compiled(frame: FrameType | None) -> bool:
    """Whether a compiled module is being imported in a frame."""
    while frame is not None:
        if frame.f_code.co_qualname in LOADERS:
            return True
        frame = frame.f_back
    return False

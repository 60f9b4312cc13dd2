"""SIGINT and SIGTERM end what a command does by an exception, so that it is unwound as after any error, and none of them is lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    What is raised in a destructor, or in what Dask does whenever garbage is collected, Python reports and drops, and of a signal that arrives just before a call that
    waits it tells only after the wait: reminders interrupt the main thread until the signal has come through, and it is raised at the end if none has. One that
    arrives while a compiled module is imported waits in the same way, for such modules make another error of it, or none, and stay half there. An error that
    comes out after a signal is what became of it. Other reports of what was dropped are then of a process that is torn down, and are not shown.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = _Stops()
    try:
        own.listen()
        yield
    except Exception as error:
        if own.last is None:
            raise
        raise KINDS[own.last] from error
    finally:
        own.close()
    if own.lost:
        raise KINDS[own.lost.pop()]


class _Stops:
    """Signals that become exceptions in the main thread.

    Attributes
    ----------
    last : what arrived last
    lost : what arrived and has not come through
    """

    def __init__(self) -> None:
        self.last: signal.Signals | None = None
        self.lost: set[signal.Signals] = set()
        self._main = threading.get_ident()
        self._busy = self._over = self._answered = False
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
        self._busy = self._over = True
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
        self.last = signal.Signals(signum)
        self.lost.add(self.last)
        self._come_through(frame)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self._answered = True
        self._come_through(frame)

    def _come_through(self, frame: FrameType | None) -> None:
        if self.lost and not self._busy and not _loads_compiled(frame):
            raise KINDS[self.lost.pop()]

    def _report(self, dropped: sys.UnraisableHookArgs) -> None:
        """In place of Python's report of what was raised where nothing can be."""
        busy, self._busy = self._busy, True
        self.lost.update(s for s in self._before if issubclass(dropped.exc_type, KINDS[s]))
        if self.lost:
            with suppress(OSError):
                os.write(self._mouth, b"\0")
        if self.last is None:
            self._show(dropped)
        self._busy = busy

    def _remind(self) -> None:
        """Send reminders from a moment after a signal arrived, or was dropped, until it has come through."""
        # The interpreter writes the number of each signal as it arrives, before the main thread knows.
        while heard := os.read(self._ears, 1):
            if heard[0] != REMINDER:
                self._answered = False
                while not self._over and (self.lost or not self._answered):
                    time.sleep(MOMENT)
                    signal.pthread_kill(self._main, REMINDER)


def _loads_compiled(frame: FrameType | None) -> bool:
    """Whether a compiled module is being imported in a frame."""
    while frame is not None:
        if frame.f_code.co_qualname in LOADERS:
            return True
        frame = frame.f_back
    return False

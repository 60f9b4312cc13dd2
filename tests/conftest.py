"""What all tests share: how many examples hypothesis makes, and that they are the same ones every time; and that Ctrl-C is heard."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "dask_em",
    max_examples=25,
    deadline=None,  # the first example compiles and imports
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("dask_em")

# Whoever starts the tests in the background has them, and all processes that they start, ignore interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

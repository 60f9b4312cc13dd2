"""What all tests share: how many examples hypothesis makes, and that they are the same ones every time."""

from __future__ import annotations

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

"""What the tests of executors share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def swept() -> Iterator[None]:
    """What a test leaves is collected before the next one, while the warnings that it makes are still expected."""
    yield
    gc.collect()

"""What is told of a run, in words that JSON knows."""

from __future__ import annotations

import os
from typing import Any


def plain(value: Any) -> Any:
    """NumPy scalars and arrays as numbers and lists, what is not finite as null, paths as text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, (bool, int, str)) else os.fspath(value)

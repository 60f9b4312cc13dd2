"""Segments keep their numbers from one model to the next, and a number that is given up is never given again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_em import GaussianMixture
from dask_em.segments import highest_segment, match_segments


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=600) + 8 * (np.arange(600) % 3)})


def fitted(k: int, **notes: Any) -> Any:
    model = GaussianMixture(k, random_state=0).fit(rows())
    model.notes_ = notes
    return model


def test_the_number_of_a_retired_segment_is_not_used_again() -> None:
    sample = pa.table({"a": rows()["a"], "#weight": np.ones(600)})
    three = fitted(3, segments=[0, 1, 2])
    one = fitted(1)
    first = match_segments(three, one, sample)
    one.notes_ = {"segments": first, "highest_segment": highest_segment(three, first)}
    two = match_segments(one, fitted(2), sample)
    assert set(two) - set(first) == {3}
    assert highest_segment(one, two) == 3


def test_models_without_notes_are_matched_by_position() -> None:
    sample = pa.table({"a": rows()["a"], "#weight": np.ones(600)})
    three, again = fitted(3), fitted(3)
    assert match_segments(three, again, sample) == (0, 1, 2)
    assert highest_segment(None, (0, 1)) == 1

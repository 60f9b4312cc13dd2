"""Values as bytes and back: the same to the last bit, or refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dask_em import GaussianMixture
from dask_em.data.profile import Moments, Profile
from dask_em.em.grid import Grid
from dask_em.em.stopping import Verdict
from dask_em.execution.local import LocalExecutor
from dask_em.operate.portable import FORMAT, DamagedError, NotPortableError, dumps, loads


class Watcher(LocalExecutor):
    """Keeps what a run would be asked to keep."""

    def __init__(self) -> None:
        super().__init__(1)
        self.values: list[Any] = []

    def reduce(self, pieces: Any, function: Any) -> Any:
        self.values.append(super().reduce(pieces, function))
        return self.values[-1]

    def keep(self, handle: Any) -> None:
        self.values.append(self.look(handle, lambda state: state))


def kept(**settings: Any) -> list[Any]:
    """All values of a fit."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(70_000, 3)) + 2 * rng.integers(0, 2, (70_000, 1))
    X[rng.random(X.shape) < 0.1] = np.nan
    watcher = Watcher()
    GaussianMixture(2, n_init=2, random_state=0, executor=watcher, **settings).fit(pd.DataFrame(X, columns=list("abc")))
    return watcher.values


@pytest.mark.parametrize("acceleration", ["daarem", "squarem"])
def test_what_a_fit_keeps_comes_back_to_the_last_bit(acceleration: str) -> None:
    values = kept(acceleration=acceleration)
    assert {type(v) for v in values} == {Profile, Grid}
    for value in values:
        content = dumps(value)
        assert dumps(loads(content)) == content
    state = loads(dumps(values[-1])).states[0]
    own = values[-1].states[0].candidates[0].parameters.parts[0].covariances
    np.testing.assert_array_equal(state.candidates[0].parameters.parts[0].covariances, own)
    assert state.candidates[0].verdict is values[-1].states[0].candidates[0].verdict


def test_a_state_is_small() -> None:
    """Ten components of twenty columns, a hundred scans: the size that is promised in kilobytes."""
    rng = np.random.default_rng(0)
    watcher = Watcher()
    X = pd.DataFrame(rng.normal(size=(400, 20)) + 3 * rng.integers(0, 4, (400, 1)))
    GaussianMixture(10, n_init=1, max_iter=100, tol=1e-12, random_state=0, executor=watcher).fit(X)
    assert len(dumps(watcher.values[-1])) < 400_000


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**70,
        -0.0,
        5e-324,
        float("inf"),
        "ünï\ncode",
        b"\x00\xff",
        (1, [2, {"a": (3.5, None)}]),
        frozenset({b"x"}),
        {3},
        {1: "a", ("b", 2): b"c"},
        np.float64(0.1),
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3)),
        np.array(3.0),
        np.array(["a", "bc"]),
        Moments(1, 2.0, 3.0, 4.0),
        Verdict.MAX_ITER,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_come_back(value: Any) -> None:
    back = loads(dumps(value))
    assert type(back) is type(value)
    assert repr(back) == repr(value)
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (
            value.flags.c_contiguous,
            value.flags.f_contiguous,
        )


def test_tables_come_back() -> None:
    table = pa.table({"a": [1, None], "b": ["x", "y"], "c": pa.array(["u", "v"]).dictionary_encode()})
    assert loads(dumps(table)).equals(table)


@dataclass(frozen=True)
class Elsewhere:
    """A dataclass of another package."""

    x: int = 0


@pytest.mark.parametrize(
    "value",
    [Elsewhere(), object(), len, np.array([object()]), lambda: None, pd.DataFrame()],
    ids=lambda v: type(v).__name__,
)
def test_nothing_else_is_kept(value: Any) -> None:
    with pytest.raises(NotPortableError):
        dumps((1, value))


def forged(document: Any) -> bytes:
    """Bytes that are whole, but say what nobody wrote."""
    import hashlib

    body = json.dumps([document, []]).encode() + b"\n"
    return FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "dask_em.cli:run", "dask_em.operate.disk:remove"])
def test_no_class_of_others_and_no_function_is_called(name: str, tmp_path: Path) -> None:
    for document in ({"is": name, "with": {"path": str(tmp_path)}}, {"enum": name, "of": "true"}):
        with pytest.raises(DamagedError):
            loads(forged(document))
    assert tmp_path.exists()


def test_whatever_happens_to_a_byte_is_seen() -> None:
    content = dumps({"a": np.arange(5.0), "b": ("text", 3)})
    for at in range(len(content)):
        with pytest.raises(DamagedError):
            loads(content[:at])
        changed = bytearray(content)
        changed[at] ^= 1
        with pytest.raises(DamagedError):
            loads(bytes(changed))

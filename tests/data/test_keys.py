"""Row keys: the same row has the same word wherever it stands and whatever the width of its cells, and sets of keys add up."""

from __future__ import annotations

import datetime
import itertools
import uuid
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dask_em.data import keys
from dask_em.data.keys import KeySet, row_keys
from dask_em.data.sources import open_source
from dask_em.errors import DataError

HERE = ("people", 0)
NUMBERS = [5, 0, 17, 100, 3, 99]


def words(values: Any, kind: pa.DataType | None = None) -> np.ndarray:
    return row_keys(pa.table({"id": pa.array(values, kind)}), ("id",), HERE)


def cuts(n: int, at: Sequence[int]) -> list[slice]:
    return [slice(a, b) for a, b in itertools.pairwise([0, *at, n])]


# --- from the cells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint32(), pa.uint64()], ids=str)
def test_equal_integers_have_equal_words(kind: pa.DataType) -> None:
    assert (words(NUMBERS, kind) == words(NUMBERS, pa.int64())).all()
    assert len(np.unique(words(NUMBERS, kind))) == len(NUMBERS)


def test_large_and_negative_integers() -> None:
    assert (words([-1, -100], pa.int8()) == words([-1, -100], pa.int64())).all()
    large = words([2**64 - 2, 2**63, 2**63 - 1, 0, 2**53, 2**53 + 1], pa.uint64())
    assert len(np.unique(large)) == 6


TEXT = ["b", "", "a", "ä", "b ", "17"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXT, pa.large_string()),
        pa.array(TEXT).dictionary_encode(),
        pa.chunked_array([TEXT[:2], [], TEXT[2:]]),
        pa.array(pd.Series(TEXT, dtype="category")),
        pa.array(pd.Series(TEXT, dtype="string")),
        pa.array(pd.Series(TEXT, dtype=object)),
    ],
    ids=["large string", "dictionary", "chunks", "categorical", "pandas string", "objects"],
)
def test_equal_text_has_equal_words(column: Any) -> None:
    assert (row_keys(pa.table({"id": column}), ("id",), HERE) == words(TEXT)).all()
    assert len(np.unique(words(TEXT))) == len(TEXT)


def test_text_is_not_a_number() -> None:
    assert words(["17"])[0] != words([17])[0]


@pytest.mark.parametrize(
    "values",
    [
        [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)],
        [True, False],
        pd.to_datetime(["2020", "2021"]),
        [b"\xff\x00", b"\xff\x01"],
        pa.array([b"\xffab", b"\xffac"], pa.binary(3)),
        pa.array([uuid.UUID(int=255 << 120).bytes, uuid.UUID(int=1).bytes], pa.uuid()),
    ],
    ids=["dates", "yes/no", "moments", "bytes", "bytes of one size", "uuid"],
)
def test_other_kinds_of_keys(values: Any) -> None:
    found = words(values)
    assert len(set(found.tolist())) == 2
    assert (found[::-1] == words(values[::-1])).all()


def test_bytes_are_the_text_that_they_spell() -> None:
    assert (words([own.encode() for own in TEXT]) == words(TEXT)).all()


def test_all_key_columns_and_their_order_count() -> None:
    table = pa.table({"house": [1, 1, 2, 2], "person": [1, 2, 1, 2], "income": [9.0, 8.0, 7.0, 6.0]})
    both = row_keys(table, ("house", "person"), HERE)
    assert len(np.unique(both)) == 4
    swapped = row_keys(table, ("person", "house"), HERE)
    assert (swapped != both)[1:3].all()
    richer = table.set_column(2, "income", [[0.0] * 4])
    assert (row_keys(richer, ("house", "person"), HERE) == both).all()


@pytest.mark.parametrize("kind", ["integers", "text"])
@pytest.mark.parametrize("at", [(), (1,), (3, 3, 40), tuple(range(1, 50))], ids=str)
def test_words_do_not_depend_on_the_cut(kind: str, at: Sequence[int]) -> None:
    values = np.random.default_rng(0).permutation(50)
    table = pa.table({"id": pa.array(values if kind == "integers" else [f"person {v}" for v in values])})
    parts = [row_keys(table[own], ("id",), (f"part {i}", 0)) for i, own in enumerate(cuts(50, at))]
    assert (np.concatenate(parts) == row_keys(table, ("id",), HERE)).all()


MISSING = {
    "integers": pa.array([1, None, 3]),
    "text": pa.array(["a", "b", None]),
    "dictionary": pa.array(["a", None]).dictionary_encode(),
    "nothing": pa.nulls(3),
    "in a later chunk": pa.chunked_array([[1, 2], [3, None]]),
    "floats": pa.array([1.0, None]),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_key_cells_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="key column 'id' holds missing cells: give every row a key"):
        row_keys(pa.table({"id": MISSING[name]}), ("id",), HERE)


SPANS = pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval())


@pytest.mark.parametrize("values", [[1.0, 2.0], [float("nan"), 2.0], [[1], [2]], [{"a": 1}, {"a": 2}], SPANS], ids=str)
def test_floats_and_nested_cells_are_no_keys(values: Any) -> None:
    with pytest.raises(DataError, match=r"key column 'id' has the type .*: use integers, text or dates"):
        words(values)


# --- from where a row stands -------------------------------------------------------------------------------------


def test_positions_go_on_over_pieces() -> None:
    table = pa.table({"x": np.zeros(100)})
    whole = row_keys(table, (), HERE)
    assert len(np.unique(whole)) == 100
    parts = [row_keys(table[own], (), ("people", own.start)) for own in cuts(100, (0, 1, 60))]
    assert (np.concatenate(parts) == whole).all()
    assert not np.isin(row_keys(table, (), ("others", 0)), whole).any()


@pytest.mark.parametrize("kind", ["pandas", "array", "Arrow"])
def test_a_table_in_memory_is_named_by_position(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"x0": np.arange(100.0)}, index=np.arange(100)[::-1])
    X = {"pandas": frame, "array": frame.to_numpy(), "Arrow": pa.Table.from_pandas(frame, preserve_index=False)}[kind]
    (piece,) = open_source(X).pieces
    whole = row_keys(piece.read(["x0"]), (), piece.origin)
    monkeypatch.setattr("dask_em.data.sources.PIECE_ROWS", 33)
    pieces = open_source(X).pieces
    assert len(pieces) == 4
    assert (np.concatenate([row_keys(p.read(["x0"]), (), p.origin) for p in pieces]) == whole).all()
    (other,) = open_source(frame.iloc[:5]).pieces
    assert (row_keys(other.read(["x0"]), (), other.origin) == whole[:5]).all()


def test_row_groups_of_files_have_names_of_their_own(tmp_path: Any) -> None:
    frame = pd.DataFrame({"x": np.arange(20.0)})
    for where in ("here", "elsewhere"):
        (tmp_path / where).mkdir()
        for name in ("a", "b"):
            frame.to_parquet(tmp_path / where / f"{name}.parquet", row_group_size=10)
    found = {}
    for where in ("here", "elsewhere"):
        pieces = open_source(str(tmp_path / where)).pieces
        found[where] = np.concatenate([row_keys(p.read(["x"]), (), p.origin) for p in pieces])
    assert len(np.unique(found["here"])) == 40
    # A folder may be moved.
    assert (found["here"] == found["elsewhere"]).all()


# --- sets --------------------------------------------------------------------------------------------------------


def assert_equal(one: KeySet, two: KeySet) -> None:
    assert (one.rows, one.total, one.repeated) == (two.rows, two.total, two.repeated)
    assert one.smallest.tolist() == two.smallest.tolist()


@pytest.fixture(params=[1 << 20, 30, 7])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many keys are kept: all, or fewer than there are."""
    monkeypatch.setattr(keys, "KEPT", request.param)
    return int(request.param)


@pytest.mark.parametrize("at", [(), (100,), (0, 5, 5, 90), tuple(range(1, 200))], ids=["one", "two", "uneven", "rows"])
def test_sets_add_up_in_any_cut_and_order(at: Sequence[int], kept: int) -> None:
    own = words(list(range(200)))
    whole = KeySet.of(own)
    assert whole.rows == 200
    assert not whole.repeated
    assert len(whole.smallest) == min(kept, 200)
    parts = [KeySet.of(own[s]) for s in cuts(200, at)]
    assert_equal(reduce(add, parts), whole)
    assert_equal(reduce(add, parts[::-1]), whole)
    assert_equal(reduce(lambda a, b: b + a, parts), whole)
    middle = len(parts) // 2
    if middle:
        assert_equal(reduce(add, parts[:middle]) + reduce(add, parts[middle:]), whole)
    assert_equal(KeySet.of(own[::-1]), whole)


def test_the_total_shows_another_set_of_rows() -> None:
    own = words(list(range(200)))
    other = words([*range(199), 1000])
    assert KeySet.of(own).total == sum(own.tolist()) % 2**64
    assert KeySet.of(own).total != KeySet.of(other).total
    assert KeySet.of(own).rows == KeySet.of(other).rows


@pytest.mark.parametrize("at", [(), (100,), (1, 2, 150)], ids=str)
def test_a_repeated_key_is_found_across_pieces(at: Sequence[int]) -> None:
    for again in range(0, 199, 20):
        own = words([*range(199), again])
        assert reduce(add, [KeySet.of(own[s]) for s in cuts(200, at)]).repeated


def test_whole_tables_repeated_are_found_beyond_what_is_kept(kept: int) -> None:
    """A file that was read twice is seen even where only the smallest keys are kept."""
    own = words(list(range(200)))
    for at in ((), (100,), (50, 120)):
        parts = [KeySet.of(own[s]) for s in cuts(200, at)]
        twice = reduce(add, [*parts, *parts])
        assert twice.repeated
        assert twice.rows == 400
        assert len(twice.smallest) == min(kept, 200)


def test_a_repeated_key_among_the_smallest_is_found_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEPT", 30)
    own = words(list(range(200)))
    small = np.flatnonzero(np.isin(keys.mix(own), KeySet.of(own).smallest))
    assert len(small) == 30
    for again in small:
        doubled = np.append(own, own[again])
        for at in ((200,), (again + 1, 150 if again < 149 else 200)):
            assert reduce(add, [KeySet.of(doubled[s]) for s in cuts(201, at)]).repeated


def test_whether_a_key_is_repeated_does_not_depend_on_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEPT", 30)
    own = words(list(range(200)))
    largest = np.argmax(keys.mix(own))
    doubled = np.append(own, own[largest])
    whole, parts = KeySet.of(doubled), [KeySet.of(doubled[s]) for s in cuts(201, (200,))]
    assert reduce(add, parts).repeated == whole.repeated


def test_different_keys_are_never_called_repeated(kept: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        own = rng.permutation(words(list(range(300))))
        at = np.sort(rng.integers(0, 300, 6)).tolist()
        assert not reduce(add, [KeySet.of(own[s]) for s in cuts(300, at)]).repeated


def test_no_rows() -> None:
    none, some = KeySet.of(words([], pa.int64())), KeySet.of(words([1, 2]))
    assert (none.rows, none.total, none.repeated) == (0, 0, False)
    assert_equal(none + some, some)
    assert_equal(some + none, some)

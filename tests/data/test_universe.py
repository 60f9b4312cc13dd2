"""Conditions of who was asked: what pandas says of them, missing cells, and everything that is no condition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_em.data.universe import asked, columns_of
from dask_em.errors import ConfigurationError, DataError


def frame(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "age": rng.integers(0, 90, n),
            "income": np.round(rng.normal(0, 2, n), 1),
            "sex": rng.choice(["F", "M"], n),
            "town": rng.choice(["Bern", "Basel", "Zürich"], n),
            "owner": rng.random(n) < 0.5,
            "spent": np.round(rng.normal(0, 2, n), 1),
        }
    )


FRAME = frame()
TABLE = pa.Table.from_pandas(FRAME, preserve_index=False)


def told(condition: str, table: pa.Table = TABLE) -> list[bool]:
    return asked(table, condition, "question").tolist()


# --- what pandas says --------------------------------------------------------------------------------------------

COMPARISON = st.sampled_from(["<", "<=", "==", "!=", ">=", ">"])
NUMBER = st.one_of(st.integers(-5, 95), st.sampled_from([-1.5, 0.0, 0.1, 2.5, 1e3]))


@st.composite
def atoms(draw: st.DrawFn) -> str:
    how, number = draw(COMPARISON), draw(NUMBER)
    town = draw(st.sampled_from(["Bern", "Zürich", "nowhere"]))
    column = draw(st.sampled_from(["age", "income", "spent"]))
    several = draw(st.lists(st.integers(0, 90), min_size=1, max_size=5))
    return draw(
        st.sampled_from(
            [
                f"{column} {how} {number!r}",
                f"{number!r} {how} {column}",
                f"income {how} spent",
                f"10 < age <= {abs(number)!r}",
                f"-1 {how} income {how} spent",
                f"town {how} '{town}'",
                "owner",
                f"owner == {number > 0}",
                f"age in {several}",
                f"age not in {several}",
                f"town in ('{town}', 'Basel')",
                f"sex not in ['F', '{town}']",
            ]
        )
    )


CONDITIONS = st.recursive(
    atoms(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map("not ({})".format),
        inner.map("({})".format),
    ),
    max_leaves=6,
)


@given(CONDITIONS)
def test_conditions_are_those_of_pandas(condition: str) -> None:
    expected = FRAME.eval(condition, engine="python")
    assert told(condition) == expected.tolist(), condition


@pytest.mark.parametrize("name", ["µg", "ﬁne", "été", "alter"])
def test_names_are_read_as_they_are_written(name: str) -> None:
    """Python takes µ (micro sign) for μ (the letter) in its own names."""
    assert columns_of(f"not {name} > 2 and (été in [1] or {name} == 3)")[0] == name
    assert told(f"{name} > 1 and 3 > {name}", pa.table({name: [1, 2, 3]})) == [False, True, False]


@pytest.mark.parametrize("how", ["<", "<=", "==", "!=", ">=", ">"])
def test_every_comparison_at_its_boundary(how: str) -> None:
    table = pa.table({"x": [1, 2, 3], "name": ["a", "b", "c"]})
    numbers = [eval(f"{x} {how} 2") for x in (1, 2, 3)]
    assert told(f"x {how} 2", table) == told(f"name {how} 'b'", table) == numbers
    assert told(f"2 {how} x", table) == [eval(f"2 {how} {x}") for x in (1, 2, 3)]
    assert told(f"not x {how} 2.0", table) == [not number for number in numbers]


@given(CONDITIONS)
def test_rows_are_told_one_by_one(condition: str) -> None:
    whole = told(condition)
    assert told(condition, TABLE[:7]) + told(condition, TABLE[7:]) == whole
    assert told(condition, TABLE[:0]) == []
    chunks = pa.concat_tables([TABLE[:50], TABLE[50:51], TABLE[51:]])
    assert told(condition, chunks) == whole


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int64(), pa.float32(), pa.float64()], ids=str)
def test_numbers_are_compared_whatever_their_width(kind: pa.DataType) -> None:
    table = pa.table({"x": pa.array([1, 2, 100], kind)})
    assert told("x > 1", table) == [False, True, True]
    assert told("x > -1", table) == [True, True, True]
    assert told("x < 300", table) == [True, True, True]
    assert told("x == 300 or x in [300, 2]", table) == [False, True, False]
    assert told("1.5 < x < 99.5", table) == [False, True, False]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary", "categorical"])
def test_text_is_compared_however_it_is_stored(kind: str) -> None:
    values = ["F", "M", None, "F"]
    columns = {
        "string": pa.array(values),
        "large_string": pa.array(values, pa.large_string()),
        "dictionary": pa.array(values).dictionary_encode(),
        "categorical": pa.array(pd.Series(values, dtype="category")),
    }
    table = pa.table({"sex": columns[kind]})
    assert told("sex == 'F'", table) == [True, False, False, True]
    assert told("sex in ['M', 'X']", table) == [False, True, False, False]


def test_columns_of_a_condition() -> None:
    assert columns_of("age >= 20 and (sex == 'F' or 3 < age < income)") == ("age", "sex", "income")
    assert columns_of("  owner ") == ("owner",)
    assert columns_of("town in ['age', 'sex']") == ("town",)


# --- missing cells -----------------------------------------------------------------------------------------------

HOLES = pa.table(
    {
        "age": pa.array([30, None, 10]),
        "sex": pa.array(["F", None, "M"]),
        "owner": pa.array([True, None, False]),
        "income": pa.array([1.0, None, -1.0]),
        "hole": pa.array([1.0, float("nan"), -1.0]),
    }
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("age > 20", [True, False, False]),
        ("age != 30", [False, False, True]),
        ("not age > 20", [False, False, True]),
        ("not (not age > 20)", [True, False, False]),
        ("20 < age < 40", [True, False, False]),
        ("owner", [True, False, False]),
        ("not owner", [False, False, True]),
        ("sex != 'F'", [False, False, True]),
        ("income < 0", [False, False, True]),
        ("age in [30, 40]", [True, False, False]),
        ("age > 20 or sex == 'M'", [True, False, True]),
        ("not (age > 20 and sex == 'F')", [False, False, True]),
        pytest.param("age not in [10, 20]", [True, False, False]),
        pytest.param("not age in [10, 20]", [True, False, False]),
        pytest.param("sex not in ['M']", [True, False, False]),
        ("hole > 0", [True, False, False]),
        ("hole == 1", [True, False, False]),
        pytest.param("hole != 1", [False, False, True]),
        pytest.param("not hole > 0", [False, False, True]),
    ],
)
def test_what_cannot_be_told_counts_as_not_asked(condition: str, expected: list[bool]) -> None:
    assert told(condition, HOLES) == expected


def test_a_missing_cell_that_is_not_needed_does_no_harm() -> None:
    table = pa.table({"age": pa.array([30, None, None]), "sex": pa.array(["F", "F", "M"])})
    assert told("age > 20 or sex == 'F'", table) == [True, True, False]
    assert told("not (age > 20 and sex == 'F')", table) == [False, False, True]


def test_a_column_without_any_cell() -> None:
    assert told("age > 20", pa.table({"age": pa.nulls(2)})) == [False, False]
    assert told("age == 'F'", pa.table({"age": pa.nulls(2)})) == [False, False]


# --- what is no condition ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "   ",
        "age >",
        "age => 20",
        "age > 20 &",
        "age = 20",
        "age > 20; sex == 'F'",
        "1 < 2",
        "True",
        "age + 1 > 20",
        "age > 2 ** 9",
        "-age > 20",
        "age.real > 20",
        "sex.__class__ == 'F'",
        "age[0] > 20",
        "abs(age) > 20",
        "age()",
        "__import__('os').system('true')",
        "(lambda: 1)() == age",
        "[age for age in town]",
        "age if owner else sex",
        "(age := 20)",
        "f'{age}' == sex",
        "age is 20",
        "age is not None",
        "age == None",
        "sex == b'F'",
        "age == 2j",
        "age == ...",
        "(age, sex) == (20, 'F')",
        "age in 20",
        "age in town",
        "sex in 'FM'",
        "age in {20: 1}",
        "age in [20, None]",
        "age in [20, income]",
        "age in [[20]]",
        "age & owner",
        "~owner",
        "*age",
        "age > 20\nimport os",
        "age > 20 \x00",
        pytest.param(
            "not " * 2000 + "owner",
            id="nested",
        ),
        "age > " + "(" * 300 + "1" + ")" * 300,
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(ConfigurationError, match="is not understood: compare columns with constants") as caught:
        asked(TABLE, condition, "question")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "condition",
    [
        "age == 'young'",
        "age > 'young'",
        "sex == 1",
        "sex > 0.5",
        "owner == 'yes'",
        "owner == 1",
        "age == True",
        "income < 'little'",
        "age in ['young']",
        "age not in ['young', 'old']",
        "sex in [1, 2]",
        "sex == age",
        "age and owner",
        "not age",
        "age > 20 or sex",
        "age in [20, 'young']",
        "sex in ['F', 1]",
        "age",
        "sex",
        "income",
        "age > 100000000000000000000",
        "age in ['20']",
    ],
)
def test_a_constant_of_another_type_is_refused(condition: str) -> None:
    with pytest.raises(DataError, match="the universe of 'question' compares a column with a constant of another type"):
        told(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "a == 'x'",
        "a > 5",
        "a in ['x']",
        "a not in [1, 2]",
        "a",
        "not a",
        "a == b",
        "a == c",
        "a and c",
        "a in ['x'] and c",
    ],
)
def test_a_column_without_a_cell_can_tell_nothing(condition: str) -> None:
    table = pa.table({"a": pa.nulls(3), "b": pa.nulls(3), "c": [True, False, None]})
    assert told(condition, table) == [False] * 3


def test_what_a_column_without_a_cell_does_not_decide() -> None:
    table = pa.table({"a": pa.nulls(3), "c": [True, False, None]})
    assert told("a in ['x'] or c", table) == [True, False, False]


def test_no_cell_is_shown() -> None:
    table = pa.table({"sex": ["CANARY", "F"]})
    with pytest.raises(DataError) as caught:
        told("sex == 5", table)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__suppress_context__

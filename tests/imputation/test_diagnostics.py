"""Counts that add up over any cut of the rows and agree with pandas; intervals that hold as many hidden cells as they say."""

from __future__ import annotations

import functools
import itertools
import operator
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_em import Imputer
from dask_em.data.keys import row_keys
from dask_em.data.schema import Design
from dask_em.data.sources import open_source
from dask_em.errors import ConfigurationError, DataError
from dask_em.execution.choose import open_executor
from dask_em.imputation import diagnostics, missingness
from dask_em.imputation.diagnostics import Distributions, Missingness, bins_of, convergence, diagnose, overimpute

LEVELS = ["low", "middle", "high"]


def survey(n: int = 1500, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, n)
    z = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "age": age,
            "income": np.exp(10 + 0.02 * (age - 50) + 0.5 * z + 0.3 * rng.normal(size=n)),
            "hours": 40 + 5 * z + 2 * rng.normal(size=n),
            "class": pd.Categorical(np.array(LEVELS)[np.digitize(z, [-0.5, 0.7])], LEVELS, ordered=True),
            "member": pd.array(z + rng.normal(size=n) > 0, dtype="boolean"),
        }
    )
    for name, share in (("income", 0.3), ("hours", 0.2), ("class", 0.15), ("member", 0.1)):
        frame.loc[rng.random(n) < share, name] = None
    return frame


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return survey()


@pytest.fixture(scope="module")
def imputer(people: pd.DataFrame) -> Imputer:
    return Imputer(
        model="normal",
        key="id",
        transforms={"income": "log"},
        universe={"hours": "age < 65"},
        n_replicates=6,
        random_state=0,
    ).fit(people)


@pytest.fixture(scope="module")
def sample(people: pd.DataFrame, imputer: Imputer) -> pa.Table:
    with open_executor(None) as executor:
        return diagnostics.sample_of(open_source(people), imputer.imputation_, executor)


def arrow(frame: pd.DataFrame) -> pa.Table:
    return open_source(frame).read(list(frame.columns))


cuts = st.lists(st.integers(0, 1500), max_size=6).map(sorted)


def pieces(table: pa.Table, at: list[int]) -> list[pa.Table]:
    ends = [0, *at, table.num_rows]
    return [table.slice(a, b - a) for a, b in itertools.pairwise(ends)]


# --- missingness ------------------------------------------------------------------------------------------------


@given(at=cuts)
def test_missingness_adds_up_over_any_cut(people: pd.DataFrame, imputer: Imputer, at: list[int]) -> None:
    design, table = imputer.imputation_.schema.design, arrow(people)
    whole = Missingness.of(table, design)
    summed = functools.reduce(operator.add, [Missingness.of(part, design) for part in pieces(table, at)])
    assert summed.by_pattern == whole.by_pattern
    assert summed.rows == whole.rows == len(people)
    np.testing.assert_array_equal(summed.cells, whole.cells)
    pd.testing.assert_frame_equal(summed.patterns(3), whole.patterns(3))


def test_cells_and_patterns_are_those_of_pandas(people: pd.DataFrame, imputer: Imputer) -> None:
    found = Missingness.of(arrow(people), imputer.imputation_.schema.design)
    was_asked = pd.Series(True, people.index)
    table = found.table().set_index("column")
    for name in ("age", "income", "hours", "class", "member"):
        own = people["age"] < 65 if name == "hours" else was_asked
        missing = own & people[name].isna()
        row = table.loc[name]
        assert (row["missing"], row["not_asked"]) == (missing.sum(), (~own).sum())
        assert row["observed"] == len(people) - missing.sum() - (~own).sum()
        assert row["missing_share"] == pytest.approx(missing.sum() / own.sum())
    state = people.drop(columns="id").isna()
    state["hours"] &= people["age"] < 65
    expected = state.assign(unasked=people["age"] >= 65).value_counts()
    patterns = found.patterns()
    assert len(patterns) == len(expected)
    assert patterns["rows"].is_monotonic_decreasing
    for own in patterns.itertuples():
        key = [name in own.missing for name in state.columns] + ["hours" in own.not_asked]
        assert own.rows == expected[tuple(key)]
    assert found.complete_rows() == (~state.any(axis=1)).sum()


def test_the_last_row_holds_all_other_patterns(people: pd.DataFrame, imputer: Imputer) -> None:
    found = Missingness.of(arrow(people), imputer.imputation_.schema.design)
    few, every = found.patterns(4), found.patterns()
    assert few["rows"].sum() == every["rows"].sum() == len(people)
    assert few["share"].sum() == pytest.approx(1)
    assert few["missing"].iloc[-1] is None
    assert few["n_patterns"].tolist() == [1, 1, 1, 1, len(every) - 4]


def test_more_patterns_than_are_kept_still_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missingness, "MAX_PATTERNS", 32)
    rng = np.random.default_rng(1)
    names = [f"x{i}" for i in range(20)]
    holes = rng.random((3000, 20)) < 0.5
    holes[:900] = False
    frame = pd.DataFrame(np.where(holes, np.nan, 1.0), columns=names).sample(frac=1, random_state=0)
    design, table = Design(gaussian=tuple(names)), arrow(frame)
    found = functools.reduce(
        operator.add, [Missingness.of(part, design) for part in pieces(table, list(range(100, 3000, 100)))]
    )
    assert len(found.by_pattern) <= 32
    assert sum(found.by_pattern.values()) + found.rest == found.rows == 3000
    # What is frequent in every part is never put to the rest; counts by column do not depend on patterns at all.
    assert found.patterns(1)["rows"].iloc[0] == 900
    np.testing.assert_array_equal(found.cells[1], holes.sum(axis=0))


def test_a_table_without_rows_counts_nothing(people: pd.DataFrame, imputer: Imputer) -> None:
    design, table = imputer.imputation_.schema.design, arrow(people)
    empty, whole = Missingness.of(table.slice(0, 0), design), Missingness.of(table, design)
    assert empty.rows == empty.cells.sum() == 0
    assert empty.patterns().empty
    assert (empty + whole).by_pattern == whole.by_pattern


# --- observed beside imputed --------------------------------------------------------------------------------------


@given(at=cuts)
def test_distributions_add_up_over_any_cut(
    people: pd.DataFrame, imputer: Imputer, sample: pa.Table, at: list[int]
) -> None:
    model, table = imputer.imputation_, arrow(people)
    bins = bins_of(model, sample)

    def count(part: pa.Table) -> Distributions:
        return Distributions.of(part, row_keys(part, model.key, ("", 0)), model, bins, m=2)

    summed, whole = functools.reduce(operator.add, map(count, pieces(table, at))), count(table)
    for own, expected in zip((*summed.observed, *summed.imputed), (*whole.observed, *whole.imputed), strict=True):
        np.testing.assert_array_equal(own, expected)


def test_counts_are_those_of_the_draws(people: pd.DataFrame, imputer: Imputer, sample: pa.Table) -> None:
    with open_executor(None) as executor:
        found = diagnose(open_source(people), imputer.imputation_, sample, executor, m=3)
    frame = found.distributions.frame()
    draws = imputer.draw(people, m=3)
    missing = found.missingness.table().set_index("column")["missing"]
    for name in ("class", "member"):
        own = frame[frame["column"] == name].set_index("level")
        imputed = pd.concat([draw.loc[people[name].isna(), name] for draw in draws]).astype(str).value_counts()
        observed = people[name].dropna().astype(str).value_counts()
        assert own["imputed"].to_dict() == imputed.reindex(own.index).to_dict()
        assert own["observed"].to_dict() == observed.reindex(own.index).to_dict()
    income = frame[frame["column"] == "income"]
    imputed = np.concatenate([draw.loc[people["income"].isna(), "income"] for draw in draws])
    edges = np.exp(income["high"].to_numpy()[:-1])
    np.testing.assert_array_equal(
        income["imputed"], np.bincount(np.searchsorted(edges, imputed), minlength=len(income))
    )
    for name, own in frame.groupby("column"):
        assert own["imputed"].sum() == 3 * missing[name]
    assert "age" not in set(frame["column"])
    table = found.distributions.table().set_index("column")
    assert (table["imputed"] == missing[table.index]).all()
    assert table["distance"].between(0, 1).all()


def test_whole_numbers_have_whole_classes() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"children": rng.poisson(2, 400).astype(float), "salary": rng.normal(size=400)})
    frame.loc[::5, "children"] = None
    model = Imputer(integer=["children"], bounds={"children": (0, None)}, n_replicates=2, random_state=0).fit(frame)
    with open_executor(None) as executor:
        taken = diagnostics.sample_of(open_source(frame), model.imputation_, executor)
    children, salary = bins_of(model.imputation_, taken)
    assert set(np.diff(children.edges)) == {1.0}
    assert np.array(children.edges)[0] % 1 == 0.5
    assert len(salary.edges) == diagnostics.N_BINS + 1
    # A whole number stands alone in its class, and nothing is lost.
    counted = children.count(frame["children"].to_numpy())
    assert counted.sum() == frame["children"].notna().sum()
    assert counted[1 + 3] == (frame["children"] == 3).sum()


def test_no_replicates_draw_from_the_fit_itself(people: pd.DataFrame, sample: pa.Table, imputer: Imputer) -> None:
    model = replace(imputer.imputation_, replicates=())
    with open_executor(None) as executor:
        found = diagnose(open_source(people), model, sample, executor)
    assert found.distributions.n_draws == 1
    assert sum(own.sum() for own in found.distributions.imputed) == found.missingness.cells[1].sum()


# --- overimputation -----------------------------------------------------------------------------------------------


def hidden(frame: pd.DataFrame, column: str, **arguments: object) -> object:
    n_rows = arguments.pop("n_rows", 1000)
    model = Imputer(random_state=0, **{"n_replicates": 10, **arguments}).fit(frame)
    with open_executor(None) as executor:
        taken = diagnostics.sample_of(open_source(frame), model.imputation_, executor)
    return overimpute(model.imputation_, taken, column, n_rows=n_rows)


@pytest.mark.parametrize("column", ["income", "hours"])
def test_intervals_hold_the_share_they_say(imputer: Imputer, sample: pa.Table, column: str) -> None:
    for level in (0.5, 0.9):
        found = overimpute(imputer.imputation_, sample, column, level=level)
        # Three standard errors of a share of some hundred cells.
        assert found.coverage == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / len(found.cells)))


def test_a_model_that_does_not_fit_is_found_out() -> None:
    """Two narrow peaks: a normal's interval spans both, and its middle is empty."""
    rng = np.random.default_rng(3)
    x = np.where(rng.random(3000) < 0.5, -5.0, 5.0) + 0.2 * rng.normal(size=3000)
    frame = pd.DataFrame({"x": x, "y": rng.normal(size=3000)})
    assert hidden(frame, "x", model="normal").coverage > 0.97
    mixed = hidden(frame, "x", model="mixture", n_components=2, n_replicates=4)
    assert mixed.coverage == pytest.approx(0.9, abs=0.03)


def test_hidden_cells_are_predicted_from_the_rest(imputer: Imputer, sample: pa.Table, people: pd.DataFrame) -> None:
    found = overimpute(imputer.imputation_, sample, "hours", n_rows=200)
    cells = found.cells
    assert len(cells) == 200
    assert list(cells.columns) == ["observed", "expected", "low", "high", "inside", "weight"]
    own = people[(people["age"] < 65) & people["hours"].notna()].set_index("hours").loc[cells["observed"]].reset_index()
    # What is expected is what `transform` puts into the same rows once the cell is gone.
    expected = imputer.transform(own.assign(hours=np.nan)[people.columns])["hours"]
    np.testing.assert_allclose(cells["expected"], expected, rtol=1e-12)
    assert ((cells["low"] < cells["expected"]) & (cells["expected"] < cells["high"])).all()
    np.testing.assert_array_equal(cells["inside"], cells["observed"].between(cells["low"], cells["high"]))


def test_the_same_cells_and_intervals_again_and_no_shift(imputer: Imputer, sample: pa.Table) -> None:
    model = imputer.imputation_
    first = overimpute(model, sample, "income", n_rows=50)
    pd.testing.assert_frame_equal(first.cells, overimpute(model, sample, "income", n_rows=50).cells)
    shifted = overimpute(replace(model, delta=(("income", 3.0),)), sample, "income", n_rows=50)
    pd.testing.assert_frame_equal(first.cells, shifted.cells)


@pytest.mark.parametrize("column", ["class", "member"])
def test_levels_have_the_probabilities_of_the_imputer(
    imputer: Imputer, sample: pa.Table, people: pd.DataFrame, column: str
) -> None:
    found = overimpute(imputer.imputation_, sample, column, n_rows=10_000)
    cells, seen = found.cells, people[column].notna()
    own = imputer.predict_proba(people, column)[seen].to_numpy()
    codes = pd.Categorical(people.loc[seen, column], list(imputer.imputation_.levels(column))).codes
    given = own[np.arange(len(codes)), codes]
    assert cells["weight"].sum() == seen.sum()
    assert found.mean_probability == pytest.approx(given.mean())
    assert found.most_probable == pytest.approx((own.argmax(axis=1) == codes).mean())
    assert found.promised == pytest.approx(own.max(axis=1).mean())
    assert (cells["inside"] == (cells["observed"] == cells["expected"])).all()
    assert found.most_probable > people[column].value_counts(normalize=True).max()


def test_levels_are_right_as_often_as_a_true_model_promises() -> None:
    rng = np.random.default_rng(2)
    which = rng.random(3000) < 0.4
    answers = np.where(rng.random((6, 3000)) < np.where(which, 0.8, 0.15), "yes", "no")
    frame = pd.DataFrame(answers.T, columns=list("abcdef"))
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    found = hidden(frame, "a", model="mixture", n_components=2, n_replicates=2)
    assert found.most_probable == pytest.approx(found.promised, abs=0.03)
    assert found.most_probable > 0.7


def test_weights_count_equal_rows() -> None:
    """The share is that of the rows, not of the distinct ones."""
    few = pd.DataFrame({"a": ["x", "x", "y", "y"], "b": ["u", "v", "u", "v"]})
    frame = few.loc[np.repeat([0, 1, 2, 3], [400, 20, 30, 350])].reset_index(drop=True)
    found = hidden(frame, "a", model="mixture", n_components=2)
    assert len(found.cells) == 4
    assert found.cells["weight"].sum() == 800
    assert found.most_probable == pytest.approx(750 / 800)


def test_no_row_is_its_own_donor() -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["x", "y"])
    found = hidden(frame, "x", method="donor")
    # Half of the rows are hidden, and drawn values come from the others: none is met exactly at both ends.
    assert len(found.cells) == 30
    ends = set(found.cells["low"]) | set(found.cells["high"])
    assert not ends & set(found.cells["observed"])


def test_what_cannot_be_overimputed_is_said(imputer: Imputer, sample: pa.Table) -> None:
    model = imputer.imputation_
    with pytest.raises(ConfigurationError, match="not in the model"):
        overimpute(model, sample, "id")
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        overimpute(model, sample, "income", level=90)
    with pytest.raises(ConfigurationError, match="at least 1"):
        overimpute(model, sample, "income", n_rows=0)
    with pytest.raises(DataError, match="too few observed cells"):
        overimpute(model, sample.slice(0, 0), "income")


def test_convergence_is_the_history_with_its_gains(imputer: Imputer) -> None:
    table = convergence(imputer)
    assert table["iteration"].tolist() == list(range(imputer.n_iter_ + 1))
    assert table["log_likelihood"].iloc[-1] == imputer.log_likelihood_
    assert np.isnan(table["gain"].iloc[0])
    assert (table["gain"].iloc[1:] > -1e-6).all()
    assert table["gain"].sum() == pytest.approx(table["objective"].iloc[-1] - table["objective"].iloc[0])

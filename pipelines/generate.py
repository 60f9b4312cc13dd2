"""A made-up survey of any size whose truth is known: `python -m pipelines.generate survey --rows N --output PATH`.

The people, with a = (age - 42.5) / 10 and every other letter defined below:

    age              18 to 67, all equally likely
    education        5 ordered levels: a standard normal minus 0.1 a, cut at CUTS
    occupation       one of 6, with the probabilities OCCUPATION[education]
    hours            normal(HOURS[occupation], 5) a week
    household_size   1 + binomial(5, p), p = 0.45 below 50 years and 0.25 from there
    region           one of 4, with the probabilities REGION
    income           log income = 10.1 + 0.2 a + PAY[occupation] + 0.1 education + 0.015 (hours - 38) + REGION_PAY + normal(0, 0.4)
    satisfaction     "1" to "5": a normal with mean 0.6 (log income - 10.3) and variance 1, cut at SATISFIED
    tenure           owns the home: logit p = -0.2 + 0.5 a + 0.8 (log income - 10.3)

The holes: income is missing with logit p = SILENT[occupation] + 0.35 a, about three cells of ten: missing at random given age and occupation,
which are always there. Five percent of the cells of the other columns are missing completely at random. Those who earn more answer less
often, so the mean of the answers is too low, however many rows there are.

A row is a pure function of (seed, row number): not of the number of rows, nor of the part that it is written to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom

from dask_em.cli import Group
from dask_em.data.sinks import staged
from dask_em.randomness import SIMULATION, Words, mix, uniforms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST_ID = 2**53 + 1
"""Ids start where float64 can no longer tell neighbours apart, so a reader that goes through it is caught."""

AGES = np.arange(18, 68)
EDUCATION = ("primary", "lower secondary", "upper secondary", "bachelor", "master")
CUTS = np.array([-1.2, -0.4, 0.5, 1.2])
OCCUPATIONS = ("manual", "service", "clerical", "technical", "professional", "managerial")
OCCUPATION = np.array(
    [
        [0.45, 0.35, 0.10, 0.06, 0.01, 0.03],
        [0.35, 0.30, 0.15, 0.12, 0.03, 0.05],
        [0.20, 0.25, 0.20, 0.18, 0.07, 0.10],
        [0.06, 0.12, 0.18, 0.22, 0.25, 0.17],
        [0.02, 0.06, 0.10, 0.17, 0.40, 0.25],
    ]
)
HOURS = np.array([39.0, 34.0, 36.0, 39.0, 41.0, 44.0])
PAY = np.array([-0.40, -0.30, 0.00, 0.15, 0.45, 0.70])
SILENT = np.array([-2.2, -1.9, -1.1, -0.7, 0.0, 0.5])
REGIONS = ("north", "east", "south", "west")
REGION = np.array([0.30, 0.25, 0.25, 0.20])
REGION_PAY = np.array([0.05, -0.10, 0.00, 0.10])
SATISFACTION = ("1", "2", "3", "4", "5")
SATISFIED = np.array([-1.5, -0.7, 0.2, 1.1])
NOISE, HOURS_SPREAD, HOURS_PAY, HOLES = 0.4, 5.0, 0.015, 0.05

_STREAMS = ("age", "education", "occupation", "hours", "household_size", "region", "income", "satisfaction", "tenure")
_WITH_HOLES = ("education", "hours", "household_size", "region", "satisfaction", "tenure")
_BATCH = 250_000


def survey(rows: int, seed: int = 0, *, first: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return people numbered from `first` on, with holes and complete.

    Parameters
    ----------
    rows : int
    seed : int
    first : int
        Number of the first row.

    Returns
    -------
    with_holes, complete : pandas.DataFrame
        The same rows: `id` (int64, above 2^53), `age` (int64), `occupation` and `region` (categories), `education` and `satisfaction` (ordered
        categories), `hours` and `income` (float64), `household_size` (Int64), `tenure` (boolean).
    """
    number = np.arange(first, first + rows, dtype=np.int64)
    words = mix(number.astype(np.uint64), seed, SIMULATION)
    complete = _people(number, words)
    holes = {"income": _uniform(words, "income", hole=True) < _silence(complete)}
    holes |= {name: _uniform(words, name, hole=True) < HOLES for name in _WITH_HOLES}
    return complete.assign(**{name: complete[name].mask(hole) for name, hole in holes.items()}), complete


def truth() -> dict[str, Any]:
    """Return the population's means of income, by summing the model over ages, levels of education and occupations.

    Given occupation o, age and education e, log income is normal, so that with b = 0.015

        E[income | age, e, o] = exp(10.1 + 0.2 a + PAY[o] + 0.1 e + b (HOURS[o] - 38) + (25 b^2 + 0.4^2) / 2) * sum of REGION * exp(REGION_PAY)

    The mean of the answers weighs each with the probability of an answer, which depends on age and occupation alone.

    Returns
    -------
    dict
        `mean_income`, `mean_income_by_occupation`, `share_of_income_missing`, and `mean_of_the_answers`, to which the mean after
        listwise deletion tends as rows are added.
    """
    a = _decades(AGES)
    education = np.diff(ndtr(CUTS + 0.1 * a[:, None]), axis=1, prepend=0.0, append=1.0)
    people = education[:, :, None] * OCCUPATION / len(AGES)
    # The last two terms are half the variance of log income, given age, education, occupation and region.
    spread = (HOURS_SPREAD**2 * HOURS_PAY**2 + NOISE**2) / 2
    log_mean = _log_pay(a[:, None, None], np.arange(5)[:, None], np.arange(6), HOURS) + spread
    income = np.exp(log_mean) * (REGION * np.exp(REGION_PAY)).sum()
    answer = 1.0 - expit(SILENT + 0.35 * a[:, None, None])
    by_occupation = (people * income).sum(axis=(0, 1)) / people.sum(axis=(0, 1))
    return {
        "mean_income": float((people * income).sum()),
        "mean_income_by_occupation": dict(zip(OCCUPATIONS, by_occupation.tolist())),
        "share_of_income_missing": float((people * (1.0 - answer)).sum()),
        "mean_of_the_answers": float((people * answer * income).sum() / (people * answer).sum()),
    }


def write(output: str | Path, rows: int, seed: int = 0, *, part_rows: int = 1_000_000) -> dict[str, Any]:
    """Write `survey/part-*.parquet` with holes, `truth.parquet` without, and `truth.json` with the population's means.

    Memory stays that of 250,000 rows, whatever `rows` is.

    Parameters
    ----------
    output : path
        A folder that is absent or empty; it appears when everything is written.
    rows, seed : int
    part_rows : int
        Rows of a part, the last one aside.

    Returns
    -------
    dict
        The content of truth.json.

    Raises
    ------
    OutputError
        The folder is not empty or cannot be made.
    """
    facts = {"rows": rows, "seed": seed, **truth()}
    schema = pa.Schema.from_pandas(survey(1, seed)[0], preserve_index=False)
    with staged(output) as folder:
        (folder / "survey").mkdir()
        with pq.ParquetWriter(folder / "truth.parquet", schema) as complete_file:
            for part, first in enumerate(range(0, rows, part_rows)):
                last = min(first + part_rows, rows)
                with pq.ParquetWriter(folder / "survey" / f"part-{part:05d}.parquet", schema) as part_file:
                    for start in range(first, last, _BATCH):
                        with_holes, complete = survey(min(_BATCH, last - start), seed, first=start)
                        part_file.write_table(pa.Table.from_pandas(with_holes, schema, preserve_index=False))
                        complete_file.write_table(pa.Table.from_pandas(complete, schema, preserve_index=False))
        (folder / "truth.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def _people(number: Ints, words: Words) -> pd.DataFrame:
    age = AGES[(_uniform(words, "age") * len(AGES)).astype(np.int64)]
    a = _decades(age)
    education = np.searchsorted(CUTS, ndtri(_uniform(words, "education")) - 0.1 * a)
    occupation = _pick(_uniform(words, "occupation"), OCCUPATION[education])
    hours = HOURS[occupation] + HOURS_SPREAD * ndtri(_uniform(words, "hours"))
    region = _pick(_uniform(words, "region"), REGION)
    noise = REGION_PAY[region] + NOISE * ndtri(_uniform(words, "income"))
    log_income = _log_pay(a, education, occupation, hours) + noise
    satisfaction = np.searchsorted(SATISFIED, 0.6 * (log_income - 10.3) + ndtri(_uniform(words, "satisfaction")))
    tenure = _uniform(words, "tenure") < expit(-0.2 + 0.5 * a + 0.8 * (log_income - 10.3))
    return pd.DataFrame(
        {
            "id": FIRST_ID + number,
            "age": age,
            "occupation": pd.Categorical.from_codes(occupation, OCCUPATIONS),
            "education": pd.Categorical.from_codes(education, EDUCATION, ordered=True),
            "hours": hours,
            "household_size": pd.array(_household(age, _uniform(words, "household_size")), dtype="Int64"),
            "region": pd.Categorical.from_codes(region, REGIONS),
            "income": np.exp(log_income),
            "satisfaction": pd.Categorical.from_codes(satisfaction, SATISFACTION, ordered=True),
            "tenure": pd.array(tenure, dtype="boolean"),
        }
    )


def _uniform(words: Words, column: str, *, hole: bool = False) -> Floats:
    """One number a row between 0 and 1, of its own for each column and for its holes."""
    return uniforms(mix(words, _STREAMS.index(column), hole))


def _decades(age: Ints) -> Floats:
    return (age - 42.5) / 10.0


def _log_pay(a: Floats, education: Ints, occupation: Ints, hours: Floats) -> Floats:
    """What log income is expected to be, region aside."""
    return 10.1 + 0.2 * a + PAY[occupation] + 0.1 * education + HOURS_PAY * (hours - 38.0)


def _pick(u: Floats, probabilities: Floats) -> Ints:
    """One of the choices for each row, by comparing u with the cumulative probabilities."""
    return (u[:, None] > np.cumsum(probabilities, axis=-1)[..., :-1]).sum(axis=1)


def _household(age: Ints, u: Floats) -> Ints:
    sizes = np.arange(6)
    young, old = binom.cdf(sizes, 5, 0.45), binom.cdf(sizes, 5, 0.25)
    return 1 + np.where(age < 50, np.searchsorted(young, u), np.searchsorted(old, u))


def _silence(people: pd.DataFrame) -> Floats:
    """Probability that the question about income is left open."""
    return expit(SILENT[people["occupation"].cat.codes] + 0.35 * _decades(people["age"].to_numpy()))


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make tables whose truth is known."""


@main.command("image")
@click.option("--megapixels", type=click.FloatRange(min=0.1), required=True, help="How many million pixels, about.")
@click.option("--output", type=click.Path(), required=True, help="Folder to make.")
@click.option("--noise", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Standard deviation.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same picture.")
def image_command(megapixels: float, output: str, noise: float, seed: int) -> None:
    """Write a tiled BigTIFF of any size, made of two photographs with noise."""
    from pipelines.pictures import write_large

    click.echo(json.dumps(write_large(output, megapixels, noise, seed)))


@main.command("survey")
@click.option("--rows", type=click.IntRange(min=1), required=True, help="How many people.")
@click.option("--output", type=click.Path(), required=True, help="Folder to make.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same people.")
def survey_command(rows: int, output: str, seed: int) -> None:
    """Write a survey with holes, the complete table and the population's means."""
    click.echo(json.dumps(write(output, rows, seed)))


if __name__ == "__main__":
    main(prog_name="python -m pipelines.generate")

"""Figures of an imputation that show something, and a page that fetches and runs nothing whatever the columns are called."""

from __future__ import annotations

import io
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dask_em import Imputer
from dask_em.data.sources import open_source
from dask_em.errors import DataError
from dask_em.execution.choose import open_executor
from dask_em.imputation.diagnostics import convergence, diagnose, overimpute, sample_of
from dask_em.imputation.summaries import GroupSums
from dask_em.imputation.writing import write_pieces
from dask_em.report import imputation_figures as figures
from dask_em.report import panels
from dask_em.report.imputation import ImputationFindings, imputation_figures, imputation_page

mpl = pytest.importorskip("matplotlib", reason="needs the extra report")

HOSTILE = "<script>alert('x')</script> \"quoted\" $\\frac{1}{2$ & --> ]]> </svg>"
NAMES = {"missingness", "densities", "level_shares", "overimputation", "pooled_means", "convergence"}


def survey() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 600
    z = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "age": rng.integers(18, 90, n),
            HOSTILE: np.exp(10 + z),
            "hours": 40 + 4 * z + rng.normal(size=n),
            HOSTILE + "2": pd.Categorical(
                np.array(["low", HOSTILE, "high"])[np.digitize(z, [-0.5, 0.5])], ["low", HOSTILE, "high"], ordered=True
            ),
            "member": pd.array(z > rng.normal(size=n), dtype="boolean"),
            "day": pd.Timestamp("2024-01-01"),
            "region": rng.choice(["north", HOSTILE], n),
        }
    )
    for name in (HOSTILE, "hours", HOSTILE + "2", "member"):
        frame.loc[rng.random(n) < 0.2, name] = None
    return frame


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ImputationFindings:
    frame = survey()
    imputer = Imputer(
        key="id",
        predictors=["region"],
        transforms={HOSTILE: "log"},
        universe={"hours": "age < 70"},
        delta={"hours": 1.0},
        n_replicates=4,
        random_state=0,
    ).fit(frame)
    source, model = open_source(frame), imputer.imputation_
    sums = GroupSums((HOSTILE, "hours"), "region", None)
    with open_executor(None) as executor:
        taken = sample_of(source, model, executor)
        diagnosis = diagnose(source, model, taken, executor)
        written = write_pieces(model, source, tmp_path_factory.mktemp("out"), executor, m=3, groups=sums)
    assert written.groups is not None
    return ImputationFindings(
        HOSTILE,
        model,
        diagnosis,
        written.integrity,
        subtitle=HOSTILE,
        overimputed=[
            overimpute(model, taken, name, n_rows=300) for name in (HOSTILE, "hours", HOSTILE + "2", "member")
        ],
        history=convergence(imputer),
        converged=imputer.converged_,
        pooled=written.groups.pooled().assign(truth=1.0),
        left_alone=imputer.roles_.other,
        notes=[HOSTILE],
    )


@pytest.fixture(scope="module")
def drawn(found: ImputationFindings) -> dict[str, str]:
    return imputation_figures(found)


@pytest.fixture(scope="module")
def page(found: ImputationFindings, drawn: dict[str, str]) -> str:
    return imputation_page(found, drawn)


# --- figures ------------------------------------------------------------------------------------------------------


def test_every_figure_is_a_drawing_and_the_same_bytes_twice(found: ImputationFindings, drawn: dict[str, str]) -> None:
    assert set(drawn) == NAMES
    before = dict(mpl.rcParams)
    assert imputation_figures(found) == drawn
    assert dict(mpl.rcParams) == before
    for svg in drawn.values():
        nodes = list(ET.fromstring(svg).iter())
        assert sum(node.tag.endswith("path") for node in nodes) > 8
        assert not any(node.tag.endswith("script") for node in nodes)


def test_no_figure_is_blank_in_a_quarter(found: ImputationFindings, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = []

    def rasterise(figure: object) -> str:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white", transparent=False)
        buffer.seek(0)
        pictures.append(mpl.image.imread(buffer)[..., :3])
        return "<svg></svg>"

    for module in (figures, sys.modules["dask_em.report.figures"]):
        monkeypatch.setattr(module, "to_svg", rasterise)
    imputation_figures(found)
    assert len(pictures) == len(NAMES)
    for picture in pictures:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        for quarter in (
            picture[:height, :width],
            picture[:height, width:],
            picture[height:, :width],
            picture[height:, width:],
        ):
            assert quarter.std() > 0.01


def words(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag.endswith("text")]


def test_what_is_said_in_figures_is_what_was_counted(found: ImputationFindings, drawn: dict[str, str]) -> None:
    table = found.diagnosis.missingness.table().set_index("column")
    assert panels.per_cent(table.loc["hours", "missing_share"]) in words(drawn["missingness"])
    # Complete columns have no row in the map.
    assert "age" not in words(drawn["missingness"])
    for own in found.numbers:
        said = f"{panels.per_cent(own.coverage)} of {len(own.cells)} cells inside their 90% interval"
        assert said in words(drawn["overimputation"])
    assert "log scale" in words(drawn["densities"])
    assert "hours" in words(drawn["densities"])
    assert "member: True" in words(drawn["level_shares"])
    assert any("complete rows only" in text for text in words(drawn["pooled_means"]))


def test_single_cells_are_pixels_and_not_numbers(found: ImputationFindings) -> None:
    """Vertical lines and dots of the scatter stand in no path: the file would tell everybody's numbers otherwise."""
    svg = figures.overimputation_scatter(found.numbers)
    once = figures.overimputation_scatter([replace(own, cells=own.cells.head(20)) for own in found.numbers])
    assert "data:image/png" in svg

    def shapes(text: str) -> int:
        return len(re.findall(r"<(path|use)\b", text))

    # More cells make no more shapes, give or take a tick of the axes.
    assert shapes(svg) <= shapes(once) + 20


def test_many_columns_and_patterns_stay_within_a_figure() -> None:
    names = [f"{HOSTILE}{i}" for i in range(40)]
    columns = pd.DataFrame({"column": names, "missing": 1, "not_asked": 0, "missing_share": 0.004})
    patterns = pd.DataFrame(
        {"rows": 10, "share": 0.01, "missing": [(n,) for n in names], "not_asked": [()] * 40, "n_patterns": 1}
    )
    said = words(figures.missingness_map(columns, patterns))
    assert "the 20 most frequent patterns: 20% of the rows" in said
    assert "0.4%" in said
    frame = pd.DataFrame(
        [
            {
                "column": name,
                "low": j,
                "high": j + 1.0,
                "level": None,
                "transform": None,
                "observed": 5,
                "imputed": i + 1,
            }
            for i, name in enumerate(names)
            for j in range(10)
        ]
    )
    # The panels are those with the most imputed cells.
    assert sum(text.startswith("<script>") for text in words(figures.density_panels(frame))) == figures.MAX_PANELS


def test_what_there_is_nothing_to_draw_of_is_said() -> None:
    columns = pd.DataFrame({"column": ["a"], "missing": [0], "not_asked": [0], "missing_share": [0.0]})
    empty = pd.DataFrame(columns=["column", "level", "low", "high", "transform", "observed", "imputed"])
    with pytest.raises(DataError, match="nothing is missing"):
        figures.missingness_map(columns, pd.DataFrame())
    for draw in (figures.density_panels, figures.level_shares):
        with pytest.raises(DataError, match="imputed cells"):
            draw(empty)
    with pytest.raises(DataError, match="overimputed"):
        figures.overimputation_scatter([])
    with pytest.raises(DataError, match="fewer than two steps"):
        figures.convergence_trace(pd.DataFrame({"iteration": [0, 1], "objective": [1.0, 2.0]}))
    with pytest.raises(DataError, match="no means"):
        figures.pooled_means(pd.DataFrame(columns=["group", "estimate", "low", "high", "method"]))


def test_means_need_no_more_than_five_columns() -> None:
    frame = pd.DataFrame(
        {
            "group": ["a", "a"],
            "estimate": [1.0, 2.0],
            "low": [0.5, 1.0],
            "high": [2, 3.0],
            "method": ["pooled", HOSTILE],
        }
    )
    said = words(figures.pooled_means(frame))
    assert "pooled, 95% interval" in said
    assert not any("true" in text for text in said)


@pytest.mark.parametrize("how", [None, "log", "log1p", "asinh"])
@pytest.mark.parametrize("high", [0.5, 30.0, 2e6])
def test_ticks_are_few_round_and_where_they_say(how: str | None, high: float) -> None:
    values = np.array([0.001 if how == "log" else 0.0, high])
    with figures.canvas(3, 3) as figure:
        axes = figure.add_subplot()
        axes.set_xlim(*panels.to_scale(values, how))
        panels.ticks_in_units(axes.xaxis, *panels.to_scale(values, how), how, 5)
        places = axes.get_xticks()
        figure.draw_without_rendering()
        named = [label.get_text() for label in axes.get_xticklabels()]
    assert 2 <= len(named) <= 7
    units = {"k": 1e3, "M": 1e6}
    numbers = [float(t.rstrip("kM").replace(",", "").replace("−", "-")) * units.get(t[-1], 1.0) for t in named]
    np.testing.assert_allclose(panels.to_scale(np.array(numbers), how), places, rtol=1e-9, atol=1e-9)


# --- the page -----------------------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_nasty_names_are_inert(page: str) -> None:
    parsed = Parsed(page)
    assert {"script", "iframe", "object", "link", "base", "form"}.isdisjoint(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert page.count("&lt;script&gt;") > 10
    assert parsed.tags.count("svg") == page.count("</svg>") == len(NAMES)


def test_the_page_fetches_nothing(page: str) -> None:
    links = [
        value for name, value in Parsed(page).attributes if name in {"src", "href", "xlink:href", "srcset", "action"}
    ]
    assert links
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in links)
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_the_page_says_what_was_done(found: ImputationFindings, page: str) -> None:
    counted = found.diagnosis.missingness
    assert f"{sum(found.integrity.filled.values()):,} missing cells of 600 rows" in page
    assert f"{counted.complete_rows():,} of 600 rows" in page
    assert found.integrity.line in page
    for before, after in found.integrity.digests.values():
        assert page.count(f"{before:016x}") == 2
        assert before == after
    assert "CHANGED" not in page
    assert "number, log" in page
    assert "ordered, 3 levels" in page
    assert "yes/no" in page
    assert "hours by +1" in page
    assert "the model has no place for its type" in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page.split("<main>")[1]).lower().split()


def test_a_broken_proof_is_not_glossed_over(found: ImputationFindings, drawn: dict[str, str]) -> None:
    digests = dict(found.integrity.digests)
    digests["age"] = (1, 2)
    other = replace(found.integrity.keys[0], total=0)
    broken = replace(found.integrity, digests=digests, keys=(found.integrity.keys[0], other))
    page = imputation_page(replace(found, integrity=broken), drawn)
    assert "CHANGED" in page
    assert "NOT the same" in page
    assert "FAILED" in page
    assert "Nothing observed was changed" not in page


def test_the_least_that_a_page_can_be_made_of(found: ImputationFindings) -> None:
    least = ImputationFindings("t", found.imputation, found.diagnosis, found.integrity)
    assert set(imputation_figures(least)) == {"missingness", "densities", "level_shares"}
    page = imputation_page(least)
    assert page == imputation_page(least)
    assert "Means by group" not in page
    assert "left alone" not in page


def test_a_table_without_holes_has_a_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(80, 2)), columns=["x", "y"])
    imputer = Imputer(n_replicates=2, random_state=0).fit(frame)
    source, model = open_source(frame), imputer.imputation_
    with open_executor(None) as executor:
        diagnosis = diagnose(source, model, sample_of(source, model, executor), executor)
        written = write_pieces(model, source, tmp_path, executor, m=0)
    whole = ImputationFindings("t", model, diagnosis, written.integrity, history=convergence(imputer))
    assert set(imputation_figures(whole)) <= {"convergence"}
    assert "0 missing cells of 80 rows" in imputation_page(whole)

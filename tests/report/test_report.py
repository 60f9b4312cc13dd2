"""Figures that show something, a page that fetches and runs nothing, a profile that counts right."""

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from dask_em.errors import ConfigurationError, DataError, OutputError
from dask_em.report import Section, figures, render, write
from dask_em.report import canvas as sheet
from dask_em.segments import segment_profile

mpl = pytest.importorskip("matplotlib", reason="needs the extra report")

HOSTILE = "<script>alert('x')</script> \"quoted\" $\\frac{1}{2$ & --> ]]> </svg>"


@pytest.fixture(scope="module")
def customers():
    rng = np.random.default_rng(1)
    n = 300
    return pd.DataFrame(
        {
            "id": np.arange(n),
            "spend": rng.lognormal(size=n),
            HOSTILE: rng.normal(size=n),
            "plan": rng.choice(["basic", "plus", HOSTILE], n),
            "member": rng.choice([True, False], n),
        }
    )


@pytest.fixture(scope="module")
def segments():
    return np.arange(300) % 3


def criterion(_customers, _segments):
    table = pd.DataFrame({"n_components": [1, 2, 3], "bic": [9e3, 8e3, 8.2e3], "n_parameters": [5, 11, 17]})
    return figures.criterion_lines(table, "bic", 2)


def heat_map(customers, segments):
    return figures.segment_heat_map(segment_profile(customers, segments, key="id"))


def scatter(customers, segments):
    points = customers[["spend", HOSTILE]].to_numpy()
    means = np.array([points[segments == s].mean(axis=0) for s in range(3)])
    covariances = np.array([np.cov(points[segments == s].T) for s in range(3)])
    return figures.scatter_ellipses(points, segments, means, covariances, ["spend", HOSTILE])


def trace(_customers, _segments):
    scans = np.arange(1, 9)
    parts = [
        pd.DataFrame({"scan": scans, "candidate": f"{HOSTILE} {j}", "objective": -100.0 - np.exp(-j * scans)})
        for j in (1, 2)
    ]
    return figures.objective_trace(pd.concat(parts), n_rows=10)


def steps(_customers, _segments):
    return figures.line_steps([0.5, 0.58333, 0.597222], 0.6, HOSTILE)


FIGURES = [criterion, heat_map, scatter, trace, steps]


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_is_a_drawing_in_svg_and_the_same_bytes_twice(draw, customers, segments):
    before = dict(mpl.rcParams)
    svg = draw(customers, segments)
    root = ET.fromstring(svg)
    paths = [node for node in root.iter() if node.tag.endswith("path")]
    assert len(paths) > 10
    assert svg == draw(customers, segments)
    assert dict(mpl.rcParams) == before
    assert not any(node.tag.endswith("script") for node in root.iter())


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_has_ink_in_more_than_one_corner(draw, customers, segments, monkeypatch):
    """The same drawing as pixels: its four quarters are not blank."""
    pictures = []

    def rasterise(figure):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white", transparent=False)
        buffer.seek(0)
        pictures.append(mpl.image.imread(buffer)[..., :3])
        return ""

    for module in (figures, sys.modules["dask_em.report.heat_map"]):
        monkeypatch.setattr(module, "to_svg", rasterise)
    draw(customers, segments)
    (picture,) = pictures
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = [picture[:height, :width], picture[:height, width:], picture[height:, :width], picture[height:, width:]]
    assert all(quarter.std() > 0.01 for quarter in quarters)


def test_many_points_make_a_small_file_of_the_same_bytes():
    points = np.random.default_rng(0).normal(size=(50_000, 2))
    points[::7, 0] = np.nan
    svg = figures.scatter_ellipses(points, np.zeros(50_000), np.zeros((1, 2)), np.eye(2)[None], ["a", "b"])
    assert len(svg) < 1_500_000
    assert svg == figures.scatter_ellipses(points, np.zeros(50_000), np.zeros((1, 2)), np.eye(2)[None], ["a", "b"])


@pytest.mark.parametrize("probability", [0.5, 0.95])
def test_an_ellipse_holds_the_share_it_says(probability):
    covariance = np.array([[2.0, 0.9], [0.9, 0.7]])
    outline = figures._ellipse(np.array([3.0, -1.0]), covariance, probability)
    away = outline.T - [3.0, -1.0]
    squared = np.einsum("ij,jk,ik->i", away, np.linalg.inv(covariance), away)
    points = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 40_000)
    inside = np.einsum("ij,jk,ik->i", points, np.linalg.inv(covariance), points) < squared[0]
    assert np.ptp(squared) < 1e-9
    assert inside.mean() == pytest.approx(probability, abs=0.01)


def test_a_segment_keeps_its_colour():
    assert len(set(sheet.PALETTE)) == len(sheet.PALETTE)
    assert sheet.segment_colour(2) == sheet.segment_colour(2 + len(sheet.PALETTE))


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


@pytest.fixture(scope="module")
def page(customers, segments):
    table = pd.DataFrame({HOSTILE: [HOSTILE, "b"], "share": [0.256, np.nan], "loss": [-1.5, 2.0]})
    drawn = [
        Section(
            HOSTILE, [HOSTILE], figure=draw(customers, segments), caption=HOSTILE, table=table, formats={"share": ".1%"}
        )
        for draw in FIGURES
    ]
    return render(HOSTILE, HOSTILE, drawn)


def test_hostile_names_are_inert_in_the_page(page):
    parsed = _Page()
    parsed.feed(page)
    assert {"script", "iframe", "object", "link", "base", "form"}.isdisjoint(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in page
    assert parsed.tags.count("svg") == len(FIGURES)
    assert page.count("</svg>") == len(FIGURES)


def test_the_page_fetches_nothing(page):
    parsed = _Page()
    parsed.feed(page)
    links = [value for name, value in parsed.attributes if name in {"src", "href", "xlink:href", "srcset", "action"}]
    assert links
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in links)
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page
    assert "script-src" not in page


def test_the_page_shows_the_numbers(page):
    assert "25.6%" in page
    assert "−1.5" in page
    assert "–" in page
    assert "nan" not in _text(page)


def _text(page):
    return re.sub(r"<[^>]*>", " ", page.split("<tbody>")[1].split("</tbody>")[0]).lower()


def test_figures_follow_the_inks_of_the_page(customers, segments):
    html = render("t", "", [Section("a", figure=criterion(customers, segments))])
    drawing = html.split("<svg")[1]
    assert "var(--ink" in drawing
    assert sheet.INK not in drawing


def test_the_same_page_twice(customers, segments):
    pages = [render("t", "s", [Section("a", figure=heat_map(customers, segments))]) for _ in range(2)]
    assert pages[0] == pages[1]


def test_something_else_than_a_figure_is_refused():
    with pytest.raises(ConfigurationError, match="not an SVG"):
        render("t", "", [Section("a", figure="<script>alert(1)</script>")])


def test_writing_replaces_the_file_in_one_step(tmp_path):
    target = tmp_path / "report.html"
    write(target, "one")
    write(target, "two")
    assert target.read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "absent" / "report.html", "x")


def test_matplotlib_is_not_imported_before_a_figure_is_drawn():
    code = "import sys, dask_em.report, dask_em.report.figures; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_profile_agrees_with_pandas(customers, segments):
    frame = customers.assign(spend=customers["spend"].where(customers.index % 5 > 0))
    profile = segment_profile(frame, segments, key="id").set_index(["column", "level", "segment"])
    repeated = frame.assign(segment=segments)
    for segment, own in repeated.groupby("segment"):
        spend = profile.loc[("spend", np.nan, segment)]
        assert spend["size"] == len(own)
        assert spend["mean"] == pytest.approx(own["spend"].mean())
        assert spend["missing"] == pytest.approx(own["spend"].isna().mean())
        assert spend["z"] == pytest.approx(
            (own["spend"].mean() - repeated["spend"].mean()) / repeated["spend"].std(ddof=0)
        )
        plus = profile.loc[("plan", "plus", segment)]
        assert plus["share"] == pytest.approx((own["plan"] == "plus").mean())
        assert plus["lift"] == pytest.approx((own["plan"] == "plus").mean() / (repeated["plan"] == "plus").mean())
    assert set(profile.loc["member"].index.get_level_values("level")) == {"True", "False"}


def test_shares_are_among_the_known():
    plan = pd.Series(["a", None] * 10 + ["b", pd.NA] * 10, dtype="string")
    profile = segment_profile(pd.DataFrame({"plan": plan}), np.repeat([0, 1], 20))
    assert profile.query("level == 'a' and segment == 0")["share"].item() == 1.0
    assert profile["missing"].tolist() == [0.5] * 4


def test_few_customers_stay_hidden():
    frame = pd.DataFrame({"spend": np.arange(80.0), "plan": ["a", "b"] * 40})
    frame.loc[0:32, "plan"] = None
    profile = segment_profile(frame, np.repeat([0, 1, 2, 3], [40, 20, 11, 9]))
    told = ["mean", "share", "lift", "z", "missing", "overall"]
    assert profile.loc[profile["segment"] == 3, ["size", *told]].isna().all().all()
    # What would give the smallest segment away is hidden with it.
    assert profile.loc[profile["segment"] == 2, ["size", *told]].isna().all().all()
    assert profile.query("segment == 0 and column == 'plan'")[told].isna().all().all()
    assert profile.query("segment < 2 and column == 'spend'")["mean"].notna().all()
    assert "hidden" in figures.segment_heat_map(profile)
    assert segment_profile(frame, np.repeat([0, 1], [75, 5]), smallest=0)["size"].notna().all()


def test_bad_profiles_are_refused():
    frame = pd.DataFrame({"spend": np.arange(3.0)})
    with pytest.raises(DataError, match="length"):
        segment_profile(frame, [0, 1])
    with pytest.raises(DataError, match="no columns"):
        figures.segment_heat_map(segment_profile(frame, [0, 1, 1]).iloc[:0])

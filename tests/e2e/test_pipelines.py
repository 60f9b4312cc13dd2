"""The jobs of conf/ from end to end, as a user runs them: a process, its exit code, and what it leaves in a folder."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dask_em
from pipelines import data

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent / "dask-em"

SMALL = (
    "--set",
    "levels.household.n_components=[2, 3]",
    "--set",
    "levels.household.model.n_init=1",
    "--set",
    "levels.household.model.tol=1e-4",
    "--set",
    "smallest_cell=0",
)
"""The household job with two numbers of segments and one start each, and nothing hidden in its tables."""

SVG = "{http://www.w3.org/2000/svg}"


def start(job: str, output: Path, *options: str) -> subprocess.Popen[str]:
    command = [BIN, "run", ROOT / "conf" / f"{job}.yaml", "--set", f"output={output}", "--output", "json", *options]
    return subprocess.Popen(
        command, cwd=output.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def run(job: str, output: Path, *options: str) -> tuple[int, str, str]:
    process = start(job, output, *options)
    stdout, stderr = process.communicate(timeout=200)
    return process.returncode, stdout, stderr


def facts_of(job: str, output: Path, *options: str) -> dict[str, Any]:
    code, stdout, stderr = run(job, output, *options)
    assert code == 0, stderr
    assert not [line for line in stderr.splitlines() if "warning" in line.lower()]
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def households(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("households") / "out"
    return folder, facts_of("customer_segmentation", folder, *SMALL)


@pytest.fixture(scope="module")
def cdnow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("cdnow") / "out"
    return folder, facts_of("cdnow", folder, "--set", "levels.customer.model.n_init=3", "--set", "smallest_cell=0")


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("coins") / "out"
    return folder, facts_of("coin_flips", folder)


JOBS = ("households", "cdnow", "coins")


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any]]:
    found: tuple[Path, dict[str, Any]] = request.getfixturevalue(request.param)
    return found


# --- figures and report ------------------------------------------------------------------------------------------


def test_figures_are_there_and_not_blank(job: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = job
    expected = {"one_coin", "coin_a", "coin_b"}
    if facts["pipeline"] == "customer_segmentation":
        expected = {"bic", "segment_profile", "objective", "scatter"}
    drawings = {path.stem: path for path in (folder / "figures").iterdir()}
    assert set(drawings) == expected
    for name, path in drawings.items():
        places, words = drawn(path)
        assert len(places) > 1, f"{name} has no ink"
        width, height = (max(axis) - min(axis) for axis in zip(*places, strict=True))
        assert width > 100, f"{name} is drawn in a corner"
        assert height > 50, f"{name} is drawn in a corner"
        assert words > 3, f"{name} has no labels"


def drawn(path: Path) -> tuple[set[tuple[float, float]], int]:
    """Where the visible paths, markers and images inside the axes of a figure are, and how many texts it has."""
    root = ET.parse(path).getroot()
    # Text is drawn as text, or as a group of glyphs.
    words = sum(1 for own in root.iter() if own.tag == f"{SVG}text" or own.get("id", "").startswith("text_"))
    places: set[tuple[float, float]] = set()
    for axes in root.iter(f"{SVG}g"):
        if axes.get("id", "").startswith("axes_"):
            for part in axes:
                # Ticks, frame and legend are there on a blank figure, too.
                if not part.get("id", "").startswith(("matplotlib.axis", "legend", "text")):
                    places |= _places(part)
    return places, words


def _places(part: ET.Element) -> set[tuple[float, float]]:
    places = set()
    for own in part.iter():
        style = own.get("style", "")
        if ("fill: none" in style and "stroke: " not in style) or re.search(r"opacity: 0(\.0)?\s*(;|$)", style):
            continue
        if own.tag == f"{SVG}path" and "clip-path" in own.attrib:
            points = re.findall(r"[MLC] (-?[\d.]+) (-?[\d.]+)", own.get("d", ""))
            places |= {(float(x), float(y)) for x, y in points}
        elif own.tag == f"{SVG}use" and own.get("x"):
            places.add((float(own.get("x", 0)), float(own.get("y", 0))))
        elif own.tag == f"{SVG}image":
            x, y, w, h = (float(own.get(n, "0").removesuffix("pt")) for n in ("x", "y", "width", "height"))
            places |= {(x, y), (x + w, y + h)}
    return places


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_the_report_is_one_file_that_runs_and_fetches_nothing(job: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = job
    assert facts["report"] == str(folder / "report.html")
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert {"script", "iframe", "object", "embed", "link"}.isdisjoint(page.tags)
    assert not page.handlers
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert not re.search(r"url\(\s*['\"]?\s*(https?:)?//|@import", text)
    assert page.tags.count("svg") == len(list((folder / "figures").iterdir()))


# --- segments ----------------------------------------------------------------------------------------------------


SEGMENTATIONS = {"households": (data.households, "household_id"), "cdnow": (data.cdnow, "customer_id")}


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_the_scored_table_is_what_the_model_says(name: str, request: pytest.FixtureRequest) -> None:
    folder, facts = request.getfixturevalue(name)
    read, key = SEGMENTATIONS[name]
    table, scored = read(), pd.read_parquet(folder / "segments")
    model = dask_em.load(folder / "model")
    assert list(scored.columns) == [key, "segment", "probability", "log_density", "outlier"]
    assert scored[key].to_numpy().tolist() == table[key].to_numpy().tolist()
    assert scored[key].is_unique
    proba = model.predict_proba(table).to_numpy()
    assert (scored["segment"].to_numpy() == model.predict(table).to_numpy()).all()
    np.testing.assert_allclose(scored["probability"], proba.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(scored["log_density"], model.score_samples(table), rtol=1e-12)
    assert model.score(table) * len(table) == pytest.approx(facts["log_likelihood"], rel=1e-10)
    assert facts["log_likelihood"] == model.log_likelihood_
    assert facts["bic"] == pytest.approx(model.bic(table), rel=1e-10)
    # About one row in a hundred of the model's own would be flagged; real rows are stranger, but not all of them.
    assert 0 < scored["outlier"].sum() < 0.1 * len(scored)


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_sizes_add_up(name: str, request: pytest.FixtureRequest) -> None:
    folder, facts = request.getfixturevalue(name)
    scored, sizes = pd.read_parquet(folder / "segments"), pd.read_csv(folder / "segment_sizes.csv")
    counted = scored.groupby("segment").agg(rows=("segment", "size"), outliers=("outlier", "sum")).reset_index()
    found = sizes.sort_values("segment", ignore_index=True)
    assert found[["segment", "rows", "outliers"]].to_numpy().tolist() == counted.to_numpy().tolist()
    assert sizes["rows"].sum() == len(scored) == facts["rows"]
    assert sizes["share"].sum() == pytest.approx(1)
    assert sizes["outliers"].sum() == facts["outliers"]
    assert [row["rows"] for row in facts["segments"]] == sizes["rows"].tolist()
    assert len(sizes) == facts["n_components"]


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_the_profile_is_what_pandas_says(name: str, request: pytest.FixtureRequest) -> None:
    folder, _ = request.getfixturevalue(name)
    read, key = SEGMENTATIONS[name]
    joined = read().merge(pd.read_parquet(folder / "segments")[[key, "segment"]], on=key)
    profile = pd.read_csv(folder / "segment_profile.csv")
    checked = 0
    for row in profile.itertuples():
        own = joined.loc[joined["segment"] == row.segment, row.column]
        if pd.isna(row.level) and not pd.isna(row.mean):
            assert row.mean == pytest.approx(own.mean(), rel=1e-9)
            assert row.missing == pytest.approx(own.isna().mean(), abs=1e-12)
            checked += 1
        elif not pd.isna(row.share):
            assert row.share == pytest.approx((own.dropna().astype(str) == row.level).mean(), rel=1e-9)
            checked += 1
    assert checked > len(profile) / 2


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_the_smallest_bic_was_chosen(name: str, request: pytest.FixtureRequest) -> None:
    folder, facts = request.getfixturevalue(name)
    table = pd.read_csv(folder / "bic.csv")
    assert table.loc[table["bic"].idxmin(), "n_components"] == facts["n_components"]
    assert facts["bic"] == pytest.approx(table["bic"].min())
    assert facts["converged"] is True


def test_segments_keep_their_numbers_next_month(households: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, facts = households
    k, previous = facts["n_components"], tmp_path / "previous"
    numbers = [7, 4, 9][:k]
    dask_em.save(dask_em.load(folder / "model"), previous, segments=numbers)
    options = [*SMALL, "--set", f"levels.household.n_components=[{k}]", "--set", f"match={previous}"]
    again = facts_of(
        "customer_segmentation", tmp_path / "again", *options, "--set", "levels.household.model.random_state=7"
    )
    assert sorted(row["segment"] for row in again["segments"]) == sorted(numbers)
    before = pd.read_parquet(folder / "segments")["segment"].map(dict(enumerate(numbers)))
    now = pd.read_parquet(tmp_path / "again" / "segments")["segment"]
    assert (before == now).mean() > 0.8
    # And the model says so by itself.
    assert sorted(dask_em.load(tmp_path / "again" / "model").notes_["segments"]) == sorted(numbers)


# --- coins -------------------------------------------------------------------------------------------------------


def test_the_coins_are_those_of_the_textbook(coins: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = coins
    assert facts["one_coin"][:4] == [0.58333333, 0.59722222, 0.59953704, 0.59992284]
    assert facts["one_coin"][-1] == pytest.approx(0.6, abs=1e-8)
    assert facts["one_coin_missing_ignored"] == [0.6]
    assert facts["two_coins"][0] == [0.71301224, 0.58133931]
    assert facts["two_coins"][1] == [0.74529204, 0.56925575]
    assert facts["two_coins"][9] == [0.79674415, 0.51965866]
    assert facts["two_coins_limit"] == pytest.approx([0.79678907, 0.51958312], abs=2e-8)
    one, two = pd.read_csv(folder / "one_coin.csv"), pd.read_csv(folder / "two_coins.csv")
    assert one["heads"].round(8).tolist() == [0.5, *facts["one_coin"]]
    assert two[["coin_a", "coin_b"]].round(8).to_numpy().tolist() == [[0.6, 0.5], *facts["two_coins"]]


# --- nothing is lost, nothing is half written --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["customer_segmentation", "cdnow", "coin_flips"])
def test_a_folder_in_use_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    code, stdout, stderr = run(name, tmp_path / "out")
    assert (code, stdout) == (5, "")
    assert re.fullmatch(r"dask-em: error: output folder .* is not empty: .*\n", stderr)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "precious.txt"]
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    code, stdout, stderr = run("cdnow", tmp_path / "out", *FEW, "--set", "levels.customer.key=nobody", "--quiet")
    assert (code, stdout) == (4, "")
    assert "nobody" in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


FEW = ("--set", "levels.customer.n_components=[2]", "--set", "levels.customer.model.n_init=1")


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_its_checkpoint_alone(sent: signal.Signals, expected: int, tmp_path: Path) -> None:
    process = start("cdnow", tmp_path / "out", "--quiet")
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (expected, "")
    assert "Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == [".out.run"]

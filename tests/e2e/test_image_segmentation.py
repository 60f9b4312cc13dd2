"""The image job from end to end, as a user runs it: a process, its exit code, and what it leaves in a folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.metrics import adjusted_rand_score

import dask_em
from dask_em.config import Job, load
from pipelines import pictures

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent / "dask-em"


def run(output: Path, *options: str) -> tuple[int, str, str]:
    command = [BIN, "run", ROOT / "conf" / "image_segmentation.yaml", "--set", f"output={output}", "--output", "json"]
    done = subprocess.run([*command, *options], cwd=output.parent, text=True, capture_output=True, timeout=200)
    return done.returncode, done.stdout, done.stderr


def facts_of(output: Path, *options: str) -> dict[str, Any]:
    code, stdout, stderr = run(output, *options)
    assert code == 0, stderr
    assert "warning" not in stderr.lower()
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def china(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("china") / "out"
    return folder, facts_of(folder, "--set", "posterior=true")


def test_everything_is_there(china: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = china
    names = {"labels.png", "posterior.tif", "overlay.png", "boundaries.png", "regions.csv", "report.html", "model"}
    assert {path.name for path in folder.iterdir()} == names | {"run.json", "manifest.json", "_SUCCESS"}
    assert (facts["pixels"], facts["n_segments"], facts["converged"]) == (273_280, 5, True)
    assert 90_000 < facts["n_colours"] < 100_000
    assert {"sky", "lake"} < {own["name"] for own in facts["segments"]}
    regions = pd.read_csv(folder / "regions.csv")
    assert regions["pixels"].tolist() == [own["pixels"] for own in facts["segments"]]
    assert regions["pixels"].sum() == facts["pixels"]
    assert (np.diff(regions["share"]) <= 0).all()


def test_the_map_is_that_of_the_function(china: tuple[Path, dict[str, Any]]) -> None:
    """What the job writes is what the function gives, and the model knows what its segments are called."""
    folder, _ = china
    model = dask_em.load(folder / "model")
    labels = np.asarray(Image.open(folder / "labels.png"))
    job: Any = load(ROOT / "conf" / "image_segmentation.yaml", Job)
    for name, boxes in job.pictures["china"].seeds.items():
        for left, top, right, bottom in boxes:
            assert (labels[top:bottom, left:right] == model.notes_["names"].index(name)).all()
    again = dask_em.segment_image(
        load_sample_image("china.jpg"), 5, colour_space="lab", smoothing=1.5, smallest_region=40,
        seeds=job.pictures["china"].seeds, random_state=0,
    )  # fmt: skip
    assert (again.labels == labels).all()
    posterior = tifffile.imread(folder / "posterior.tif")
    assert posterior.shape == (427, 640, 5)
    assert np.abs(posterior.astype(int).sum(axis=2) - 1000).max() <= 3


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_report_is_one_file(china: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = china
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert {"script", "iframe", "object", "embed", "link"}.isdisjoint(page.tags)
    assert page.tags.count("img") == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"url\(\s*['\"]?\s*(https?:)?//|@import", text)
    for own in facts["segments"]:
        assert f"background:{own['colour']}" in text
        assert f"<td>{own['name']}</td>" in text


def test_known_regions_and_their_number_are_found(tmp_path: Path) -> None:
    facts = facts_of(tmp_path / "out", "--set", "picture=generated")
    truth = pictures.generated(600, 800, 15.0, 0)[1]
    labels = np.asarray(Image.open(tmp_path / "out" / "labels.png"))
    assert facts["n_segments"] == 4
    assert adjusted_rand_score(truth.ravel(), labels.ravel()) > 0.99
    assert (tmp_path / "out" / "figures" / "criterion.svg").exists()
    assert pd.read_csv(tmp_path / "out" / "criterion.csv")["bic"].idxmin() == 2


def test_a_generated_tiff_on_a_cluster(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "pipelines.generate", "image", "--megapixels", "1.5", "--output", tmp_path / "large"],
        cwd=ROOT, text=True, capture_output=True, timeout=200,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    path = tmp_path / "large" / "picture.tif"
    assert json.loads(made.stdout)["path"] == str(path)
    options = [
        "--set",
        "picture=large",
        "--set",
        f"pictures.large.source.path={path}",
        "--set",
        "pictures.large.n_init=1",
    ]
    here = facts_of(tmp_path / "here", *options)
    there = facts_of(tmp_path / "there", *options, "--set", "cluster={executor: dask, n_workers: 2}")
    assert here["labels"].endswith("labels.tif")
    files = [(tmp_path / who / "labels.tif").read_bytes() for who in ("here", "there")]
    assert files[0] == files[1]
    assert here["segments"] == there["segments"]


def test_what_would_be_done(tmp_path: Path) -> None:
    code, stdout, stderr = run(tmp_path / "out", "--dry-run")
    assert code == 0, stderr
    plan = json.loads(stdout)
    assert (plan["pixels"], plan["bytes"], plan["windows"]) == (273_280, 3 * 273_280, 1)
    assert plan["scans"] == {"at_least": 2, "at_most": 2}  # for the colours and for the labels
    assert plan["n_segments"] == [5]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["picture=large", "pictures.large.source.path=absent.tif"], 4, "there is no picture at absent.tif"),
        (["pictures.china.seeds={sky: [[0, 0, 9, 900]]}"], 2, "seed 'sky' is no box inside the picture"),
        (["pictures.china.n_segments=300"], 2, "n_segments must be between 1 and 254"),
        (["picture=temple"], 2, "no such picture; the pictures are china, flower, generated, large"),
        (["pictures.china.features=[texture]"], 2, "must be 'position', 'local_mean' or 'gradient'"),
    ],
)
def test_what_is_refused_leaves_nothing(options: list[str], code: int, message: str, tmp_path: Path) -> None:
    found, stdout, stderr = run(tmp_path / "out", *(word for own in options for word in ("--set", own)))
    assert (found, stdout) == (code, "")
    assert message in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_large_picture_is_made_of_tiles_that_depend_on_their_place_alone(tmp_path: Path) -> None:
    small = pictures.write_large(tmp_path / "small", 0.4)
    large = pictures.write_large(tmp_path / "large", 1.2)
    a, b = (tifffile.imread(own["path"]) for own in (small, large))
    assert a.shape[:2] == (small["height"], small["width"])
    assert (b[: a.shape[0], : a.shape[1]] == a[: b.shape[0]]).all()
    with tifffile.TiffFile(small["path"]) as opened:
        page: Any = opened.pages[0]
        assert (opened.is_bigtiff, page.tile, int(page.compression)) == (True, (256, 256), 8)
    clean = tifffile.imread(pictures.write_large(tmp_path / "clean", 0.4, noise=0.0)["path"])
    photograph = load_sample_image("china.jpg")
    assert (clean[:427, :640] == photograph[: clean.shape[0]]).all()
    assert (clean[427:512, :640] == photograph[:341:-1]).all()
    assert (a.astype(int) - clean)[50:200, 50:200].std() == pytest.approx(2.0, abs=0.1)

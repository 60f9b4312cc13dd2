"""Reports with hostile names in a real browser: no script ran, and nothing but the page itself was asked for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dask_em import GaussianMixture, MixtureModel, MultivariateNormal, segment_image
from dask_em.report import Section, figures, render
from dask_em.segments import segment_profile
from tests.safety.hostile import CHROMIUM, opened, serving, strings

BIN = Path(sys.executable).parent / "dask-em"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER: reports were not opened; install chromium")


def title(page: str) -> str:
    return unescape(re.findall("<title>(.*?)</title>", page, re.DOTALL)[0])


def test_the_judge_sees_scripts_and_requests(tmp_path: Path) -> None:
    """If it did not, the tests below would prove nothing."""
    with serving(tmp_path) as (host, asked):
        for i, own in enumerate(strings(host)[:2]):
            (tmp_path / f"{i}.html").write_text(f"<html><title>calm</title><body>{own}</body></html>", encoding="utf-8")
            page = opened(f"{host}/{i}.html", tmp_path / "profile")
            assert title(page) == ("ran" if i == 0 else "calm")
        assert "/1" in asked


def frame(names: list[str], n: int = 240) -> pd.DataFrame:
    """Columns and levels with these names."""
    rng = np.random.default_rng(0)
    own = {name: rng.normal(size=n) + 9 * (np.arange(n) % 2) for name in names[: len(names) // 2]}
    levels = np.array(names, dtype=object)[np.arange(n) % len(names)]
    return pd.DataFrame(own | {name: np.roll(levels, i) for i, name in enumerate(names[len(names) // 2 :])})


def test_names_in_every_place_of_a_page_are_text(tmp_path: Path) -> None:
    with serving(tmp_path) as (host, asked):
        names = strings(host)
        assert len(names) == 30
        table = frame(names)
        drawn = figures.segment_heat_map(segment_profile(table, np.arange(240) % 2, smallest=0), max_levels=1)
        sections = [
            Section(name, [name], figure=drawn if i == 0 else None, table=table.head(3), caption=name)
            for i, name in enumerate(names)
        ]
        (tmp_path / "report.html").write_text(render("".join(names), "".join(names), sections), encoding="utf-8")
        (tmp_path / "figure.svg").write_text(drawn, encoding="utf-8")
        page = opened(f"{host}/report.html", tmp_path / "profile")
        assert title(page).startswith(names[0])
        assert asked == ["/report.html"]
        assert page.count("{{7*7}}") > 30  # and not 49
        assert "\\u202egnp.exe\\u2066\\u200bx\\ufeff" in page
        assert "\u202e" not in page
        opened(f"{host}/figure.svg", tmp_path / "profile")
        assert asked == ["/report.html", "/figure.svg"]


def test_summaries_in_a_notebook_are_text(tmp_path: Path) -> None:
    """Without the policy of a page of our own."""
    with serving(tmp_path) as (host, asked):
        names = strings(host)
        rows = frame(names)
        numbers, categories = list(rows.columns[:15]), list(rows.columns[15:])
        mixed = MixtureModel(1, gaussian=numbers[:4], categorical=categories, n_init=1, random_state=0).fit(rows)
        normal = MultivariateNormal().fit(rows[numbers])
        mixture = GaussianMixture(2, covariance_type="diag", n_init=1, random_state=0, tol=1e-3).fit(rows[numbers])
        mixture.notes_ = {"segments": names[:2]}
        picture = np.zeros((8, 9, 3), np.uint8)
        picture[:, 3:] = 90
        picture[:, 6:] = 200
        seeds = {own: [(3 * i, 0, 3 * i + 3, 8)] for i, own in enumerate((names[0], names[13], names[1]))}
        found = segment_image(picture, 3, seeds=seeds, random_state=0)
        shown = [mixed, normal, mixture]
        body = [own._repr_mimebundle_()["text/html"] for own in shown] + [found._repr_html_()]
        assert "&lt;script&gt;" in body[-1]
        document = f"<html><meta charset=utf-8><title>calm</title><body>{''.join(body)}</body></html>"
        (tmp_path / "notebook.html").write_text(document, encoding="utf-8")
        page = opened(f"{host}/notebook.html", tmp_path / "profile")
        assert title(page) == "calm"
        assert asked == ["/notebook.html"]
        assert "{{7*7}}" in page


def job(pipeline: str, name: str, names: list[str], folder: Path, rows: pd.DataFrame) -> dict:
    """A job whose table, columns, levels, key and name are hostile."""
    path = folder / f"{re.sub('[^a-z0-9]', '_', name.lower())}<img src=x onerror=alert(1)>"
    numbers, categories = list(rows.columns[:15]), list(rows.columns[15:])
    keyed = rows.assign(**{names[3] + "key": np.arange(len(rows))})
    if pipeline == "image_segmentation":
        path = path.with_suffix(".png")
        Image.fromarray(np.repeat(np.array([[10], [90], [200]], np.uint8), 40, axis=0).repeat(50, axis=1)).save(path)
        picture = {"source": {"kind": "file", "path": str(path)}, "n_segments": 3}
        seeds = {own: [[0, 40 * i, 50, 40 * i + 40]] for i, own in enumerate((names[0], names[13], names[1]))}
        return {"pictures": {name: picture | {"seeds": seeds}}, "picture": name}
    path.mkdir()
    keyed.to_parquet(path / "rows.parquet")
    source = {"kind": "table", "path": str(path)}
    if pipeline == "customer_segmentation":
        model = {"gaussian": numbers, "categorical": categories, "covariance_type": "diag", "n_init": 1, "tol": 1e-3}
        level = {"source": source, "key": names[3] + "key", "n_components": [2], "model": model}
        return {"levels": {name: level}, "level": name}
    imputer = {"columns": numbers, "predictors": categories[:1], "n_replicates": 3}
    survey = {"source": source, "key": names[3] + "key", "imputer": imputer, "means": numbers[:2], "by": categories[0]}
    return {"surveys": {name: survey}, "survey": name}


@pytest.mark.faults
@pytest.mark.parametrize("pipeline", ["customer_segmentation", "survey_imputation", "image_segmentation"])
def test_the_report_of_a_hostile_job_is_inert(pipeline: str, tmp_path: Path) -> None:
    with serving(tmp_path) as (host, asked):
        names = strings(host)
        rows = frame(names, 900)
        if pipeline == "survey_imputation":
            rows.iloc[::7, :15] = np.nan
        output = tmp_path / "out"
        given = job(pipeline, names[0], names, tmp_path, rows)
        document = {"pipeline": pipeline, "output": str(output), "smallest_cell": 0, **given}
        (tmp_path / "job.yaml").write_text(json.dumps(document), encoding="utf-8")
        command = [BIN, "run", tmp_path / "job.yaml", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for path in (output / "report.html", *sorted(output.glob("figures/*.svg"))[:2]):
            page = opened(f"{host}/{path.relative_to(tmp_path)}", tmp_path / "profile")
            assert "<title>ran</title>" not in page
        assert [own for own in asked if not own.startswith("/out")] == []

"""Segments of pictures: the fit to colours is the fit to pixels, known regions are found, and nobody sees where windows end."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from PIL import Image
from sklearn.metrics import adjusted_rand_score

from dask_em import GaussianMixture
from dask_em.data import compact
from dask_em.data.pixels import View
from dask_em.data.raster_files import open_raster
from dask_em.errors import ConfigurationError, DataError
from dask_em.execution.local import LocalExecutor
from dask_em.images import drawing, fit
from dask_em.images.fit import colours
from dask_em.images.labels import MISSING, Labeller
from dask_em.images.segment import segment_image
from dask_em.images.smoothing import absorb
from tests.images.pictures import COLOURS, painted, photograph, regions, tiff


def test_the_fit_to_colours_is_the_fit_to_pixels() -> None:
    pixels = photograph(90, 120)
    view = View(open_raster(pixels))
    found = colours(view, LocalExecutor(1))
    assert found is not None
    assert view.word is not None
    every = pd.DataFrame(pixels.reshape(-1, 3).astype(float), columns=["red", "green", "blue"])
    distinct = pd.DataFrame(view.word.unpack(found.words[0]).T, columns=every.columns)
    start = {"weights_init": [0.5, 0.3, 0.2], "means_init": every.iloc[[0, 4000, 9000]].to_numpy()}
    start["covariances_init"] = np.tile(np.cov(every.T), (3, 1, 1))
    own: dict[str, Any] = {"tol": 1e-9, "acceleration": "daarem", "compress": False, **start}
    a = GaussianMixture(3, **own).fit(every)
    b = GaussianMixture(3, **own).fit(distinct, sample_weight=found.weights[0])
    assert len(distinct) < 0.95 * len(every)
    assert b.log_likelihood_ == pytest.approx(a.log_likelihood_, rel=1e-10)
    np.testing.assert_allclose(b.weights_, a.weights_, rtol=1e-10)
    np.testing.assert_allclose(b.means_, a.means_, rtol=1e-10)
    np.testing.assert_allclose(b.covariances_, a.covariances_, rtol=1e-9)


@pytest.mark.parametrize("space", ["rgb", "lab"])
def test_labels_are_what_the_model_predicts(space: str) -> None:
    pixels = photograph()
    found = segment_image(pixels, 4, colour_space=space, random_state=0)
    table = found.labeller.view.source().read(found.labeller.view.columns)
    assert (found.labels == found.model.predict(table).to_numpy().reshape(pixels.shape[:2])).all()
    counts = np.bincount(found.labels.ravel(), minlength=4)
    assert (np.diff(counts) <= 0).all(), "the largest segment comes first"
    assert found.regions["pixels"].tolist() == counts.tolist()
    assert found.regions["share"].sum() == pytest.approx(1.0)
    for i, own in found.regions.iterrows():
        np.testing.assert_allclose(own[["red", "green", "blue"]].tolist(), pixels[found.labels == i].mean(axis=0))
        assert own["colour"] == "#" + bytes(np.rint(pixels[found.labels == i].mean(axis=0)).astype(np.uint8)).hex()


@pytest.mark.parametrize(
    ("noise", "more"),
    [(10.0, {}), (30.0, {"smoothing": 2.0}), (30.0, {"smoothing": 1.5, "smallest_region": 100})],
)
def test_known_regions_are_found(noise: float, more: dict[str, Any]) -> None:
    found = segment_image(painted(noise), 4, random_state=0, **more)
    assert adjusted_rand_score(regions().ravel(), found.labels.ravel()) > 0.99


def test_smoothing_is_what_finds_them_in_noise() -> None:
    rough = segment_image(painted(30.0), 4, random_state=0)
    assert adjusted_rand_score(regions().ravel(), rough.labels.ravel()) < 0.97


@pytest.mark.parametrize("kind", ["16 bits", "float", "grey", "with features", "scaled by 1e6"])
def test_other_kinds_of_numbers(kind: str) -> None:
    pixels: Any = painted(4.0 if kind == "grey" else 8.0)
    more: dict[str, Any] = {}
    if kind == "16 bits":
        pixels = pixels.astype(np.uint16) * 16
    elif kind == "float":
        pixels = pixels.astype(np.float32) / 255
    elif kind == "grey":
        pixels = pixels[:, :, 1]
    elif kind == "scaled by 1e6":
        pixels = pixels * 1e6
    else:
        more = {"features": ["local_mean"]}
    found = segment_image(pixels, 4, random_state=0, **more)
    assert adjusted_rand_score(regions().ravel(), found.labels.ravel()) > 0.98
    assert (found.n_colours is None) == (kind in ("float", "with features", "scaled by 1e6"))
    assert found.overlay().size == (200, 150)


# --- windows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"smoothing": 1.5},
        {"smallest_region": 12},
        {"smoothing": 0.7, "smallest_region": 9},
        {"features": ["local_mean", "gradient"], "smoothing": 1.0, "smallest_region": 6},
    ],
    ids=str,
)
def test_nobody_sees_where_windows_end(more: dict[str, Any], tmp_path: Path) -> None:
    pixels = photograph()
    found = segment_image(pixels, 4, random_state=0, n_init=1, tol=1e-4, **more)
    path = tiff(tmp_path / "a.tif", pixels, compression="zlib", tile=(32, 48))
    for window, grid in ((64, 1), (37, 16)):
        raster = replace(open_raster(path), window=window)
        assert len(raster.windows(grid)) > 4
        view = replace(found.labeller.view, raster=raster)
        tiled = replace(found, labeller=replace(found.labeller, view=view, token="another"))
        assert (tiled.labels == found.labels).all()
        assert tiled.regions.round(9).equals(found.regions.round(9))
        assert tiled.overlay().tobytes() == found.overlay().tobytes()


def test_a_halo_that_is_too_narrow_shows() -> None:
    """If it did not, the test above would prove nothing."""

    class Narrow(Labeller):
        """Forgets that small regions look over the border of a window."""

        def look(self, window: Any, posterior: bool = False) -> Any:
            patch, labels, q = Labeller(self.view, self.model).look(window, posterior)
            return patch, absorb(labels, self.smallest), q

    found = segment_image(photograph(), 4, random_state=0, n_init=1, tol=1e-4, smallest_region=12)
    labeller = found.labeller
    raster = replace(labeller.view.raster, window=64)
    narrow = Narrow(replace(labeller.view, raster=raster), labeller.model, smallest=12, token="narrow")
    assert (replace(found, labeller=narrow).labels != found.labels).any()


def test_a_cluster_gives_the_same(tmp_path: Path) -> None:
    pixels = photograph(90, 100)
    pixels[:10] = 0
    path = tiff(tmp_path / "a.tif", pixels, compression="zlib", tile=(32, 32), extratags=[(42113, 2, 2, "0", True)])
    raster = replace(open_raster(path), window=64)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for name, features in (("colours", ()), ("rows", ("position",))):
            settings: dict[str, Any] = {"features": features, "random_state": 0, "n_init": 1, "tol": 1e-2}
            here = segment_image(raster, 2, smoothing=1.0, **settings)
            there = segment_image(raster, 2, smoothing=1.0, executor=client, **settings)
            assert (there.labels == here.labels).all()
            assert (here.labels[:10] == MISSING).all()
            assert there.regions.equals(here.regions)
            files = []
            for who, found in (("here", here), ("there", there)):
                folder = tmp_path / name / who
                found.write(folder, form="zarr", posterior=True)
                files.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
            assert files[0] == files[1]


# --- missing pixels ----------------------------------------------------------------------------------------------


def test_missing_pixels_have_no_label_and_do_not_count() -> None:
    pixels = painted(5.0)
    rgba = np.dstack([pixels, np.where(regions() == 3, 0, 255).astype(np.uint8)])
    found = segment_image(rgba, 3, random_state=0)
    assert (found.labels == MISSING).tolist() == (regions() == 3).tolist()
    assert found.regions["pixels"].sum() == (regions() != 3).sum()
    there = regions() != 3
    assert adjusted_rand_score(regions()[there], found.labels[there]) > 0.99
    smooth = segment_image(rgba, 3, random_state=0, smoothing=2.0, smallest_region=20)
    assert ((smooth.labels == MISSING) == ~there).all()
    assert np.asarray(found.overlay())[~there].min() == 255


def test_a_pixel_with_one_missing_channel_is_labelled_by_the_others() -> None:
    pixels = painted(5.0)
    pixels[5, :100, 0] = 255
    found = segment_image(pixels, 4, random_state=0, nodata=255)
    assert len(set(found.labels[5, :100].tolist())) == 1
    assert (found.labels[5, :100] == found.labels[8, 50]).all()


def test_channels_that_say_nothing_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    pixels = painted(5.0)
    pixels[:, :, 1] = 9
    with caplog.at_level(logging.INFO, "dask_em"):
        found = segment_image(pixels, 4, random_state=0)
    assert "green of the picture is the same everywhere and was left out" in caplog.text
    assert adjusted_rand_score(regions().ravel(), found.labels.ravel()) > 0.98
    grey = np.repeat(painted(5.0)[:, :, :1], 3, axis=2)
    alike = segment_image(grey, 3, random_state=0)
    assert np.isfinite(alike.model.log_likelihood_)


def test_what_was_done_to_colours_is_in_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    Image.fromarray(painted(5.0)).quantize(16).save(tmp_path / "a.png")
    with caplog.at_level(logging.INFO, "dask_em"):
        segment_image(tmp_path / "a.png", 2, random_state=0)
    assert "The palette of a.png was replaced by its colours." in caplog.text


# --- how many segments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["bic", "icl"])
def test_the_number_of_segments_is_found(criterion: Any) -> None:
    seen: list[Any] = []
    found = segment_image(painted(12.0), range(2, 7), criterion=criterion, random_state=0, on_progress=seen.append)
    assert found.n_segments == 4
    assert found.selection is not None
    assert found.selection.table["n_components"].tolist() == [2, 3, 4, 5, 6]
    assert found.selection.table.set_index("n_components")[criterion].idxmin() == 4
    assert adjusted_rand_score(regions().ravel(), found.labels.ravel()) > 0.99
    assert seen
    given = segment_image(painted(12.0), 4, random_state=0)
    assert given.selection is None
    assert given.model.log_likelihood_ == pytest.approx(found.model.log_likelihood_, rel=1e-6)


# --- small regions -----------------------------------------------------------------------------------------------


def test_small_regions_join_those_around_them() -> None:
    labels = np.zeros((9, 12), dtype=np.uint8)
    labels[:, 6:] = 1
    labels[2:4, 2:4] = 1  # four pixels inside the first region
    labels[5, 5:7] = 2  # two pixels, more of whose neighbours are in the second
    labels[5, 5] = 2
    labels[4, 9] = MISSING
    labels[0, 0] = 3
    out = absorb(labels, 5)
    assert (out[:, :5] == 0).all()
    assert out[4, 9] == MISSING
    assert set(out[5, 5:7].tolist()) <= {0, 1}
    assert (absorb(labels, 3)[2:4, 2:4] == 1).all()
    assert (absorb(labels, 1) == labels).all()
    island = np.full((5, 5), MISSING, dtype=np.uint8)
    island[2, 2] = 4
    assert (absorb(island, 9) == island).all()


# --- what is refused ---------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "a single colour": (np.full((5, 6, 3), 7, np.uint8), {}, DataError, "the picture has a single colour"),
    "a single value": (np.full((5, 6), 0.5), {}, DataError, "the picture has a single colour"),
    "more segments than colours": (
        np.arange(4, dtype=np.uint8).reshape(2, 2), {"n_segments": 5}, DataError,
        "the picture has 4 colours, fewer than n_segments=5: ask for fewer segments",
    ),
    "nodata everywhere": (np.full((5, 6), 3, np.uint8), {"nodata": 3}, DataError, "nothing is observed in the picture"),
    "NaN everywhere": (np.full((5, 6), np.nan), {}, DataError, "nothing is observed in the picture"),
    "transparent": (np.zeros((5, 6, 4), np.uint8), {}, DataError, "nothing is observed in the picture"),
    "no segments": (photograph(9, 9), {"n_segments": 0}, ConfigurationError, "n_segments must be between 1 and 254"),
    "too many segments": (photograph(9, 9), {"n_segments": 255}, ConfigurationError, "between 1 and 254"),
    "half a segment": (photograph(9, 9), {"n_segments": [2.5]}, ConfigurationError, "must be a whole number"),
    "smoothing": (photograph(9, 9), {"smoothing": -1.0}, ConfigurationError, "smoothing must be 0 or more"),
    "smallest": (photograph(9, 9), {"smallest_region": 0}, ConfigurationError, "smallest_region must be between"),
    "form": (photograph(9, 9), {"form": "gif"}, ConfigurationError, "form must be"),
    "segments of a float": (photograph(9, 9), {"n_segments": 3.0}, ConfigurationError, "must be a whole number"),
    "no number of segments": (photograph(9, 9), {"n_segments": None}, ConfigurationError, "must be a whole number"),
    "smoothing in words": (photograph(9, 9), {"smoothing": "x"}, ConfigurationError, "smoothing must be a number"),
    "half a pixel": (photograph(9, 9), {"smallest_region": 2.5}, ConfigurationError, "smallest_region must be an int"),
    "nodata in words": (photograph(9, 9), {"nodata": "x"}, ConfigurationError, "nodata must be a number"),
    "criterion": (photograph(9, 9), {"criterion": "zz"}, ConfigurationError, "criterion must be 'bic', 'icl'"),
    "no features": (photograph(9, 9), {"features": None}, ConfigurationError, "features must be a list, such as"),
    "a feature": (photograph(9, 9), {"features": "position"}, ConfigurationError, "features must be a list, such as"),
    "listed features": (photograph(9, 9), {"features": [[1]]}, ConfigurationError, "features must be of position"),
    "seeds": (photograph(9, 9), {"seeds": 5}, ConfigurationError, "seeds must be a mapping from the names"),
    "no box": (photograph(9, 9), {"seeds": {"a": None}}, ConfigurationError, "seed 'a' must be a box of whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    picture, settings, error, message = REFUSED[name]
    form = settings.pop("form", "auto")
    with pytest.raises(error) as caught:
        segment_image(picture, **{"n_segments": 2, "random_state": 0, **settings}).write(tmp_path / "out", form=form)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- what people see ---------------------------------------------------------------------------------------------


def test_the_overlay_has_the_colours_of_the_palette() -> None:
    found = segment_image(painted(5.0), 4, random_state=0)
    seen = np.asarray(found.overlay(strength=1.0))
    assert (seen == drawing.palette(4)[found.labels]).all()
    assert (drawing.palette(30)[:10] == drawing.palette(10)).all()
    assert len(np.unique(drawing.palette(30), axis=0)) == 30
    borders = (np.asarray(found.boundaries()) == drawing.BORDER).all(axis=2)
    assert (borders[:, :-1] >= (found.labels[:, :-1] != found.labels[:, 1:])).all()
    assert borders.mean() < 0.05
    html = found._repr_html_()
    assert html.count("<tr>") == 5
    assert "data:image/png;base64," in html


def test_large_pictures_are_shown_thinned() -> None:
    labels = regions(1500, 2001)
    found = segment_image(painted(4.0, labels), 4, random_state=0, n_init=1)
    assert found.overlay().size == (1001, 750)
    shown = found._looked[0]
    assert (shown.labels == found.labels[::2, ::2]).all()
    assert (shown.pixels == painted(4.0, labels)[::2, ::2]).all()


def test_colours_of_the_regions_are_those_of_the_paint() -> None:
    found = segment_image(painted(3.0), 4, random_state=0).regions
    own = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in found["colour"]}
    for colour in COLOURS:
        assert min(np.abs(np.array(list(own)) - colour).max(axis=1)) <= 2


def test_a_photograph_does_not_wait_for_scikit_learn() -> None:
    code = """
import sys
sys.modules["sklearn"] = sys.modules["dask"] = sys.modules["matplotlib"] = None
import numpy as np
from dask_em import segment_image
picture = np.zeros((20, 30, 3), dtype=np.uint8) + np.arange(30, dtype=np.uint8)[:, None] // 10 * 90
print(segment_image(picture, 3, random_state=0).regions["pixels"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[200, 200, 200]\n"), done.stderr


def test_the_model_is_the_estimator_that_would_have_found_it() -> None:
    pixels = photograph(40, 50)
    found = segment_image(pixels, 3, random_state=0)
    rows = pd.DataFrame(pixels.reshape(-1, 3).astype(float), columns=["red", "green", "blue"])
    own = GaussianMixture(3, n_init=5, acceleration="daarem", random_state=0).fit(rows)
    assert found.model.get_params() == own.set_params(compress=False).get_params()
    assert found.model.log_likelihood_ == pytest.approx(own.log_likelihood_, rel=1e-9)
    assert sorted(found.model.weights_) == pytest.approx(sorted(own.weights_), abs=1e-3)
    assert found.model.feature_names_in_.tolist() == ["red", "green", "blue"]
    assert len(found.model.history_) > 0
    assert "3 components" in found.model.summary()
    assert found.model.score(rows) * len(rows) == pytest.approx(found.model.log_likelihood_, rel=1e-9)


def test_too_many_colours_to_keep_are_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photograph(100, 120).astype(np.uint16) * 200 + np.arange(120, dtype=np.uint16)[:, None]
    raster = replace(open_raster(pixels), window=32)
    few = segment_image(raster, 3, random_state=0, tol=1e-9)
    assert few.n_colours is not None
    monkeypatch.setattr(fit, "MAX_COLOURS", 5000)
    monkeypatch.setattr(compact, "PILE_BYTES", 30_000)
    many = segment_image(raster, 3, random_state=0, tol=1e-9)
    assert many.n_colours is None
    assert many.model.log_likelihood_ == pytest.approx(few.model.log_likelihood_, rel=1e-6)
    assert adjusted_rand_score(many.labels.ravel(), few.labels.ravel()) > 0.98

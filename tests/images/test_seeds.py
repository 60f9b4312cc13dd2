"""Boxes whose segment is known: their pixels are in it, it has their name, and the rest of the picture follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from dask_em import load, save
from dask_em.data.raster import Window
from dask_em.errors import ConfigurationError, DataError
from dask_em.images.segment import segment_image
from tests.images.pictures import painted, photograph, regions

SEEDS: dict[str, Any] = {"sky": (5, 5, 40, 30), "meadow": [(5, 125, 20, 145), (100, 130, 110, 140)]}


def shaded(noise: float = 6.0) -> NDArray[np.uint8]:
    """Land above water, both under bars of shade that differ more than they do."""
    y, x = np.mgrid[:120, :160]
    values = np.stack([90.0 + 100 * (x // 10 % 2), 120.0 + 0 * x, 110.0 + 25 * (y >= 60)], axis=-1)
    values += noise * np.random.default_rng(0).standard_normal(values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def test_segments_have_the_names_of_their_seeds(tmp_path: Path) -> None:
    found = segment_image(painted(10.0), 4, seeds=SEEDS, random_state=0)
    assert found.names == ("meadow", "sky", "segment 2", "segment 3")
    assert found.regions["name"].tolist() == list(found.names)
    assert adjusted_rand_score(regions().ravel(), found.labels.ravel()) > 0.99
    assert (found.labels[5:30, 5:40] == 1).all()
    assert "meadow" in found._repr_html_()
    save(found.model, tmp_path / "model")
    assert load(tmp_path / "model").component_names_ == ("meadow", "sky", None, None)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float64])
def test_a_seed_sets_right_what_is_wrong_without_it(kind: type) -> None:
    pixels = shaded().astype(kind)
    truth = (np.mgrid[:120, :160][0] >= 60).ravel()
    seeds = {"land": (0, 0, 40, 50), "water": (0, 70, 40, 120)}
    blind = segment_image(pixels, 2, random_state=0)
    seeing = segment_image(pixels, 2, seeds=seeds, random_state=0)
    assert adjusted_rand_score(truth, blind.labels.ravel()) < 0.1
    assert adjusted_rand_score(truth, seeing.labels.ravel()) > 0.85
    assert (seeing.n_colours is None) == (kind is np.float64)


@pytest.mark.parametrize(
    "more", [{}, {"smoothing": 2.0}, {"smallest_region": 200}, {"features": ["local_mean"]}], ids=str
)
def test_seeded_pixels_are_in_their_own_segment_whatever_their_colour(more: dict[str, Any]) -> None:
    pixels = photograph()
    box = (30, 40, 90, 60)  # over roof, trees and sky
    found = segment_image(pixels, 3, seeds={"all of it": box}, random_state=0, n_init=1, tol=1e-4, **more)
    own = found.names.index("all of it")
    assert (found.labels[40:60, 30:90] == own).all()
    raster = replace(found.raster, window=48)
    view = replace(found.labeller.view, raster=raster)
    tiled = replace(found, labeller=replace(found.labeller, view=view, token="tiled"))
    assert (tiled.labels == found.labels).all()
    _, _, posterior = found.labeller.look(Window(45, 35, 5, 5), posterior=True)
    assert posterior is not None
    assert (posterior.argmax(axis=0) == own).all()
    assert posterior[own].min() > 0.99


def test_missing_pixels_stay_missing() -> None:
    pixels = painted(10.0)
    pixels[10:20, 10:20] = 0
    found = segment_image(pixels, 4, seeds=SEEDS, nodata=0, random_state=0, smoothing=1.0)
    assert (found.labels[10:20, 10:20] == 255).all()
    assert (found.labels[5:10, 5:40] == found.names.index("sky")).all()


def test_seeds_and_a_search() -> None:
    found = segment_image(painted(12.0), [3, 4, 5], seeds=SEEDS, random_state=0)
    assert found.n_segments == 4
    assert {"sky", "meadow"} <= set(found.names)


def test_more_colours_than_segments_are_counted_without_seeds() -> None:
    pixels = np.repeat(np.array([[10, 20, 30]], dtype=np.uint8), 20, axis=0)
    with pytest.raises(DataError, match="has 3 colours, fewer than n_segments=4"):
        segment_image(pixels, 4, seeds={"a": (0, 0, 1, 10), "b": (1, 3, 2, 9)})


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "too many": ({"a": (0, 0, 9, 9), "b": (9, 0, 19, 9), "c": (20, 0, 29, 9)}, ConfigurationError, "name 3 segments"),
    "outside": ({"a": (0, 0, 201, 9)}, ConfigurationError, "'a' is no box inside the picture of 200 x 150 pixels"),
    "empty": ({"a": (5, 5, 5, 9)}, ConfigurationError, "'a' is no box inside the picture"),
    "half a pixel": ({"a": (0.5, 0, 9, 9)}, ConfigurationError, "'a' must be a box of whole numbers"),
    "three edges": ({"a": (0, 0, 9)}, ConfigurationError, "'a' must be a box of whole numbers"),
    "no box": ({"a": []}, ConfigurationError, "'a' must be a box of whole numbers"),
    "two at once": ({"a": (0, 0, 9, 9), "b": (8, 8, 12, 12)}, ConfigurationError, "'b' overlaps that of another"),
    "no name": ({"": (0, 0, 9, 9)}, ConfigurationError, "seeds must have names as text"),
    "nothing there": ({"a": (50, 50, 60, 60)}, DataError, "nothing is observed in seed 'a'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    seeds, error, message = REFUSED[name]
    pixels = painted(5.0)
    pixels[45:65, 45:65] = 0
    with pytest.raises(error, match=message):
        segment_image(pixels, 2, seeds=seeds, nodata=0)

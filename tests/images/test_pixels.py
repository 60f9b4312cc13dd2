"""Pixels as rows: words that hold them exactly, colours that people see, and features that do not know where windows end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2lab

from dask_em.data.pixels import COLOUR_SPACES, FEATURES, Extent, View, Word, extent_of, lab
from dask_em.data.raster_files import open_raster
from dask_em.errors import ConfigurationError, DataError
from dask_em.execution.local import LocalExecutor
from dask_em.images.fit import colours
from tests.images.pictures import photograph, tiff


def test_cielab_is_that_of_scikit_image() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3), axis=-1).reshape(-1, 3)
    expected = rgb2lab(grid[:, None] / 255.0)[:, 0]
    # Its reference white is rounded to other digits.
    np.testing.assert_allclose(lab(grid.T / 255.0).T, expected, atol=2e-3)
    assert np.isnan(lab(np.array([[np.nan], [0.5], [0.5]]))).all()
    deep = View(open_raster(photograph(4, 5).astype(np.uint16) * 257), "lab")
    flat = deep.raster.read(deep.raster.whole).pixels.reshape(-1, 3).T.astype(float)
    np.testing.assert_allclose(deep.coloured(flat), lab(photograph(4, 5).reshape(-1, 3).T / 255.0), atol=1e-9)


@given(st.integers(1, 4), st.sampled_from([np.uint8, np.uint16]), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_word_holds_its_channels(n: int, kind: Any, holes: bool, seed: int) -> None:
    word = Word(n, 8 * np.dtype(kind).itemsize + holes, holes)
    if n * word.bits > 63:
        return
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, np.iinfo(kind).max, (5, 7, n), kind, endpoint=True)
    absent = rng.random((5, 7, n)) < 0.3 if holes else None
    words, nothing = word.pack(pixels, absent)
    expected = pixels.astype(float)
    if absent is not None:
        expected[absent] = np.nan
        assert (nothing == absent.all(axis=2)).all()
    np.testing.assert_array_equal(word.unpack(words.ravel()).T.reshape(pixels.shape), expected)
    assert words.max() < word.n_words


def test_distinct_colours_are_counted(tmp_path: Path) -> None:
    pixels = photograph()
    view = View(replace(open_raster(tiff(tmp_path / "a.tif", pixels, compression="zlib", tile=(32, 48))), window=50))
    found = colours(view, LocalExecutor(2))
    assert found is not None
    assert view.word is not None
    own, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    table = np.column_stack([view.word.unpack(found.words[0]).T, found.weights[0]])
    assert sorted(map(tuple, table)) == sorted(map(tuple, np.column_stack([own, counts]).astype(float)))


def test_what_is_missing_altogether_is_no_colour_and_a_hole_is_one() -> None:
    pixels = np.array([[[7, 7, 7], [7, 1, 2], [3, 1, 2], [7, 1, 2]]], dtype=np.uint8)
    found = colours(View(open_raster(pixels, nodata=7)), LocalExecutor(1))
    assert found is not None
    assert sorted(found.weights[0]) == [1.0, 2.0]


@pytest.mark.parametrize("space", COLOUR_SPACES)
@pytest.mark.parametrize("features", [("position",), ("local_mean",), ("gradient",), FEATURES])
def test_features_of_windows_are_those_of_the_whole(space: str, features: tuple[str, ...]) -> None:
    values = photograph(70, 90).astype(np.float32) / 255
    values[20:30, 40:60] = np.nan
    values[50, 50, 1] = np.nan
    whole = View(open_raster(values), space, features)
    parts = View(replace(whole.raster, window=16), space, features)
    names = whole.columns
    assert len(whole.source().pieces) == 1
    found = np.full((len(names), 70, 90), -1.0)
    for piece in parts.source().pieces:
        table = piece.read(names)
        own = np.stack([table.column(name).to_numpy(zero_copy_only=False) for name in names])
        found[:, *piece.window.inside(whole.raster.whole)] = own.reshape(len(names), piece.window.height, -1)
    (piece,) = whole.source().pieces
    np.testing.assert_array_equal(found.reshape(len(names), -1), piece.values())


def test_what_features_are() -> None:
    values = np.zeros((9, 9))
    values[:, 5:] = 8.0
    view = View(open_raster(values), features=FEATURES)
    grey, x, y, mean, gradient = (own.reshape(9, 9) for own in view.source().pieces[0].values())
    assert view.columns == ("grey", "x", "y", "mean grey", "gradient")
    assert (grey == values).all()
    assert (x[3].tolist(), y[:, 3].tolist()) == (list(range(9)), list(range(9)))
    assert mean[4].tolist() == pytest.approx([0, 0, 0, 1.6, 3.2, 4.8, 6.4, 8, 8])
    assert gradient[4].tolist() == [0, 0, 0, 0, 4, 4, 0, 0, 0]


def test_extents_add_up() -> None:
    values = photograph(40, 50).astype(float)
    values[:20, :, 1] = np.nan
    view = View(replace(open_raster(values), window=16))
    found = LocalExecutor(2).reduce(view.source().pieces, lambda i, piece: extent_of(view, i, piece))
    assert found.low.tolist() == np.nanmin(values, axis=(0, 1)).tolist()
    assert found.high.tolist() == np.nanmax(values, axis=(0, 1)).tolist()
    nothing = Extent.of(np.full((2, 3), np.nan))
    assert (nothing.seen, (nothing + Extent.of(np.ones((2, 1)))).seen) == (False, True)
    assert Extent.of(np.array([[1.0, 1.0], [1.0, np.nan], [1.0, 2.0]])).varies.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: View(open_raster(p), "hsv"), ConfigurationError, "colour_space must be 'rgb' or 'lab'"),
        (lambda p: View(open_raster(p), "rgb", ("texture",)), ConfigurationError, "features must be of position"),
        (lambda p: View(open_raster(p[:, :, 0]), "lab"), ConfigurationError, "needs red, green and blue"),
        (lambda p: View(open_raster(p * 2.0), "lab").source().pieces[0].values(), DataError, "holds numbers above 1"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(photograph(9, 9))

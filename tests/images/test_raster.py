"""Whatever a picture is kept in, its pixels come out the same: upright, in grey or sRGB, whole or window by window."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from dask_em.data.raster import Raster, Window, turned
from dask_em.data.raster_files import open_raster, to_srgb
from dask_em.errors import ConfigurationError, DataError
from tests.images.pictures import photograph, tiff, zarr_folder

ROOT = Path(__file__).parents[2]
RGB = photograph(90, 70)
DEEP = (RGB.astype(np.uint16) * 257)[..., :]


def seen(raster: Raster) -> NDArray[Any]:
    """All pixels, read in small windows that do not fit the tiles."""
    out = np.empty((raster.height, raster.width, len(raster.channels)), dtype=raster.dtype)
    for window in replace(raster, window=37, tile=(1, 1)).windows():
        out[window.inside(raster.whole)] = raster.read(window).pixels
    return out


def missing(raster: Raster) -> Any:
    return raster.read(raster.whole).missing


TIFFS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (RGB, {}),
    "in strips": (RGB, {"compression": "zlib", "rowsperstrip": 16}),
    "in one strip": (RGB, {"compression": "zlib", "rowsperstrip": 90}),
    "in tiles": (RGB, {"compression": "zlib", "tile": (32, 48)}),
    "in tiles that are not compressed": (RGB, {"tile": (32, 48)}),
    "with a predictor": (RGB, {"compression": "zlib", "predictor": 2, "tile": (32, 32)}),
    "BigTIFF": (RGB, {"compression": "zlib", "tile": (32, 32), "bigtiff": True}),
    "big-endian": (DEEP, {"byteorder": ">"}),
    "16 bits": (DEEP, {"compression": "zlib", "tile": (32, 32)}),
    "float": ((RGB / 255).astype(np.float32), {"compression": "zlib", "tile": (32, 32)}),
    "grey": (RGB[:, :, 0], {"compression": "zlib", "tile": (32, 32)}),
    "grey, 16 bits": (DEEP[:, :, 1], {}),
    "five bands": (np.concatenate([RGB, RGB[:, :, :2]], axis=2), {"planarconfig": "contig", "photometric": "rgb"}),
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiff(name: str, tmp_path: Path) -> None:
    pixels, more = TIFFS[name]
    raster = open_raster(tiff(tmp_path / "a.tif", pixels, **more))
    assert (raster.form, raster.notes, missing(raster) is None) == ("tiff", (), True)
    assert raster.dtype.newbyteorder("=") == pixels.dtype
    assert (seen(raster) == pixels.reshape(*pixels.shape[:2], -1)).all()


@pytest.mark.parametrize("more", [{}, {"compression": "zlib", "tile": (32, 32)}, {"compression": "zlib"}])
def test_tiff_whose_channels_stand_apart(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate", **more)
    assert (seen(open_raster(path)) == RGB).all()


def test_a_fourth_channel_of_a_tiff_is_alpha_only_where_it_says_so(tmp_path: Path) -> None:
    four = np.concatenate([RGB, RGB[:, :, :1]], axis=2)
    four[:20, :, 3] = 0
    bands = open_raster(tiff(tmp_path / "a.tif", four, extrasamples=["unspecified"]))
    alpha = open_raster(tiff(tmp_path / "b.tif", four, extrasamples=["unassalpha"]))
    assert bands.channels == ("band1", "band2", "band3", "band4")
    assert missing(bands) is None
    assert alpha.channels == ("red", "green", "blue")
    assert missing(alpha)[:20].all()
    assert (missing(alpha) == (four[:, :, 3:] == 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_photograph_and_of_a_tiff(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    photo = open_raster(tmp_path / "a.png")
    tagged = open_raster(
        tiff(tmp_path / "a.tif", RGB, compression="zlib", tile=(32, 32), extratags=[(274, 3, 1, orientation, True)])
    )
    with Image.open(tmp_path / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    for raster in (photo, tagged):
        assert (seen(raster) == upright).all()
        assert len(raster.notes) == (orientation > 1)
        assert (raster.height, raster.width) == upright.shape[:2]
    assert turned(turned(tagged, 3), 3).read(Window(5, 6, 7, 8)).pixels.tolist() == upright[5:12, 6:14].tolist()


def saved(path: Path, image: Image.Image, **more: Any) -> Raster:
    image.save(path, **more)
    return open_raster(path)


def test_ordinary_pictures(tmp_path: Path) -> None:
    grey = Image.fromarray(RGB[:, :, 1])
    assert (seen(saved(tmp_path / "a.png", Image.fromarray(RGB))) == RGB).all()
    assert (seen(saved(tmp_path / "b.png", grey))[..., 0] == RGB[:, :, 1]).all()
    deep = saved(tmp_path / "c.png", Image.fromarray(DEEP[:, :, 0]))
    assert deep.dtype == np.uint16
    assert (seen(deep)[..., 0] == DEEP[:, :, 0]).all()
    jpeg = saved(tmp_path / "d.jpg", Image.fromarray(RGB), quality=95)
    with Image.open(tmp_path / "d.jpg") as image:
        assert (seen(jpeg) == np.asarray(image)).all()
    assert (seen(saved(tmp_path / "e.bmp", Image.fromarray(RGB))) == RGB).all()
    assert all(open_raster(p).notes == () for p in tmp_path.iterdir())


def test_alpha_and_transparency_are_missing_pixels(tmp_path: Path) -> None:
    clear = np.full(RGB.shape[:2], 255, dtype=np.uint8)
    clear[:30] = 0
    rgba = np.dstack([RGB, clear])
    la = np.dstack([RGB[:, :, 0], clear])
    for name, values in (("a.png", rgba), ("b.png", la)):
        raster = saved(tmp_path / name, Image.fromarray(values))
        assert (missing(raster)[..., 0] == (clear == 0)).all()
        assert (missing(open_raster(values))[..., 0] == (clear == 0)).all()
    palette = Image.fromarray(RGB).quantize(8)
    raster = saved(tmp_path / "c.png", palette, transparency=3)
    assert (missing(raster)[..., 0] == (np.asarray(palette) == 3)).all()
    assert raster.notes == ("The palette of c.png was replaced by its colours.",)
    key = int(RGB[0, 0, 0])
    raster = saved(tmp_path / "d.png", Image.fromarray(RGB[:, :, 0]), transparency=key)
    assert (missing(raster)[..., 0] == (RGB[:, :, 0] == key)).all()


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).quantize(16)
    colours = np.asarray(image.convert("RGB"))
    assert (seen(saved(tmp_path / "a.png", image)) == colours).all()
    assert (seen(saved(tmp_path / "a.tif", image)) == colours).all()
    raster = saved(tmp_path / "a.gif", image, save_all=True, append_images=[image.rotate(90)])
    assert "a.gif holds 2 pictures: the first is used." in raster.notes


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    for name in ("a.jpg", "a.tif"):
        raster = saved(tmp_path / name, image)
        assert raster.notes == (f"{name} was converted from CMYK to RGB.",)
        with Image.open(tmp_path / name) as found:
            assert (seen(raster) == np.asarray(found.convert("RGB"))).all()
        assert np.abs(seen(raster).astype(int) - RGB).mean() < 8


def other_profile() -> bytes:
    """Of a display whose primaries and gamma are not those of sRGB: CIELAB's, in which RGB stands for nothing else."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Exchange the tags of the red and the blue primary: a profile of a display that is wired the wrong way.
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    at = profile.find(b"sRGB")
    while at >= 0:
        profile[at : at + 4] = b"Xrgb"
        at = profile.find(b"sRGB")
    at = profile.find("sRGB".encode("utf-16-be"))
    while at >= 0:
        profile[at : at + 8] = "Xrgb".encode("utf-16-be")
        at = profile.find("sRGB".encode("utf-16-be"))
    return bytes(profile)


def test_an_embedded_profile_is_converted_and_said(tmp_path: Path) -> None:
    profile = other_profile()
    image = Image.fromarray(RGB)
    expected = np.asarray(to_srgb(image, profile, "")[0])
    assert np.abs(expected[..., ::-1].astype(int) - RGB).mean() < 2  # red and blue have changed places
    files = [tmp_path / "a.png", tmp_path / "a.jpg"]
    image.save(files[0], icc_profile=profile)
    image.save(files[1], icc_profile=profile, quality=100, subsampling=0)
    files.append(tiff(tmp_path / "a.tif", RGB, compression="zlib", tile=(32, 32), iccprofile=profile))
    for path in files:
        raster = open_raster(path)
        assert np.abs(seen(raster).astype(int) - expected).mean() < 1
        (note,) = raster.notes
        assert note.startswith(f"{path.name} was converted from its colour profile")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert saved(tmp_path / "b.png", image, icc_profile=srgb).notes == ()
    broken = saved(tmp_path / "c.png", image, icc_profile=b"no profile at all")
    assert broken.notes == ("The colour profile of c.png cannot be read and was left out of account.",)
    assert (seen(broken) == RGB).all()


ZARRS: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "channels last": (RGB, (32, 32, 3), None),
    "channels first": (np.moveaxis(RGB, -1, 0), (1, 32, 32), None),
    "channels first by name": (np.moveaxis(DEEP[:12, :12], -1, 0), (3, 5, 5), ("band", "y", "x")),
    "channels last by name": (RGB[:3], (2, 32, 3), ("x", "y", "c")),
    "grey": (RGB[:, :, 0], (40, 40), None),
}


@pytest.mark.parametrize("name", ZARRS)
def test_zarr(name: str, tmp_path: Path) -> None:
    pixels, chunks, names = ZARRS[name]
    raster = open_raster(zarr_folder(tmp_path / "a.zarr", pixels, chunks, names))
    expected = np.moveaxis(pixels, 0, -1) if "first" in name else pixels
    assert raster.form == "zarr"
    assert (seen(raster) == expected.reshape(*expected.shape[:2], -1)).all()


def test_four_channels_of_zarr_are_bands(tmp_path: Path) -> None:
    raster = open_raster(zarr_folder(tmp_path / "a.zarr", np.dstack([RGB, RGB[:, :, :1]]), (32, 32, 4)))
    assert len(raster.channels) == 4


def test_nodata_of_the_file_and_of_the_argument(tmp_path: Path) -> None:
    values = RGB.copy()
    values[10:20] = 7
    gdal = tiff(tmp_path / "a.tif", values, compression="zlib", extratags=[(42113, 2, 2, "7", True)])
    plain = tiff(tmp_path / "b.tif", values, compression="zlib")
    cf = zarr_folder(tmp_path / "c.zarr", values, (32, 32, 3), _FillValue=7)
    for raster in (open_raster(gdal), open_raster(plain, nodata=7), open_raster(cf), open_raster(values, nodata=7)):
        assert (missing(raster) == (values == 7)).all()
    assert missing(open_raster(plain)) is None
    assert missing(open_raster(gdal, nodata=300)) is None
    real = values.astype(np.float32)
    real[0, 0] = np.nan
    real[1, 1] = np.inf
    assert missing(open_raster(real, nodata=7)).sum() == (values == 7).sum() + 6
    assert missing(open_raster(np.ma.masked_equal(values, 7)))[10:20].all()


def test_windows_cover_the_picture_once_along_its_tiles(tmp_path: Path) -> None:
    raster = open_raster(RGB)
    for tile, grid, size in (
        ((1, 1), 1, 37),
        ((16, 24), 1, 50),
        ((16, 24), 32, 50),
        ((8, 70), 16, 20),
        ((90, 70), 1, 9),
    ):
        own = replace(raster, tile=tile, window=size)
        count = np.zeros((90, 70), dtype=int)
        for window in own.windows(grid):
            count[window.inside(own.whole)] += 1
            assert window.top % (grid if grid > 1 else tile[0]) == 0
            assert window.left % (grid if grid > 1 else tile[1]) == 0
        assert (count == 1).all()
    strips = replace(raster, tile=(8, 70), window=20)
    assert {(w.width, w.left) for w in strips.windows()} == {(70, 0)}


# --- what is refused ---------------------------------------------------------------------------------------------


def cut_short(path: Path, share: float = 0.5) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def png_of_16_bits(path: Path) -> Path:
    Image.fromarray(RGB).save(path)
    content = bytearray(path.read_bytes())
    content[24] = 16  # bits of a channel, in the header; what follows does not matter
    return written(path, bytes(content))


def pages(path: Path, *shapes: tuple[int, ...]) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for shape in shapes:
            more = {"photometric": "rgb" if shape[-1] == 3 else "minisblack"}
            writer.write(np.ones(shape, dtype=np.uint8), metadata=None, **more)
    return path


def saved_as(path: Path, **more: Any) -> Path:
    Image.fromarray(RGB).save(path, **more)
    return path


def cut_to(path: Path, n: int) -> Path:
    return written(path, path.read_bytes()[:n])


REFUSED: dict[str, tuple[Any, str]] = {
    "absent": (lambda f: f / "a.png", "there is no picture at"),
    "text": (lambda f: written(f / "a.png", b"these are words"), "a.png is no picture that can be read"),
    "empty": (lambda f: written(f / "a.png", b""), "a.png is empty"),
    "a PNG cut short": (lambda f: cut_short(saved_as(f / "a.png")), "a.png cannot be read, it is damaged or cut short"),
    "a PNG of 8 bytes": (lambda f: cut_to(saved_as(f / "a.png"), 8), "a.png is no picture that can be read"),
    "a PNG of 20 bytes": (lambda f: cut_to(saved_as(f / "a.png"), 20), "a.png cannot be read, it is damaged"),
    "a PNG of 25 bytes": (lambda f: cut_to(saved_as(f / "a.png"), 25), "a.png cannot be read, it is damaged"),
    "a JPEG cut short": (lambda f: cut_short(saved_as(f / "a.jpg")), "a.jpg cannot be read, it is damaged or cut"),
    "a TIFF cut short": (
        lambda f: cut_short(tiff(f / "a.tif", RGB, compression="zlib", tile=(32, 32)), 0.9),
        "a.tif cannot be read, it is damaged or cut short",
    ),
    "a plain TIFF cut short": (lambda f: cut_short(tiff(f / "a.tif", RGB), 0.9), "a.tif cannot be read, it is damaged"),
    "a TIFF without its head": (lambda f: written(f / "a.tif", b"II*\0" + b"\0" * 40), "a.tif cannot be read"),
    "16 bits read as 8": (
        lambda f: png_of_16_bits(f / "a.png"),
        "is a colour PNG of 16 bits, which would be read as 8",
    ),
    "mixed channels": (lambda f: pages(f / "a.tif", (9, 9, 3), (9, 9)), "has pages with different numbers of channels"),
    "several pages": (lambda f: tiff(f / "a.tif", np.ones((5, 9, 9), np.uint8)), "is not one picture (its axes are"),
    "a folder": (lambda f: f, "is a folder without a Zarr array"),
    "zero size": (lambda f: np.ones((0, 5, 3), dtype=np.uint8), "the picture has no pixels"),
    "one dimension": (lambda f: np.ones(5), "the picture has 1 dimension(s)"),
    "words": (lambda f: np.array([["a", "b"]]), "the picture does not hold numbers"),
    "nothing": (lambda f: None, "the picture has 0 dimension(s)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, message = REFUSED[name]
    with pytest.raises(DataError) as caught:
        open_raster(make(tmp_path))
    assert message in str(caught.value)
    assert capfd.readouterr().err == ""  # what libraries have to say of it
    assert "\n" not in str(caught.value)


def test_a_tile_that_is_damaged_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", RGB, compression="zlib", tile=(32, 32))
    with tifffile.TiffFile(path) as opened:
        page: Any = opened.pages[0]
        offset, size = page.dataoffsets[-1], page.databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(bytes(content))
    raster = open_raster(path)
    assert (raster.read(Window(0, 0, 9, 9)).pixels == RGB[:9, :9]).all()
    with pytest.raises(DataError, match=r"a\.tif cannot be read, it is damaged"):
        raster.read(Window(80, 65, 5, 5))


@pytest.mark.parametrize(("absent", "kind"), [("tifffile", "tif"), ("zarr", "tif"), ("zarr", "zarr"), ("PIL", "png")])
def test_an_extra_that_is_not_installed(absent: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zarr":
        zarr_folder(path, RGB, (32, 32, 3))
    else:
        Image.fromarray(RGB).save(path)
    code = f"""
import sys
sys.modules[{absent!r}] = None
from dask_em.data.raster_files import open_raster
from dask_em.errors import ConfigurationError
try:
    open_raster({str(path)!r})
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == 'pictures need the extra "images": pip install "dask-em[images]"\n', done.stderr


def test_an_array_needs_no_extra() -> None:
    code = """
import sys
for name in ("tifffile", "zarr", "PIL", "imageio"):
    sys.modules[name] = None
import numpy as np
from dask_em.data.raster_files import open_raster
print(open_raster(np.ones((2, 3, 3))).channels)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "('red', 'green', 'blue')\n", done.stderr


def test_errors_mean_exit_codes() -> None:
    assert (ConfigurationError.exit_code, DataError.exit_code) == (2, 4)

"""Pictures opened: arrays, Pillow images, PNG, JPEG and what else Pillow and imageio read, TIFF and BigTIFF, Zarr.

Ordinary pictures are decoded whole; TIFF and Zarr are read tile by tile, so that a picture need not fit into memory. Palettes, CMYK, embedded profiles and orientation end as grey
or sRGB that stands upright, and what was done is kept as notes.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.raster import CHECK, ArrayReader, Raster, Reader, damaged, described, one_sentence, turned
from dask_em.errors import ConfigurationError, DataError

NODATA_TAG = 42113

GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737, NODATA_TAG)
"""TIFF tags that say where on Earth a picture lies (OGC GeoTIFF 1.1), and GDAL's nodata value."""

ORIENTATION, PROFILE = 274, 34675

GREY, RGB = (0, 1), 2
"""Photometric interpretations (TIFF 6.0) that are read window by window; the others are converted by Pillow."""

MANY_CHANNELS = 16
"""A first axis of at most this length is taken for that of the channels, if the last is longer and no name says otherwise."""


@dataclass(frozen=True)
class TiffReader:
    """A page of a TIFF or BigTIFF file, tiled or in strips, channels last or apart."""

    path: str
    channels_first: bool

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        import tifffile
        import zarr

        with tifffile.TiffFile(self.path) as opened:
            array = zarr.open_array(opened.aszarr(level=0), mode="r")
            return _cut(array, self.channels_first, top, left, height, width)


@dataclass(frozen=True)
class PlainReader:
    """An array that stands in a file as it is, such as a TIFF that is not compressed."""

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    channels_first: bool

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        array: Any = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return _cut(array, self.channels_first, top, left, height, width)


@dataclass(frozen=True)
class ZarrReader:
    """A Zarr array."""

    path: str
    channels_first: bool

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        import zarr

        return _cut(zarr.open_array(self.path, mode="r"), self.channels_first, top, left, height, width)


def _cut(array: Any, channels_first: bool, top: int, left: int, height: int, width: int) -> NDArray[Any]:
    rows, columns = slice(top, top + height), slice(left, left + width)
    if channels_first:
        return np.moveaxis(np.asarray(array[:, rows, columns]), 0, -1)
    return np.asarray(array[rows, columns])


@dataclass(frozen=True)
class ProfiledReader:
    """Colours of 8 bits turned from their profile into sRGB."""

    reader: Reader
    profile: bytes

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        from PIL import Image

        pixels = self.reader.read(top, left, height, width)
        colours = np.ascontiguousarray(pixels[:, :, :3])
        own, _ = to_srgb(Image.fromarray(colours), self.profile, "")
        return np.concatenate([np.asarray(own), pixels[:, :, 3:]], axis=2)


def open_raster(picture: Any, *, nodata: float | None = None) -> Raster:
    """Open a picture.

    Parameters
    ----------
    picture : array (h, w) or (h, w, c), Pillow image, path of a file or Zarr folder, or a Raster
        Whole numbers or float. Two or four channels of an array in memory are grey or red, green, blue, with alpha as the last; those of TIFF and Zarr are what the file says.
    nodata : value that means missing, by default what the file says

    Raises
    ------
    ConfigurationError
        The extra that reads it is not installed.
    DataError
        The file is not there, is no picture, or is damaged.
    """
    if isinstance(picture, Raster):
        opened = picture
    elif isinstance(picture, (str, os.PathLike)):
        opened = _open_path(os.fspath(picture))
    elif hasattr(picture, "getbands") and hasattr(picture, "mode"):
        opened = from_pillow(picture, "the picture")
    else:
        opened = from_array(picture, "the picture")
    return opened if nodata is None else replace(opened, nodata=float(nodata))


def from_array(values: Any, where: str, notes: tuple[str, ...] = ()) -> Raster:
    if isinstance(values, np.ma.MaskedArray):
        masked: Any = values.astype(np.result_type(values.dtype, np.float32))
        values = masked.filled(np.nan)
    pixels = np.asarray(values)
    alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    return described(where, pixels.shape, pixels.dtype, ArrayReader(pixels), alpha=alpha, notes=notes)


def _open_path(path: str) -> Raster:
    where = os.path.basename(path.rstrip("/")) or path
    if not os.path.exists(path):
        raise DataError(f"there is no picture at {path}: check the path")
    if os.path.isdir(path):
        return _open_zarr(path, where)
    if os.path.getsize(path) == 0:
        raise DataError(f"{where} is empty: {CHECK}")
    with open(path, "rb") as opened:
        head = opened.read(32)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _open_tiff(path, where)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:25] == b"\x10" and head[25:26] in (b"\2", b"\4", b"\6"):
        raise DataError(f"{where} is a colour PNG of 16 bits, which would be read as 8: convert it to TIFF")
    return _open_ordinary(path, where)


def _needs() -> ConfigurationError:
    return ConfigurationError('pictures need the extra "images": pip install "dask-em[images]"')


# --- Zarr --------------------------------------------------------------------------------------------------------


def _open_zarr(path: str, where: str) -> Raster:
    try:
        import zarr
    except ImportError:
        raise _needs() from None
    try:
        array: Any = zarr.open_array(path, mode="r")
    except Exception:
        raise DataError(f"{where} is a folder without a Zarr array: name the array in it, or a file") from None
    shape, chunks = array.shape, array.chunks
    first = _channels_first(shape, getattr(array.metadata, "dimension_names", None))
    if first:
        shape, chunks = (*shape[1:], shape[0]), (*chunks[1:], chunks[0])
    attributes = dict(array.attrs)
    return described(
        where, shape, array.dtype, ZarrReader(path, first),
        tile=tuple(chunks[:2]), form="zarr", nodata=_number(attributes.get("_FillValue")), attributes=attributes,
    )  # fmt: skip


def _channels_first(shape: tuple[int, ...], names: Any) -> bool:
    """Whether the first of three axes is that of the channels."""
    if len(shape) != 3:
        return False
    named = [str(name).lower() in ("c", "s", "channel", "channels", "band", "bands") for name in names or ()]
    if any(named):
        return named[0]
    return shape[0] <= MANY_CHANNELS < shape[2]


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


# --- TIFF --------------------------------------------------------------------------------------------------------


def _open_tiff(path: str, where: str) -> Raster:
    try:
        import tifffile
        import zarr  # noqa: F401
    except ImportError:
        raise _needs() from None
    with _silent("tifffile"), one_sentence(where), tifffile.TiffFile(path) as opened:
        page: Any = opened.pages.first
        _check_pages(opened, page, where)
        if int(page.photometric) not in (*GREY, RGB):
            if page.bitspersample > 8:
                raise DataError(f"{where} has colours of {page.bitspersample} bits that are no RGB: convert it to RGB")
            return _open_ordinary(path, where)
        raster = _tiff_page(path, where, opened.series[0], page)
        if len(opened.series) > 1:
            raster = replace(
                raster, notes=(f"{where} holds {len(opened.series)} pictures: the first is used.", *raster.notes)
            )
        orientation = page.tags.valueof(ORIENTATION, default=1)
    try:
        raster.reader.read(0, 0, 1, 1)
    except Exception:
        # There is no codec for it; Pillow has some, but would read 16 bits as 8.
        if page.bitspersample == 8:
            return _open_ordinary(path, where)
        raise DataError(
            f"{where} cannot be read, it is damaged or compressed in a way that needs imagecodecs: install imagecodecs, or check the file"
        ) from None
    return turned(raster, int(orientation))


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """A block in which a library logs nothing: what it has to say of a damaged file is said here."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def _check_pages(opened: Any, page: Any, where: str) -> None:
    """Refuse what is not one picture, and what was cut short."""
    alike = [p for p in opened.pages if p.shape[:2] == page.shape[:2] and not int(getattr(p, "subfiletype", 0)) & 4]
    if len({p.samplesperpixel for p in alike}) > 1:
        raise DataError(f"{where} has pages with different numbers of channels: keep the pages of one kind")
    axes = opened.series[0].axes
    if set(axes) - set("YXSC") or not {"Y", "X"} <= set(axes) or len(axes) > 3:
        raise DataError(
            f"{where} is not one picture (its axes are {axes}): write the page to segment to a file of its own"
        )
    if max(map(sum, zip(page.dataoffsets, page.databytecounts)), default=0) > opened.filehandle.size:
        raise damaged(where)


def _tiff_page(path: str, where: str, series: Any, page: Any) -> Raster:
    shape, first = series.shape, series.axes[0] in "SC"
    tags = tuple((t.code, int(t.dtype), t.count, t.value, True) for t in page.tags if t.code in GEOREFERENCE)
    reader: Reader
    if series.dataoffset is not None:
        dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder).str
        reader, tile = PlainReader(path, series.dataoffset, dtype, shape, first), (1, 1)
    else:
        reader = TiffReader(path, first)
        tile = (page.tilelength, page.tilewidth) if page.is_tiled else (int(page.rowsperstrip), page.imagewidth)
        tile = (min(tile[0], page.imagelength), min(tile[1], page.imagewidth))
    shape = (*shape[1:], shape[0]) if first else shape
    notes: tuple[str, ...] = ()
    profile = page.tags.valueof(PROFILE)
    if profile and page.photometric == RGB and page.dtype == np.uint8 and not first:
        from PIL import Image

        _, notes_of_profile = to_srgb(Image.new("RGB", (1, 1)), profile, where)
        notes = tuple(notes_of_profile)
        if any("was converted" in note for note in notes):
            reader = ProfiledReader(reader, profile)
    return described(
        where, shape, page.dtype, reader,
        alpha=bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2),
        nodata=next((_number(t[3]) for t in tags if t[0] == NODATA_TAG), None),
        tile=tile, form="tiff", notes=notes, tags=tags,
    )  # fmt: skip


# --- the rest ----------------------------------------------------------------------------------------------------


def _open_ordinary(path: str, where: str) -> Raster:
    """PNG, JPEG and what else Pillow reads: decoded whole."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise _needs() from None
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("ignore", UserWarning)  # of what is cut short, it warns before it fails
            opened.load()
            return from_pillow(opened, where)
    except UnidentifiedImageError:
        return _from_imageio(path, where)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{where} is too large to be decoded whole: convert it to a tiled TIFF or to Zarr") from None
    except (OSError, SyntaxError, ValueError, EOFError):
        raise damaged(where) from None


def _from_imageio(path: str, where: str) -> Raster:
    try:
        import imageio.v3 as iio
    except ImportError:
        raise _needs() from None
    try:
        # Opened here: by itself it leaves files open that it cannot read.
        with warnings.catch_warnings(), open(path, "rb") as opened:
            warnings.simplefilter("ignore")
            pixels = np.asarray(iio.imread(opened.read(), extension=os.path.splitext(path)[1]))
    except Exception:
        raise DataError(f"{where} is no picture that can be read: {CHECK}") from None
    return from_array(pixels, where)


def from_pillow(image: Any, where: str) -> Raster:
    """Orientation, palette, profile and CMYK undone."""
    from PIL import ImageOps

    notes: list[str] = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"{where} holds {image.n_frames} pictures: the first is used.")
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        image = ImageOps.exif_transpose(image)
        notes.append(f"{where} was turned as its EXIF orientation says.")
    clear = "transparency" in image.info or image.mode in ("PA", "LA", "RGBA")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if clear else "RGB")
        notes.append(f"The palette of {where} was replaced by its colours.")
    elif clear and image.mode in ("L", "RGB"):
        image = image.convert(image.mode + "A")
    image, converted = to_srgb(image, image.info.get("icc_profile"), where)
    notes += converted
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        notes.append(f"{where} was converted from {image.mode} to RGB.")
        image = image.convert("RGB")
    return from_array(np.asarray(image), where, tuple(notes))


def to_srgb(image: Any, profile: bytes | None, where: str) -> tuple[Any, list[str]]:
    """An image in sRGB in the place of an embedded profile, and what is to be said of it."""
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image, []
    from PIL import ImageCms

    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(own).strip()
        if "sRGB" in name:
            return image, []
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        colours: Any = image.convert("RGB") if alpha is not None else image
        srgb = ImageCms.createProfile("sRGB")
        colours = ImageCms.profileToProfile(colours, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image, [f"The colour profile of {where} cannot be read and was left out of account."]
    if alpha is not None:
        colours.putalpha(alpha)
    return colours, [f"{where} was converted from its colour profile, {name}, to sRGB."]

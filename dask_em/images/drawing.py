"""What people look at: the picture under the colours of its segments, their borders, and both in a notebook."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dask_em.data.raster import Raster
from dask_em.images.smoothing import MISSING, edges

PALETTE = np.array(
    [
        [0x4E, 0x79, 0xA7], [0xF2, 0x8E, 0x2B], [0x59, 0xA1, 0x4F], [0xE1, 0x57, 0x59], [0x76, 0xB7, 0xB2],
        [0xED, 0xC9, 0x48], [0xB0, 0x7A, 0xA1], [0xFF, 0x9D, 0xA7], [0x9C, 0x75, 0x5F], [0xBA, 0xB0, 0xAC],
    ],
    dtype=np.uint8,
)  # fmt: skip
"""Ten colours that are told apart; later segments take darker shades of them."""

BORDER = (255, 0, 140)
"""A colour that pictures rarely have."""

Range = tuple[float, float]


def palette(k: int) -> NDArray[np.uint8]:
    """(k, 3) a colour for each segment, always the same one for the same number."""
    shade = 0.72 ** (np.arange(k) // len(PALETTE))
    return np.rint(PALETTE[np.arange(k) % len(PALETTE)] * shade[:, None]).astype(np.uint8)


def hexadecimal(colours: NDArray[np.uint8]) -> list[str]:
    """#rrggbb of (n, 3) bytes."""
    return ["#" + bytes(own).hex() for own in colours]


def shown_range(raster: Raster, pixels: NDArray[Any], labels: NDArray[np.uint8]) -> Range:
    """The values that are shown as black and as white: what the type says for 8 bits and for float between 0 and 1, else all but 1 % on either side of the pixels that are seen."""
    if raster.dtype == np.uint8:
        return 0.0, 255.0
    seen = pixels[labels != MISSING].astype(np.float64)
    seen = seen[np.isfinite(seen)]
    if not len(seen) or raster.dtype == np.bool_ or (raster.dtype.kind == "f" and seen.min() >= 0 and seen.max() <= 1):
        return 0.0, 1.0
    low, high = np.percentile(seen, [1.0, 99.0])
    return float(low), float(max(high, low + 1e-9))


def visible(pixels: NDArray[Any], shown: Range) -> NDArray[np.uint8]:
    """sRGB (..., 3) of channels (..., c): of the first three, or grey."""
    three = pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    if three.dtype == np.uint8 and shown == (0.0, 255.0):
        return three
    scaled = (np.nan_to_num(three.astype(np.float64)) - shown[0]) * (255.0 / (shown[1] - shown[0]))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def overlay(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], k: int, strength: float) -> Any:
    """Segment colours over the grey picture."""
    from PIL import Image

    grey = pixels @ np.array([0.299, 0.587, 0.114])
    colours = np.zeros((256, 3))
    colours[:k] = palette(k)
    out = (1 - strength) * grey[:, :, None] + strength * colours[labels]
    out[labels == MISSING] = 255.0
    return Image.fromarray(np.rint(out).astype(np.uint8))


def boundaries(pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Any:
    """The picture with the borders of its segments drawn in."""
    from PIL import Image

    out = pixels.copy()
    out[labels == MISSING] = 255
    out[edges(labels)] = BORDER
    return Image.fromarray(out)


def png(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def as_html(overlay: Any, regions: pd.DataFrame) -> str:
    """The overlay and the table of segments."""
    coded = base64.b64encode(png(overlay)).decode()
    legend = hexadecimal(palette(len(regions)))
    rows = "".join(
        f"<tr><td>{_swatch(legend[segment])} {escape(name)}</td><td>{share:.1%}</td><td>{_swatch(colour)} {colour}</td></tr>"
        for segment, name, share, colour in zip(*(regions[c] for c in ("segment", "name", "share", "colour")))
    )
    return (
        f"<img src='data:image/png;base64,{coded}' style='max-width:100%'>"
        f"<table><tr><th>segment</th><th>share</th><th>mean colour</th></tr>{rows}</table>"
    )


def _swatch(colour: str) -> str:
    return f"<span style='display:inline-block;width:2em;height:1em;background:{colour}'></span>"

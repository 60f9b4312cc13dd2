"""Small tables of the literature on missing cells, typed in."""

from __future__ import annotations

import numpy as np


def table(text: str) -> np.ndarray:
    """Rows between semicolons, cells between blanks, a dot for a missing one."""
    return np.array([[np.nan if c == "." else float(c) for c in row.split()] for row in text.split(";")])


CHOLESTEROL = table(
    """270 218 156; 236 234 .; 210 214 242; 142 116 .; 280 200 .; 272 276 256; 160 146 142; 220 182 216; 226 238 248; 242 288 .;
    186 190 168; 266 236 236; 206 244 .; 318 258 200; 294 240 264; 282 294 .; 234 220 264; 224 200 .; 276 220 188; 282 186 182;
    360 352 294; 310 202 214; 280 218 .; 278 248 198; 288 278 .; 288 248 256; 244 270 280; 236 242 204"""
)
"""28 patients' cholesterol 2, 4 and 14 days after a heart attack (Schafer and Olsen 1998)."""

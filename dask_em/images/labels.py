"""The label of every pixel of a window, under a fitted model.

Equal colours have equal labels, so where pixels are words only colours that have not been met are scored, and the others are looked up. Smoothing and small regions look over the
border of a window as far as they need: so a window has the labels that it has in the whole picture.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.compact import Distinct
from dask_em.data.pixels import View
from dask_em.data.raster import Patch, Window
from dask_em.images.smoothing import ITERATIONS, MISSING, absorb, mean_field
from dask_em.model import FittedMixture

Labels = NDArray[np.uint8]

UNKNOWN = 254
"""In a table of labels, a colour that has not been met."""

MAX_SEGMENTS = 254
"""As many labels are left beside MISSING and UNKNOWN."""

DENSE = 1 << 24
"""Colours that have a table of their own, 16 MB: 8 bits in three channels."""

SCORED = 1 << 16
"""Rows that are scored at once."""


@dataclass(frozen=True)
class Labeller:
    """What gives windows their labels; a pure function that can be sent to workers.

    Attributes
    ----------
    view : the picture, and how its pixels are rows
    model : the fitted mixture; labels are its components
    strength : of the Potts prior; 0 for none
    smallest : pixels of a region at least
    token : what its tables of labels are kept under, in each process
    """

    view: View
    model: FittedMixture
    strength: float = 0.0
    smallest: int = 1
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def look(self, window: Window, posterior: bool = False) -> tuple[Patch, Labels, NDArray[np.float32] | None]:
        """The pixels of a window, their labels (h, w), 255 where nothing is observed, and on request their posterior (k, h, w), 0 where nothing is observed."""
        raster, reach = self.view.raster, 2 * self.smallest if self.smallest > 1 else 0
        wide = window.widened(reach + (ITERATIONS if self.strength else 0), raster)
        patch = raster.read(wide.widened(self.view.halo, raster))
        q = None
        if posterior or self.strength:
            q = self._posterior(patch, wide)
            if self.strength:
                q = mean_field(q, self.strength)
            labels = np.where(q.any(axis=0), q.argmax(axis=0), MISSING).astype(np.uint8)
        else:
            labels = self._plain_labels(patch, wide)
        self._put_seeds(labels, wide)
        if self.smallest > 1:
            labels = absorb(labels, self.smallest)
            self._put_seeds(labels, wide)
        own = window.inside(wide)
        return patch.cut(window), labels[own], None if q is None else q[:, *own]

    def by_share(self, distinct: Distinct) -> Labeller:
        """This labeller with its components ordered by the pixels they have, of all distinct colours; their labels are known from here on."""
        word = self.view.word
        assert word is not None
        seed, colour = np.divmod(distinct.words[0], np.uint64(word.n_words))
        labels = self._scored(self.view.coloured(word.unpack(colour)), _largest)
        own = np.array([0, *self._components], dtype=np.uint8)[seed.astype(np.int64)]
        pixels = np.bincount(np.where(seed > 0, own, labels), distinct.weights[0], self.model.n_components)
        order = np.argsort(-pixels, kind="stable")
        ordered = replace(self, model=self.model.reordered(order), token=secrets.token_hex(8))
        if word.n_words <= DENSE:
            _kept.labels_of(ordered.token)[colour] = np.argsort(order).astype(np.uint8)[labels]
        return ordered

    @property
    def _components(self) -> list[int]:
        """The components of the names that have seeds."""
        return [self.model.names.index(name) for name in self.view.names]

    def _put_seeds(self, labels: Labels, window: Window) -> None:
        for place, component in self._seeds_in(window):
            own = labels[place]
            own[own != MISSING] = component

    def _seeds_in(self, window: Window) -> list[tuple[tuple[slice, slice], int]]:
        components = dict(zip(self.view.names, self._components))
        return [(box.shared(window).inside(window), components[name]) for box, name in self.view.seeds]

    def _posterior(self, patch: Patch, window: Window) -> NDArray[np.float32]:
        """(k, h, w) of every pixel by itself, as seeds say or else as the model does."""
        of = self._by_distinct if self.view.word is not None else self._by_pixel
        found = of(patch, window, lambda r: r.astype(np.float32), np.float32(0.0))
        q = np.ascontiguousarray(np.moveaxis(found, -1, 0))
        for place, component in self._seeds_in(window):
            own = q[:, *place]
            there = own.any(axis=0)
            own[...] = 0.0
            own[component] = there
        return q

    def _plain_labels(self, patch: Patch, window: Window) -> Labels:
        word = self.view.word
        if word is None:
            return self._by_pixel(patch, window, _largest, MISSING)
        if word.n_words > DENSE:
            return self._by_distinct(patch, window, _largest, MISSING)
        words, missing = self.view.words(patch.cut(window))
        known = _kept.labels_of(self.token)
        labels = known[words]
        new = labels == UNKNOWN
        if new.any():
            distinct = np.unique(words[new])
            known[distinct] = self._scored(self.view.coloured(word.unpack(distinct)), _largest)
            labels = known[words]
        if missing is not None:
            labels[missing] = MISSING
        return labels

    def _by_distinct(self, patch: Patch, window: Window, of: Any, otherwise: Any) -> NDArray[Any]:
        """A function of the responsibilities (n, k), worked out for the distinct colours of a window, for its pixels (h, w, ...)."""
        assert self.view.word is not None
        words, missing = self.view.words(patch.cut(window))
        distinct, place = _distinct(words, self.view.word.n_words)
        out: NDArray[Any] = self._scored(self.view.coloured(self.view.word.unpack(distinct)), of)[place]
        if missing is not None:
            out[missing] = otherwise
        return out

    def _by_pixel(self, patch: Patch, window: Window, of: Any, otherwise: Any) -> NDArray[Any]:
        """A function of the responsibilities (n, k), for the pixels (h, w, ...) of a window."""
        values = self.view.values(patch, window)
        there = ~np.isnan(values[: len(self.view.channels)]).all(axis=0)
        found = self._scored(values[:, there], of)
        out = np.full((there.size, *found.shape[1:]), otherwise, dtype=found.dtype)
        out[there] = found
        return out.reshape(window.height, window.width, *found.shape[1:])

    def _scored(self, values: NDArray[np.float64], of: Callable[[NDArray[np.float64]], NDArray[Any]]) -> NDArray[Any]:
        parts = []
        for start in range(0, max(values.shape[1], 1), SCORED):
            own = values[:, start : start + SCORED]
            table = pa.table({n: pa.array(v, from_pandas=True) for n, v in zip(self.view.columns, own)})
            parts.append(of(self.model.score(table)[0]))
        return np.concatenate(parts)


def _largest(responsibilities: NDArray[np.float64]) -> Labels:
    return responsibilities.argmax(axis=1).astype(np.uint8)


class _Kept:
    """Tables over all words, kept between windows: fresh memory is slow, and a colour need not be scored twice.

    The labels of the latest labeller are shared by all threads of a process, which may fill in the same ones.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.token = ""
        self.labels: Labels = np.empty(0, dtype=np.uint8)
        self.of_thread = threading.local()

    def labels_of(self, token: str) -> Labels:
        with self.lock:
            if self.token != token:
                self.token, self.labels = token, np.full(DENSE, UNKNOWN, dtype=np.uint8)
            return self.labels

    def tables(self) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Of this thread: which words were seen, none at the start and at the end, and the place of each."""
        if not hasattr(self.of_thread, "tables"):
            self.of_thread.tables = np.zeros(DENSE, dtype=bool), np.empty(DENSE, dtype=np.int32)
        found: tuple[NDArray[np.bool_], NDArray[np.int32]] = self.of_thread.tables
        return found


_kept = _Kept()


def _distinct(words: NDArray[Any], n_words: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The distinct words, and where each of the words (h, w) stands among them."""
    if n_words > DENSE:
        distinct, place = np.unique(words, return_inverse=True)
        return distinct, place.reshape(words.shape)
    seen, at = _kept.tables()
    seen[words] = True
    distinct = np.flatnonzero(seen)
    seen[distinct] = False
    at[distinct] = np.arange(len(distinct), dtype=np.int32)
    return distinct, at[words]

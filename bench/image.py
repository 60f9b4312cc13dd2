"""A picture of any size: what it takes beyond decoding and encoding its tiles, beside scikit-learn on a crop; and a photograph from start to end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.contestants.process import forget_peaks, memory_mb
from bench.measure import afresh, peak_growth_mb, report, timed, watched
from dask_em import fitting
from dask_em.data.pixels import View
from dask_em.data.raster import Raster, Window
from dask_em.data.raster_files import open_raster
from dask_em.execution.base import Executor
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor
from dask_em.images.fit import colours, rows_of
from dask_em.images.fit import fit as fit_one
from dask_em.images.labels import Labeller
from dask_em.images.segment import segment_image
from dask_em.images.segmentation import Segmentation
from pipelines.pictures import write_large

TILE, LEVEL = 256, 6

CHINA = """
from dask_em import segment_image
segment_image({path!r}, 5, random_state=0).write({folder!r})
"""


def run(megapixels: float, k: int, threads: int, rounds: int, path: str | None) -> None:
    """All parts of one job by themselves, then the whole of it for its memory."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = write_large(Path(folder) / "picture", megapixels)["path"]
        raster = open_raster(path)
        settings: dict[str, Any] = {"n_init": 5, "random_state": 0}
        segment_image(_crop(raster, 300), k, **settings).overlay()  # compiles, or loads what is compiled
        executor = LocalExecutor(threads)
        lines = [_line("decode and encode again", raster, _median(rounds, lambda: _bare(raster, executor)))]
        bare = lines[0]
        parts = []
        for _ in range(rounds):
            own, n_colours = _parts(raster, k, settings, executor, Path(folder) / "out")
            parts.append(own)
        names = list(parts[0])
        medians = {name: np.median([own[name] for own in parts], axis=0) for name in names}
        lines += [_line(name, raster, medians[name]) for name in names]
        whole = sum(times for name, times in medians.items() if not name.startswith("of this"))
        lines.append(_line("all of it", raster, whole))
        lines[-1]["times bare"] = lines[-1]["cpu s"] / bare["cpu s"]
        lines[-1]["process MB"] = afresh(
            peak_growth_mb, partial(_whole, path, k, settings, Path(folder) / "whole", executor)
        )
        lines[-1]["worker MB"] = _of_workers(path, k, settings, Path(folder) / "workers")
        lines += _beside(raster, k, settings, rounds)
        lines.append(_china(Path(folder), rounds))
    report(
        f"image-{megapixels:g}mp-k{k}", lines,
        pixels=raster.n_pixels, colours=n_colours, k=k, threads=threads, rounds=rounds,
    )  # fmt: skip


def _line(who: str, raster: Raster, times: Any) -> dict[str, Any]:
    wall, processor = (float(t) for t in times)
    return {"who": who, "wall s": wall, "cpu s": processor, "cpu ns a pixel": processor / raster.n_pixels * 1e9}


def _median(rounds: int, work: Callable[[], Any]) -> Any:
    return np.median([timed(work)[1] for _ in range(rounds)], axis=0)


def _bare(raster: Raster, executor: LocalExecutor) -> int:
    """Every tile decoded and encoded again: what nobody can go below who reads and writes such a picture."""
    return sum(executor.map(raster.windows(), partial(_again, raster)))


def _again(raster: Raster, i: int, window: Window) -> int:
    pixels = raster.read(window).pixels
    size = 0
    for top in range(0, window.height, TILE):
        for left in range(0, window.width, TILE):
            size += len(zlib.compress(pixels[top : top + TILE, left : left + TILE].tobytes(), LEVEL))
    return size


def _parts(
    raster: Raster, k: int, settings: dict[str, Any], executor: LocalExecutor, folder: Path
) -> tuple[dict[str, np.ndarray], int]:
    """Seconds of the scan that collapses, of the fit to the distinct colours, and of the pass that labels and writes."""
    times = {}
    view = View(raster)
    distinct, times["collapse to colours"] = timed(lambda: colours(view, executor))
    assert distinct is not None

    def fit() -> Any:
        how = {"covariance_type": "full", "acceleration": "daarem", "compress": False, **settings}
        return fit_one(rows_of(view, distinct, executor, k), k, how, executor, None)

    with watched(fitting, "scan") as scans:
        found, times["fit"] = timed(fit)
    times["of this, EM on all colours after the sample"] = scans[0]

    def write() -> None:
        labeller = Labeller(view, found.model).by_share(distinct)
        Segmentation(labeller, found.estimator, len(distinct), None, executor).write(folder)

    _, times["label and write"] = timed(write)
    _remove(folder)
    return times, len(distinct)


def _whole(path: str, k: int, settings: dict[str, Any], folder: Path, executor: Executor) -> None:
    segment_image(path, k, executor=executor, **settings).write(folder)
    _remove(folder)


def _of_workers(path: str, k: int, settings: dict[str, Any], folder: Path) -> float:
    """How far the memory of a worker of one thread rises above what it takes when it has done nothing yet."""
    executor = DaskExecutor(n_workers=2)
    try:
        pids = list(executor.client.run(os.getpid).values())
        idle = [memory_mb([pid]) for pid in pids]
        forget_peaks(pids)
        _whole(path, k, settings, folder, executor)
        return max(memory_mb([pid], peak=True) - before for pid, before in zip(pids, idle))
    finally:
        executor.close()


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _crop(raster: Raster, size: int) -> np.ndarray:
    return raster.read(Window(0, 0, min(size, raster.height), min(size, raster.width))).pixels


def _beside(raster: Raster, k: int, settings: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """A megapixel, fitted and labelled by scikit-learn and here."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Theirs

    pixels = _crop(raster, 1000)
    own = open_raster(pixels)
    rows = pixels.reshape(-1, 3).astype(np.float64)

    def theirs() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return Theirs(k, random_state=0).fit(rows).predict(rows)

    ours = _median(rounds, lambda: segment_image(pixels, k, **settings).labels)
    _, others = timed(theirs)
    lines = [_line("a megapixel, here, 5 starts", own, ours), _line("a megapixel, scikit-learn, 1 start", own, others)]
    lines[1]["times ours"] = lines[1]["cpu s"] / lines[0]["cpu s"]
    return lines


def _china(folder: Path, rounds: int) -> dict[str, Any]:
    """china.jpg in a process of its own, start-up included."""
    (home,) = importlib.util.find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    path = Path(home) / "datasets" / "images" / "china.jpg"
    times = []
    for i in range(rounds):
        code = CHINA.format(path=str(path), folder=str(folder / f"china{i}"))
        before, used = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        now = os.times()
        processor = now.children_user + now.children_system - used.children_user - used.children_system
        times.append((time.perf_counter() - before, processor))
    wall, processor = np.min(times, axis=0).tolist()
    return {"who": "china.jpg, a process of its own", "wall s": wall, "cpu s": processor}

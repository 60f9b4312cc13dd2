"""The figure of the README, drawn from bench/results: how many times as long as ours each peer takes for an EM iteration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.measure import RESULTS
from dask_em.report.canvas import INK, PALETTE, canvas, to_svg

WORKLOADS = {
    "gmm-1000000x10-k8": "full covariance\n1,000,000 × 10, k = 8",
    "gmm-500000x32-k16": "full covariance\n500,000 × 32, k = 16",
    "gmm-200000x64-k32": "full covariance\n200,000 × 64, k = 32",
    "diagonal-1000000x10-k8": "diagonal covariance\n1,000,000 × 10, k = 8",
    "classes-200000x10-k5": "latent classes\n200,000 × 10, k = 5",
}
"""Which results are drawn, and what is written beside them."""

PEERS = dict(zip(("daal4py", "scikit-learn", "pypolca", "Spark", "stepmix"), PALETTE))
"""Who is drawn, in which colour."""

IMAGE = Path(__file__).parents[1] / "docs" / "img" / "benchmarks.svg"


def draw(image: Path = IMAGE, results: Path = RESULTS) -> None:
    """Bars by workload; ours is the line at 1."""
    found = {}
    for name, title in WORKLOADS.items():
        if (results / f"{name}.json").exists():
            document = json.loads((results / f"{name}.json").read_text())
            found[title] = document["results"]
    if not any(map(_peers, found.values())):
        raise SystemExit(f"no results of peers in {results}: run the benchmarks first, see make bench")
    bars = sum(len(_peers(lines)) for lines in found.values())
    with canvas(7.5, 1.0 + 0.27 * (bars + 1.4 * len(found))) as figure:
        # The page around it may be dark.
        figure.patch.set(alpha=1, facecolor="white")
        _bars(figure, found)
        image.write_text(to_svg(figure), encoding="utf-8")


def _bars(figure: Figure, found: dict[str, Sequence[dict[str, Any]]]) -> None:
    axes = figure.add_subplot()
    y, ticks, names = 0.0, [], []
    for title, lines in found.items():
        first, ours = y, lines[0]["s/iteration"]
        for line in _peers(lines):
            ratio = line["times ours"]
            axes.barh(y, ratio - 1, left=1, height=0.8, color=PEERS[line["who"]])
            axes.text(max(ratio, 1) * 1.04, y, f"{line['who']}  {ratio:.1f}×", va="center")
            y += 1
        ticks.append((first + y - 1) / 2)
        names.append(f"{title}\nours: {1e3 * ours:.3g} ms")
        y += 1.4
    axes.vlines(1, -0.7, y - 1.4, color=INK, linewidth=1.2)
    axes.text(1, -0.8, "dask_em", ha="center", va="bottom", weight="bold")
    axes.set_xscale("log")
    axes.set_xlim(0.8, 2.6 * max(line["times ours"] for lines in found.values() for line in _peers(lines)))
    axes.set_xticks([1, 2, 5, 10, 20, 50], [f"{t}×" for t in (1, 2, 5, 10, 20, 50)])
    axes.minorticks_off()
    axes.set_yticks(ticks, names)
    axes.set_ylim(y - 1.4, -1.8)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("time of an EM iteration against ours: one thread, float64, logarithmic scale", labelpad=8)


def _peers(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((line for line in lines if line["who"] in PEERS), key=lambda line: line["times ours"])

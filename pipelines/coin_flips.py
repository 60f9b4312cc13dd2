"""The textbook's coins: EM on a page.

One coin, some flips not seen: the E-step counts the heads that the missing flips are expected to show, the M-step divides. Leaving the missing
flips out is EM too, with nothing hidden: it is there after one step. Two coins, nobody knows which was tossed (Do and Batzoglou,
Nature Biotechnology 2008): the E-step says with what probability each series was coin A, the M-step divides again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dask_em import BinomialMixture
from dask_em.config import CoinConfig
from dask_em.em import loop
from dask_em.families import Binomial
from dask_em.families.binomial import BinomialParams
from dask_em.mixture import Mixture, Parameters
from dask_em.operate.run import Manner
from dask_em.report import figures, page
from dask_em.report.provenance import provenance
from dask_em.scan import Block
from pipelines import plans
from pipelines.running import FRESH, running


def plan(config: CoinConfig) -> dict[str, Any]:
    """What `run` would do."""
    return {
        "pipeline": config.pipeline,
        "flips": len(config.one_coin.flips),
        "series": len(config.two_coins.heads),
        "scans": plans.Scans(0, 0).told(),
        "output": config.output,
        "writes": ["one_coin.csv", "two_coins.csv", "figures/", "report.html"],
    }


def run(config: CoinConfig, *, progress: Callable[[Any], None], manner: Manner = FRESH) -> dict[str, Any]:
    """Follow EM on both examples, step by step."""
    one, two = config.one_coin, config.two_coins
    flips = np.array([np.nan if f is None else f for f in one.flips])
    expected = steps(flips, 1, [one.start], one.n_steps, missing="expected")
    ignored = steps(flips, 1, [one.start], 1, missing="ignored")
    heads = np.array(two.heads, dtype=float)
    pair = steps(heads, two.tosses, two.start, two.n_steps)
    limits = limit(heads, two.tosses, two.start)
    with running(config, [], manner) as run:
        folder = run.folder
        one_table = pd.DataFrame({"step": range(len(expected)), "heads": expected[:, 0]})
        two_table = pd.DataFrame(pair, columns=["coin_a", "coin_b"]).rename_axis("step").reset_index()
        one_table.to_csv(folder / "one_coin.csv", index=False)
        two_table.to_csv(folder / "two_coins.csv", index=False)
        share = float(np.nanmean(flips))
        drawn = {
            "one_coin": figures.line_steps(expected[:, 0], share, "probability of heads"),
            "coin_a": figures.line_steps(pair[:, 0], limits[0], "coin A: probability of heads"),
            "coin_b": figures.line_steps(pair[:, 1], limits[1], "coin B: probability of heads"),
        }
        (folder / "figures").mkdir()
        for name, svg in drawn.items():
            (folder / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
        seen = flips[~np.isnan(flips)]
        sections = _sections(len(seen), int(seen.sum()), len(flips) - len(seen), one_table, two_table, drawn)
        page.write(
            folder / "report.html",
            page.render("EM with coins", "the textbook's two examples, step by step", [*sections, provenance(run)]),
        )
        run.facts = {
            "pipeline": config.pipeline,
            "one_coin": [round(v, 8) for v in expected[1:, 0]],
            "one_coin_missing_ignored": [round(v, 8) for v in ignored[1:, 0]],
            "two_coins": [[round(v, 8) for v in row] for row in pair[1:]],
            "two_coins_limit": [round(v, 8) for v in limits],
            "converged": True,
            "output": config.output,
            "report": str(Path(config.output) / "report.html"),
        }
    return run.facts


def steps(
    successes: np.ndarray, trials: int, start: Sequence[float], n_steps: int, missing: Any = "ignored"
) -> np.ndarray:
    """Probabilities (1 + n_steps, k) along EM with equal, fixed mixing weights and no prior: start, ask, tell.

    It ends sooner where EM has nothing left to change.
    """
    n, k = len(successes), len(start)
    coin = Binomial(margins=(0.5,), prior=0.0, missing=missing)
    mixture = Mixture((coin,), patterns=np.ones((1, 0), dtype=bool), fix_weights=True)
    values = np.stack([successes, np.full(n, float(trials))])
    block = Block((values,), np.ones(n), np.zeros(n), np.ones((1, 0), dtype=bool), np.array([0, n]))
    parameters = Parameters(np.full(k, 1 / k), (BinomialParams(np.array(start)[:, None]),))
    state = loop.start(loop.Settings(mixture, n_weight=n, tol=0.0, max_iter=n_steps), [k], parameters)
    path = [np.array(start)]
    while not state.done:
        state = loop.tell(state, loop.ask(state)(block))
        if not state.done and state.parameters is not None:
            path.append(state.parameters.parts[0].probabilities[:, 0])
    return np.array(path)


def limit(heads: np.ndarray, tosses: int, start: Sequence[float]) -> list[float]:
    """Where EM on two coins ends, from the estimator that anyone would use."""
    model = BinomialMixture(
        len(start),
        trials=tosses,
        fix_weights=True,
        probabilities_init=list(start),
        prior=None,
        tol=1e-14,
        max_iter=100_000,
    )
    return [float(p) for p in model.fit(pd.DataFrame({"heads": heads})).probabilities_]


def _sections(
    n_seen: int, n_heads: int, n_missing: int, one: pd.DataFrame, two: pd.DataFrame, drawn: dict[str, str]
) -> list[page.Section]:
    return [
        page.Section(
            "One coin, some flips not seen",
            [
                f"Of {n_seen + n_missing} flips, {n_seen} were seen and {n_heads} of them were heads; {n_missing} were not seen. "
                "The E-step counts a missing flip as heads in part: as much as the present estimate says. The M-step divides the heads by all flips.",
                f"In each step the distance to {n_heads}/{n_seen} shrinks to {n_missing}/{n_seen + n_missing} of what it was: the share of flips "
                "that is missing is the share of information that is missing, and that is the speed of EM.",
                "Leaving missing flips out is EM as well. Nothing is hidden then, and one step is enough. Both climb the same likelihood to "
                "the same top, so dask_em leaves missing cells out wherever it can, and counts expectations only when asked to.",
            ],
            figure=drawn["one_coin"],
            table=one,
            formats={"heads": ".8f"},
        ),
        page.Section(
            "Two coins, nobody knows which",
            [
                "Each series was tossed with one of two coins. The E-step gives every series to both coins, in the proportion in which they explain it; "
                "the M-step divides each coin's heads by its tosses.",
            ],
            figure=drawn["coin_a"],
        ),
        page.Section("", [], figure=drawn["coin_b"], table=two, formats={"coin_a": ".8f", "coin_b": ".8f"}),
    ]

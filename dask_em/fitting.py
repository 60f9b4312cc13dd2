"""One fit from table to parameters: profile, schema, start, scans.

    profile (1 scan) -> schema, families -> starts from the sample, labels or given values -> blocks -> ask/tell until done

This is where data, em and execution meet. Estimators and the search over models are thin around it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.compact import DistinctPiece, collapse
from dask_em.data.encode import encode_fit, encode_sample, row_bytes
from dask_em.data.files import check_sizes
from dask_em.data.gather import Bootstrap
from dask_em.data.keys import row_keys
from dask_em.data.pins import pinned
from dask_em.data.profile import Profile, profile
from dask_em.data.reading import read_marked_rows, read_rows
from dask_em.data.schema import Design, Schema
from dask_em.data.sources import Source
from dask_em.em import loop
from dask_em.em.stopping import Verdict
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.execution.base import BLOCK_ROWS, Executor, Unit, make_units
from dask_em.execution.local import LocalExecutor
from dask_em.families.covariance import FULL
from dask_em.few_scans import WORTHWHILE_ROWS, coarse_rows, run_on_sample, scan, survivors
from dask_em.kernels import worthwhile
from dask_em.mixture import Mixture, stacked
from dask_em.model import FittedMixture
from dask_em.scan import Block
from dask_em.specification import (
    Settings,
    by_itself,
    check_table,
    covariance_model,
    make_mixture,
    make_schema,
    masks,
    starts,
)


@dataclass(frozen=True)
class Fit:
    """What a fit found: all candidates in the order they were asked for, and what they share.

    replicates : the best candidate of all (by BIC), fitted again to each bootstrap replicate
    sampled : all starts on the profile's sample, where the candidates are those of them that went on with all rows
    n_distinct : how many distinct rows stood for the table, None where it was fitted as it is
    """

    schema: Schema
    mixture: Mixture
    profile: Profile
    candidates: tuple[loop.Candidate, ...]
    n_scans: int
    replicates: tuple[loop.Candidate, ...] = ()
    sampled: tuple[loop.Candidate, ...] = ()
    n_distinct: int | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of components of which at least one start came through, in the order they were asked for."""
        return tuple(dict.fromkeys(c.n_components for c in self.candidates if c.verdict is not Verdict.COLLAPSED))

    def best(self, n_components: int) -> loop.Candidate:
        """The candidate of this size with the highest objective, of those that were not stopped early."""
        return loop.ranked(self.candidates, n_components)[0]

    def smallest_bic(self) -> loop.Candidate:
        """Of the best candidates of every size, the one with the smallest BIC."""
        best = [self.best(k) for k in self.sizes]
        penalty = np.log(self.profile.weight)
        return min(best, key=lambda c: self.mixture.n_free(c.n_components) * penalty - 2 * c.log_likelihoods[-1])

    def fitted(self, candidate: loop.Candidate) -> FittedMixture:
        assert candidate.parameters is not None
        return FittedMixture(self.schema, self.mixture, candidate.parameters).for_rows()


def fit(
    source: Source,
    design: Design,
    settings: Settings,
    n_components: Sequence[int],
    executor: Executor,
    on_progress: Callable[[loop.Progress], None] | None = None,
    found: Profile | None = None,
) -> Fit:
    """Fit n_init candidates of every size in `n_components`, all in the same scans.

    `found` is the profile of the table, where it has been scanned for it already.

    Raises
    ------
    DataError
        The table cannot carry the model with any of the numbers of components.
    ConvergenceWarning
        (as a warning) some number or candidate was dropped, or a candidate stopped at max_iter.
    """
    with closing(open_table(source, design, settings, n_components, executor, on_progress, found)) as table:
        (result,) = table.fit([(settings, n_components)])
        judge([(settings, result)], n_components)
        m = settings.bootstrap.n_replicates
        return table.refit(result, settings, m) if m else result


@dataclass(frozen=True)
class Table:
    """A table that can be scanned again and again: profiled, its schema fixed, its blocks where the work is done.

    n_distinct : rows that it was collapsed to, which are what is scanned; None where it is scanned as it is
    passes : scans of the table itself, by what they were for
    """

    executor: Executor
    blocks: Any
    schema: Schema
    profile: Profile
    on_progress: Callable[[loop.Progress], None] | None
    n_distinct: int | None = None
    passes: Counter[str] = field(default_factory=lambda: Counter(profile=1))

    @property
    def rows(self) -> int:
        """Rows of a scan."""
        return self.profile.rows if self.n_distinct is None else self.n_distinct

    def fit(self, models: Sequence[tuple[Settings, Sequence[int]]], penalty: float | None = None) -> list[Fit]:
        """Fit every model with every of its numbers of components that the table can carry, all in the same scans.

        Where they compete by a `penalty` a free parameter, those that cannot win are stopped early.
        """
        few = all(self.few(m) for m, _ in models)
        mixtures = [self.mixture(model, max(n_components)) for model, n_components in models]
        states, sampled = [], []
        for mixture, (model, n_components) in zip(mixtures, models):
            sizes = [k for k in n_components if k <= self.profile.n_distinct for _ in range(model.n_init)]
            rules = self.rules(mixture, model)
            start = starts(self.schema, mixture, self.profile, model, sizes) if model.init != "labels" else None
            tried: tuple[loop.Candidate, ...] = ()
            if few:
                assert start is not None
                sample = encode_sample(self.profile.starting, by_itself(self.schema, model))
                tried = run_on_sample(mixture, sample, sizes, start, rules)
                kept = [tried[i] for i in survivors(tried, mixture, sample)]
                sizes, rules = [c.n_components for c in kept], replace(rules, acceleration="daarem")
                start = stacked([c.parameters for c in kept]) if kept else None
            elif self.n_distinct is not None and self.few(model, self.profile.rows):
                # Distinct rows that are few are their own sample, and it is solved as fast as a sample is.
                rules = replace(rules, acceleration=model.acceleration or "daarem")
            states.append(loop.start(rules, sizes, start))
            sampled.append(tried)
        share = None
        large = self.rows >= WORTHWHILE_ROWS
        if few or (large and any(m.acceleration is not None for m, _ in models)):
            width = encode_sample(self.profile.sample.slice(0, 1), self.schema)
            share = coarse_rows(self.rows, width) / self.rows
        done = scan(self.executor, self.blocks, states, self.on_progress, share, penalty)
        n_scans = self.passes["profile"] + self.passes["collapse"] + self._read("fit", max(s.n_scans for s in done))
        return [
            Fit(
                by_itself(self.schema, model),
                mixture,
                self.profile,
                s.candidates or tried,
                n_scans,
                sampled=tried,
                n_distinct=self.n_distinct,
            )
            for (model, _), mixture, s, tried in zip(models, mixtures, done, sampled)
        ]

    def mixture(self, model: Settings, n_components: int) -> Mixture:
        """The mixture of up to so many components."""
        mixture = make_mixture(self.schema, self.profile, model)
        return replace(mixture, compiled=worthwhile(mixture.families, self.rows, n_components))

    def few(self, model: Settings, rows: int | None = None) -> bool:
        """Whether starts run on a sample first, or would if there were that many rows."""
        rows = self.rows if rows is None else rows
        return rows >= WORTHWHILE_ROWS and model.given is None and model.init != "labels"

    def scan(self, states: Sequence[loop.State]) -> tuple[loop.State, ...]:
        """Scan until all candidates of all loops have stopped."""
        done = scan(self.executor, self.blocks, states, self.on_progress)
        self._read("folds", max(s.n_scans for s in done))
        return done

    def once(self, ask: Callable[[None], Callable[[Block], Any]]) -> Any:
        """The sum over all blocks of a function, in one scan."""
        self._read("once", 1)
        handle = self.executor.put(None)
        return self.executor.remember(
            lambda: self.executor.look(self.executor.fold(self.blocks, ask, _total, handle), _total_itself)
        )

    def _read(self, what: str, n: int) -> int:
        """Count n scans, which are none of the table itself where it was collapsed."""
        n = n if self.n_distinct is None else 0
        self.passes[what] += n
        return n

    def close(self) -> None:
        """Give back the blocks."""
        self.executor.release(self.blocks)

    def candidate_bytes(self, model: Settings, k: int) -> int:
        """Natural parameters and sums by pattern of one candidate."""
        mixture = make_mixture(self.schema, self.profile, model)
        n_patterns = 1 if mixture.patterns is None else len(mixture.patterns)
        return 16 * k * n_patterns * mixture.n_features

    def refit(self, found: Fit, settings: Settings, m: int) -> Fit:
        """The best candidate of all, fitted again to each bootstrap replicate, from where it is."""
        best = found.smallest_bic()
        assert best.parameters is not None
        start = best.parameters.take(np.tile(np.arange(best.n_components), m))
        rules = replace(self.rules(found.mixture, settings), replicates=tuple(range(m)))
        (again,) = scan(
            self.executor, self.blocks, [loop.start(rules, [best.n_components] * m, start)], self.on_progress
        )
        n_scans = found.n_scans + self._read("refit", again.n_scans)
        return replace(found, replicates=again.candidates, n_scans=n_scans)

    def rules(self, mixture: Mixture, settings: Settings) -> loop.Settings:
        return loop.Settings(
            mixture, self.profile.weight, settings.tol, settings.max_iter, acceleration=settings.acceleration
        )


def _total(state: None, total: Any) -> Any:
    return total


def _total_itself(total: Any) -> Any:
    return total


def open_table(
    source: Source,
    design: Design,
    settings: Settings,
    n_components: Sequence[int],
    executor: Executor,
    on_progress: Callable[[loop.Progress], None] | None = None,
    found: Profile | None = None,
) -> Table:
    """Profile a table, check that it can carry a model of the smallest size, and make its blocks ready, or those of its distinct rows.

    Of `settings` matters what rows hold: missing cells that are expected, bootstrap replicates, and whether rows are collapsed.
    """
    for k in n_components:
        if k < 1:
            raise ConfigurationError("n_components must be at least 1")
    design.check(source.columns, source.where)
    if found is None and source.pieces:
        found = profile_source(source, design, executor)
    check_table(found, design, min(n_components))
    assert found is not None
    source = pinned(source, found.marks)
    if more := [str(k) for k in n_components if k > found.n_distinct]:
        warnings.warn(
            f"n_components {', '.join(more)} left out: the table has {int(found.n_distinct)} distinct row(s)",
            ConvergenceWarning,
            stacklevel=5,
        )
    schema = make_schema(design, found)
    patterns = masks(schema, found)
    bootstrap, n_patterns = settings.bootstrap, 1 if patterns is None else len(patterns)
    single = settings.precision == "single"
    size = row_bytes(schema.design, bootstrap.n_replicates, single)
    encode = partial(_encode, patterns, settings.missing == "expected", single)
    collapsed = collapse(source, schema, found, bootstrap, settings.compress, max(n_components), executor.reduce)
    if collapsed is None:
        units = make_units(source.pieces, found.piece_rows, n_patterns)
        blocks = executor.open(units, partial(encode, schema, bootstrap), size)
        return Table(executor, blocks, schema, found, on_progress)
    if collapsed.rows <= BLOCK_ROWS:
        executor = LocalExecutor(1)  # a single block cannot be shared out
    units = make_units(collapsed.pieces, [len(p.weights[0]) for p in collapsed.pieces], n_patterns)
    encode = partial(encode, collapsed.schema, replace(bootstrap, key=()))
    blocks = executor.open(units, encode, size + 7 * bootstrap.n_replicates)  # counts of distinct rows are fractions
    return Table(executor, blocks, schema, found, on_progress, collapsed.rows, Counter(profile=1, collapse=1))


def profile_source(source: Source, design: Design, executor: Executor) -> Profile:
    """What a first pass over a table finds."""
    check_sizes(source.pieces, design.columns, executor.room)
    found: Profile = executor.reduce(source.pieces, partial(_profile_piece, design))
    return found


def _profile_piece(design: Design, i: int, piece: Any) -> Profile:
    # A spread beyond what a float can hold is refused later, with the name of its column.
    with np.errstate(over="ignore"):
        table, marks = read_marked_rows(piece, design)
        return profile(table, design, marks)


def _encode(
    patterns: NDArray[np.bool_] | None,
    expected: bool,
    single: bool,
    schema: Schema,
    bootstrap: Bootstrap,
    unit: Unit,
    pieces: Sequence[Any],
) -> list[Block]:
    tables = [read_rows(piece, schema.design, bootstrap.key) for piece in pieces]
    counts = None
    if bootstrap.n_replicates:
        counts = np.concatenate([_counts(bootstrap, *own) for own in zip(tables, pieces)], axis=1)
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")
    return encode_fit(table, schema, patterns, unit.n_blocks, expected, counts, single)


def _counts(bootstrap: Bootstrap, table: pa.Table, piece: Any) -> NDArray[Any]:
    """(m, n) how often the rows of a piece count in each replicate."""
    if isinstance(piece, DistinctPiece):
        return piece.counts
    return bootstrap.counts(row_keys(table, bootstrap.key, piece.origin))


def judge(found: Sequence[tuple[Settings, Fit]], n_components: Sequence[int]) -> None:
    """Say which starts were dropped or not finished; raise if none is left of any model."""
    if not any(own.sizes for _, own in found):
        settings, first = found[0]
        tried = dict.fromkeys(k for k in n_components if k <= first.profile.n_distinct)
        raise DataError(
            f"every start with {' or '.join(map(str, tried))} component{_s(max(tried))} collapsed onto too few rows: "
            f"{_advice(max(tried), first.schema.design, settings)}"
        )
    several = len({settings.covariance_type for settings, _ in found}) > 1
    for settings, result in found:
        of = f" of {covariance_model(settings.covariance_type)}" if several else ""
        for k in dict.fromkeys(n_components):
            own = [c for c in result.sampled or result.candidates if c.n_components == k]
            lost = sum(c.verdict is Verdict.COLLAPSED for c in own)
            if lost:
                warnings.warn(
                    f"{lost} of {len(own)} start{_s(len(own))}{of} with {k} component{_s(k)} collapsed and {'were' if lost > 1 else 'was'} dropped",
                    ConvergenceWarning,
                    stacklevel=5,
                )
            if k in result.sizes and (best := result.best(k)).verdict is Verdict.MAX_ITER:
                warnings.warn(
                    f"the fit{of} with {k} component{_s(k)} reached max_iter={best.n_iter} before it converged: raise max_iter or tol",
                    ConvergenceWarning,
                    stacklevel=5,
                )


def _s(n: int) -> str:
    """The ending of a plural."""
    return "s" if n > 1 else ""


def _advice(k: int, design: Design, settings: Settings) -> str:
    """What would help against a collapse and has not been done yet."""
    ways = []
    if k > 1:
        ways.append("ask for fewer components")
    if settings.prior is None:
        ways.append("use prior='weak'")
    elif k > 1 and design.gaussian:
        ways.append("use prior=None (a prior may leave tight components without rows)")
    if len(design.gaussian) > 1 and covariance_model(settings.covariance_type) in FULL:
        ways.append("choose a simpler covariance_type")
    if settings.init == "labels" or settings.given is not None:
        ways.append("start elsewhere")
    return ", or ".join(ways) if ways else "leave out columns that are nearly constant"

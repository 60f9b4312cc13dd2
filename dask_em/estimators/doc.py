"""The parameters that all mixtures share, described once."""

from __future__ import annotations

from inspect import signature
from typing import TypeVar

T = TypeVar("T", bound=type)

SHARED = """prior : "weak" or None, default "weak"
        "weak" adds one pseudo-observation per component, so that no component can collapse onto a point: for a normal, a row's worth of scatter
        diag(column variances) / k^(2/d) (Fraley and Raftery 2007); for a category, coin or count, one observation at the column's margin.
        One row's scatter of the whole table outweighs a small, tight component where groups lie very far apart (tens of their deviations): such a component may
        even lose all its rows, for then its covariance is the prior's own, and the start is dropped. None is exact maximum likelihood, and then a better choice.
        log_likelihood_ and BIC are those of the parameters found, without the prior's own term: somewhat below (BIC: above) those of mclust, which has no prior
        unless asked; compare with None.
    tol : float, default 1e-6
        EM stops when both the last gain and the predicted remaining gain (Aitken) of the objective, per unit of weight, are at most this: a
        millionth of a log-likelihood unit a row is far below the noise of any sample.
    max_iter : int, default 1000
        Most evaluations of the EM map after the first; reaching it gives a ConvergenceWarning.
    acceleration : None, "squarem" or "daarem", default None
        How to go faster than EM where it creeps, as with overlapping components: squared extrapolation (Varadhan and Roland 2008) or damped Anderson
        acceleration (Henderson and Varadhan 2019), the faster of the two. A proposal that would lower the objective is taken back, which costs one scan. None is plain EM.
    n_init : int, default 1
        Starts; all advance in the same scans of the table, and the best objective wins. From 65,536 (distinct) rows on they run on a sample of 16,384 in memory; the
        best of each number of components goes on with all rows, and another one too if it is a different optimum that the sample cannot tell from it
        (three standard errors). A larger sample then anticipates where each scan leads, so that a handful of scans are enough.
    init : "kmeans++", "random", (n,) integer labels from 0 to n_components - 1, or a fitted mixture or the folder of a saved one, default "kmeans++"
        How rows of a sample are grouped to start from: around centres drawn by k-means++, or around random rows. With labels EM starts with the
        M-step on them; from a model of the same columns it goes on where that one ended. What the *_init parameters give goes before. Where these lie outside the
        covariance model EM starts at the nearest point of it. Seeded rows are chosen by a hash of their contents, so a column in other units has other starts.
    compress : "auto", True or False, default "auto"
        Whether one scan collapses the table to its distinct rows, weighted by how often they come, which are then fitted in its place: without loss, and as much faster
        as rows are repeated. "auto" does so from 16,384 rows on where at least four are alike on average, as with answers to a questionnaire, small counts and 8-bit images.
        Distinct rows may take 256 MB.
{more}    random_state : int, numpy generator or None
        Seed of the starts. The same seed gives the same fit, whatever the order, the partitions or the repetition of rows.
    executor : None, "local", "dask", scheduler address or distributed.Client
        Where scans run. None is this process, or the open client for a Dask dataframe. "dask" is the open client, or a cluster of local
        processes for the time of the fit."""

PRECISION = """    precision : "double" or "single", default "double"
        "single" keeps gaussian columns and the scan over them in 32 bits, which takes half of the memory and about two thirds of the time; sums stay in 64 bits. A mean
        log density is then off by some 1e-7 and EM stops at gains of less than 1e-6 a row, so parameters are off by up to 1e-4 of a column's deviation. Where components are so tight that more
        would be lost, a scan is done in double precision.
"""
"""Of the mixtures with gaussian columns."""

FITTED = """weights_ : (k,) mixing weights
    log_likelihood_ : float
        Total weighted log density of the table under exactly the reported parameters, in the table's units.
    converged_ : bool
    stopped_because_ : str
        Which stopping rule fired.
    n_iter_, n_maps_ : int
        Steps of the winning start, and evaluations of the EM map: one more, for the start itself.
    n_scans_ : int
        Passes over the table, the profile included, and the one that collapses it; not the steps on the distinct rows after that, which read nothing.
    n_distinct_ : int or None
        Distinct rows that stood for the table; None where it was fitted as it is.
    history_ : DataFrame
        Objective and log-likelihood of every start after every step, by stage (a sample, or all rows), and whether the step was accepted.
    n_features_in_, feature_names_in_ : as in scikit-learn
    model_ : FittedMixture
        The fitted model without scikit-learn: what is saved, and what scores rows."""


def documented(cls: T) -> T:
    """Put the shared parts into a class docstring."""
    more = PRECISION if "precision" in signature(cls).parameters else ""
    cls.__doc__ = (cls.__doc__ or "").replace("{shared}", SHARED.replace("{more}", more)).replace("{fitted}", FITTED)
    return cls

"""python -m bench WORKLOAD: print a table, write bench/results/WORKLOAD.json."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from typing import Any  # noqa: E402

import click  # noqa: E402


@click.group()
def main() -> None:
    """Benchmarks of dask_em, each beside the tool that people would use instead."""


def _numbers(kind: type) -> Any:
    def parse(context: Any, parameter: Any, value: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in value.split(","))

    return parse


_daal4py = click.option(
    "--daal4py", metavar="PYTHON", envvar="BENCH_DAAL4PY", help="a Python that has daal4py, which needs NumPy 1"
)
_rounds = click.option("--rounds", default=3, help="every contestant's turns; medians are told")
_without = click.option("--without", multiple=True, metavar="WHO", help="leave a contestant out; may be repeated")


@main.command()
@click.option("--rows", default=1_000_000)
@click.option("--dim", default=10)
@click.option("--k", default=8)
@click.option("--missing", default=0.0, help="share of missing cells; measured beside the complete table")
@click.option("--threads", default=1, help="of every contestant; with more than one, wall time counts")
@_rounds
@_daal4py
@_without
def gmm(**settings: Any) -> None:
    """Seconds per iteration of a full-covariance mixture, beside scikit-learn, oneDAL and Spark."""
    from bench.gmm import run

    run(model="full", **settings)


@main.command()
@click.option("--rows", default=1_000_000)
@click.option("--dim", default=10)
@click.option("--k", default=8)
@click.option("--threads", default=1)
@_rounds
@_daal4py
@_without
def diagonal(**settings: Any) -> None:
    """The same with diagonal covariances, beside scikit-learn and oneDAL."""
    from bench.gmm import run

    run(model="diag", missing=0.0, **settings)


@main.command()
@click.option("--rows", default=200_000)
@click.option("--items", default=10)
@click.option("--levels", default=4)
@click.option("--k", default=5)
@click.option("--missing", default=0.1, help="share of missing answers")
@_rounds
@click.option("--pypolca", metavar="PYTHON", envvar="BENCH_PYPOLCA", help="a Python 3.12 that has the package polca")
@_without
def classes(**settings: Any) -> None:
    """Seconds per iteration of latent classes, beside pypolca and stepmix."""
    from bench.classes import run

    run(**settings)


@main.command()
@click.option("--scale", default=1.0, help="smaller arrays than usual")
def machine(scale: float) -> None:
    """What one core can do at best: matrix products, reading memory, reading Parquet."""
    from bench.machine import run

    run(scale)


@main.command()
@click.option("--rows", default=1_000_000)
@click.option("--dim", default=10)
@click.option("--missing", default=0.2, help="share of missing cells")
@click.option("--replicates", default=20, help="bootstrap replicates fitted in the same scan")
@click.option("--files", default=0, help="also from so many Parquet files of --rows rows")
def impute(rows: int, dim: int, missing: float, replicates: int, files: int) -> None:
    """A normal with missing cells: one scan and EM, beside scikit-learn's IterativeImputer."""
    from bench.impute import run

    run(rows, dim, missing, replicates, files)


@main.command()
@click.option("--surveys", default=1000)
@click.option("--rows", default=500)
@click.option("--missing", default=0.3, help="share of missing incomes")
@click.option("--m", default=20, help="imputations")
def coverage(surveys: int, rows: int, missing: float, m: int) -> None:
    """How often the pooled 95 % interval of a mean covers the truth, beside listwise deletion."""
    from bench.coverage import run

    run(surveys, rows, missing, m)


@main.command()
@click.option("--rows", default=1_000_000)
@click.option("--dim", default=10)
@click.option("--k", default=8)
@click.option("--n-init", default=5)
@click.option("--tol", default=1e-6)
@click.option("--overlap", default=0.3, help="spread of the means: 1 is that of gmm, smaller ones overlap more")
@_daal4py
def solve(rows: int, dim: int, k: int, n_init: int, tol: float, overlap: float, daal4py: str | None) -> None:
    """Seconds and scans to the best optimum of overlapping components, beside scikit-learn and oneDAL."""
    from bench.solve import run_solve

    run_solve(rows, dim, k, n_init, tol, overlap, daal4py)


@main.command()
@click.option("--rows", default=1_000_000)
@click.option("--dim", default=10)
@click.option("--k", default="2..10", help="numbers of components to try, such as 2..10")
@click.option("--n-init", default=5)
@click.option("--true-k", default=8)
def sweep(rows: int, dim: int, k: str, n_init: int, true_k: int) -> None:
    """Seconds to choose the number of components, and what a scan of all candidates costs."""
    from bench.solve import run_sweep

    low, _, high = k.partition("..")
    run_sweep(rows, dim, (int(low), int(high or low)), n_init, true_k)


@main.command()
@click.option("--rows", default=1_000_000, help="of the smallest table")
@click.option("--dim", default=10)
@click.option("--k", default=8)
@click.option("--factors", default="1,2,4,8", callback=_numbers(int), help="how many times as many rows")
@click.option("--workers", default="1,2", callback=_numbers(int))
@click.option("--blocks", type=click.Choice(["auto", "resident", "mapped", "streamed"]), default="mapped")
@click.option("--steps", default="2,12", callback=_numbers(int), help="low and high number of EM steps")
@click.option("--rounds", default=2)
def scaling(**settings: Any) -> None:
    """Rows x1, x2, x4, x8 and workers x1, x2: time a row and memory a worker."""
    from bench.scaling import run

    run(**settings)


@main.command()
@click.option("--partitions", default="2,16,128,1024,4096", callback=_numbers(int))
@click.option("--workers", default="2,8,32,64", callback=_numbers(int), help="simulated ones, of one thread each")
@click.option("--megabytes", default="0.004,1,16", callback=_numbers(float), help="sizes of the sums")
@click.option("--scans", default=20)
@_rounds
def scheduler(**settings: Any) -> None:
    """What a scan costs beyond its work, against partitions, workers and the size of the sums."""
    from bench.scheduler import run

    run(**settings)


@main.command()
@click.option("--scans", default=2000)
@click.option("--rows", default=2000)
@click.option("--dim", default=3)
@click.option("--k", default=2)
@click.option("--workers", default=2, help="simulated ones, of one thread each")
def soak(**settings: Any) -> None:
    """Many scans of a tiny table: whether they become slower, and how far memory grows."""
    from bench.soak import run

    run(**settings)


@main.command()
@click.option("--rows", default=20_000_000)
@click.option("--dim", default=10)
@click.option("--k", default=8)
@click.option("--workers", default=2, help="processes of one thread each")
@click.option("--memory", default="1GB", help="limit of each worker")
@click.option("--tiers", default="auto,streamed", callback=_numbers(str), help="where blocks are kept")
@click.option("--scans", default=6)
@click.option("--group", default=131_072, help="rows of a row group")
def outofcore(**settings: Any) -> None:
    """A Parquet table that does not fit into memory: seconds a scan, and memory a worker."""
    from bench.outofcore import run

    run(**settings)


@main.command()
@click.option("--megapixels", default=100.0)
@click.option("--k", default=5)
@click.option("--threads", default=2)
@_rounds
@click.option(
    "--path", type=click.Path(exists=True), help="a picture that was made before, by pipelines.generate image"
)
def image(**settings: Any) -> None:
    """A large noisy picture: scan, fit and labels against the bare time of its tiles, beside scikit-learn on a crop."""
    from bench.image import run

    run(**settings)


@main.command()
@click.option("--rows", default=1_000_000)
@_rounds
def operate(**settings: Any) -> None:
    """What checkpoints and integrity checks cost, and how soon a resumed run is at work."""
    from bench.operate import run

    run(**settings)


@main.command()
def figure() -> None:
    """Draw docs/img/benchmarks.svg from what is in bench/results."""
    from bench.figure import draw

    draw()


if __name__ == "__main__":
    main()

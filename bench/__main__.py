"""python -m bench WORKLOAD: print a table, write bench/results/WORKLOAD.json."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import click  # noqa: E402


@click.group()
def main() -> None:
    """Benchmarks of dask_em, each beside the tool that people would use instead."""


@main.command()
@click.option("--rows", default=1_000_000)
@click.option("--dim", default=10)
@click.option("--k", default=8)
@click.option("--missing", default=0.0, help="share of missing cells; measured beside the complete table")
@click.option("--executor", type=click.Choice(["local", "dask"]), default="local")
@click.option("--workers", default=2)
def gmm(rows: int, dim: int, k: int, missing: float, executor: str, workers: int) -> None:
    """Seconds per iteration of a full-covariance mixture, beside scikit-learn."""
    from bench.gmm import run

    run(rows, dim, k, missing, executor, workers)


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
@click.option("--daal4py", metavar="PYTHON", help="also oneDAL, by this Python that has daal4py (and NumPy 1)")
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


@main.command("gmm-memory")
@click.option("--rows", default=1_000_000)
@click.option("--dim", default=10)
@click.option("--k", default=8)
def gmm_memory(rows: int, dim: int, k: int) -> None:
    """Peak memory of a fit beyond the table and one encoded copy, in MB."""
    from bench.gmm import memory

    memory(rows, dim, k)


if __name__ == "__main__":
    main()

"""The command `dask-em`, also reachable as `dask em`: run a job, score a table, inspect a model, check a job file.

Results go to stdout, everything else to stderr; every outcome has its own exit code (dask_em/errors.py), so that a scheduler can
decide about a retry. It must start fast: heavy imports happen inside the verbs.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from dask_em.errors import ConfigurationError, DaskEMError, NotConvergedError, TryAgainError
from dask_em.log import JsonLog, Log
from dask_em.operate.facts import plain
from dask_em.signals import Terminated, stopped_by_signals

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class Group(click.Group):
    """A group whose verbs end with a sentence and an exit code, whoever invokes it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            ctx.obj = Log()
            with stopped_by_signals(), _one_line_warnings(ctx):
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _exit(ctx, INTERRUPTED, "interrupted")
        except Terminated:
            _exit(ctx, TERMINATED, "terminated")
        except Exception as error:
            if ctx.params.get("traceback") or os.environ.get("DASK_EM_TRACEBACK", "0") != "0":
                traceback.print_exc(file=sys.stderr)
            _exit(ctx, *_explained(error))


@click.group(name="em", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--traceback", is_flag=True, help="Show where an error came from (also DASK_EM_TRACEBACK=1).")
@click.version_option(package_name="dask-em", prog_name="dask-em")
def em(traceback: bool) -> None:
    """Expectation-Maximization on dataframes."""


set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, such as level=basket."
)
scheduler_option = click.option("--scheduler", metavar="ADDRESS", help="Work on the cluster of this Dask scheduler.")
insecure_option = click.option(
    "--insecure", is_flag=True, help="Accept an address without encryption, where whoever reaches it can run code."
)


@em.command()
@click.argument("conf", type=click.Path())
@set_option
@scheduler_option
@insecure_option
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="Form of the results on stdout.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of this job was; begin if there is none.")
@click.option("--replace", is_flag=True, help="Take the place of an earlier output, in one step, at the end.")
@click.option("--strict", is_flag=True, help="Exit with 3 if the fit did not converge.")
@click.option(
    "--nothing-to-do-exit", type=click.IntRange(0, 255), default=0, metavar="CODE",
    help="Exit code where this output is there already (99 makes Airflow skip).",
)  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of what goes to stderr.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def run(
    ctx: click.Context,
    conf: str,
    overrides: tuple[str, ...],
    scheduler: str | None,
    insecure: bool,
    output: str,
    dry_run: bool,
    resume: bool,
    replace: bool,
    strict: bool,
    nothing_to_do_exit: int,
    log_format: str,
    quiet: bool,
) -> None:
    """Run the job that CONF describes.

    The same run again is nothing to do. A run that ended with 75, 130 or 143 keeps a checkpoint, with which --resume goes on.
    """
    log = JsonLog() if log_format == "json" else Log()
    assert ctx.parent is not None
    ctx.parent.obj = log
    log.quiet = quiet
    config = _load_job(conf, overrides, scheduler, insecure)
    _check_output(config.output)
    pipeline = importlib.import_module(f"pipelines.{config.pipeline}")
    if dry_run:
        _print_facts(pipeline.plan(config), output)
        return
    from dask_em.operate.run import Manner, NothingToDo

    log.event("started", pipeline=config.pipeline, conf=conf)
    try:
        with log.progress() as progress:
            facts = pipeline.run(config, progress=progress, manner=Manner(resume, replace))
    except NothingToDo as found:
        _print_facts(found.record["facts"], output)
        log.say("note", f"nothing to do: the output is that of run {found.record['run']}")
        _exit(ctx, nothing_to_do_exit)
    _print_facts(facts, output)
    if strict and facts.get("converged") is False:
        raise NotConvergedError("the fit did not converge: raise max_iter or n_init, or loosen tol")
    log.event("ended", exit=0)


@em.command()
@click.argument("model", type=click.Path())
@click.argument("input", type=click.Path())
@click.argument("output", type=click.Path())
@click.option("--key", metavar="COLUMN", help="Column of INPUT that names a row, kept in OUTPUT.")
@scheduler_option
@insecure_option
def predict(model: str, input: str, output: str, key: str | None, scheduler: str | None, insecure: bool) -> None:
    """Score every row of the table INPUT with MODEL, into the Parquet folder OUTPUT."""
    _check_vacant(output)
    from dask_em.scoring import write_scores

    with _cluster(scheduler, insecure) as executor:
        _print_facts(write_scores(model, input, output, key=key, executor=executor), "text")


@em.command()
@click.argument("model", type=click.Path())
@click.argument("input", type=click.Path())
@click.argument("output", type=click.Path())
@click.option("--draws", "m", type=click.IntRange(min=0), default=0, metavar="M", help="Also draw M completed tables.")
@click.option("--layout", type=click.Choice(["long", "folders"]), default="long", help="How draws are laid out.")
@scheduler_option
@insecure_option
def impute(model: str, input: str, output: str, m: int, layout: str, scheduler: str | None, insecure: bool) -> None:
    """Fill the holes of the table INPUT with the imputer MODEL, into the Parquet folder OUTPUT."""
    _check_vacant(output)
    from dask_em.imputation.writing import write_imputed

    with _cluster(scheduler, insecure) as executor:
        _print_facts(write_imputed(model, input, output, m=m, layout=layout, executor=executor), "text")


@em.command()
@click.argument("model", type=click.Path())
def inspect(model: str) -> None:
    """Describe a saved MODEL."""
    from dask_em import load

    click.echo(load(model).summary())


@em.command()
@click.argument("conf", type=click.Path())
@set_option
def validate(conf: str, overrides: tuple[str, ...]) -> None:
    """Check the job file CONF, without running it."""
    config = _load_job(conf, overrides, None)
    click.echo(f"{conf}: a valid {config.pipeline} job")


@em.command()
def schema() -> None:
    """Print the JSON Schema of job files."""
    from dask_em.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def main() -> None:
    """Entry point of the command `dask-em`."""
    try:
        em(prog_name="dask-em")
    except SystemExit as end:
        if end.code in (INTERRUPTED, TERMINATED):
            sys.unraisablehook = lambda _: None  # what Dask leaves half done at its start, it complains of at the exit
        raise


def _load_job(conf: str, overrides: tuple[str, ...], scheduler: str | None, insecure: bool = False) -> Any:
    from dask_em.config import Job, load

    cluster: dict[str, Any] = {"cluster.executor": "dask", "cluster.scheduler": scheduler} if scheduler else {}
    if insecure:
        cluster["cluster.insecure"] = True
    job: Any = Job
    return load(conf, job, overrides, flags={"--scheduler": cluster})


@contextmanager
def _cluster(scheduler: str | None, insecure: bool) -> Iterator[Any]:
    """The executor behind an address; None, which is this process, without one."""
    if scheduler is None:
        yield None
        return
    from pydantic import ValidationError

    from dask_em.config import ClusterConfig
    from pipelines.cluster import open_cluster

    try:
        config = ClusterConfig(executor="dask", scheduler=scheduler, insecure=insecure)
    except ValidationError:
        raise ConfigurationError("--scheduler: is not encrypted: give a tls:// address, or say --insecure") from None
    with open_cluster(config) as executor:
        yield executor


def _check_output(folder: str) -> None:
    # Whether an output that is there is that of this job is known when its inputs are.
    from dask_em.operate.places import place_of

    place = place_of(folder)
    if place.record() is None:
        place.check_vacant()


def _check_vacant(folder: str) -> None:
    # The sinks refuse too, but only after the table was read: refuse before any work.
    from dask_em.data.sinks import check_vacant

    check_vacant(folder)


# Errors and signals


def _exit(ctx: click.Context, code: int, message: str | None = None) -> NoReturn:
    """End with an exit code, and say why."""
    log = ctx.find_object(Log) or Log()
    if message is not None:
        log.say("error", message)
    log.event("ended", exit=code)
    ctx.exit(code)


def _explained(error: Exception) -> tuple[int, str]:
    """What went wrong: the exit code that it means, and a sentence."""
    if isinstance(error, DaskEMError):
        return error.exit_code, str(error)
    name = type(error).__name__
    if _cluster_failed(error):
        return (
            TryAgainError.exit_code,
            f"the cluster was lost or cannot be reached ({name}): check the scheduler, then run this again",
        )
    return (
        DaskEMError.exit_code,
        f"this is a bug ({name}): run again with DASK_EM_TRACEBACK=1 to see where, and report it",
    )


def _cluster_failed(error: Exception) -> bool:
    """Whether Dask's own machinery raised, rather than a task of ours on a worker or a file of the user."""
    if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith("distributed"):
        return True
    end = error.__traceback__
    while end is not None and end.tb_next is not None:
        end = end.tb_next
    where = str(end.tb_frame.f_globals.get("__name__", "")) if end is not None else ""
    return isinstance(error, OSError) and where.startswith("distributed")


@contextmanager
def _one_line_warnings(ctx: click.Context) -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        ctx.obj.say("warning", str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


# Results


def _print_facts(facts: dict[str, Any], form: str) -> None:
    told = plain(facts)
    click.echo(json.dumps(told, allow_nan=False) if form == "json" else "\n".join(_text(told)))


def _text(facts: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Facts as lines: a name and a value, lists of records as small tables."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}"
            yield from _text(value, indent + "  ")
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            yield f"{indent}{name}"
            yield from _table(value, indent + "  ")
        else:
            yield f"{indent}{name:<{width}}  {_cell(value)}"


def _table(rows: list[dict[str, Any]], indent: str) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield indent + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.8g}"
    return ", ".join(map(_cell, value)) if isinstance(value, list) else str(value)


from dask_em import cli_submit  # noqa: E402, F401 - its verbs are of this command

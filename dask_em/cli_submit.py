"""The verbs for runs whose driver is on the cluster: submit one, ask how it goes, read its log, cancel it. What they do is in dask_em/operate/submission.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dask_em.cli import _load_job, _print_facts, em, insecure_option, set_option
from dask_em.errors import ConfigurationError
from dask_em.redaction import redacted

OURS = ("--output", "json", "--log-format", "json")

cluster_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    required=True,
    envvar="DASK_SCHEDULER_ADDRESS",
    show_envvar=True,
    help="The cluster's Dask scheduler.",
)
form_option = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the results on stdout."
)
run_argument = click.argument("run_id", metavar="RUN")


@em.command()
@click.argument("conf", type=click.Path())
@set_option
@cluster_option
@insecure_option
@form_option
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of this job was; begin if there is none.")
@click.option("--replace", is_flag=True, help="Take the place of an earlier output, in one step, at the end.")
@click.option("--strict", is_flag=True, help="Exit code 3 if the fit did not converge.")
def submit(
    conf: str,
    overrides: tuple[str, ...],
    scheduler: str,
    insecure: bool,
    output: str,
    resume: bool,
    replace: bool,
    strict: bool,
) -> None:
    """Let the cluster run the job that CONF describes, from its driver on, and print the id of the run.

    This machine may leave at once. Files are those that the workers see under these names, and their secrets those of the workers' environment.
    """
    config = _load_job(conf, overrides, scheduler, insecure)
    files = config.cluster.security and config.cluster.security.model_dump()
    # The worker has certificates of its own.
    settings = [word for override in (*overrides, "cluster.security=null") for word in ("--set", override)]
    chosen = {"--insecure": insecure, "--resume": resume, "--replace": replace, "--strict": strict}
    flags = [flag for flag, wanted in chosen.items() if wanted]
    from dask_em.execution.remote import connected
    from dask_em.operate import submission

    about = {"job": Path(conf).name, "pipeline": config.pipeline, "output": config.output}
    with connected(scheduler, files) as board:
        run_id = submission.submit(board, Path(conf).read_text("utf-8-sig"), [*settings, *flags, *OURS], about)
    click.echo(json.dumps({"run": run_id}) if output == "json" else run_id)


@em.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@cluster_option
@insecure_option
@form_option
@click.option("--wait", is_flag=True, help="Wait for the end of the run, and exit with its own code.")
@click.pass_context
def status(ctx: click.Context, run_id: str | None, scheduler: str, insecure: bool, output: str, wait: bool) -> None:
    """Tell how a submitted RUN is doing, or list all that the scheduler knows."""
    if wait and run_id is None:
        raise ConfigurationError("--wait needs the id of a run: name one")
    from dask_em.operate import submission

    with _board(scheduler, insecure) as board:
        if run_id is None:
            runs = list(submission.status(board).values())
        else:
            runs = [submission.wait(board, run_id) if wait else submission.status(board, run_id)[run_id]]
    if run_id is None:
        short = [{name: run.get(name) for name in ("run", "state", "exit", "submitted", "job")} for run in runs]
        _print_facts({"runs": runs if output == "json" else short}, output)
        return
    _print_facts(runs[0], output)
    if wait:
        ctx.exit(runs[0].get("exit", 143))


@em.command()
@run_argument
@cluster_option
@insecure_option
@click.option("--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="Lines for people, or as they are.")
def logs(run_id: str, scheduler: str, insecure: bool, follow: bool, output: str) -> None:
    """Print the last lines of the log of a submitted RUN."""
    from dask_em.operate import submission

    form: Callable[[str], str] = str if output == "json" else told
    with _board(scheduler, insecure) as board:
        for line in submission.log(board, run_id, follow=follow):
            click.echo(form(line))


@em.command()
@run_argument
@cluster_option
@insecure_option
@form_option
def cancel(run_id: str, scheduler: str, insecure: bool, output: str) -> None:
    """End a submitted RUN; its checkpoint is kept."""
    from dask_em.operate import submission

    with _board(scheduler, insecure) as board:
        _print_facts(submission.cancel(board, run_id), output)


@contextmanager
def _board(scheduler: str, insecure: bool) -> Iterator[Any]:
    if not insecure and not scheduler.startswith(("tls://", "wss://")):
        raise ConfigurationError(
            f"scheduler {redacted(scheduler)} is not encrypted: give a tls:// address, or say --insecure"
        )
    from dask_em.execution.remote import connected

    with connected(scheduler) as board:
        yield board


def told(line: str) -> str:
    """A line of JSON as people read it."""
    try:
        facts = json.loads(line)
        time, event = facts.pop("time"), facts.pop("event")
    except (ValueError, TypeError, AttributeError, KeyError):
        return line
    if event == "message":
        return f"{time} {facts['level']}: {facts['message']}"
    return " ".join([time, event, *(f"{name}={value}" for name, value in facts.items())])

"""The command line as its users meet it: real processes, their exit codes, and what is on stdout and on stderr."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dask_em
from dask_em.cli import em

BIN = Path(sys.executable).parent

COINS = """\
pipeline: coin_flips
output: out
one_coin: {flips: [1, 0, null], start: 0.5, n_steps: 3}
two_coins: {tosses: 10, heads: [5, 9], start: [0.6, 0.5], n_steps: 2}
"""

SEGMENTS = """\
pipeline: customer_segmentation
level: people
output: out
levels:
  people:
    source: {kind: table, path: people.csv}
    key: id
    n_components: [2]
    model: {gaussian: [spend]}
"""

PLAIN = """
from types import SimpleNamespace
import numpy as np

def plan(config):
    return {"steps": config.one_coin.n_steps}

def run(config, *, progress, manner):
    progress(SimpleNamespace(scan=1, candidates=2, objective=-1.5, message="scan 1: all is well", done=False))
    progress(SimpleNamespace(scan=2, candidates=2, objective=-1.3, message="too soon for a log", done=False))
    progress(SimpleNamespace(scan=3, candidates=1, objective=-1.25, message="", done=True))
    return {
        "pi": np.float64(0.6), "steps": np.arange(2), "none": float("nan"), "converged": False,
        "where": {"folder": config.output}, "segments": [{"size": 3, "share": 0.25}, {"size": 10, "share": 0.75}],
    }
"""


@pytest.fixture
def command(tmp_path):
    """Run dask-em in an empty folder, with a pipeline of a few lines in the place of the installed ones."""
    (tmp_path / "coins.yaml").write_text(COINS)
    (tmp_path / "segments.yaml").write_text(SEGMENTS)
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").touch()

    def start(*arguments: str, body: str = PLAIN, **options) -> subprocess.Popen[str]:
        for name in ("coin_flips", "customer_segmentation"):
            (tmp_path / "pipelines" / f"{name}.py").write_text(textwrap.dedent(body))
        environment = os.environ | {"PYTHONPATH": str(tmp_path)} | options.pop("env", {})
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([BIN / "dask-em", *arguments], cwd=tmp_path, text=True, env=environment, **streams)

    return start


@pytest.fixture
def finished(command):
    def run(*arguments: str, **options) -> tuple[int, str, str]:
        process = command(*arguments, **options)
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr

    return run


def raising(statement: str, imports: str = "") -> str:
    return f"{imports}\ndef run(config, *, progress, manner):\n    {statement}\n"


def test_nothing_heavy_is_imported_at_the_start():
    heavy = "{'pandas', 'numpy', 'pyarrow', 'sklearn', 'dask', 'distributed', 'pydantic', 'rich'}"
    code = f"import sys, dask_em.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_json_results_are_one_object_on_the_last_line_of_stdout(finished):
    code, stdout, stderr = finished("run", "coins.yaml", "--output", "json")
    assert code == 0
    assert json.loads(stdout.splitlines()[-1]) == {
        "pi": 0.6,
        "steps": [0, 1],
        "none": None,
        "converged": False,
        "where": {"folder": "out"},
        "segments": [{"size": 3, "share": 0.25}, {"size": 10, "share": 0.75}],
    }
    assert stderr.splitlines() == ["scan 1: all is well", "scan 3  1 candidates  objective -1.25"]


def test_text_results_and_no_progress_when_quiet(finished):
    code, stdout, stderr = finished("run", "coins.yaml", "--quiet")
    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == [
        "pi         0.6",
        "steps      0, 1",
        "none       -",
        "converged  False",
        "where",
        "  folder  out",
        "segments",
        "  size  share",
        "     3   0.25",
        "    10   0.75",
    ]


@pytest.mark.parametrize("colour", [True, False])
def test_progress_on_a_terminal(finished, colour):
    master, terminal = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "80"} | ({} if colour else {"NO_COLOR": "1"})
    code, stdout, _ = finished("run", "coins.yaml", stderr=terminal, env=environment)
    os.close(terminal)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert code == 0
    assert "objective -1.25" in shown
    assert ("\x1b[" in shown) == colour  # a bar that redraws itself, or plain lines
    assert "\x1b" not in stdout


def test_a_dry_run_prints_the_plan_only(finished, tmp_path):
    code, stdout, stderr = finished("run", "coins.yaml", "--dry-run", "--set", "one_coin.n_steps=7")
    assert (code, stdout, stderr) == (0, "steps  7\n", "")
    assert not (tmp_path / "out").exists()


def test_strict_turns_a_fit_that_did_not_converge_into_an_error(finished):
    code, stdout, stderr = finished("run", "coins.yaml", "--strict", "--quiet", "--output", "json")
    assert code == 3
    assert json.loads(stdout)["converged"] is False
    assert stderr == "dask-em: error: the fit did not converge: raise max_iter or n_init, or loosen tol\n"
    assert (
        finished("run", "coins.yaml", "--strict", body=PLAIN.replace('"converged": False', '"converged": True'))[0] == 0
    )


def test_mistakes_of_the_job_are_usage_errors_one_a_line(finished, tmp_path):
    (tmp_path / "coins.yaml").write_text(COINS.replace("output", "ouput"))
    code, stdout, stderr = finished("run", "coins.yaml", "--set", "one_coin.start=9")
    assert (code, stdout) == (2, "")
    assert stderr.splitlines() == [
        "dask-em: error: coins.yaml:1:1: output: this key is required",
        "dask-em: error: coins.yaml:2:1: ouput: unknown key; did you mean 'output'?",
        "dask-em: error: --set one_coin.start: must be less than 1",
    ]


@pytest.mark.parametrize("arguments", [("run",), ("run", "coins.yaml", "--quite"), ("rum", "coins.yaml")])
def test_usage_errors_are_two(finished, arguments):
    code, stdout, stderr = finished(*arguments)
    assert (code, stdout) == (2, "")
    assert "Traceback" not in stderr


@pytest.mark.parametrize("verb", ["run", "predict"])
def test_an_output_folder_in_use_is_refused_before_any_work(finished, tmp_path, verb):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").touch()
    arguments = ("coins.yaml",) if verb == "run" else ("no-model", "no-table", "out")
    code, stdout, stderr = finished(verb, *arguments, body="raise SystemExit('work was done')")
    assert (code, stdout) == (5, "")
    assert stderr == "dask-em: error: output folder out is not empty: choose another, or remove it first\n"
    assert (tmp_path / "out" / "precious.txt").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [("ConfigurationError", 2), ("DataError", 4), ("OutputError", 5), ("TryAgainError", 75), ("DaskEMError", 1)],
)
def test_our_errors_are_one_line_and_their_exit_code(finished, error, code):
    body = raising(f"raise {error}('column x is empty: fill it')", f"from dask_em.errors import {error}")
    assert finished("run", "coins.yaml", body=body) == (code, "", "dask-em: error: column x is empty: fill it\n")


@pytest.mark.parametrize("statement", ["{}['anna.smith']", "raise OSError('anna.smith')", "open('anna.smith')"])
def test_a_bug_is_one_line_without_values_and_a_traceback_on_request(finished, statement):
    code, _, stderr = finished("run", "coins.yaml", body=raising(statement))
    assert code == 1
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("dask-em: error: this is a bug (")
    assert "anna" not in stderr
    for arguments, environment in ((("--traceback",), {}), ((), {"DASK_EM_TRACEBACK": "1"})):
        code, _, stderr = finished(*arguments, "run", "coins.yaml", body=raising(statement), env=environment)
        assert code == 1
        assert "Traceback (most recent call last)" in stderr


@pytest.mark.parametrize(
    "statement",
    [
        "raise ConnectionResetError()",
        "raise TimeoutError()",
        "from distributed import KilledWorker as K; raise K('t', None, 3)",
    ],
)
def test_a_lost_cluster_is_worth_another_try(finished, statement):
    code, _, stderr = finished("run", "coins.yaml", body=raising(statement))
    assert code == 75
    assert stderr.startswith("dask-em: error: the cluster was lost or cannot be reached (")
    assert len(stderr.splitlines()) == 1


def test_a_scheduler_that_is_not_there_is_worth_another_try(finished):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        body = raising("Client(config.cluster.scheduler)", "from distributed import Client")
        environment = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
        options = "--scheduler", address, "--insecure"
        code, _, stderr = finished("run", "segments.yaml", *options, body=body, env=environment)
    assert code == 75
    assert stderr.splitlines()[-1].startswith("dask-em: error: the cluster was lost or cannot be reached (OSError)")


def test_a_scheduler_without_encryption_is_a_usage_error(finished):
    code, _, stderr = finished("run", "segments.yaml", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2
    assert "--scheduler: cluster.scheduler: is not encrypted: give a tls:// address" in stderr


def test_a_scheduler_for_a_job_without_a_cluster_is_a_usage_error(finished):
    code, _, stderr = finished("run", "coins.yaml", "--scheduler", "tls://127.0.0.1:1")
    assert code == 2
    assert stderr.startswith("dask-em: error: --scheduler: cluster: unknown key")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_unwind_and_have_their_exit_codes(command, tmp_path, number, code, word):
    body = """
    import pathlib, time
    def run(config, *, progress, manner):
        try:
            print("working", flush=True)
            time.sleep(60)
        finally:
            pathlib.Path("tidied").touch()
    """
    process = command("run", "coins.yaml", body=body)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (code, f"dask-em: error: {word}\n")
    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("drops", ["gc.callbacks.append(arrives)", "Garbage.__del__ = arrives"])
def test_no_signal_is_lost_where_python_drops_what_is_raised(finished, number, code, word, drops):
    """Dask looks at every garbage collection, and its futures end in destructors: nothing that is raised there goes further."""
    body = f"""
    import atexit, gc, signal, time

    def arrives(*_):
        gc.callbacks.clear()
        signal.raise_signal({int(number)})

    class Garbage: ...

    def run(config, *, progress, manner):
        atexit.register(lambda: 1 / 0)
        {drops}
        garbage = Garbage()
        del garbage
        gc.collect()
        time.sleep(60)
    """
    assert finished("run", "coins.yaml", body=body)[::2] == (code, f"dask-em: error: {word}\n")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_that_arrives_just_before_a_wait_ends_it(finished, number, code, word):
    """Python looks for signals between calls of its own, and once a wait is interrupted: nothing here runs between the two calls."""
    body = f"""
    import ctypes, functools, operator, time
    def run(config, *, progress, manner):
        arrives = functools.partial(getattr(ctypes.CDLL(None), "raise"), {int(number)})
        list(map(operator.call, [arrives, functools.partial(time.sleep, 600)]))
    """
    assert finished("run", "coins.yaml", body=body)[::2] == (code, f"dask-em: error: {word}\n")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_waits_until_a_compiled_module_is_imported(finished, number, code, word, tmp_path):
    """Such modules make another error of what is raised in them, and may abort at the end."""
    body = f"""
    import importlib.abc, pathlib, signal, sys, time

    class Arrives(importlib.abc.MetaPathFinder):
        compiled = None

        def find_spec(self, name, path=None, target=None):
            frame = sys._getframe()
            while frame is not None and self.compiled is None:
                if frame.f_code.co_qualname == "ExtensionFileLoader.exec_module":
                    self.compiled = frame.f_locals["module"].__name__
                    signal.raise_signal({int(number)})
                    time.sleep(0.2)
                frame = frame.f_back

    def run(config, *, progress, manner):
        arrives = Arrives()
        sys.meta_path.insert(0, arrives)
        try:
            import pandas
            time.sleep(60)
        finally:
            if arrives.compiled in sys.modules:
                pathlib.Path("whole").touch()
    """
    assert finished("run", "coins.yaml", body=body)[::2] == (code, f"dask-em: error: {word}\n")
    assert (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_that_a_library_swallows_is_raised_again(finished, number, code, word, tmp_path):
    """But not in what is done because of it."""
    body = f"""
    import pathlib, signal, time
    def run(config, *, progress, manner):
        try:
            try:
                signal.raise_signal({int(number)})
            except:
                pass
            time.sleep(600)
        finally:
            time.sleep(0.3)
            pathlib.Path("tidied").touch()
    """
    assert finished("run", "coins.yaml", body=body)[::2] == (code, f"dask-em: error: {word}\n")
    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_does_not_wait_for_other_modules(finished, number, code, word, tmp_path):
    (tmp_path / "slow.py").write_text(f"import signal, time\nsignal.raise_signal({int(number)})\ntime.sleep(600)\n")
    body = "def run(config, *, progress, manner):\n    import slow\n"
    assert finished("run", "coins.yaml", body=body)[::2] == (code, f"dask-em: error: {word}\n")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_error_that_was_made_of_a_signal_is_told_as_the_signal(finished, number, code, word):
    body = f"""
    import signal
    def run(config, *, progress, manner):
        try:
            signal.raise_signal({int(number)})
        except BaseException:
            raise ImportError("numpy failed to import")
    """
    assert finished("run", "coins.yaml", body=body)[::2] == (code, f"dask-em: error: {word}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_that_is_ignored_stays_so(finished, number):
    """A shell lets what it starts in the background ignore the interrupts of the terminal."""
    body = f"""
    import signal
    def run(config, *, progress, manner):
        signal.raise_signal({int(number)})
        return {{"went": "on"}}
    """
    before = signal.signal(number, signal.SIG_IGN)
    try:
        code, stdout, stderr = finished("run", "coins.yaml", body=body)
    finally:
        signal.signal(number, before)
    assert (code, stderr) == (0, "")
    assert "on" in stdout


def test_a_signal_that_is_dropped_at_the_end_stays_within_the_command():
    """Here it is invoked in this process, which gets its handlers and its hook back."""

    @em.command("drop")
    def drop() -> None:
        class Garbage:
            def __del__(self) -> None:
                signal.raise_signal(signal.SIGTERM)

        garbage = Garbage()
        del garbage

    def own() -> tuple[Any, ...]:
        return sys.unraisablehook, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    before = own()
    try:
        found = CliRunner().invoke(em, ["drop"])
    finally:
        del em.commands["drop"]
    assert (found.exit_code, found.stderr) == (143, "dask-em: error: terminated\n")
    assert own() == before


def test_warnings_are_one_line_on_stderr(finished):
    body = """
    import warnings
    from dask_em.errors import ConvergenceWarning
    def run(config, *, progress, manner):
        warnings.warn("a start was dropped", ConvergenceWarning)
        return {"done": True}
    """
    assert finished("run", "coins.yaml", body=body) == (0, "done  True\n", "dask-em: warning: a start was dropped\n")


def test_validate_says_yes_or_where_not(finished):
    assert finished("validate", "coins.yaml") == (0, "coins.yaml: a valid coin_flips job\n", "")
    code, _, stderr = finished("validate", "coins.yaml", "--set", "output=3")
    assert (code, stderr) == (2, "dask-em: error: --set output: must be a valid string\n")


def test_predict_writes_what_the_model_says(finished, tmp_path):
    centre = np.repeat([0.0, 10.0], 20)
    table = pd.DataFrame({"id": np.arange(40) + 2**60, "x": centre + np.linspace(-1, 1, 40)})
    table.to_csv(tmp_path / "table.csv", index=False)
    model = dask_em.GaussianMixture(2, random_state=0).fit(table[["x"]])
    dask_em.save(model, tmp_path / "model")
    code, stdout, stderr = finished("predict", "model", "table.csv", "scored", "--key", "id")
    assert (code, stderr) == (0, "")
    assert "rows      40" in stdout.splitlines()
    scored = pd.read_parquet(tmp_path / "scored").set_index("id")
    assert scored["segment"].reindex(table["id"]).tolist() == model.predict(table[["x"]]).tolist()


def test_a_model_that_is_not_there_is_no_bug(finished):
    code, stdout, stderr = finished("inspect", "no-model")
    assert code in (2, 4)
    assert stdout == ""
    assert len(stderr.splitlines()) == 1


def test_the_verbs_are_reachable_through_dask(tmp_path):
    (tmp_path / "coins.yaml").write_text(COINS.replace("0.5, n_steps", "5, n_steps"))
    done = subprocess.run([BIN / "dask", "em", "validate", "coins.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "dask-em: error: coins.yaml:3:40: one_coin.start: must be less than 1\n"

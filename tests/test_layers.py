"""Imports point down: cli -> estimators, search, report -> em | data | execution -> mixture -> families -> errors.

Read from the sources, imports inside functions included, and then tried in processes where what a layer must not need is not there.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HEIGHT = {
    "disclosure": 0,
    "errors": 0,
    "randomness": 0,
    "redaction": 0,
    "priors": 1,
    "compiled": 1,
    "compiled_sums": 1,
    "families": 1,
    "kernels": 1,
    "checksum": 2,
    "scan": 2,
    "mixture": 2,
    "normal": 2,
    "em": 3,
    "data": 3,
    "execution": 3,
    "model": 4,
    "few_scans": 4,
    "specification": 4,
    "fitting": 4,
    "normal_fitting": 4,
    "images": 4,
    "imputation": 4,
    "inference": 4,
    "scoring": 4,
    "segments": 4,
    "search": 4,
    "artifact": 4,
    "estimators": 4,
    "report": 4,
    "config": 4,
    "config_base": 4,
    "config_cluster": 4,
    "config_loader": 4,
    "config_yaml": 4,
    "operate": 4,
    "log": 4,
    "signals": 4,
    "cli": 5,
    "cli_driver": 5,
    "cli_submit": 5,
    "pipelines": 5,
}
"""Of every module or subpackage: it may import what is lower, and itself.

What has the same height may import each other, but for em, data and execution.
"""

ALLOWED = {
    "disclosure": {"numpy"},
    "errors": set(),
    "randomness": {"numpy"},
    "redaction": set(),
    "priors": {"numpy"},
    "normal": {"numpy"},
    "families": {"numpy"},
    "kernels": {"numpy"},
    "checksum": {"numpy"},
    "compiled": {"numpy", "numba"},
    "compiled_sums": {"numpy", "numba", "llvmlite"},
    "scan": {"numpy"},
    "mixture": {"numpy"},
    "em": {"numpy"},
    "data": {"numpy", "scipy", "pandas", "pyarrow", "fsspec"},
    "data/raster_files.py": {"numpy", "tifffile", "zarr", "PIL", "imageio"},
    "execution": {"threadpoolctl"},
    "execution/choose.py": {"distributed"},
    "execution/cluster.py": {"dask", "distributed"},
    "execution/cluster_class.py": {"dask", "distributed"},
    "execution/dask.py": {"distributed"},
    "execution/frames.py": {"dask", "distributed"},
    "execution/quiet.py": {"distributed"},
    "execution/tasks.py": {"dask", "distributed"},
    "execution/watch.py": {"distributed"},
    "execution/blame.py": {"distributed", "psutil"},
    "execution/remote.py": {"dask", "distributed"},
}
"""Packages that a low layer may import: pandas and pyarrow stop in data, Dask stops in execution."""

BLOCKED = ("pandas", "pyarrow", "dask", "distributed", "sklearn", "scipy", "matplotlib", "pydantic", "click", "rich")


def sources() -> dict[str, Path]:
    """Every file by its path below the package, and the pipelines by theirs below the root."""
    package = ROOT / "dask_em"
    own = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return own | {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "pipelines").rglob("*.py")}


def layer(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all imports of a file, wherever they stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(name for name in sources() if name != "__init__.py")


def test_every_module_has_a_height() -> None:
    assert {layer(name) for name in FILES} <= set(HEIGHT)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name: str) -> None:
    own = layer(name)
    for imported in imports(sources()[name]):
        parts = imported.split(".")
        if parts[0] == "pipelines":
            assert own in ("pipelines", "cli"), f"{name} imports {imported}"
            continue
        if parts[0] != "dask_em":
            continue
        other = parts[1] if len(parts) > 1 and parts[1] in HEIGHT else None
        if other is None:
            assert HEIGHT[own] >= 4, f"{name} imports the names of the whole package"
        elif other != own:
            beside = HEIGHT[own] == HEIGHT[other] and HEIGHT[own] != 3
            assert HEIGHT[other] < HEIGHT[own] or beside, f"{name} imports {imported}"


@pytest.mark.parametrize("name", [n for n in FILES if layer(n) in ALLOWED])
def test_low_layers_need_few_packages(name: str) -> None:
    allowed = ALLOWED[layer(name)] | ALLOWED.get(name, set())
    used = {imported.split(".")[0] for imported in imports(sources()[name])} - set(sys.stdlib_module_names)
    assert used - {"dask_em"} <= allowed


def test_dask_stops_in_one_place() -> None:
    users = {
        name for name in FILES if {i.split(".")[0] for i in imports(sources()[name])} & {"dask", "distributed"}
    } - {"pipelines/data.py", "log.py"}  # one rolls its table up with Dask, as a user would; one says how Dask logs
    assert users == {name for name, packages in ALLOWED.items() if packages & {"dask", "distributed"}}


# --- in processes where the packages are not there ---------------------------------------------------------------


def run(code: str, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    # None in sys.modules makes an import fail as if the package were not installed.
    prologue = f"import sys\nfor name in {blocked!r}:\n    sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", prologue + code], capture_output=True, text=True, cwd=ROOT)


EM_ON_ARRAYS = """
import numpy as np
from dask_em.em import loop, seeding
from dask_em.em.stopping import Verdict
from dask_em.families import Gaussian, Poisson
from dask_em.mixture import Mixture
from dask_em.scan import Block

rng = np.random.default_rng(0)
x = np.concatenate([rng.standard_normal((2, 60)), rng.standard_normal((2, 40)) + 4], axis=1)
y = rng.poisson(np.repeat([[1.0, 5.0]], [60, 40], axis=1)).astype(float)
block = Block((x, y), np.ones(100), np.zeros(100), np.ones((1, 2), bool), np.array([0, 100]), None)
mixture = Mixture((Gaussian("VVV", 2, 1.0), Poisson((2.6,), 1.0)), np.ones((1, 2), bool))
labels = seeding.labels(mixture.families, block, 2, "kmeans++", rng)
block = Block(block.values, block.weight, block.base, block.observed, block.runs, labels[None])
state = loop.start(loop.Settings(mixture, 100.0, 1e-8, 100), [2], None)
while not state.done:
    state = loop.tell(state, loop.ask(state)(block))
assert state.candidates[0].verdict is Verdict.TOLERANCE, state.candidates[0].verdict
print(sorted(state.candidates[0].parameters.weights.round(1)))
"""


def test_em_runs_where_there_is_only_numpy() -> None:
    done = run(EM_ON_ARRAYS, (*BLOCKED, "threadpoolctl", "fsspec", "numba"))
    assert done.returncode == 0, done.stderr
    assert "0.4" in done.stdout
    assert "0.6" in done.stdout


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        ("families scan mixture em em.loop em.seeding em.stopping", (*BLOCKED, "threadpoolctl", "fsspec")),
        ("execution execution.base execution.local execution.tree execution.threads execution.choose", BLOCKED),
        (
            "data data.columns data.encode data.profile data.schema data.sinks data.sources",
            ("dask", "distributed", "sklearn", "matplotlib", "pydantic", "click", "threadpoolctl"),
        ),
        ("model fitting scoring artifact", ("dask", "distributed", "sklearn", "matplotlib", "pydantic", "click")),
        ("estimators search segments", ("dask", "distributed", "matplotlib", "jinja2", "pydantic", "click")),
        ("config", ("dask", "distributed", "sklearn", "pandas", "pyarrow", "numpy", "matplotlib", "click")),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_layer_can_be_imported_without(modules: str, blocked: tuple[str, ...]) -> None:
    done = run("\n".join(f"import dask_em.{name}" for name in modules.split()), blocked)
    assert done.returncode == 0, done.stderr


def test_a_fit_needs_no_dask() -> None:
    code = """
import numpy as np, pandas as pd
from dask_em import GaussianMixture
x = pd.DataFrame({"x": np.r_[np.arange(9.0), 100 + np.arange(9.0)]})
print(sorted(GaussianMixture(2, random_state=0).fit(x).predict(x).value_counts()))
"""
    done = run(code, ("dask", "distributed", "matplotlib", "jinja2", "pydantic", "click"))
    assert (done.returncode, done.stdout) == (0, "[9, 9]\n"), done.stderr


def test_importing_the_package_is_light() -> None:
    heavy = {*BLOCKED, "numpy", "numba"}
    code = f"import dask_em\nassert dask_em.__version__ and 'load' in dir(dask_em)\nprint(sorted({heavy!r} & set(sys.modules)))"
    assert run(code).stdout == "[]\n"
    # And a name brings what it needs, but neither Dask nor figures.
    used = run(
        "import dask_em\ndask_em.GaussianMixture\nprint(sorted({'dask', 'distributed', 'matplotlib'} & set(sys.modules)))"
    )
    assert used.stdout == "[]\n", used.stderr


def test_the_block_blocks() -> None:
    """If it did not, the tests above would prove nothing."""
    assert "ModuleNotFoundError" in run("import dask_em.data.sources", ("pyarrow",)).stderr
    assert "ModuleNotFoundError" in run("import dask_em.execution.dask", ("dask",)).stderr

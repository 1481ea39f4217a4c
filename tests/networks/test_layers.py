"""The house: imports point down the layers, nothing is private, importing changes nothing and costs
little.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import vaejax
from tests.lib.paths import ROOT

LAYERS = (
    ("_values", "types"),
    ("_gemm", "supports", "interrupts", "noise", "pareto", "representation", "sample_quality"),
    ("data", "distributions", "networks", "baselines"),
    ("events", "sphere", "flows", "groups"),
    ("divergences", "conditionals", "graphs"),
    ("priors",),
    ("models",),
    ("elbo",),
    ("estimators", "gaussian", "score_function", "schedules", "by_node", "ais"),
    ("discrete",),
    ("objectives", "hierarchical", "inference", "bayes"),
    ("evaluation", "checkpoints", "cost"),
    ("independence", "training", "plots", "total_variance", "gap", "latent_space"),
    ("variance",),
    ("seeds",),
)
ROOT = Path(vaejax.__file__).parent
MODULES = sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "__init__")


def layer(module):
    return next(i for i, names in enumerate(LAYERS) if module in names)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_a_layer():
    assert sorted(name for names in LAYERS for name in names) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for name in imports(ROOT / f"{module}.py"):
        assert (
            "jax._src" not in name
            and "tensorflow_probability" not in name
            and "distrax" not in name
        )
        if name.startswith("vaejax"):
            other = name.split(".")[1]
            assert layer(other) < layer(module), f"{module} imports {other}, which is not below it"


FORBIDDEN = {"eval", "exec", "pickle", "dill", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("*.py"), *(ROOT.parent / "experiments").glob("*.py")]),
    ids=lambda path: path.name,
)
def test_no_file_that_is_loaded_can_run_code(path):
    tree = ast.parse(path.read_text())
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not FORBIDDEN & (called | {name.split(".")[0] for name in imports(path)})
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            assert isinstance(node.value, ast.Constant) and node.value.value is False


IMPORT = """
import json, sys, time
import jax, jax.numpy, flax.linen
before = {name: getattr(jax.config, name) for name in ("jax_enable_x64", "jax_numpy_rank_promotion", "jax_debug_nans", "jax_platforms")}
began = time.process_time()
import vaejax
seconds = time.process_time() - began
after = {name: getattr(jax.config, name) for name in before}
heavy = [name for name in ("tensorflow_datasets", "tensorflow", "matplotlib", "torch", "blackjax") if name in sys.modules]
print(json.dumps({"seconds": seconds, "changed": before != after, "heavy": heavy}))
"""


def test_importing_changes_nothing_and_takes_at_most_a_second():
    """Processor time beyond JAX and Flax, the least of three: what else runs on the machine is not
    the import's.
    """
    for _ in range(3):
        result = json.loads(
            subprocess.run(
                [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
            ).stdout
        )
        assert not result["changed"] and result["heavy"] == []
        if result["seconds"] < 1.0:
            return
    pytest.fail(f"importing vaejax took {result['seconds']:.2f} s in the last of three runs")


def test_the_table_of_contents_is_whole():
    """Every public name of vaejax.__init__ is re-exported as itself, for type checkers."""
    for node in ast.parse((ROOT / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)
    for name in vars(vaejax):
        if not name.startswith("_") and callable(getattr(vaejax, name)):
            assert getattr(vaejax, name).__doc__, f"vaejax.{name} has no docstring"

"""The laws of the house, read off the code: wings, names, lengths, and nothing that is sniffed."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import EXPERIMENTS, ROOT

WINGS = (
    "base",
    "networks",
    "distributions",
    "data",
    "models",
    "bounds",
    "estimators",
    "objectives",
    "inference",
    "training",
    "evaluation",
    "variance",
    "plots",
    "runs",
)
PACKAGE = ROOT / "vaejax"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
MODULES = {str(path.relative_to(ROOT).with_suffix("")).replace("/", "."): path for path in FILES}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
LONGEST_FILE = 310
LONGEST_FUNCTION = 70  # lines without the docstring


def wing(module: str) -> str:
    return module.split(".")[1]


def imported(tree: ast.Module) -> set[str]:
    """The modules of the package that a module imports."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "vaejax":
            modules |= {f"vaejax.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaejax."):
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name.startswith("vaejax.")}
    return modules


def test_every_module_is_in_a_wing():
    assert {wing(module) for module in MODULES} - {"__main__"} == set(WINGS)


@pytest.mark.parametrize("module", cases([name for name in MODULES if wing(name) in WINGS]))
def test_imports_point_down(module):
    """A wing imports itself and those before it."""
    floor = WINGS.index(wing(module))
    for name in imported(TREES[module]):
        assert WINGS.index(wing(name)) <= floor, f"{module} imports {name}, which is above it"


def test_no_circle_of_modules():
    """Each module can be imported first."""
    from graphlib import TopologicalSorter

    known = {name: imported(tree) & set(MODULES) for name, tree in TREES.items()}
    for name, tree in TREES.items():  # what is imported for annotations alone is no import
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                known[name] -= imported(ast.Module(node.body, []))
    TopologicalSorter(known).prepare()


def defined(tree: ast.Module) -> set[str]:
    """The names that a module defines at its top."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)
                      and isinstance(leaf.ctx, ast.Store)}  # fmt: skip
    return names


def test_a_name_lives_in_one_wing():
    homes: dict[str, set[str]] = {}
    for module, tree in TREES.items():
        for name in defined(tree):
            if not name.startswith("_"):
                homes.setdefault(name, set()).add(wing(module))
    assert {name: wings for name, wings in homes.items() if len(wings) > 1} == {}


def test_no_module_is_shadowed():
    """What an import path names is the module, from the package on."""
    for info in pkgutil.walk_packages(vaejax.__path__, "vaejax."):
        if info.name == "vaejax.__main__":
            continue
        module, value = importlib.import_module(info.name), vaejax
        for part in info.name.split(".")[1:]:
            value = getattr(value, part)
        assert value is module, info.name


@pytest.mark.parametrize("module", cases(list(MODULES)))
def test_a_file_is_read_in_one_go(module):
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= LONGEST_FILE, f"{module} has {lines} lines"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef):
            start = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0].lineno
            length = node.end_lineno - start + 1
            assert length <= LONGEST_FUNCTION, f"{module}.{node.name} has {length} lines"


# What is asked of an object of ours is declared in a base class.

OURS = {
    node.name
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
}
# {(module, function): (how often it asks for a class of ours, why that is the design)}
DOOR = "the door through which a user's own comes: what does not derive from the base is refused"
CLOSED_FORM = "a formula for one family, which is dispatched on; others are refused"
DISPATCHED: dict[tuple[str, str], tuple[int, str]] = {
    ("vaejax.__main__", "run"): (
        6,
        "the subcommand that was typed is the type of its configuration",
    ),
    ("vaejax.base.fields", "brief_range"): (
        3,
        "an annotation carries anyone's metadata, of which ranges and rules are ours",
    ),
    ("vaejax.base.fields", "_rules_of_annotated"): (
        3,
        "an annotation carries anyone's metadata, of which ranges and rules are ours",
    ),
    ("vaejax.data.check", "check_data"): (1, "a Transform says what it takes; a function does not"),
    ("vaejax.data.mapping", "check_asked"): (1, "as in check_data"),
    ("vaejax.data.mapping", "_split"): (1, "the one function that has a transform before it"),
    ("vaejax.data.sources", "as_data"): (1, DOOR),
    ("vaejax.data.sources", "as_source"): (1, DOOR),
    ("vaejax.distributions.kl", "family_of"): (1, "the table of KLs in closed form has families"),
    ("vaejax.distributions.kl", "kl_by_coordinate"): (6, "those that belong to coordinates"),
    ("vaejax.distributions.numpyro", "as_distribution"): (1, DOOR),
    ("vaejax.estimators.base", "as_estimator"): (1, DOOR),
    ("vaejax.estimators.binary_layers", "layers_of"): (1, "a graph has layers, another q is one"),
    ("vaejax.estimators.by_node", "require_named_latents"): (1, "node by node is of graphs alone"),
    ("vaejax.estimators.doubly_reparameterised", "normal_factors"): (2, CLOSED_FORM),
    ("vaejax.estimators.doubly_reparameterised", "is_diag_normal"): (1, CLOSED_FORM),
    ("vaejax.estimators.relaxed", "hard_and_soft"): (1, CLOSED_FORM),
    ("vaejax.models.base", "require_factor"): (2, DOOR),
    ("vaejax.models.conditionals.beside_prior", "normals"): (1, CLOSED_FORM),
    ("vaejax.models.priors", "__post_init__"): (1, DOOR),
    ("vaejax.models.learned", "require_params"): (1, DOOR),
    ("vaejax.networks.base", "require_net"): (1, DOOR),
    ("vaejax.models.latents", "require_same_support"): (2, "a Support, or a mapping of them"),
    ("vaejax.models.graph_model", "named_latents"): (
        1,
        "an encoder that is a graph names the latents",
    ),
    ("vaejax.objectives.base", "terms_of"): (1, DOOR),
    ("vaejax.objectives.base", "require_objective"): (1, DOOR),
    ("vaejax.objectives.base", "per_example"): (3, DOOR),
    ("vaejax.objectives.base", "__call__"): (1, DOOR),
    ("vaejax.networks.stochastic", "_is_stochastic"): (1, "a node of a tree is told by its class"),
    ("vaejax.objectives.free_bits", "require_diagonal"): (2, CLOSED_FORM),
    ("vaejax.objectives.optimal_scale", "require_learned_scale"): (2, CLOSED_FORM),
    ("vaejax.objectives.schedules", "require_weights"): (1, DOOR),
    ("vaejax.runs.names", "_number"): (1, "whole numbers are read by int, others by float"),
    ("vaejax.runs.build", "initial_params"): (1, "a VampPrior starts at training examples"),
    ("vaejax.training.callbacks", "as_callback"): (1, DOOR),
    ("vaejax.training.sharding", "checked_rule"): (1, "an argument of the user's is checked"),
    ("vaejax.training.feeds", "feed_of"): (1, "arrays lie on the device, a Source on the host"),
    ("vaejax.training.optimizers", "__eq__"): (2, "equality, as Python asks for it"),
    ("vaejax.base.processes", "_is_of_others"): (1, "an error, by its kind"),
    ("vaejax.training.seeds", "_arrays"): (1, "arrays lie on the device, a Source on the host"),
    ("vaejax.training.validation", "__init__"): (
        1,
        "arrays lie on the device, a Source on the host",
    ),
    ("vaejax.variance.cost", "_"): (3, "three kinds of model are counted within, others outside"),
    ("vaejax.variance.groups", "_pulls"): (1, CLOSED_FORM),
}


def functions(tree: ast.Module):
    """(name, node) of every function, and of the module for what is outside of them."""
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and id(node) not in inner:
            inner |= {id(child) for child in ast.walk(node) if child is not node}
            yield node.name, node


def kinds_asked(node: ast.AST) -> list[str]:
    """The classes of ours that an isinstance, a pattern or a single dispatch asks for."""
    asked = []
    for child in ast.walk(node):
        if isinstance(child, ast.Call) and ast.unparse(child.func) in ("isinstance", "issubclass"):
            kinds = {leaf.id for leaf in ast.walk(child.args[1]) if isinstance(leaf, ast.Name)}
            asked += sorted(kinds & OURS)
        elif isinstance(child, ast.MatchClass) and ast.unparse(child.cls) in OURS:
            asked.append(ast.unparse(child.cls))
        elif isinstance(child, ast.FunctionDef):
            decorators = [ast.unparse(decorator) for decorator in child.decorator_list]
            if any(name.endswith(".register") for name in decorators):
                asked.append(ast.unparse(child.args.args[0].annotation))
    return asked


def test_types_of_ours_are_asked_for_only_where_that_is_the_design():
    asked = Counter()
    for module, tree in TREES.items():
        for name, node in functions(tree):
            asked[module, name] += len(kinds_asked(node))
    counted = {place: number for place, number in asked.items() if number}
    assert counted == {place: number for place, (number, _) in DISPATCHED.items()}


def test_no_attribute_is_sniffed():
    """No hasattr, no getattr with a name written out; a name that a loop gives is no sniffing."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
                written = isinstance(node.args[1], ast.Constant)
                assert not written, f"{module}:{node.lineno}: {ast.unparse(node)}"


def test_no_experiment_imports_another():
    scripts = [path for path in EXPERIMENTS.rglob("*.py") if path.parent.name != "lib"]
    names = {path.stem for path in scripts}
    for path in scripts:
        text = path.read_text()
        for module in re.findall(r"^(?:from|import) ([\w.]+)", text, re.MULTILINE):
            last = module.split(".")[-1]
            assert not (module.startswith("experiments.") and ".lib" not in module), path
            assert last not in names or module.startswith("vaejax."), (
                f"{path.name} imports {module}"
            )


def test_no_private_jax_and_no_lines_of_another_length():
    for path in [*FILES, *EXPERIMENTS.rglob("*.py"), *Path(ROOT / "scripts").glob("*.py")]:
        assert "jax._src" not in path.read_text(), path


# What is loaded, and when.

FORBIDDEN = {"eval", "exec", "pickle", "dill", "joblib", "shelve", "marshal"}
LOADERS = sorted([*PACKAGE.rglob("*.py"), *EXPERIMENTS.rglob("*.py")])


@pytest.mark.parametrize("path", LOADERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_that_is_loaded_can_run_code(path):
    tree = ast.parse(path.read_text())
    modules, called = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.add(node.func.id)
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            assert isinstance(node.value, ast.Constant) and node.value.value is False
    assert not FORBIDDEN & (called | {name.split(".")[0] for name in modules})
    unwanted = ("jax._src", "tensorflow_probability", "distrax")
    assert not [name for name in modules if name.startswith(unwanted)]


IMPORT = """
import json, sys, time
import jax, jax.numpy, flax.linen
names = "jax_enable_x64", "jax_numpy_rank_promotion", "jax_debug_nans", "jax_platforms"
before = {name: getattr(jax.config, name) for name in names}
began = time.process_time()
import vaejax
seconds = time.process_time() - began
after = {name: getattr(jax.config, name) for name in names}
heavy = "tensorflow_datasets", "tensorflow", "matplotlib", "torch", "blackjax"
loaded = [name for name in heavy if name in sys.modules]
print(json.dumps({"seconds": seconds, "changed": before != after, "heavy": loaded}))
"""


def test_importing_changes_nothing_and_takes_at_most_a_second():
    """Processor time beyond JAX and Flax, the least of three: what else runs on the machine is not
    the import's.
    """
    for _ in range(3):
        command = [sys.executable, "-c", IMPORT]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        assert not result["changed"] and result["heavy"] == []
        if result["seconds"] < 1.0:
            return
    pytest.fail(f"importing vaejax took {result['seconds']:.2f} s in the last of three runs")


def test_the_table_of_contents_is_whole():
    """Every public name of a package is re-exported as itself, for type checkers."""
    for path in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                assert all(alias.asname == alias.name for alias in node.names)
    for name in vars(vaejax):
        if not name.startswith("_") and callable(getattr(vaejax, name)):
            assert getattr(vaejax, name).__doc__, f"vaejax.{name} has no docstring"


NO_NOUNS = {"of", "one", "some", "at", "each", "found"}


def variables(tree: ast.Module):
    """(name, line) of every variable, field, and argument that a module names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@pytest.mark.parametrize("folder", ["vaejax", "experiments", "scripts", "tests"])
def test_a_variable_is_named_by_a_noun(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        for name, line in variables(ast.parse(path.read_text())):
            assert name not in NO_NOUNS, f"{path}:{line}: `{name}` does not say what it holds"

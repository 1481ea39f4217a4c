"""The wheel: what is in it, and that it is enough. Every page runs from it, in an empty folder, in
an environment that has the packages of this one, but not its checkout.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile

import numpy as np
import pytest

import vaejax
from tests.lib import pages
from tests.lib.paths import ROOT
from tests.lib.runs import SMALL
from vaejax.runs.command import environment

DOCS = ROOT / "docs"
COMPUTED = sorted(DOCS.rglob("*.py"))
WRITTEN = [path for path in sorted(DOCS.rglob("*.md")) if pages.blocks(path.read_text())]
OF_MANY_HOSTS = DOCS / "scale.md"  # tests/training/test_together.py runs it
SOLUTION = re.compile(r"^# {4,}```python\n(.*?)^# {4,}```", re.MULTILINE | re.DOTALL)
OF_EXTRAS = {"haiku": "haiku", "equinox": "equinox"}  # {what is imported: its extra}
EXTRA = re.compile(r"vaejax\[([\w-]+)\]")


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what it is made of, so that nothing is left in the checkout."""
    setuptools = pytest.importorskip("setuptools", "77", reason="builds by setuptools >= 77")
    assert setuptools
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "vaejax", source / "vaejax")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("experiments", "tests", "scripts"):  # which must not get in
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True, text=True)
    return next(folder.glob("*.whl"))


def python_with(wheel, place, without="nothing"):
    """The Python of a new environment with the wheel, and all packages of this one but some."""
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin/python"
    install = ["-m", "pip", "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([python, *install], check=True)
    site = next(place.glob("lib/python*/site-packages"))
    packages = place / "packages"
    packages.mkdir()
    hidden = re.compile(rf"(vaejax|{without}|__editable__).*")
    here = next(path for path in map(os.path.realpath, sys.path) if path.endswith("site-packages"))
    for name in os.listdir(here):
        if not hidden.fullmatch(name):
            (packages / name).symlink_to(os.path.join(here, name))
    (site / "packages.pth").write_text(f"{packages}\n")
    return python


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    return python_with(wheel, tmp_path_factory.mktemp("all") / "environment")


def run(folder, *command):
    """What it prints; its cache of compiled programs lies beside the folder."""
    of_tests = ("PYTHONPATH", "XLA_FLAGS")
    settings = {name: value for name, value in os.environ.items() if name not in of_tests}
    settings |= {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "cache"), "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def test_the_wheel_has_the_library_and_the_command_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "vaejax = vaejax.__main__:main" in archive.read(entry).decode()
        metadata = archive.read(entry.replace("entry_points.txt", "METADATA")).decode()
    library = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "vaejax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == library
    assert {"vaejax/py.typed", "vaejax/data/digits.npz", "vaejax/runs/train.py"} <= library
    needed = set(re.findall(r"^Requires-Dist: ([\w.-]+)[^;\n]*$", metadata, flags=re.MULTILINE))
    assert {"jax", "flax", "optax", "tyro", "scipy", "matplotlib"} <= needed
    assert not {"blackjax", "scikit-learn"} & needed


def test_the_sdist_has_everything(tmp_path):
    """Tests, documents, experiments, scripts and constraints: what a checkout has."""
    source = tmp_path / "source"
    names = (".git", ".venv*", "__pycache__", "*.egg-info", ".*_cache", "build")
    hidden = shutil.ignore_patterns(*names)
    shutil.copytree(ROOT, source, ignore=hidden, symlinks=True)
    code = f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("vaejax", "tests", "docs", "experiments", "scripts"):
        for path in (source / folder).rglob("*"):
            assert path.is_dir() or str(path.relative_to(source)) in names, path
    files = {"constraints.txt", "Makefile", "CHANGELOG.md", "CITATION.cff", "LICENSE", ".ci/run"}
    assert files <= names


def test_there_is_one_version():
    """Of the package, of what cites it, and of the installed wheel."""
    text = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {vaejax.__version__}\n" in text and "\nrepository-code: https" in text
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    assert environment()["versions"]["vaejax"] == vaejax.__version__


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(wheel, tmp_path):
    """Without BlackJAX and scikit-learn too, which are an extra's."""
    python = python_with(wheel, tmp_path / "environment", without="blackjax|sklearn|scikit_learn")
    folder = tmp_path / "empty"
    folder.mkdir()
    command = python.parent / "vaejax"
    assert run(folder, command, "--version") == f"vaejax {vaejax.__version__}\n"
    np.save(folder / "my.npy", vaejax.load_dataset("digits").train.images)
    own = ["--data", "my.npy", "--maximum", "16"]
    result = json.loads(
        run(folder, command, "train", *own, *SMALL, "--out", "run").splitlines()[-1]
    )
    assert result["step"] == 60
    assert "finished" in run(folder, command, "table", "run")
    opened = "import vaejax; run = vaejax.open_run('run'); print(run.step, run.dataset.name)"
    assert run(folder, python, "-c", opened) == "60 my.npy\n"
    assert run(folder, python, "-m", "vaejax", "--version").startswith("vaejax")


# The pages.


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted({*WRITTEN} - {OF_MANY_HOSTS})], ids=name_of
)
def test_the_blocks_of_a_page_run_from_the_wheel(page, python, tmp_path):
    run(tmp_path, python, shutil.copy(pages.__file__, tmp_path), shutil.copy(page, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("page", COMPUTED, ids=name_of)
def test_a_page_that_computes_runs_from_the_wheel(page, python, tmp_path):
    """And after it the solutions, which `make docs` shows folded away, and does not execute."""
    text = page.read_text()
    solutions = [re.sub(r"^# {5}", "", code, flags=re.MULTILINE) for code in SOLUTION.findall(text)]
    script = tmp_path / page.name
    script.write_text("\n".join([text, *solutions]))
    run(tmp_path, python, "-W", "error::UserWarning", script)


def imported(code: str) -> set[str]:
    """The names of the packages that a program imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("page", [ROOT / "README.md", *WRITTEN, *COMPUTED], ids=name_of)
def test_a_page_imports_what_the_wheel_brings(page):
    """Or what an extra brings that the page names."""
    text = page.read_text()
    programs = [code for language, code in pages.blocks(text) if language == "python"]
    programs = [text] if page.suffix == ".py" else programs
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = {re.split(r"[^\w-]", need)[0] for need in project["dependencies"]}
    for name in {name for code in programs for name in imported(code)} - {"vaejax"}:
        extra = OF_EXTRAS.get(name)
        known = name in sys.stdlib_module_names or name in brought or extra in EXTRA.findall(text)
        assert known, f"{name} comes with no installation that this page names"

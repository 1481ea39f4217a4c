"""What a docstring shows runs: lines of >>> as doctests, and indented Python, such as the recipes,
as it stands.
"""

import ast
import dataclasses
import doctest
import importlib
import textwrap
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from docs_markdown import is_python, paragraphs
from flax import nnx

import vaejax
from tests.lib.paths import ROOT

NAMES = {"vaejax": vaejax, "jax": jax, "jnp": jnp, "np": np, "npd": npd, "nnx": nnx}
NAMES |= {"Any": Any, "Annotated": Annotated, "Callable": Callable, "dataclasses": dataclasses}
PATHS = sorted((ROOT / "vaejax").rglob("*.py"))
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef
FEWEST_EXAMPLES = 15  # so that a finder that finds nothing is noticed


def docstrings(path) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, DOCUMENTED)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def module_of(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return importlib.import_module(name.removesuffix(".__init__"))


def indented_python(path) -> list[str]:
    parts = [part for text in docstrings(path) for part in paragraphs(text)]
    code = [textwrap.dedent(part) for part in parts if part.startswith("    ")]
    return [text for text in code if not text.startswith(">>>") and is_python(text)]


WITH_EXAMPLES = [path for path in PATHS if ">>> " in "".join(docstrings(path))]
WITH_PYTHON = [path for path in PATHS if indented_python(path)]


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=name_of)
def test_examples_give_what_they_show(path):
    module = module_of(path)
    names = {**vars(module), **NAMES}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for text in docstrings(path):
        test = parser.get_doctest(text, dict(names), module.__name__, str(path), 0)
        runner.run(test)
    failed, attempted = runner.summarize(verbose=False)
    assert attempted > 0 and failed == 0, f"python -m pytest shows what {path} gives"


@pytest.mark.parametrize("path", WITH_PYTHON, ids=name_of)
def test_indented_python_runs(path):
    names = {**vars(module_of(path)), **NAMES, "__name__": "docstring"}
    for code in indented_python(path):
        exec(code, dict(names))


def test_there_are_examples():
    text = "".join(text for path in WITH_EXAMPLES for text in docstrings(path))
    assert text.count(">>> ") >= FEWEST_EXAMPLES
    assert len(WITH_PYTHON) >= 10

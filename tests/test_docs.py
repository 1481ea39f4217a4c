"""The pages say what the code does: the map of the house, and the recipes of CONTRIBUTING.md."""

import dataclasses
import inspect
import re
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import vaejax
from tests.lib.paths import ROOT

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/numerics.md",
)
REPOSITORY = r"https://(?:github|raw\.githubusercontent)\.com/vaejax/vaejax"


def test_the_map_of_the_house_is_that_of_the_code():
    """Made anew by scripts/architecture.py."""
    from architecture import document

    page = (ROOT / "docs" / "architecture.md").read_text()
    assert page == document(), "python scripts/architecture.py > docs/architecture.md"
    for path in (ROOT / "vaejax").rglob("*.py"):
        assert path.name in ("__init__.py", "__main__.py") or path.name in page


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(rf"{REPOSITORY}/(?:blob/)?main/([^)#\s]+)", text):
        assert (ROOT / target).exists(), f"{name}: {target}"
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
    for path in re.findall(r"`((?:vaejax|experiments|tests|scripts|docs)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).exists(), f"{name}: {path}"


def test_links_of_the_readme_are_absolute():
    """It is the page of the package too, beside which there are no files."""
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert targets and all(target.startswith(("https://", "#")) for target in targets)


def test_no_page_hides_a_module_of_python():
    """A script's folder comes first on the path: of one named logging.py, jax would import that."""
    names = {path.stem for path in (ROOT / "docs").rglob("*.py")}
    assert names.isdisjoint(sys.stdlib_module_names)


def recipes() -> dict[str, str]:
    """{heading: its code} of CONTRIBUTING.md."""
    sections = re.split(r"^## ", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)[1:]
    recipes = {}
    for section in sections:
        code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
        if code:
            recipes[section.splitlines()[0]] = code[1]
    return recipes


RECIPES = recipes()
NAMES = {"vaejax": vaejax, "jax": jax, "jnp": jnp, "dataclasses": dataclasses, "Path": Path}
KEY = jax.random.key(0)
X = jnp.ones(5)
NET = vaejax.MLP(5, hidden=(4,))
ENCODER = vaejax.DiagNormal(vaejax.MLP(2, hidden=(4,), heads=2))


def made(heading: str) -> dict:
    names = dict(NAMES)
    exec(RECIPES[heading], names)
    return names


def test_there_are_four_recipes():
    assert list(RECIPES) == ["A prior", "A distribution", "An estimator", "An experiment"]
    assert all(len(code.splitlines()) <= 17 for code in RECIPES.values())


@pytest.mark.parametrize(
    "heading, page",
    [
        ("A prior", "own_prior"),
        ("A distribution", "own_distribution"),
        ("An estimator", "own_estimator"),
    ],
)
def test_a_recipe_is_that_of_its_how_to(heading, page):
    """One spelling: the pages of the site explain what CONTRIBUTING.md has in short."""
    assert RECIPES[heading] in (ROOT / "docs" / "howto" / f"{page}.py").read_text()


def test_the_model_of_the_how_to_is_that_of_the_base_class():
    code = inspect.cleandoc(vaejax.Model.__doc__ or "").partition("@vaejax.component")[2]
    code = textwrap.dedent("    @vaejax.component" + code)
    assert code.strip() in (ROOT / "docs" / "howto" / "own_model.py").read_text()


def test_a_prior_of_ones_own_trains():
    model = vaejax.VAE(made("A prior")["ScaledNormal"](2), vaejax.Bernoulli(NET), ENCODER)
    params = model.init(KEY, X)
    gradient = jax.grad(lambda params: vaejax.AnalyticKL()(model, params, X, KEY))(params)
    assert jnp.isfinite(gradient.theta["prior"]) and gradient.theta["prior"] != 0


def test_a_distribution_of_ones_own_is_one():
    p = made("A distribution")["Gumbel"](jnp.zeros(1))
    grid = jnp.linspace(-5, 20, 4_001)
    total = jnp.sum(jnp.exp(jax.vmap(p.log_prob)(grid[:, None]))) * (grid[1] - grid[0])
    assert total == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="one event has shape"):
        p.log_prob(jnp.zeros(2))


def test_an_estimator_of_ones_own_has_a_gradient_in_theta_alone():
    model = vaejax.VAE(vaejax.StandardNormal(2), vaejax.Bernoulli(NET), ENCODER)
    params = model.init(KEY, X)
    objective = vaejax.minibatch(made("An estimator")["FixedPosterior"](), model)
    moments = vaejax.gradient_moments(objective, params, jnp.zeros((4, 5)), KEY, 4, order=2)
    assert all(not leaf.any() for leaf in jax.tree.leaves(moments.mean.phi))
    assert any(leaf.any() for leaf in jax.tree.leaves(moments.mean.theta))


def test_an_experiment_of_ones_own_writes_its_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mine.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        made("An experiment")
    assert stopped.value.code == 0
    assert (tmp_path / "out" / "result.json").exists()
    assert '"mean"' in capsys.readouterr().out

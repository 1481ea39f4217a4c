"""The names: each builds what it says, and the flags' help has all of them."""

import ast
import inspect
import re
from typing import get_args, get_type_hints

import pytest

import vaejax
from vaejax.models.base import Conditional, Prior
from vaejax.runs import config as config_module
from vaejax.runs.config import Setting, TrainConfig
from vaejax.runs.named_estimators import ESTIMATORS, bound_of_estimator, named_estimator
from vaejax.runs.names import named, require_named
from vaejax.runs.registry import (
    ANY_SCALE,
    ENCODERS,
    LIKELIHOODS,
    NETS,
    PRIORS,
    TABLES,
)

SETTING = Setting(hidden=(4,), latent_dim=3)
NUMBERED = {"mixture", "vamp", "low-rank"}  # those that do not go without a number


def helps():
    """{flag: its help}, read from the source as tyro does."""
    texts = {}
    for node in ast.walk(ast.parse(inspect.getsource(config_module))):
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    texts[field.target.id] = ast.literal_eval(text.value)
    return texts


@pytest.mark.parametrize("kind", sorted(set(TABLES) - {"net"}))
def test_the_flags_help_has_every_name_and_no_other(kind):
    text = helps()[kind].replace(" or ", " ").replace("\n", " ")
    words = {word.strip(" .,()").partition(":")[0] for word in text.split()}
    assert set(TABLES[kind]) <= words
    known = set(TABLES[kind])
    assert {word for word in words if "-" in word and not word.startswith("-")} <= known | {
        "pseudo-inputs",
        "importance-weighted",
    }


def test_the_nets_are_the_choices_of_the_flag():
    assert set(get_args(get_type_hints(Setting)["net"])) == set(NETS)


@pytest.mark.parametrize("kind", TABLES)
def test_every_entry_says_what_it_is_in_a_line(kind):
    for entry in TABLES[kind].values():
        assert entry.description and "\n" not in entry.description


def numbered(name):
    return f"{name}:2" if name in NUMBERED else name


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_is_built(name):
    assert isinstance(named("prior", numbered(name), PRIORS, SETTING), Prior)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("net", NETS)
def test_every_encoder_is_built_on_every_net(name, net):
    setting = Setting(hidden=(4,), latent_dim=3, net=net)
    assert isinstance(named("encoder", numbered(name), ENCODERS, setting), Conditional)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_is_built(name):
    assert isinstance(named("likelihood", name, LIKELIHOODS, SETTING, (8, 8)), Conditional)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_has_as_many_samples_as_it_is_told(name):
    for estimator in (named_estimator(f"{name}:8"), named_estimator(name, 8)):
        assert isinstance(estimator, vaejax.Estimator) and estimator.num_samples == 8
    kind = ESTIMATORS[name].bound
    assert bound_of_estimator(f"{name}:8") == (kind if kind == "ELBO" else f"{kind}-8")


def test_the_combined_bounds_have_groups_of_eight():
    assert named_estimator("miwae:64") == vaejax.Pathwise(64, vaejax.MIWAEBound(8))
    assert named_estimator("piwae:64") == vaejax.PIWAE(64, 8)
    assert named_estimator("ciwae:64") == vaejax.Pathwise(64, vaejax.CIWAEBound(0.05))
    with pytest.raises(ValueError, match="'miwae:10': the number = 10; it must be a multiple of 8"):
        named_estimator("miwae:10")


def test_numbers_are_whole_or_not_as_they_are_written():
    scale = named("likelihood", "gaussian:0.5", LIKELIHOODS, SETTING, (8, 8)).scale
    assert scale == 0.5
    assert named("encoder", "real-nvp:6", ENCODERS, SETTING).num_layers == 6
    assert named("encoder", "real-nvp", ENCODERS, SETTING).num_layers == 4


@pytest.mark.parametrize(
    "name, message",
    [
        ("iwae", "estimator 'iwae': give a number, such as iwae:10"),
        ("iwae:x", "'x' is not a whole number; give one, such as iwae:10"),
        ("drge:3", "unknown estimator 'drge:3'; did you mean dreg"),
    ],
)
def test_names_that_are_not_there_are_refused_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        named_estimator(name)


NO_NUMBERS = ("", "nan", "inf", "-1", "0", " 2", "2 ", "2_0", "\u0662", "x", "True", "2:3", "None")
NOT_WHOLE = ("1.5", "1e3", "02", "+2")


@pytest.mark.parametrize("kind", TABLES)
def test_a_number_that_is_none_is_refused_with_every_name(kind):
    for name, entry in TABLES[kind].items():
        numbers = NO_NUMBERS + (NOT_WHOLE if entry.number != ANY_SCALE else ())
        for number in numbers if entry.number else (*numbers, "2"):
            with pytest.raises(ValueError, match=re.escape(f"{kind} '{name}:{number}'")) as caught:
                require_named(kind, f"{name}:{number}", TABLES[kind])
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", TABLES)
def test_the_range_of_a_number_is_that_of_what_it_builds(kind):
    """The least is built, and nothing below."""
    context = {"likelihood": (SETTING, (8, 8)), "prior": (SETTING,), "encoder": (SETTING,)}
    for name, entry in TABLES[kind].items():
        if entry.number is not None:
            least = 0.5 if entry.number == ANY_SCALE else entry.number.least
            named(kind, f"{name}:{least}", TABLES[kind], *context.get(kind, ()))
            with pytest.raises(ValueError, match="the number = .*it must be"):
                require_named(kind, f"{name}:{least - 1}", TABLES[kind])


def test_equal_names_are_equal_values():
    """So that two models made of them share one compiled program."""
    config = TrainConfig(hidden=(4,))
    first, second = (named("encoder", "real-nvp:2", ENCODERS, config) for _ in range(2))
    assert first == second and hash(first) == hash(second)

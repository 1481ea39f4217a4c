"""Every field of every command: its range is said, its edges are refused in a line, and what is in
the range is not. The commands are found by looking, so one that is added later is tested.
"""

import dataclasses
import importlib
import json
import re
from typing import Any, get_args, get_origin

import numpy as np
import pytest

from experiments.lib.script import run
from tests.lib.configs import (
    bad,
    configurations,
    good,
    hints,
    said,
    some,
    splits,
    taken_apart,
)
from tests.lib.paths import EXPERIMENTS
from tests.lib.programs import compilations
from tests.lib.scripts import attempt
from vaejax.base.checks import Integers, Reals
from vaejax.base.fields import Listed, check_fields, check_sizes
from vaejax.runs.config import Configuration, TrainConfig, check_config
from vaejax.runs.draw import SampleConfig, sample_run
from vaejax.runs.evaluate import evaluate_run
from vaejax.runs.parts import EvaluateConfig
from vaejax.runs.train import train

CONFIGS = configurations()
SCRIPTS = sorted(
    path.stem
    for path in EXPERIMENTS.glob("*/*.py")
    if "\n    run_script(" in path.read_text() and path.parent.name != "lib"
)
MAY_BE_EMPTY = {
    "hidden": "a linear net",
    "log": "metrics.jsonl alone",
    "fetch": "the table of sets alone",
    "over": "a sweep over seeds alone",
}


def test_every_script_has_a_configuration():
    """Those that call `run_script`, and the commands of vaejax."""
    assert len(SCRIPTS) >= 19
    assert {f"{script}.Config" for script in SCRIPTS} <= set(CONFIGS)
    assert {"config.TrainConfig", "parts.EvaluateConfig", "draw.SampleConfig"} <= set(CONFIGS)
    assert sum(len(hints(config)) for config in CONFIGS.values()) > 250


@pytest.mark.parametrize("name", CONFIGS)
def test_the_defaults_pass(name):
    check_config(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_has_a_range_and_every_list_says_whether_it_may_be_empty(name):
    for field, hint in hints(CONFIGS[name]).items():
        kind, _ = taken_apart(hint)
        if get_origin(kind) is tuple:
            assert said(hint, Listed) or field in MAY_BE_EMPTY, f"may {name}.{field} be empty?"
            hint = some(get_args(kind)[0])
            kind, _ = taken_apart(hint)
        if kind in (int, float):
            assert said(hint, Integers | Reals), f"what is the range of {name}.{field}?"
        if field == "seed":
            assert said(hint, Integers)[0].most == 2**32 - 1


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_out_of_range_is_refused_in_a_line_that_names_it(name):
    config = CONFIGS[name]
    for field, hint in hints(config).items():
        values = bad(hint)
        assert values
        for value in values:
            with pytest.raises((ValueError, TypeError)) as caught:
                check_fields(dataclasses.replace(config, **{field: value}))
                pytest.fail(f"{name}.{field} = {value!r} is accepted")
            message = str(caught.value)
            assert re.match(rf"(unknown )?{field}\b", message) and "\n" not in message, message
            wrong = value[-1] if isinstance(value, tuple) and len(value) > 0 else value
            assert value == () or repr(wrong) in message, (field, value, message)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_at_the_edges_of_the_range_is_taken(name):
    config = CONFIGS[name]
    for field, hint in hints(config).items():
        for value in good(hint):
            check_fields(dataclasses.replace(config, **{field: value}))


@pytest.mark.parametrize("name", CONFIGS)
def test_more_examples_than_there_are_is_refused(name):
    config, size = CONFIGS[name], 10**6
    for field, hint in hints(config).items():
        for split in splits(hint):
            sizes = {"train": 2 * size, "test": 2 * size, split: size}
            is_list = get_origin(taken_apart(hint)[0]) is tuple
            check_sizes(with_number(config, field, size, is_list), sizes)
            message = rf"^{field}\S* = {size + 1}, but the data have {size} "
            with pytest.raises(ValueError, match=message):
                check_sizes(with_number(config, field, size + 1, is_list), sizes)


def with_number(config, field, number, is_list):
    return dataclasses.replace(config, **{field: (number,) if is_list else number})


# Where they are checked: before data are loaded, anything compiles or a file is touched.

ELSEWHERE = {"data": "nothing", "run": "nothing"}  # what would be refused later


def ran(config):
    """What each command does with a configuration from Python."""
    if isinstance(config, TrainConfig):
        return train(config)
    if isinstance(config, EvaluateConfig):
        return evaluate_run(config)
    if isinstance(config, SampleConfig):
        return sample_run(config)
    return run(config, lambda config: pytest.fail("the experiment has begun"))


COMMANDS = {name: config for name, config in CONFIGS.items() if "out" in hints(config)} | {
    "parts.EvaluateConfig": CONFIGS["parts.EvaluateConfig"]
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_checks_first_and_leaves_nothing(name, elsewhere):
    config = COMMANDS[name]
    later = {field: ELSEWHERE[field] for field in hints(config).keys() & ELSEWHERE.keys()}
    with compilations() as compiled, pytest.raises(ValueError, match="seed = 4294967296; it must"):
        ran(dataclasses.replace(config, **later, seed=2**32))
    assert compiled == [] and list(elsewhere.iterdir()) == []


def test_numpys_numbers_are_pythons():
    """So that config.json can be written."""
    given: dict[str, Any] = {"latent_dim": np.int64(3), "hidden": (np.int32(4),)}
    config = TrainConfig(**given, learning_rate=np.float64(1))
    check_config(config)
    assert json.loads(json.dumps(dataclasses.asdict(config)))["hidden"] == [4]
    assert config == TrainConfig(latent_dim=3, hidden=(4,), learning_rate=1.0)


def test_a_number_without_a_range_is_refused_at_the_first_run():
    @dataclasses.dataclass(frozen=True)
    class Config(Configuration):
        num_draws: int = 10

    @dataclasses.dataclass(frozen=True)
    class Plain:
        num_draws: int = 10

    with pytest.raises(TypeError, match="num_draws: int says no range"):
        check_config(Config())
    with pytest.raises(TypeError, match="does not derive from vaejax.runs.config.Configuration"):
        check_config(Plain())  # pyright: ignore[reportArgumentType]


TOGETHER = {
    "K of one": ({"estimator": "iwae"}, "'iwae': num_samples = 1; it must be a whole number, at"),
    "half a pair": ({"estimator": "antithetic", "num_samples": 3}, "= 3; it must be a multiple of"),
    "K twice": ({"estimator": "iwae:5"}, "the number of samples has its own field"),
    "warm-up": ({"warm_up": 20_000}, "warm_up = 20000, but num_steps = 10000"),
    "warm-up of": ({"warm_up": 5, "estimator": "analytic-kl"}, "only pathwise takes a warm-up"),
    "patience": ({"patience": 3, "num_steps": 100}, "nothing would be validated"),
}


@pytest.mark.parametrize("name", [name for name in CONFIGS if "num_seeds" in hints(CONFIGS[name])])
def test_every_seed_of_several_is_one(name):
    """Three scripts count up from the first; the others split one key."""
    config = dataclasses.replace(CONFIGS[name], seed=2**32 - 2, num_seeds=3)
    if name.partition(".")[0] in ("semi_supervised", "generative_classifier", "gradient_variance"):
        with pytest.raises(ValueError, match="the last seed = 4294967296; it must be"):
            check_config(config)
    else:
        check_config(config)


@pytest.mark.parametrize("change, message", TOGETHER.values(), ids=TOGETHER)
def test_fields_that_do_not_go_together(change, message):
    with pytest.raises(ValueError, match=message):
        check_config(TrainConfig(**change))


# What depends on the data, 1297 digits for training and 300 for test.
ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "mixtures": ({"data": "mnits"}, "unknown data set 'mnits'"),
    "ladder": ({"eval_size": 301}, "eval_size = 301, but the data have 300 test"),
    "semi_supervised": ({"num_labels": 15}, "num_labels = 15; give multiples of 10"),
    "discrete_gradients": ({"batch_size": 1298}, "batch_size = 1298, but the data have 1297 tr"),
    "gradient_variance": ({"measured_examples": 1298}, "measured_examples = 1298"),
    "bayesian_decoder": ({"train_counts": (50, 1298)}, r"train_counts\[1\] = 1298"),
    "mcmc_posterior": ({"encoders": ("diag-normal", "vmf")}, "use an encoder such as DiagNormal"),
    "inference_gap": ({"latent_dim": 1}, "a coupling layer moves half of the coordinates"),
    "rate_distortion": ({"binarisation": "none"}, "choose a binarisation"),
    "swap_priors": ({"priors": ("normal", "vamp:1298")}, r"priors\[1\] vamp:1298 starts at 1298"),
    "swap_priors of one": ({"latent_dim": 1, "hidden": (2,)}, "a coupling layer moves half"),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_not_for_the_data_is_refused_before_anything_compiles(name, elsewhere):
    """And what is not for the other parts of a model."""
    change, message = ASKED[name]
    config = CONFIGS[f"{name.partition(' ')[0]}.Config"]
    experiment = importlib.import_module(type(config).__module__).experiment
    with compilations() as compiled, pytest.raises(ValueError, match=message):
        run(dataclasses.replace(config, **change), experiment)
    assert compiled == [] and list(elsewhere.iterdir()) == []


HANDFUL = {
    "mixtures": "--parts",
    "semi_supervised": "--hidden 0",
    "gradient_variance": "--learning-rate 0",
    "discrete_gradients": "--ascent-rate 0",
    "ais_sandwich": "--temperature-counts -1",
    "swap_priors": "--priors flow:-2",
    "rate_distortion": "--warm-up 10",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_refuse_in_a_line(name, tmp_path):
    """As a user runs them: a seed that no key has, and one of the handful."""
    for flags in filter(None, ("--seed 4294967296", HANDFUL.get(name))):
        done = attempt(name, *flags.split(), folder=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
        assert done.stderr.count("\n") == 1 and done.stdout == ""
        assert list(tmp_path.iterdir()) == []

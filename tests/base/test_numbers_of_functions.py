"""Numbers among the arguments of public functions: what is none is refused in a line that names it,
before anything compiles. The functions are found by looking, so one that is added is tested.
"""

import inspect
import math
import typing
from typing import Any

import jax
import numpy as np
import optax
import pytest

import vaejax
from tests.base.test_numbers import kinds_of
from tests.lib.lines import LINES, params_of
from tests.lib.programs import compilations
from vaejax import plots
from vaejax.evaluation import pareto, representation, samples
from vaejax.variance.sources import Sources

HOMES = (
    *(vaejax, plots, representation, samples, pareto),
    *(vaejax.grids, vaejax.mcmc, vaejax.supports),
)
NUMBERS = {int, float, tuple}
KEY = jax.random.key(0)
PARAMS = params_of()
XS = np.ones((40, 2))
CODES = np.random.default_rng(0).normal(size=(60, 2))
CLASSES = np.arange(60) % 3
OBJECTIVE = vaejax.minibatch(vaejax.Pathwise(), LINES)
REFINED = vaejax.Refined(LINES, 2)
# An argument for each parameter that has no default, by its name.
VALUES: dict[str, Any] = {
    "alpha": 0.5,
    "batch_size": 2,
    "codes": CODES,
    "columns": 2,
    "data": XS,
    "dataset": vaejax.load_dataset("digits"),
    "entries": {"lines": (LINES, PARAMS, CODES)},
    "estimator": vaejax.Pathwise(),
    "examples": np.ones((4, 3, 3)),
    "factors": CODES,
    "firsts": XS[:2],
    "function": lambda params, x, key: x,
    "generated": CODES,
    "high": (3.0, 3.0),
    "images": np.ones((4, 3, 3)),
    "key": KEY,
    "keys": jax.random.split(KEY, 2),
    "kinds": [np.ones((4, 3))],
    "labels": CLASSES,
    "log_density": np.ones(40),
    "log_marginal": np.ones(40),
    "low": (-3.0, -3.0),
    "means": CODES,
    "model": LINES,
    "name": "digits",
    "moments": None,  # the numbers come first
    "num_draws": 4,
    "num_levels": 4,
    "num_samples": 4,
    "num_steps": 2,
    "objective": OBJECTIVE,
    "optimizer": optax.sgd(0.0),
    "params": PARAMS,
    "points": XS,
    "real": CODES,
    "reference": PARAMS,
    "refined": REFINED,
    "sources": Sources(40, PARAMS, PARAMS),
    "seconds": XS[2:4],
    "size": 10,
    "source": vaejax.Arrays(XS),
    "statistic": np.mean,
    "test_codes": CODES,
    "test_labels": CLASSES,
    "x": XS[0],
    "xs": XS,
}
OWN_VALUES: dict[str, dict[str, Any]] = {
    "fit_seeds": {"params": jax.tree.map(lambda leaf: np.stack([leaf] * 2), PARAMS)},
    "gradient_cost": {"x": XS},
    "gradient_moments": {"x": XS},
    "minibatch": {"model": LINES},
    "priors": {"labels": CLASSES},
}
EXEMPT: dict[str, str] = {
    "open_run": "a step that was kept, or a name",
    "figure_of": "Matplotlib's own",
    "shared_legend": "Matplotlib's own",
}
ACCEPTED: dict[str, dict[Any, str]] = {
    "active_units.threshold": {0: "every one that varies"},
    "renyi_bound.alpha": {0: "IWAE", -1: "any number is one", math.inf: "log min w"},
    "gradient_moments.step": {0: "the first"},
    "map_dataset.start": {0: "the first"},
    "map_source.start": {0: "the first"},
    "gradient_cost.step": {0: "the first"},
    "variance_sources.step": {0: "the first"},
    "dataset.seed": {0: "the default"},
    "load_dataset.seed": {0: "the default"},
    "prepare_pixels.seed": {0: "the default"},
    "dci.seed": {0: "the default"},
    "classifier_two_sample_test.seed": {0: "the default"},
    "tile.gap": {0: "none"},
}


def numeric_parameters() -> dict[str, tuple[typing.Callable, str, set]]:
    """{"function.parameter": (function, parameter, its types)} of the public functions."""
    parameters = {}
    members = [item for home in HOMES for item in vars(home).items()]
    for name, function in members:
        public = inspect.isfunction(function) and name[0] != "_" and not name.startswith("require")
        if public and name not in EXEMPT:
            for parameter, hint in typing.get_type_hints(function).items():
                types = kinds_of(hint)
                if parameter != "return" and types & NUMBERS and complex not in types:
                    parameters[f"{name}.{parameter}"] = function, parameter, types
    return parameters


def arguments(function: typing.Callable) -> dict[str, Any]:
    values = VALUES | OWN_VALUES.get(function.__name__, {})
    return {
        name: values[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty or name in OWN_VALUES.get(function.__name__, {})
    }


def bad_numbers(types: set) -> list:
    bad = [0, -1, math.nan, math.inf, True, "3", *([] if float in types else [2.5])]
    return [(number,) for number in bad] if tuple in types else bad


PARAMETERS = numeric_parameters()


def test_the_lists_name_what_there_is():
    assert len(PARAMETERS) > 35 and set(ACCEPTED) <= set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_is_no_number_is_refused_before_anything_compiles(name):
    function, parameter, types = PARAMETERS[name]
    given = arguments(function)
    for number in bad_numbers(types):
        if not isinstance(number, bool) and number in ACCEPTED.get(name, {}):
            continue
        with compilations() as compiled, pytest.raises((ValueError, TypeError)) as caught:
            function(**given | {parameter: number})
            pytest.fail(f"{name} = {number!r} is accepted; refuse it, or say why it is fine")
        message = str(caught.value)
        assert parameter in message and "\n" not in message, (number, message)
        assert compiled == [], (number, compiled)

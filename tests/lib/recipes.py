"""The recipes in the docstrings of the base classes, made into the classes that they define."""

import inspect
import re
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd

import vaejax
from vaejax.data.base import Source


@cache
def recipes(owner: type) -> dict[str, type]:
    """{name: class} of what the indented lines of a docstring define, run as they stand."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", inspect.getdoc(owner) + "\n", re.MULTILINE)
    modules = {"vaejax": vaejax, "jax": jax, "jnp": jnp, "np": np, "npd": npd}
    names = {**modules, "Any": Any, "Callable": Callable, "__name__": __name__}
    before = set(names)
    for block in blocks:
        exec(textwrap.dedent(block), names)
    return {
        name: value
        for name, value in names.items()
        if name not in before and inspect.isclass(value)
    }


OWNERS = {
    "Distribution": vaejax.Distribution,
    "Conditional": vaejax.Conditional,
    "Prior": vaejax.Prior,
    "Model": vaejax.Model,
    "Estimator": vaejax.Estimator,
    "Baseline": vaejax.Baseline,
    "Noise": vaejax.Noise,
    "Objective": vaejax.Objective,
    "Schedule": vaejax.Schedule,
    "Source": Source,
    "Temperatures": vaejax.ais.Temperatures,
    "Transform": vaejax.Transform,
    "Transition": vaejax.ais.Transition,
}


def recipe(name: str) -> type:
    """The one class of a base class's docstring."""
    (made,) = recipes(OWNERS[name]).values()
    return made

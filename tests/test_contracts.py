"""The contracts: what a class does not say is asked for when the class is defined."""

from typing import Any

import pytest

import vaejax
from vaejax import supports
from vaejax.distributions.coupling import FlowLayer

CONTRACTS = {  # the base class, and what its subclasses say
    "Distribution": (vaejax.Distribution, {"reparameterised": True}),
    "Prior": (vaejax.Prior, {"support": supports.REAL}),
    "Conditional": (vaejax.Conditional, {"support": supports.REAL}),
    "Model": (vaejax.Model, {"support": supports.REAL, "latent_support": supports.REAL}),
    "FlowLayer": (FlowLayer, {"fast_inverse": True}),
    "Baseline": (vaejax.Baseline, {"learned": False, "fewest_samples": 1}),
    "Objective": (vaejax.Objective, {"model": None, "schedules": (), "scale": 1}),
}
QUESTIONS = [(base, said, name) for base, said in CONTRACTS.values() for name in said]


def without(said, name):
    return {other: value for other, value in said.items() if other != name}


@pytest.mark.parametrize(
    "base, said, name", QUESTIONS, ids=[f"{base.__name__}-{name}" for base, _, name in QUESTIONS]
)
def test_what_is_not_said_is_asked_for(base, said, name):
    """By the class itself: no instance is made, and nothing runs."""
    with pytest.raises(TypeError, match=rf"Own does not say `{name}`: .+") as error:
        type("Own", (base,), without(said, name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "base, said, name", QUESTIONS, ids=[f"{base.__name__}-{name}" for base, _, name in QUESTIONS]
)
def test_it_is_said_by_a_value_a_property_a_field_or_a_parent(base, said, name):
    rest = without(said, name)
    parent = type("Parent", (base,), said)
    type("Child", (parent,), {})
    type("Property", (base,), {**rest, name: property(lambda self: said[name])})
    field = type("Field", (base,), {**rest, "__annotations__": {name: Any}})
    assert issubclass(vaejax.component(field), base)
    with pytest.raises(TypeError, match=rf"Mixin does not say `{name}`"):
        type("Mixin", (base, type("Other", (), {name: said[name]})), rest)


@pytest.mark.parametrize("base", [vaejax.Estimator, vaejax.Noise, vaejax.Schedule])
def test_what_is_only_done_is_missed_by_its_name(base):
    own = type("Own", (base,), {})()
    calls = {
        vaejax.Estimator: lambda: own(None, None, None, None),
        vaejax.Noise: lambda: own.sources(None, None, 1),
        vaejax.Schedule: lambda: own.length,
    }
    with pytest.raises(NotImplementedError, match="Own"):
        calls[base]()


@pytest.mark.parametrize("base, said", CONTRACTS.values(), ids=CONTRACTS)
def test_a_class_without_its_decorator_says_which(base, said):
    """With it, its annotations are its fields."""
    fields = {**said, "__annotations__": {"size": int}}
    undecorated = type("Own", (base,), fields)
    decorator = "pytree" if base is vaejax.Distribution else "component"
    with pytest.raises(TypeError, match=f"Own has no fields: write @vaejax.{decorator} above"):
        undecorated(3)
    undecorated()
    decorate = getattr(vaejax, decorator)
    assert decorate(type("Own", (base,), fields))(3).size == 3

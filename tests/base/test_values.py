"""Values are static and hashable, pytrees hold arrays, and optimisers made by the same calls are
one.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest

import vaejax
from vaejax.base.values import batch_shape, by_value
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.training.optimizers import ByStructure


def test_equal_fields_make_equal_values():
    assert vaejax.Pathwise(4) == vaejax.Pathwise(4) and hash(vaejax.Pathwise(4)) == hash(
        vaejax.Pathwise(4)
    )
    assert vaejax.Pathwise(4) != vaejax.Pathwise(5) and vaejax.Pathwise(
        1
    ) != vaejax.StickTheLanding(1)


def test_partials_compare_by_their_parts():
    first, other = (by_value(partial(vaejax.elbo, num_samples=3)) for _ in range(2))
    assert first == other and hash(first) == hash(other)
    assert first != by_value(partial(vaejax.elbo, num_samples=4))
    nested = by_value(partial(partial(divmod, 7), 2))
    assert nested() == (3, 1) and nested == by_value(partial(divmod, 7, 2))


def test_unhashable_fields_are_refused_when_the_value_is_made():
    @vaejax.component
    class Thing:
        sizes: object

    with pytest.raises(
        TypeError,
        match=r"Thing.sizes = \[1, 2\] is a list, which cannot be hashed; write a tuple, \(1, 2\)",
    ):
        Thing([1, 2])
    with pytest.raises(
        TypeError, match="Thing.sizes = {} is a dict, which cannot be hashed; use a hashable value"
    ):
        Thing({})


def schedule(step):
    return 1e-3 / (1 + step)


SAME = {
    "adam": lambda: optax.adam(1e-3),
    "schedule": lambda: optax.adam(optax.cosine_decay_schedule(1e-3, 100)),
    "chain": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1)
    ),
    "parts": lambda: optax.multi_transform(
        {"a": optax.sgd(0.1), "b": optax.set_to_zero()}, {"x": "a", "y": "b"}
    ),
    "own schedule": lambda: optax.sgd(schedule),
    "array": lambda: optax.sgd(jnp.asarray(0.1)),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_optimisers_made_by_the_same_calls_are_equal(make):
    assert ByStructure(make()) == ByStructure(make()) and hash(ByStructure(make())) == hash(
        ByStructure(make())
    )


DIFFERENT = {
    "rate": (optax.adam(1e-3), optax.adam(1e-4)),
    "kind": (optax.adam(1e-3), optax.adamax(1e-3)),
    "int and float": (optax.sgd(1), optax.sgd(1.0)),
    "length": (
        optax.adam(optax.cosine_decay_schedule(1e-3, 100)),
        optax.adam(optax.cosine_decay_schedule(1e-3, 200)),
    ),
    "labels": (
        optax.multi_transform(
            {"a": optax.sgd(0.1), "b": optax.set_to_zero()}, {"x": "a", "y": "b"}
        ),
        optax.multi_transform(
            {"a": optax.sgd(0.1), "b": optax.set_to_zero()}, {"x": "b", "y": "a"}
        ),
    ),
    "two lambdas": (optax.sgd(lambda step: 0.1), optax.sgd(lambda step: 0.1)),
    "arrays": (optax.sgd(jnp.asarray(0.1)), optax.sgd(jnp.asarray(0.2))),
}


@pytest.mark.parametrize("first, other", DIFFERENT.values(), ids=DIFFERENT)
def test_other_optimisers_are_not(first, other):
    assert ByStructure(first) != ByStructure(other)


def test_a_distribution_is_a_pytree_of_its_arrays():
    q = DiagNormalDensity(jnp.zeros(2), jnp.ones(2))
    assert len(jax.tree.leaves(q)) == 2
    batch = jax.vmap(lambda loc: DiagNormalDensity(loc, loc))(jnp.zeros((3, 2)))
    assert batch.loc.shape == (3, 2)


def test_one_of_a_batch_that_was_made_by_hand_is_like_any_other():
    """So that both may leave one `jax.lax.cond`."""
    single = DiagNormalDensity(jnp.zeros(2), jnp.ones(2))
    batch = DiagNormalDensity(jnp.zeros((3, 2)), jnp.ones((3, 2)))
    part = jax.tree.map(lambda leaf: leaf[1], batch)
    assert jax.tree.structure(part) == jax.tree.structure(single)
    chosen = jax.lax.cond(True, lambda: single, lambda: part)
    assert batch_shape(chosen) == () and chosen.log_prob(jnp.zeros(2)).shape == ()
    mapped = jax.vmap(lambda q, z: q.log_prob(z), (0, None))(batch, jnp.zeros(2))
    assert mapped.shape == (3,)
    assert batch_shape(jax.vmap(lambda q: q)(batch)) == (3,)

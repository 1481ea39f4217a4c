"""Tables: conditional probability tables and the components of a mixture, exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
def test_a_table_gives_the_entry_of_its_parents_state(dtype):
    """A one-hot parent of three and a binary one, in any dtype; under vmap too."""
    net = vaejax.Table((2, 4), (3, 2), ("loc", "log_scale"))
    params = {name: GENERATOR.normal(size=(3, 2, 2, 4)).astype(np.float32) for name in net.names}
    states = np.array(list(itertools.product(range(3), range(2))))
    parents = np.eye(3)[states[:, 0]].astype(dtype), states[:, 1:].astype(dtype)
    tables = jax.vmap(net.apply, (None, 0))(params, parents)
    for name, rows in zip(net.names, tables, strict=True):
        np.testing.assert_allclose(rows, params[name].reshape(6, 2, 4), rtol=1e-6)


def test_a_table_starts_at_zero_and_without_parents_is_free():
    net = vaejax.Table(3, ())
    params = net.init(jax.random.key(0), None)
    np.testing.assert_array_equal(params["logits"], np.zeros(3))
    np.testing.assert_array_equal(net.apply({"logits": jnp.arange(3.0)}, None), np.arange(3.0))


def test_between_the_states_a_table_is_linear(x64):
    """So that the gradient of a parent is the difference of the entries, as a relaxation needs."""
    params = {"logits": jnp.asarray(GENERATOR.normal(size=(3, 4)))}
    net, parent = vaejax.Table(4, (3,)), jnp.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(net.apply(params, parent), parent @ params["logits"], rtol=1e-14)
    jacobian = jax.jacobian(net.apply, 1)(params, jnp.eye(3)[1])
    np.testing.assert_allclose(jacobian, params["logits"].T, rtol=1e-14)


def test_a_table_of_log_probabilities_is_a_conditional_distribution(x64):
    rows = GENERATOR.dirichlet(np.ones(3), size=2)
    conditional = vaejax.OneHotCategorical(vaejax.Table(3, (2,)))
    for parent, row in zip(np.eye(2), rows, strict=True):
        mean = conditional({"logits": jnp.log(rows)}, jnp.asarray(parent)).mean()
        np.testing.assert_allclose(mean, row, rtol=1e-12)


@pytest.mark.parametrize(
    "example",
    [np.eye(2), np.zeros((5, 1)), np.zeros(3), (np.zeros(2), np.zeros(2)), np.zeros(())],
    ids=["batch", "batch of bits", "other states", "two parents", "no axis"],
)
def test_parents_that_do_not_fit_are_refused(example):
    net = vaejax.Table(1, (2,))
    with pytest.raises(ValueError, match=r"Table.states = \(2,\), and the parents have the shapes"):
        net.apply(net.init(jax.random.key(0), np.zeros(1)), example)


@pytest.mark.parametrize("states", [2, (1,), (2, -1), (2, 2.5), "ab"])
def test_states_that_are_no_counts_are_refused(states):
    with pytest.raises((ValueError, TypeError), match="Table.states"):
        vaejax.Table(1, states)

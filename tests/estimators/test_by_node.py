"""Each layer's KL: the sum is the ELBO's, closed forms are taken where they hold, and the objective
is its formula.
"""

from functools import partial

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.hierarchies import BOTTOM_UP, TOP_DOWN, X
from tests.lib.oracles import LinearGaussian, assert_mean


@pytest.mark.parametrize("model, params", [TOP_DOWN, BOTTOM_UP], ids=["top-down", "bottom-up"])
def test_the_parts_add_up_to_the_elbo(model, params):
    keys = jax.random.split(jax.random.key(1), 40_000)
    by_node = jax.jit(jax.vmap(partial(vaejax.KLByNode(2), model, params, X)))(keys)
    plain = jax.jit(jax.vmap(partial(vaejax.elbo, model, params, X)))(keys)
    assert_mean(np.asarray(by_node) - np.asarray(plain), 0, detectable=0.1)
    assert by_node.std() < plain.std()


def test_closed_forms_are_taken_where_they_hold():
    """Top down: all of z2's KL, and z1's given z2. Bottom up, z1's prior depends on z2, which comes
    after z1 under q: one sample.
    """
    key = jax.random.key(2)
    (model, params), (other, other_params) = TOP_DOWN, BOTTOM_UP
    q, p = model.posterior(params, X), model.joint(params)
    z = q.sample(key)
    _, kl = vaejax.kl_by_node(model, params, X, key)
    np.testing.assert_allclose(
        kl["z2"], vaejax.kl_divergence(q.ready["z2"], p.ready["z2"]), rtol=1e-6
    )
    np.testing.assert_allclose(
        kl["z1"], vaejax.kl_divergence(q.factor("z1", z), p.factor("z1", z)), rtol=1e-6
    )
    q, p = other.posterior(other_params, X), other.joint(other_params)
    z = q.sample(key)
    _, kl = vaejax.kl_by_node(other, other_params, X, key)
    np.testing.assert_allclose(
        kl["z2"], vaejax.kl_divergence(q.factor("z2", z), p.ready["z2"]), rtol=1e-6
    )
    np.testing.assert_allclose(
        kl["z1"], q.ready["z1"].log_prob(z["z1"]) - p.factor("z1", z).log_prob(z["z1"]), rtol=1e-5
    )


def test_mistakes_are_named():
    point = LinearGaussian()
    with pytest.raises(
        TypeError,
        match="a KL by node is of a GraphModel whose encoder is a DirectedGraph; this is a VAE",
    ):
        vaejax.KLByNode()(point.model, point.params, point.datum, jax.random.key(0))
    with pytest.raises(TypeError, match="this is a VAE"):
        vaejax.kl_by_node(point.model, point.params, point.datum, jax.random.key(0))

"""The exact ELBO of finitely many latents, against sums written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.binary import MODEL, NET, PARAMS, X
from tests.lib.started import started
from vaejax import Node
from vaejax.distributions.numpyro import as_distribution
from vaejax.estimators.base import mean_under


def test_enumeration_is_the_elbo_by_hand():
    q = MODEL.posterior(PARAMS, X)
    total = 0.0
    for state in itertools.product([0.0, 1.0], repeat=3):
        z = jnp.asarray(state)
        log_q = q.log_prob(z)
        total += jnp.exp(log_q) * (MODEL.log_joint(PARAMS, X, z) - log_q)
    np.testing.assert_allclose(vaejax.Enumerate()(MODEL, PARAMS, X, None), total, rtol=1e-5)


def test_too_many_states_are_refused():
    net = vaejax.MLP(20, (4,))
    model = vaejax.VAE(vaejax.FactorialBernoulli(20), MODEL.likelihood, vaejax.Bernoulli(net))
    message = (
        "20 latents of 2 values have 1048576 states, more than 65536; use vaejax.ScoreFunction"
    )
    with pytest.raises(ValueError, match=message):
        vaejax.Enumerate()(model, started(model, jax.random.key(0), X), X, None)


def graph(*nodes):
    """Nodes without inputs, as a density over all of them, with parameters that are not zero."""
    structure = vaejax.DirectedGraph(nodes)
    value = {"a": jnp.zeros(2), "b": jnp.zeros((1, 3))}
    params = structure.init(jax.random.key(0), X, value)
    noise = lambda leaf: leaf + jax.random.normal(jax.random.key(leaf.size), leaf.shape)  # noqa: E731
    return structure(jax.tree.map(noise, params), X)


@vaejax.component
class Finite(vaejax.Model):
    """A user's model of finitely many latents, under the q that `kind` names."""

    kind: str
    support = vaejax.supports.REAL
    latent_support = None

    def init(self, key, x):
        return vaejax.Params(theta=jnp.asarray(0.7), phi=jnp.asarray(0.3))

    def log_joint(self, params, x, z):
        total = sum(jnp.sum(jnp.cos((1 + jnp.arange(leaf.size)) * jnp.ravel(leaf)))
                    for leaf in jax.tree.leaves(z))  # fmt: skip
        return params.theta * total - 0.1 * total**2

    def posterior(self, params, x):
        p = jax.nn.sigmoid(params.phi)
        match self.kind:
            case "graph":
                return graph(
                    Node("a", vaejax.Bernoulli(NET(2))),
                    Node("b", vaejax.OneHotCategorical(NET((1, 3))), "a"),
                )
            case "numpyro":
                return npd.Categorical(probs=jnp.stack([p / 2, p / 2, 1 - p]))
            case "binomial":
                return npd.Binomial(4, p)
        raise ValueError(self.kind)


BY_HAND = {
    "graph": [
        {"a": jnp.asarray(a, jnp.float32), "b": jnp.eye(3)[None, index]}
        for a in itertools.product([0, 1], repeat=2)
        for index in range(3)
    ],
    "numpyro": [jnp.asarray(state) for state in range(3)],
    "binomial": [jnp.asarray(state) for state in range(5)],
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_any_q_that_knows_its_states(kind):
    """Value and gradient against the sum over states that are written out."""
    model = Finite(kind)
    params = model.init(None, X)

    @jax.jit
    def by_hand(params):
        """The bound, and the sum of q."""
        q = as_distribution(model.posterior(params, X), "q")
        log_q = [q.log_prob(z) for z in BY_HAND[kind]]
        log_w = [
            model.log_joint(params, X, z) - own for z, own in zip(BY_HAND[kind], log_q, strict=True)
        ]
        bound = sum(jnp.exp(own) * value for own, value in zip(log_q, log_w, strict=True))
        return bound, sum(map(jnp.exp, log_q))

    bound = jax.jit(jax.value_and_grad(lambda p: vaejax.Enumerate()(model, p, X, None)))
    value, gradient = bound(params)
    (expected, total), slope = by_hand(params), 1e-3
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name in ("theta", "phi"):
        up, down = (
            by_hand(params._replace(**{name: params._asdict()[name] + move}))[0]
            for move in (slope, -slope)
        )
        numeric = (up - down) / (2 * slope)
        np.testing.assert_allclose(gradient._asdict()[name], numeric, atol=2e-3)


def test_a_q_of_infinitely_many_values_is_refused():
    net = vaejax.MLP(3, (4,), heads=2)
    model = vaejax.VAE(vaejax.StandardNormal(3), MODEL.likelihood, vaejax.DiagNormal(net))
    message = "Enumerate is for a q of finitely many values, and this one is DiagNormal; use"
    with pytest.raises(TypeError, match=message):
        vaejax.Enumerate()(model, model.init(jax.random.key(0), X), X, None)


def test_a_state_of_probability_0_adds_nothing():
    """Whatever f is there, and neither do its gradients."""
    log_q, f = jnp.asarray([-jnp.inf, 0.0]), jnp.asarray([jnp.inf, 3.0])
    assert mean_under(log_q, f) == 3
    slopes = jax.grad(mean_under, argnums=(0, 1))(log_q, -log_q)
    assert all(np.isfinite(slope).all() for slope in slopes)

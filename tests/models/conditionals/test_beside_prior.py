"""Factors of q that start from the prior's own: closed forms, gradients, refusals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib import linear_chain
from tests.lib.conditionals import Outputs, bounded
from tests.lib.linear_chain import LineAndScale, exact_elbo, heads, log_evidence
from tests.lib.oracles import exact_moments
from tests.lib.started import started
from vaejax import DirectedGraph, Node
from vaejax.distributions import DiagNormalDensity
from vaejax.models.node import BesidePrior

KINDS = [vaejax.PrecisionWeightedNormal, vaejax.ResidualNormal]
P = {"loc": [0.3, -1.2, 2.0], "log_scale": [0.4, -0.7, 0.0]}


def at(kind, loc, log_scale, **settings):
    """(q, p) with these heads of the net."""
    p = DiagNormalDensity(jnp.asarray(P["loc"]), jnp.asarray(P["log_scale"]))
    params = jnp.asarray(loc), jnp.asarray(log_scale)
    return kind(Outputs((3,), 2), **settings)(params, BesidePrior(None, p)), p


def test_precision_weighted_is_the_product_of_two_normals(x64):
    loc, raw = np.array([1.0, 0.5, -3.0]), np.array([-0.5, 1.5, 3.0])
    q, p = at(vaejax.PrecisionWeightedNormal, loc, raw)
    precision_q, precision_p = np.exp(-2 * bounded(raw)), np.exp(-2 * np.asarray(p.log_scale))
    total = precision_q + precision_p
    np.testing.assert_allclose(q.loc, (loc * precision_q + p.loc * precision_p) / total, rtol=1e-12)
    np.testing.assert_allclose(np.exp(2 * q.log_scale), 1 / total, rtol=1e-12)
    assert np.all(np.asarray(q.log_scale) < np.asarray(p.log_scale))


def test_residual_is_in_units_of_the_prior(x64):
    loc, raw = np.array([1.0, 0.5, -3.0]), np.array([-0.5, 1.5, 3.0])
    q, p = at(vaejax.ResidualNormal, loc, raw)
    np.testing.assert_allclose(q.loc, p.loc + np.exp(p.log_scale) * loc, rtol=1e-12)
    np.testing.assert_allclose(q.log_scale, p.log_scale + bounded(raw), rtol=1e-12)
    scale = np.exp(bounded(raw))
    kl = np.sum((loc**2 + scale**2 - 1) / 2 - np.log(scale))
    np.testing.assert_allclose(vaejax.kl_divergence(q, p), kl, rtol=1e-12)


@pytest.mark.parametrize(
    "kind, raw", [(KINDS[0], np.inf), (KINDS[1], 0.0)], ids=["no precision", "no residual"]
)
def test_without_evidence_q_is_the_prior(x64, kind, raw):
    loc = np.array([5.0, -4.0, 9.0]) if kind is KINDS[0] else np.zeros(3)
    q, p = at(kind, loc, np.full(3, raw), max_log_scale=None)
    np.testing.assert_array_equal(q.loc, p.loc)
    np.testing.assert_array_equal(q.log_scale, p.log_scale)
    assert float(vaejax.kl_divergence(q, p)) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_no_head_makes_a_number_that_is_none(kind):
    """In float32, at heads of any size: q, its KL and its gradient are finite."""

    def kl(heads):
        p = DiagNormalDensity(jnp.asarray(P["loc"]), jnp.asarray(P["log_scale"]))
        return vaejax.kl_divergence(kind(Outputs((3,), 2))(heads, BesidePrior(None, p)), p)

    for size in (1e-30, 1.0, 40.0, 1e6):
        for sign in (-1, 1):
            raw = (jnp.asarray([size, 0.0, -size]), jnp.full(3, sign * size))
            value, gradient = jax.value_and_grad(kl)(raw)
            assert np.isfinite(value) and value >= -1e-6
            assert all(np.all(np.isfinite(leaf)) for leaf in gradient)


# Of a linear-Gaussian chain.

MERGED = vaejax.PrecisionWeightedNormal(LineAndScale(), None)
RESIDUAL = vaejax.ResidualNormal(LineAndScale(), None)
PLAIN = vaejax.DiagNormal(LineAndScale(), None)
X = 1.1


def test_the_precision_weighted_posterior_of_a_linear_chain_is_exact(x64):
    """Each latent is shown the likelihood that x has as a function of it, so q is p(z | x) and
    every weight is p(x).
    """
    theta = linear_chain.theta()
    (u, d), (w, b) = ((theta[name]["net"]["w"], theta[name]["net"]["b"]) for name in ("x", "z1"))
    # x = u z1 + d + noise is, as a likelihood of z1, N(z1; (x - d) / u, (0.8 / u)^2)
    of_z1 = heads(1 / u, -d / u, jnp.log(linear_chain.X_SCALE / u))
    # and of z2 = (z1 - b - noise) / w
    variance = (linear_chain.X_SCALE / u) ** 2 + jnp.exp(2 * theta["z1"]["log_scale"])
    of_z2 = heads(1 / (u * w), (-d / u - b) / w, 0.5 * jnp.log(variance) - jnp.log(w))
    model = linear_chain.model_of(MERGED, MERGED)
    params, x = vaejax.Params(theta, {"z1": of_z1, "z2": of_z2}), jnp.asarray([X])
    keys = jax.random.split(jax.random.key(0), 20)
    bounds = jax.jit(jax.vmap(lambda key: vaejax.elbo(model, params, x, key)))(keys)
    np.testing.assert_allclose(bounds, log_evidence(params, X), rtol=1e-12)
    gradient = jax.grad(lambda p, key: vaejax.StickTheLanding()(model, p, x, key))
    gradients = jax.jit(jax.vmap(gradient, (None, 0)))(params, keys)
    np.testing.assert_allclose(ravel_pytree(gradients.phi)[0], 0, atol=1e-12)


def q_of(kinds, params, x):
    """(mean, variance) of z2, and (slope, shift, variance) of z1 given z2, by hand."""
    p2, p1 = params.theta["z2"], params.theta["z1"]
    prior2 = 0.0, p2["loc"][0], p2["log_scale"][0]
    prior1 = p1["net"]["w"], p1["net"]["b"], p1["log_scale"]
    layers = []
    for kind, name, (slope, shift, log_s) in zip(
        kinds, ("z2", "z1"), (prior2, prior1), strict=True
    ):
        head = params.phi[name]
        loc, log_scale = head["w"] * x + head["b"], head["s"][0]
        if kind is PLAIN:
            layers.append((0.0, loc, jnp.exp(2 * log_scale)))
        elif kind is RESIDUAL:
            layers.append((slope, shift + jnp.exp(log_s) * loc, jnp.exp(2 * (log_s + log_scale))))
        else:
            of_p, of_x = jnp.exp(-2 * log_s), jnp.exp(-2 * log_scale)
            weight = of_p / (of_p + of_x)
            layers.append((weight * slope, weight * shift + (1 - weight) * loc, 1 / (of_p + of_x)))
    (_, m2, v2), q1 = layers
    return (m2, v2), q1


PAIRS = [(PLAIN, MERGED), (MERGED, MERGED), (PLAIN, RESIDUAL), (RESIDUAL, MERGED)]


@pytest.mark.parametrize("kinds", PAIRS, ids=lambda pair: f"{pair[0]} {pair[1]}"[:60])
def test_gradients_of_a_ladder(x64, kinds):
    """The mean of each estimator is the ELBO's gradient in closed form, in every parameter: theta's
    through q too.
    """
    model, x = linear_chain.model_of(*kinds), jnp.asarray([X])
    params = vaejax.Params(
        linear_chain.theta(), {"z1": heads(0.3, 0.2, 0.1), "z2": heads(0.2, -0.1, 0.3)}
    )

    def closed(params):
        return exact_elbo(params, X, *q_of(kinds, params, X))

    value, gradient = jax.value_and_grad(closed)(params)
    for estimator in (vaejax.Pathwise(), vaejax.StickTheLanding(), vaejax.KLByNode()):
        bound, mean, _ = exact_moments(
            estimator, None, 1, 20, model=model, params=params, x=x, noise_shape=(2, 1),
            vector=lambda gradient: ravel_pytree(gradient)[0],
        )  # fmt: skip
        np.testing.assert_allclose(bound, value, rtol=1e-10)
        np.testing.assert_allclose(mean, ravel_pytree(gradient)[0], atol=1e-10)


def test_importance_weighted_gradients_of_a_ladder(x64):
    """Plain, doubly reparameterised and generalised have one mean in every parameter."""
    model, x = linear_chain.model_of(PLAIN, MERGED), jnp.asarray([X])
    params = vaejax.Params(
        linear_chain.theta(), {"z1": heads(0.3, 0.2, 0.1), "z2": heads(0.2, -0.1, -0.5)}
    )
    plain, *others = (
        exact_moments(
            estimator, None, 2, 12, model=model, params=params, x=x, noise_shape=(2, 1),
            vector=lambda gradient: ravel_pytree(gradient)[0],
        )
        for estimator in (
            vaejax.Pathwise(2, vaejax.iwae_bound), vaejax.DReG(2), vaejax.GeneralisedDReG(2)
        )
    )  # fmt: skip
    for value, mean, _ in others:
        np.testing.assert_allclose(value, plain[0], rtol=1e-12)
        np.testing.assert_allclose(mean, plain[1], atol=2e-5)  # what 12 nodes leave


@pytest.mark.parametrize("doubly", [False, True])
def test_reweighted_wake_sleep_teaches_phi_alone_by_q(x64, doubly):
    """Theta's gradient is sum_k w~_k grad log p(x, z_k), z_k held fixed, though q depends on
    theta.
    """
    model, x, key = linear_chain.model_of(PLAIN, MERGED), jnp.asarray([X]), jax.random.key(3)
    params = vaejax.Params(
        linear_chain.theta(), {"z1": heads(0.3, 0.2, 0.1), "z2": heads(0.2, -0.1, -0.5)}
    )
    estimator = vaejax.RWS(4, doubly_reparameterised=doubly)
    gradient = jax.jit(jax.grad(lambda p: estimator(model, p, x, key)))(params)
    q = model.posterior(params, x)
    zs = vaejax.bounds.sample_posterior(q, key, 4)
    weights = jax.nn.softmax(vaejax.log_weights(model, params, x, q, zs))

    def log_joint(theta):
        joint = partial(model.log_joint, params._replace(theta=theta), x)
        return weights @ jax.vmap(joint)(zs)

    expected = jax.jit(jax.grad(log_joint))(params.theta)
    np.testing.assert_allclose(
        ravel_pytree(gradient.theta)[0], ravel_pytree(expected)[0], rtol=1e-10
    )


def test_the_kl_by_node_is_that_of_the_factors(x64):
    """At the values drawn, in closed form; the sum with log p(x | z) is the ELBO of that sample in
    mean.
    """
    model, x, key = linear_chain.model_of(PLAIN, MERGED), jnp.asarray([X]), jax.random.key(3)
    params = vaejax.Params(
        linear_chain.theta(), {"z1": heads(0.3, 0.2, 0.1), "z2": heads(0.2, -0.1, -0.5)}
    )
    _, kl = vaejax.kl_by_node(model, params, x, key)
    q = model.posterior(params, x)
    z = q.sample(key)
    p = model.joint(params, x).factors({**z, "x": x})
    for name, factor in q.factors(z).items():
        np.testing.assert_allclose(kl[name], vaejax.kl_divergence(factor, p[name]), rtol=1e-12)


# What is refused.

NET = partial(vaejax.MLP, hidden=(3,))
OF_TWO = vaejax.PrecisionWeightedNormal(NET(2, heads=2))
PIXELS = Node("x", vaejax.Bernoulli(NET(4)), "z")


def model_with(prior, conditional):
    encoder = DirectedGraph((Node("z", conditional, "x"),), inputs=("x",))
    model = vaejax.GraphModel(DirectedGraph((Node("z", prior), PIXELS)), encoder)
    params = started(model, jax.random.key(0), jnp.ones(4))
    return model.posterior(params, jnp.ones(4))


def cycle():
    """Upwards: z1 is drawn before z2, and its prior's factor depends on z2."""
    graph = DirectedGraph(
        (
            Node("z2", vaejax.StandardNormal(2)),
            Node("z1", vaejax.DiagNormal(NET(2, heads=2)), "z2"),
            Node("x", vaejax.Bernoulli(NET(4)), "z1"),
        )
    )
    upwards = (Node("z1", OF_TWO, "x"), Node("z2", vaejax.DiagNormal(NET(2, heads=2)), "z1"))
    vaejax.GraphModel(graph, DirectedGraph(upwards, inputs=("x",)))


ALONE = DirectedGraph((Node("z", OF_TWO, "x"),), inputs=("x",))
WRONG = {
    "in a VAE": (
        lambda: vaejax.VAE(vaejax.StandardNormal(2), vaejax.Bernoulli(NET(4)), OF_TWO),
        "VAE.encoder is a PrecisionWeightedNormal, which is shown the prior's factor",
    ),
    "without a graph": (
        lambda: vaejax.GraphModel(
            DirectedGraph((Node("z", vaejax.StandardNormal(2)), PIXELS)), OF_TWO
        ),
        "GraphModel.encoder is a PrecisionWeightedNormal, which",
    ),
    "alone": (
        lambda: ALONE.init(jax.random.key(0), jnp.ones(4)),
        "the node 'z' is a PrecisionWeightedNormal, which",
    ),
    "alone, called": (
        lambda: ALONE({"z": ()}, jnp.ones(4)),
        "the node 'z' is a PrecisionWeightedNormal, which",
    ),
    "in the prior": (
        lambda: model_with(OF_TWO, vaejax.DiagNormal(NET(2, heads=2))),
        "the node 'z' of the graph is a PrecisionWeightedNormal, which",
    ),
    "a prior that depends on q": (
        lambda: model_with(vaejax.VampPrior(2), OF_TWO),
        "is shown the prior's factor, and that, a VampPrior, is a function of q",
    ),
    "a prior that is no normal": (
        lambda: model_with(vaejax.FlowPrior(2), OF_TWO),
        "PrecisionWeightedNormal is for a prior whose factor is a diagonal normal, not",
    ),
    "another shape": (
        lambda: model_with(vaejax.StandardNormal(3), OF_TWO),
        r"heads of the shape of its latent under the prior, \(3,\), and its net's have \(2,\)",
    ),
    "one head": (
        lambda: model_with(vaejax.StandardNormal(2), vaejax.ResidualNormal(NET(2))),
        "ResidualNormal needs a net that returns",
    ),
    "another set": (
        lambda: model_with(vaejax.FactorialBernoulli(2), OF_TWO),
        "FactorialBernoulli is a prior on binary",
    ),
    "a cycle": (cycle, "z1 -> z2 -> z1 is a cycle|z2 -> z1 -> z2 is a cycle"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case):
    make, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_latent_that_is_observed_takes_its_factor_along():
    """`observe` of the top: the rest of the ladder is shown its value."""
    model = linear_chain.model_of(PLAIN, MERGED)
    params, x = model.init(jax.random.key(0), jnp.ones(1)), jnp.ones(1)
    seen = model.observe("z2")
    example = {"x": x, "z2": jnp.asarray([0.7])}
    q = seen.posterior(params, example)
    assert [*q.ready] == ["z1"]
    both = model.posterior(params, x)
    expected = both.factor("z1", {"z2": jnp.asarray([0.7])})
    np.testing.assert_allclose(q.ready["z1"].loc, expected.loc, rtol=1e-6)
    assert np.isfinite(vaejax.elbo(seen, params, example, jax.random.key(1)))

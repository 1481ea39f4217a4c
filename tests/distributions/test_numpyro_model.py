"""A NumPyro model is the joint density of the sites that it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as npd
import optax
import pytest

import vaejax
from tests.lib.oracles import assert_mean
from vaejax import Node
from vaejax.distributions.numpyro_model import SitesDensity

KEY = jax.random.key(0)


def hierarchy():
    """A scale, a switch, and numbers that depend on both."""
    scale = numpyro.sample("scale", npd.Gamma(2.0, 1.5))
    switch = numpyro.sample("switch", npd.Bernoulli(0.3))
    numpyro.deterministic("doubled", 2 * scale)
    with numpyro.plate("n", 3):
        numpyro.sample("z", npd.Normal(2.0 * switch, scale))


def log_joint(value):
    """By SciPy's formulas, in float64."""
    from scipy import stats

    z = stats.norm(2.0 * value["switch"], value["scale"]).logpdf(value["z"]).sum()
    return (
        stats.gamma(2.0, scale=1 / 1.5).logpdf(value["scale"])
        + np.log(0.3 if value["switch"] else 0.7)
        + z
    )


def test_the_density_of_its_own_draws():
    """By the formula, as what NumPyro itself says of them, and as sample_and_log_prob gives it."""
    p = SitesDensity(hierarchy)
    for key in jax.random.split(KEY, 5):
        value, log_prob = p.sample_and_log_prob(key)
        assert set(value) == {"scale", "switch", "z"} and value["z"].shape == (3,)
        np.testing.assert_allclose(log_prob, log_joint(value), rtol=1e-5)
        np.testing.assert_allclose(p.log_prob(value), log_prob, rtol=1e-5)
        numpyros = numpyro.infer.util.log_density(hierarchy, (), {}, value)[0]
        np.testing.assert_allclose(p.log_prob(value), numpyros, rtol=1e-5)


def test_the_draws_have_its_density():
    values = jax.jit(jax.vmap(SitesDensity(hierarchy).sample))(jax.random.split(KEY, 100_000))
    z = np.asarray(values["z"])
    by_hand = np.stack([np.asarray(values["scale"]), np.asarray(values["switch"], float)], 1)
    # E scale = 4/3, E switch = 0.3, E z = 0.6, E z^2 = E scale^2 + 4 * 0.3 = 6/2.25 + 1.2
    samples = np.column_stack([by_hand, z, z[:, 0] ** 2, z[:, 0] * z[:, 1]])
    expected = [4 / 3, 0.3, 0.6, 0.6, 0.6, 6 / 2.25 + 1.2, 1.2]
    assert_mean(samples, np.array(expected), detectable=0.25)


def test_its_density_is_one_in_all(x64):
    """Over a scale and one number, the switch summed out, by quadrature."""

    def small():
        scale = numpyro.sample("scale", npd.Gamma(2.0, 1.5))
        switch = numpyro.sample("switch", npd.Bernoulli(0.3))
        numpyro.sample("z", npd.Normal(2.0 * switch, scale))

    p = SitesDensity(small)
    scales, step = np.linspace(0.02, 14, 700, retstep=True)
    u, weights = np.polynomial.hermite_e.hermegauss(20)
    total = 0.0
    for switch in (0, 1):
        zs = 2.0 * switch + scales[:, None] * u  # the substitution has z's density but for exp
        density = jax.vmap(jax.vmap(
            lambda scale, z: jnp.exp(p.log_prob({"scale": scale, "switch": switch, "z": z})),
            (None, 0)))(jnp.asarray(scales), jnp.asarray(zs))  # fmt: skip
        total += float(
            np.sum(np.asarray(density) * np.exp(u**2 / 2) * weights * scales[:, None]) * step
        )
    assert abs(total - 1) < 1e-3


def test_supports_and_the_path_are_those_of_the_sites():
    p = SitesDensity(hierarchy)
    assert p.support == {
        "scale": vaejax.supports.POSITIVE,
        "switch": vaejax.supports.BINARY,
        "z": vaejax.supports.REAL,
    }
    assert not p.reparameterised
    with pytest.raises(ValueError, match="hierarchy.log_prob got a value of shape"):
        p.log_prob({"scale": jnp.ones(()), "switch": jnp.ones(())})


# As a prior.


def top_down():
    """A chain of two real latents."""
    top = numpyro.sample("top", npd.Normal(jnp.zeros(2), 1.0).to_event(1))
    numpyro.sample("z", npd.Normal(0.5 * top, 0.8).to_event(1))


def net(out, heads=1):
    return vaejax.MLP(out, (5,), heads=heads)


ENCODER = vaejax.DirectedGraph(
    (
        Node("z", vaejax.DiagNormal(net(2, 2)), "x"),
        Node("top", vaejax.DiagNormal(net(2, 2)), ("z", "x")),
    ),
    inputs=("x",),
)
MODEL = vaejax.VAE(vaejax.NumPyroPrior(top_down), vaejax.Bernoulli(net(3)), ENCODER)
BITS = (np.random.default_rng(0).normal(size=(30, 3)) > 0).astype(np.float32)


def test_a_prior_of_two_sites_is_the_graph_that_it_says():
    """log p(x, z) is that of a DirectedGraph of the same two factors; it trains, and is drawn."""
    params = MODEL.init(KEY, BITS[0])
    z = MODEL.posterior(params, BITS[0]).sample(KEY)
    graph = vaejax.DirectedGraph(
        (
            Node("top", vaejax.StandardNormal(2)),
            Node("z", vaejax.NumPyroConditional(Half(), lambda loc: npd.Normal(loc, 0.8)), "top"),
        )
    )

    @jax.jit
    def both(params, z):
        joint = graph({"top": (), "z": ()}, None).log_prob(z)
        of_graph = joint + MODEL.log_likelihood(params, BITS[0], z)
        return MODEL.log_joint(params, BITS[0], z), of_graph

    np.testing.assert_allclose(*both(params, z), rtol=1e-6)
    run = vaejax.fit(
        vaejax.minibatch(vaejax.StickTheLanding(2), MODEL), params, optax.adam(1e-2), BITS, KEY,
        num_steps=10, batch_size=10, progress=False,
    )  # fmt: skip
    score = vaejax.evaluate(MODEL, run.params, BITS[:4], KEY, num_samples=4)
    assert np.isfinite(score.elbo.mean)
    x, z = MODEL.sample(run.params, KEY)
    assert x.shape == (3,) and set(z) == {"top", "z"}


@vaejax.component
class Half:
    def init(self, key, example):
        return ()

    def apply(self, params, example):
        return 0.5 * example


def test_an_encoder_of_other_sites_is_refused():
    encoder = vaejax.DirectedGraph((Node("z", vaejax.DiagNormal(net(2, 2)), "x"),), inputs=("x",))
    for wrong in (encoder, vaejax.DiagNormal(net(2, 2))):
        with pytest.raises(ValueError, match="is a prior on top: real latents .*; z: real"):
            vaejax.VAE(vaejax.NumPyroPrior(top_down), vaejax.Bernoulli(net(3)), wrong)

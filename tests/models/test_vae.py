"""The VAE: three functions of one example, and what follows from them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vaejax
from tests.lib.cases import cases
from tests.lib.oracles import LinearGaussian, assert_distributed, assert_mean

POINT = LinearGaussian()
XS = (np.random.default_rng(0).random((5, 4)) < 0.5).astype(np.float32)
MODEL = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Bernoulli(vaejax.MLP(4, (5,))),
    vaejax.DiagNormal(vaejax.MLP(2, (5,), heads=2)),
)
PARAMS = MODEL.init(jax.random.key(0), XS[0])


def test_log_joint_is_prior_times_likelihood(x64):
    z = np.array([0.7])
    expected = stats.norm.logpdf(0.7) + stats.norm.logpdf(
        POINT.x, POINT.w * 0.7 + POINT.b, POINT.tau
    )
    np.testing.assert_allclose(
        POINT.model.log_joint(POINT.params, POINT.datum, z), expected, rtol=1e-12
    )


def test_ancestral_samples_follow_the_joint():
    xs, zs = jax.jit(jax.vmap(POINT.model.sample, (None, 0)))(
        POINT.params, jax.random.split(jax.random.key(0), 40_000)
    )
    assert_distributed(zs, stats.norm.cdf)
    assert_distributed(xs, stats.norm(POINT.b, np.hypot(POINT.w, POINT.tau)).cdf)
    assert_distributed((xs - POINT.w * zs - POINT.b) / POINT.tau, stats.norm.cdf)


def test_reconstruction_is_the_mean_at_a_posterior_sample():
    key = jax.random.key(3)
    z = MODEL.posterior(PARAMS, XS[0]).sample(key)
    np.testing.assert_array_equal(
        MODEL.reconstruct(PARAMS, XS[0], key), MODEL.p_x_given_z(PARAMS, z).mean()
    )


def test_encoder_and_decoder_start_from_keys_of_their_own():
    """Two nets of one form have other weights."""
    net = vaejax.MLP(4, (5,), heads=2)
    model = vaejax.VAE(vaejax.StandardNormal(4), vaejax.DiagNormal(net), vaejax.DiagNormal(net))
    theta, phi, _ = model.init(jax.random.key(0), XS[0])
    for name, layer in phi["params"].items():
        other = theta["likelihood"]["params"][name]
        assert np.abs(layer["kernel"] - other["kernel"]).min() > 0


def test_z_and_the_noise_of_x_are_independent():
    """E z e = 0, e the noise of x ~ N(w z + b, tau^2) in its scale; with one key it would be 1."""
    xs, zs = jax.jit(jax.vmap(POINT.model.sample, (None, 0)))(
        POINT.params, jax.random.split(jax.random.key(5), 20_000)
    )
    assert_mean((xs - POINT.w * zs - POINT.b) / POINT.tau * zs, 0, detectable=0.06)


FUNCTIONS = {
    "log_joint": lambda x, key: MODEL.log_joint(PARAMS, x, jnp.ones(2)),
    "posterior": lambda x, key: MODEL.posterior(PARAMS, x),
    "elbo": lambda x, key: vaejax.elbo(MODEL, PARAMS, x, key),
    "iwae": lambda x, key: vaejax.iwae(MODEL, PARAMS, x, key, num_samples=3),
    "log_marginal": lambda x, key: vaejax.log_marginal(
        MODEL, PARAMS, x, key, num_samples=5, chunk=2
    ),
    "gradient": lambda x, key: jax.grad(lambda p: vaejax.elbo(MODEL, p, x, key))(PARAMS),
}


CASES = cases(FUNCTIONS, slow=("iwae", "log_marginal"))


@pytest.mark.parametrize("function", CASES)
def test_jit_equals_eager_and_vmap_equals_a_loop(function):
    keys = jax.random.split(jax.random.key(1), len(XS))
    loop = [function(x, key) for x, key in zip(XS, keys, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
    for other in (jax.vmap(function)(XS, keys), jax.jit(jax.vmap(function))(XS, keys)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), stacked, other
        )


def test_equal_models_trace_once():
    traces = []

    def counted(model, params, x, key):
        traces.append(1)
        return vaejax.elbo(model, params, x, key)

    elbo = jax.jit(counted, static_argnums=0)
    elbo(MODEL, PARAMS, XS[0], jax.random.key(0))
    elbo(replace(MODEL, prior=vaejax.StandardNormal(2)), PARAMS, XS[1], jax.random.key(1))
    assert len(traces) == 1


BATCHED = {
    "posterior": lambda: MODEL.posterior(PARAMS, XS),
    "elbo": lambda: vaejax.elbo(MODEL, PARAMS, XS, jax.random.key(0)),
    "log_joint": lambda: MODEL.log_joint(PARAMS, XS, jnp.ones(2)),
    "log_joint of zs": lambda: MODEL.log_joint(PARAMS, XS[0], jnp.ones((3, 2))),
    "estimator": lambda: vaejax.Pathwise()(MODEL, PARAMS, XS, jax.random.key(0)),
}


@pytest.mark.parametrize("call", BATCHED.values(), ids=BATCHED)
def test_a_whole_batch_is_refused_with_what_to_type(call):
    with pytest.raises(
        ValueError, match=r"shape \(\d, \d\).*one example: use jax.vmap or vaejax.minibatch"
    ) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_list_where_a_tuple_must_be_hashed():
    with pytest.raises(
        TypeError,
        match=r"MLP.hidden = \[200, 200\] is a list.*write a tuple, \(200, 200\)",
    ):
        vaejax.Bernoulli(vaejax.MLP(784, hidden=[200, 200]))  # pyright: ignore[reportArgumentType]


def test_a_net_of_ones_own_serves():
    """Ten lines with init and apply, no Flax: the nets of the oracle are such."""
    x, z = POINT.model.sample(POINT.params, jax.random.key(0))
    assert x.shape == z.shape == (1,)


def test_encoder_wants_two_heads():
    encoder = vaejax.DiagNormal(vaejax.MLP(2, (3,)))
    with pytest.raises(
        TypeError, match=r"returns \(loc, log_scale\), such as vaejax.MLP\(dim, heads=2\)"
    ):
        encoder(encoder.init(jax.random.key(0), XS[0]), XS[0])


@pytest.mark.parametrize("raw", [-1e4, -3.0, 0.0, 0.01, 3.0, 1e4])
def test_encoder_scale_is_bounded_and_smooth(raw):
    @vaejax.component
    class Head:
        def init(self, key, example):
            return jnp.asarray([raw])

        def apply(self, params, example):
            return jnp.zeros(1), params

    encoder = vaejax.DiagNormal(Head())
    log_scale, gradient = jax.value_and_grad(lambda p: encoder(p, None).log_scale[0])(
        jnp.asarray([raw])
    )
    assert np.abs(log_scale) <= 7 and np.isfinite(gradient).all()
    if np.abs(raw) < 0.1:
        np.testing.assert_allclose(log_scale, raw, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.0, -1.0, "shared"])
def test_gaussian_scale_is_stated(scale):
    with pytest.raises(
        ValueError,
        match=f"Gaussian.scale = {scale!r}; it must be positive and finite in float32",
    ):
        vaejax.Gaussian(vaejax.MLP(4), scale)


def test_gaussian_with_a_learned_scale(x64):
    likelihood = vaejax.Gaussian(vaejax.MLP(4, (3,)), "learned")
    params = likelihood.init(jax.random.key(0), jnp.ones(2))
    p = likelihood(params | {"log_scale": jnp.asarray(-0.7)}, jnp.ones(2))
    np.testing.assert_allclose(
        p.log_prob(XS[0]), stats.norm.logpdf(XS[0], p.mean(), np.exp(-0.7)).sum(), rtol=1e-6
    )

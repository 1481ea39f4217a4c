"""E_q f as an ELBO: value, gradients and variances against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import assert_mean

LOC, LOG_SCALE, X = 0.7, -0.4, 1.5
SCALE = np.exp(LOG_SCALE)


def square(x, z):
    return jnp.sum((z - x) ** 2)


def of_square(held=True):
    """E_q (z - x)^2 = (loc - x)^2 + scale^2, and its parameters."""
    model = vaejax.Expectation(square, vaejax.DiagNormal(vaejax.Free(1), max_log_scale=None), held)
    phi = {"loc": jnp.asarray([LOC]), "log_scale": jnp.asarray([LOG_SCALE])}
    return model, vaejax.Params((), phi)


def test_log_w_is_f(x64):
    model, params = of_square()
    z = jnp.asarray([0.3])
    log_w = model.log_joint(params, X, z) - model.posterior(params, X).log_prob(z)
    np.testing.assert_allclose(log_w, (0.3 - X) ** 2, rtol=1e-12)


@pytest.mark.parametrize(
    "estimator, held",
    [
        (vaejax.Pathwise(), True),
        (vaejax.StickTheLanding(), True),
        (vaejax.ScoreFunction(2), True),
        (vaejax.MeasureValued(), True),
        (vaejax.Pathwise(), False),
    ],
    ids=lambda value: str(value).partition("(")[0],
)
def test_the_gradient_is_that_of_the_expectation(x64, estimator, held):
    """d/d loc = 2 (loc - x), d/d log scale = 2 scale^2, of 40,000 draws."""
    model, params = of_square(held)
    gradient = jax.grad(lambda params, key: estimator(model, params, X, key))
    keys = jax.random.split(jax.random.key(0), 40_000)
    phi = jax.jit(jax.vmap(gradient, (None, 0)))(params, keys).phi
    assert_mean(np.asarray(phi["loc"])[:, 0], 2 * (LOC - X), detectable=0.15)
    assert_mean(np.asarray(phi["log_scale"])[:, 0], 2 * SCALE**2, detectable=0.2)


def test_the_path_derivative_has_no_noise_of_the_score(x64):
    """Var d/d loc = Var 2 (z - x) = 4 scale^2 of `StickTheLanding`, which is f's path derivative
    alone.
    """
    model, params = of_square()
    objective = vaejax.per_example(vaejax.StickTheLanding(), model)
    moments = vaejax.gradient_moments(
        objective, params, jnp.asarray(X), jax.random.key(1), 20_000, chunk=500
    )
    # the relative error of a variance of n normal draws is sqrt(2 / n) = 0.01
    np.testing.assert_allclose(moments.variance.phi["loc"], 4 * SCALE**2, rtol=0.05)


def test_a_discrete_q_is_as_good():
    """E (b - t)^2 = p (1 - t)^2 + (1 - p) t^2, by enumeration."""
    model = vaejax.Expectation(
        lambda t, b: jnp.mean((b - t) ** 2), vaejax.Bernoulli(vaejax.Free(1, ("logits",)))
    )
    params = vaejax.Params((), {"logits": jnp.asarray([0.8])})
    p = 1 / (1 + np.exp(-0.8))
    value = vaejax.Enumerate()(model, params, 0.3, jax.random.key(0))
    np.testing.assert_allclose(value, p * 0.49 + (1 - p) * 0.09, rtol=1e-6)
    assert model.latent_support == vaejax.supports.BINARY


def test_what_is_no_encoder_is_refused():
    with pytest.raises(TypeError, match=r"Expectation.encoder"):
        vaejax.Expectation(square, vaejax.MLP(1))

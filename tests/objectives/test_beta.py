"""The weight on the KL: exact against closed forms and quadrature in float64. The bound has beta 1
throughout.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from tests.lib.given_keys import key_of_normals
from tests.lib.lines import (
    KEY,
    LINES,
    Slope,
    assert_close,
    lines_with,
    params_of,
    terms_and_gradient,
    value_and_gradient,
)
from tests.lib.oracles import Line, LinearGaussian, exact_moments, gauss_hermite
from vaejax import Beta, WarmUp

POINT = LinearGaussian()


# Beta.


def test_beta_in_closed_form(x64):
    """E log p(x|z) - beta KL(q || p) and its gradient in (mu, log s, w) by quadrature; the bound
    has beta 1 whatever the weight.

    beta comes from a schedule that is `step` at each step.
    """
    w, b, tau, x, mu, s = POINT.w, POINT.b, POINT.tau, POINT.x, POINT.mu, POINT.s
    betas = np.array([0.0, 0.3, 1.0, 4.0])
    log_p_x = -0.5 * np.log(2 * np.pi * tau**2) - ((x - b - w * mu) ** 2 + w**2 * s**2) / (
        2 * tau**2
    )
    kl = 0.5 * (mu**2 + s**2 - 1) - np.log(s)
    d_mu, d_log_scale = (
        w * (x - b - w * mu) / tau**2 - betas * mu,
        -((w * s / tau) ** 2) - betas * (s**2 - 1),
    )
    for num_samples, num_nodes in ((1, 20), (2, 8)):
        beta = Beta(WarmUp(10, 0.0, 10.0), num_samples)

        def moments(step, part, beta=beta, num_samples=num_samples, num_nodes=num_nodes):
            return exact_moments(
                lambda *args: beta.terms(*args, step)._asdict()[part], POINT, num_samples, num_nodes
            )[:2]

        value, gradient = jax.jit(jax.vmap(partial(moments, part="objective")))(betas)
        np.testing.assert_allclose(value, log_p_x - betas * kl, rtol=1e-12)
        np.testing.assert_allclose(
            gradient.T, [d_mu, d_log_scale, np.full(4, POINT.elbo_gradient[2])], rtol=1e-10
        )
    value, gradient = jax.jit(partial(moments, part="bound"))(4.0)
    np.testing.assert_allclose(value, POINT.elbo, rtol=1e-12)
    np.testing.assert_allclose(gradient, POINT.elbo_gradient, rtol=1e-10)


def test_beta_one_is_pathwise(x64):
    """Sample by sample, value and gradient, under a prior of two components made of q."""
    model = lines_with(0.8, vaejax.VampPrior(2))
    params = params_of(prior=jnp.asarray([[0.3, -1.0], [0.5, 0.2]]))
    xs = np.random.default_rng(0).normal(size=(3, 2))
    pathwise, beta = (
        vaejax.minibatch(estimator, model) for estimator in (vaejax.Pathwise(2), Beta(1.0, 2))
    )
    both = jax.jit(
        lambda *args: (value_and_gradient(pathwise)(*args), terms_and_gradient(beta)(*args))
    )
    expected, (terms, gradient) = both(params, xs, KEY)
    assert_close((terms.objective, gradient), expected)


def test_beta_of_a_posterior_that_knows_only_its_own_samples(x64):
    """An inverse autoregressive q has no log-density elsewhere."""
    encoder = vaejax.InverseAutoregressive(vaejax.MLP(2, (), heads=2), num_layers=1, hidden=(2,))
    model, x = vaejax.VAE(LINES.prior, LINES.likelihood, encoder), jnp.asarray([0.3, -0.4])
    params = jax.jit(model.init)(KEY, x)
    terms, bound = jax.jit(
        lambda p: (Beta(2.0).terms(model, p, x, KEY, 0), vaejax.elbo(model, p, x, KEY))
    )(params)
    np.testing.assert_allclose(terms.bound, bound, rtol=1e-5)
    assert abs(terms.objective - bound) > 0.01


def test_beta_vae_is_reverse_water_filling(x64):
    """A linear beta-VAE of Gaussian modes with variances l: at the known optimum the gradient is
    zero, and rate and error are known.

    With water level t = beta sigma^2: decoder slope^2 = max(l - t, 0), encoder slope w / (w^2 + t),
    variance t / (w^2 + t). The expectation over x and noise is of a quadratic, so a few nodes are
    exact. Squared errors and rates of `oracles.md`, section 3.
    """
    variances, noise = np.array([5, 3, 1.5, 0.6, 0.2]), 0.25
    model = vaejax.VAE(
        vaejax.StandardNormal(1),
        vaejax.Gaussian(Line(), float(np.sqrt(noise))),
        vaejax.DiagNormal(Slope(), max_log_scale=None),
    )
    nodes, weights = gauss_hermite(5, 2)

    def expected(w, a, log_scale, variance, beta):
        params = vaejax.Params(
            {"prior": (), "likelihood": {"net": {"w": w, "b": jnp.zeros(())}}},
            {"a": a[None], "log_scale": log_scale[None]},
        )

        def terms_at(node):
            x, key = jnp.sqrt(variance) * node[:1], key_of_normals(node[1:])
            return Beta(WarmUp(10, 0.0, 10.0)).terms(model, params, x, key, beta)

        terms = jax.vmap(terms_at)(nodes)
        return weights @ terms.objective, weights @ terms.bound

    value_and_gradient = jax.jit(
        jax.vmap(jax.value_and_grad(expected, (0, 1, 2), has_aux=True), (0, 0, 0, 0, None))
    )
    for beta, rate, squared_error in ((1.0, 4.073934, 1.2), (2.0, 2.687639, 2.2)):
        w = np.sqrt(np.maximum(variances - beta * noise, 0))
        a, log_scale = w / (w**2 + beta * noise), 0.5 * np.log(beta * noise / (w**2 + beta * noise))
        (objective, bound), gradient = value_and_gradient(w, a, log_scale, variances, beta)
        np.testing.assert_allclose(np.array(gradient), 0, atol=1e-12)
        log_p_x = -0.5 * (len(variances) * np.log(2 * np.pi * noise) + squared_error / noise)
        np.testing.assert_allclose(
            [objective.sum(), bound.sum()], [log_p_x - beta * rate, log_p_x - rate], atol=2e-6
        )

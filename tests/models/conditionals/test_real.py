"""Normal encoders as families: each holds the one before."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import vaejax
from tests.lib.conditionals import Outputs
from tests.lib.oracles import gauss_hermite
from vaejax.distributions.normal import DiagNormalDensity


@vaejax.component
class Linear:
    """z -> W z + b."""

    def init(self, key, example):
        return {"W": jnp.eye(2), "b": jnp.zeros(2)}

    def apply(self, params, z):
        return params["W"] @ z + params["b"]


def test_a_full_normal_knows_the_density_of_its_own_samples(x64):
    """N(loc, S L L' S) at the sample: equal to its density anywhere, and to scipy's."""
    heads = np.random.default_rng(3).normal(size=(5, 3))
    q = vaejax.FullNormal(vaejax.Free(3, ("a", "b", "c", "d", "e")))(
        dict(zip("abcde", jnp.asarray(heads), strict=True)), None
    )
    z, log_q = q.sample_and_log_prob(jax.random.key(0))
    np.testing.assert_allclose(log_q, q.log_prob(z), rtol=1e-10)
    unit = np.eye(3) + np.tril(30 * np.tanh(heads[2:] / 30), -1)
    tril = np.exp(7 * np.tanh(heads[1] / 7))[:, None] * unit
    expected = stats.multivariate_normal(heads[0], tril @ tril.T).logpdf(z)
    np.testing.assert_allclose(log_q, expected, rtol=1e-9)


@pytest.mark.slow
def test_posterior_families_nest():
    """ELBO of the trained q on a correlated linear-Gaussian model: diagonal <= low rank <= full <=
    log p(x), the first by the exact gap.

    In two dimensions a diagonal plus rank one is any covariance, so the last three are equal. The
    trained ELBO is exact: a three-point Gauss-Hermite rule integrates its quadratic integrand.
    Reference: oracles.md, section 2.
    """
    W, b, tau, x = (
        np.array([[1.5, 1.2], [0.3, 1.0]]),
        np.array([0.2, -0.1]),
        0.5,
        np.array([1.1, -0.4]),
    )
    precision = np.eye(2) + W.T @ W / tau**2
    log_marginal = stats.multivariate_normal.logpdf(x, b, W @ W.T + tau**2 * np.eye(2))
    theta = {"prior": (), "likelihood": {"net": {"W": W, "b": b}}}

    def trained(encoder):
        model = vaejax.VAE(vaejax.StandardNormal(2), vaejax.Gaussian(Linear(), scale=tau), encoder)
        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1_500))
        data, on_device = (
            jnp.asarray(x, jnp.float32),
            jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), theta),
        )

        def step(carry, key):
            phi, state = carry

            def loss(phi):
                return -vaejax.StickTheLanding(32)(model, vaejax.Params(on_device, phi), data, key)

            updates, state = optimizer.update(jax.grad(loss)(phi), state)
            return (optax.apply_updates(phi, updates), state), None

        phi = jax.tree.map(lambda leaf: 0.1 * leaf, encoder.init(jax.random.key(3), data))
        keys = jax.random.split(jax.random.key(0), 1_500)
        return model, jax.jit(
            lambda phi: jax.lax.scan(step, (phi, optimizer.init(phi)), keys)[0][0]
        )(phi)

    def exact_elbo(model, phi):
        with jax.enable_x64(True):
            params = jax.tree.map(
                partial(jnp.asarray, dtype=jnp.float64), vaejax.Params(theta, phi)
            )
            q = model.posterior(params, x)
            covariance = (
                jnp.diag(jnp.exp(2 * q.log_scale))
                if isinstance(q, DiagNormalDensity)
                else q.base.covariance_matrix
            )
            noise, weights = gauss_hermite(3, 2)
            zs = q.mean()[None] + noise @ jnp.linalg.cholesky(covariance).T
            log_w = jax.jit(jax.vmap(lambda z: model.log_joint(params, x, z) - q.log_prob(z)))(zs)
            return float(weights @ log_w)

    families = (
        vaejax.DiagNormal(Outputs((2,), 2)),
        vaejax.LowRankNormal(Outputs((2,), 3)),
        vaejax.FullNormal(Outputs((2,), 4)),
    )
    diagonal, low_rank, full = (exact_elbo(*trained(encoder)) for encoder in families)
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert gap > 0.5
    np.testing.assert_allclose(diagonal, log_marginal - gap, rtol=0, atol=1e-3)
    np.testing.assert_allclose(full, log_marginal, rtol=0, atol=1e-3)
    np.testing.assert_allclose(low_rank, log_marginal, rtol=0, atol=1e-3)
    assert max(diagonal, low_rank, full) <= log_marginal + 1e-9
    assert diagonal <= log_marginal - gap + 1e-9  # no diagonal q does better


@pytest.mark.parametrize("family", [vaejax.LowRankNormal, vaejax.FullNormal])
def test_the_density_at_infinity_is_zero(family):
    """In all directions; what is no number stays so."""
    heads = {name: jnp.full(3, 0.4) for name in "abcde"}  # a rank of 3, or the rows of 3 dimensions
    p = family(vaejax.Free((3,), tuple(heads)))(heads, None)
    for infinite in (jnp.inf, -jnp.inf):
        assert p.log_prob(jnp.asarray([0.0, infinite, 1.0])) == -jnp.inf
        assert p.log_prob(jnp.asarray([infinite, -infinite, infinite])) == -jnp.inf
    assert jnp.isnan(p.log_prob(jnp.asarray([jnp.nan, jnp.inf, 1.0])))
    assert jnp.isfinite(p.log_prob(jnp.zeros(3)))

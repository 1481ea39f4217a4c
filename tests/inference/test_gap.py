"""The gap of an encoder, split into its two causes, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.correlated import MIXED, kl_to_posterior, log_marginal, posterior_precision, start
from tests.lib.oracles import LinearGaussian, assert_mean

POINT = LinearGaussian()
FAMILIES = {
    "diagonal": MIXED.encoder,
    "full": vaejax.FullNormal(vaejax.Free(2, ("loc", "log_scale", "row 1", "row 2"))),
    "flow": vaejax.RealNVP(vaejax.Free(2), 4, (16,)),
}


@pytest.mark.parametrize("name", ["diagonal", "full", pytest.param("flow", marks=pytest.mark.slow)])
def test_the_gap_is_split_as_in_closed_form(x64, name):
    """Posterior N(m, Lam^-1): no diagonal q does better than (sum log Lam_jj - log det Lam)/2 below
    log p(x), and a full one reaches it.

    The ELBO of the encoder is below the best by KL(q || p(z|x)) minus that. The bounds are means of
    4,000 weights for 20 keys.
    """
    x = np.array([0.7, -0.4])
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), start(jnp.asarray(x)))
    phi = {"loc": jnp.asarray([0.4, -0.5]), "log_scale": jnp.asarray([-0.6, -0.9])}
    params = params._replace(phi=phi)
    precision, kl = posterior_precision(params), kl_to_posterior(params, x)
    log_p, log_det = log_marginal(params, x), np.linalg.slogdet(precision)[1]
    refined = vaejax.Refined(MIXED, 1_500, "standard", FAMILIES[name], num_samples=16)
    gap = vaejax.inference_gap(
        refined,
        params,
        np.tile(x, (20, 1)),
        np.full(20, log_p),
        jax.random.key(1),
        num_samples=4_000,
    )
    np.testing.assert_array_equal(gap.total, gap.log_marginal - gap.elbo)
    np.testing.assert_allclose(gap.approximation + gap.amortisation, gap.total, rtol=0, atol=1e-12)
    diagonal_gap = 0.5 * (np.log(np.diag(precision)).sum() - log_det)
    assert_mean(gap.total, kl, detectable=0.08)
    if name == "diagonal":
        assert_mean(gap.approximation, diagonal_gap, detectable=0.08)
    else:
        assert np.all(np.abs(gap.approximation) < 0.02)


XS = np.asarray([[0.3], [1.1], [-2.0]])


def exactly(params, x, key):
    """log p(x) of the frozen point."""
    variance = POINT.w**2 + POINT.tau**2
    return -0.5 * (jnp.log(2 * jnp.pi * variance) + (x[0] - POINT.b) ** 2 / variance)


def test_log_marginal_may_be_a_function_and_the_data_a_source(x64):
    """The same three numbers, as from arrays."""
    refined, key = vaejax.Refined(POINT.model, 2), jax.random.key(0)
    numbers = [float(exactly(None, x, None)) for x in XS]
    first = vaejax.inference_gap(refined, POINT.params, XS, numbers, key, num_samples=5)
    source = vaejax.RandomAccess(list(XS))
    second = vaejax.inference_gap(refined, POINT.params, source, exactly, key, num_samples=5)
    for name, values in first._asdict().items():
        np.testing.assert_allclose(getattr(second, name), values, rtol=1e-12)


def test_the_two_q_have_noise_of_their_own(x64):
    """Without a step the two q are one, and their bounds independent estimates of one number: equal
    they would be with common noise.
    """
    refined, xs = vaejax.Refined(POINT.model, 0), np.full((2_000, 1), POINT.x)
    log_p = np.full(len(xs), POINT.log_marginal)
    gap = vaejax.inference_gap(refined, POINT.params, xs, log_p, jax.random.key(2), num_samples=1)
    centred = gap.best - POINT.elbo, gap.elbo - POINT.elbo
    scale = np.std(centred[0])
    assert_mean(centred[0] * centred[1] / scale**2, 0, detectable=0.3)
    assert_mean(gap.amortisation / scale, 0, detectable=0.3)
    np.testing.assert_array_equal(gap.approximation, gap.log_marginal - gap.best)


def test_a_refined_q_that_is_worse_than_the_encoders_is_said():
    """The prior, which no step has moved, below a posterior that is nearly right."""
    unmoved, key = vaejax.Refined(POINT.model, 0, "standard"), jax.random.key(3)
    xs = np.linspace(1.5, 2.0, 20)[:, None]
    with pytest.warns(UserWarning, match=r"the refined q is \d\S* nats below the encoder's"):
        gap = vaejax.inference_gap(unmoved, POINT.params, xs, np.zeros(20), key)
    assert gap.amortisation.mean() < 0


def test_mistakes_are_named():
    refined, key = vaejax.Refined(POINT.model, 0), jax.random.key(0)
    with pytest.raises(
        ValueError, match=r"log_marginal has shape \(2,\); give one number for each of 3 examples"
    ):
        vaejax.inference_gap(refined, POINT.params, np.zeros((3, 1)), np.zeros(2), key)
    with pytest.raises(TypeError, match="`refined` of inference_gap is .*from vaejax.Refined"):
        vaejax.inference_gap(POINT.model, POINT.params, XS, np.zeros(3), key)

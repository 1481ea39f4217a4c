"""Gradients of importance-weighted bounds: exact means and variances at few samples, and for
discrete latents by enumeration.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.binary import MODEL, PARAMS, X
from tests.lib.cases import cases
from tests.lib.given_keys import key_of_uniforms
from tests.lib.oracles import LinearGaussian, exact_moments, gradient_vector
from tests.lib.two_samples import AT_TWO_SAMPLES
from vaejax.estimators.multi_sample import multi_sample_score

POINT = LinearGaussian()
D_W_AT_TWO = -0.4061718584  # d IWAE-2 / dw, by differences of its exact value


@pytest.mark.parametrize(
    "estimator, expected_mean, expected_variance", AT_TWO_SAMPLES.values(), ids=AT_TWO_SAMPLES
)
def test_importance_weighted_gradients_at_two_samples(
    x64, estimator, expected_mean, expected_variance
):
    value, mean, variance = exact_moments(estimator, POINT, num_samples=2, num_nodes=60)
    np.testing.assert_allclose(value, -1.5314735497, rtol=1e-9)
    np.testing.assert_allclose(
        [mean[0], variance[0]], [expected_mean, expected_variance], rtol=1e-8
    )
    np.testing.assert_allclose(mean[2], D_W_AT_TWO, rtol=1e-8)  # in theta all are unbiased


@pytest.mark.slow
def test_importance_weighted_gradients_at_three_samples(x64):
    """Those that are unbiased have one mean, in every parameter; those of the wake phase another,
    which is the others' bias.
    """
    settings = {"num_samples": 3, "num_nodes": 28}
    iwae, dreg, stopped, ovis, biased_ovis, geometric, arithmetic, wake, doubly_wake = (
        exact_moments(estimator, POINT, **settings)[1]
        for estimator in (
            vaejax.Pathwise(3, vaejax.iwae_bound),
            vaejax.DReG(3),
            vaejax.StickTheLanding(3, vaejax.iwae_bound),
            vaejax.OVIS(3),
            vaejax.OVIS(3, gamma=1.0),
            vaejax.VIMCO(3),
            vaejax.VIMCO(3, "arithmetic"),
            vaejax.RWS(3),
            vaejax.RWS(3, doubly_reparameterised=True),
        )
    )
    for other in (dreg, ovis, geometric, arithmetic):
        np.testing.assert_allclose(other, iwae, atol=1e-8)
    np.testing.assert_allclose(doubly_wake[:2], wake[:2], atol=1e-8)
    for biased in (stopped, biased_ovis):
        np.testing.assert_allclose(biased[:2] - iwae[:2], wake[:2], atol=1e-8)
    assert (np.abs(wake[:2]) > 0.05).all()


def test_at_one_sample_they_are_one_another(x64):
    dreg, stopped = (
        exact_moments(estimator, POINT) for estimator in (vaejax.DReG(1), vaejax.StickTheLanding())
    )
    for ours, theirs in zip(dreg, stopped, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    _, mean, variance = exact_moments(vaejax.RWS(1), POINT)
    np.testing.assert_allclose([mean[0], variance[0]], [0, 1 / POINT.s**2], atol=1e-12)
    np.testing.assert_allclose(
        exact_moments(vaejax.RWS(1, doubly_reparameterised=True), POINT)[2][:2], 0, atol=1e-24
    )


def test_stopping_adds_the_wake_gradient_sample_by_sample(x64):
    key = jax.random.key(3)

    def phi_gradient(estimator):
        return gradient_vector(
            jax.grad(lambda p: estimator(POINT.model, p, POINT.datum, key))(POINT.params)
        )[:2]

    stopped, total = (
        phi_gradient(family(5, vaejax.iwae_bound))
        for family in (vaejax.StickTheLanding, vaejax.Pathwise)
    )
    np.testing.assert_allclose(stopped, total + phi_gradient(vaejax.RWS(5)), rtol=1e-10)


@pytest.mark.slow
def test_of_the_importance_weighted_bound_without_control(x64):
    def estimator(model, params, x, key):
        return multi_sample_score(model, params, x, key, num_samples=2, control=jnp.zeros_like)

    value, mean, variance = exact_moments(estimator, POINT, 2, 60)
    np.testing.assert_allclose(
        [value, mean[0], variance[0]], [-1.5314735497, 0.1469185706, 24.8892732468], rtol=1e-9
    )


WEIGHTED = {
    "geometric": vaejax.VIMCO(2),
    "arithmetic": vaejax.VIMCO(2, "arithmetic"),
    "OVIS": vaejax.OVIS(2),
}


@pytest.mark.parametrize("estimator", cases(WEIGHTED, slow=("arithmetic", "OVIS")))
def test_importance_weighted_ones_by_enumeration(estimator):
    """Exactly: the mean over all 8 x 8 pairs of samples is the gradient of the enumerated bound."""
    states = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=3)))
    pairs = jnp.stack(
        [states[jnp.asarray(index)] for index in itertools.product(range(8), repeat=2)]
    )

    @jax.jit
    def log_q(params):
        q = MODEL.posterior(params, X)
        return jax.vmap(jax.vmap(q.log_prob))(pairs).sum(1)

    def bound(params):
        q = MODEL.posterior(params, X)
        log_w = jax.vmap(jax.vmap(lambda z: MODEL.log_joint(params, X, z) - q.log_prob(z)))(pairs)
        return jnp.sum(jnp.exp(log_q(params)) * jax.vmap(vaejax.iwae_bound)(log_w))

    def gradient(zs):
        """At the samples zs: b = 1[u < p], so u = 0 gives 1 and u near 1 gives 0."""
        key = key_of_uniforms((1 - zs) * (1 - 1e-6))
        return ravel_pytree(jax.grad(lambda p: estimator(MODEL, p, X, key))(PARAMS))[0]

    np.testing.assert_allclose(
        jnp.exp(log_q(PARAMS)) @ jax.jit(jax.vmap(gradient))(pairs),
        ravel_pytree(jax.jit(jax.grad(bound))(PARAMS))[0],
        atol=2e-5,
    )


def test_controls_are_their_formulas(x64):
    """Of four weights, w_k replaced by the mean of the others; OVIS's with its constant."""
    log_w = np.random.default_rng(2).normal(size=4)
    w, given = np.exp(log_w), jnp.asarray(log_w)
    others = [np.delete(w, k) for k in range(4)]
    replaced = {
        "geometric": [np.mean([*o, np.exp(np.log(o).mean())]) for o in others],
        "arithmetic": [np.mean([*o, o.mean()]) for o in others],
    }
    for mean, expected in replaced.items():
        control = vaejax.VIMCO(4, mean).control(given)
        np.testing.assert_allclose(control, np.log(expected), rtol=1e-12)
    for gamma in (0.0, 0.4, 1.0):
        expected = np.log([o.mean() for o in others]) - gamma * w / w.sum()
        expected += (1 - gamma) * np.log(1 - 1 / 4)
        control = vaejax.OVIS(4, gamma).control(given)
        np.testing.assert_allclose(control, expected, rtol=1e-12)


def test_one_weight_may_dominate():
    """Where one weight is all there is, the means of the others are far below it, and stay
    finite.
    """
    log_w = jnp.asarray([0.0, -200.0, -210.0])
    for estimator in (vaejax.VIMCO(3), vaejax.VIMCO(3, "arithmetic"), vaejax.OVIS(3)):
        assert np.isfinite(estimator.control(log_w)).all()


REFUSED = {
    "VIMCO of one": (
        lambda: vaejax.VIMCO(1),
        r"VIMCO.num_samples = 1; .* at least 2.*, which leaves one out",
    ),
    "unknown mean": (
        lambda: vaejax.VIMCO(2, "harmonic"),
        r'VIMCO.mean = .harmonic.; choose "geometric" or "arithmetic"',
    ),
    "OVIS of one": (lambda: vaejax.OVIS(1), "OVIS.num_samples = 1; .* at least 2"),
    "RWS of none": (lambda: vaejax.RWS(0), "RWS.num_samples = 0; .* at least 1"),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

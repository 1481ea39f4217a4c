"""Tests of the tests: what the exact checks of the estimators are made of must see bugs that people
make.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, exact_moments
from tests.lib.two_samples import AT_TWO_SAMPLES
from vaejax.base.mapping import map_samples
from vaejax.bounds import log_mean_of_others, log_weights, sample_posterior
from vaejax.estimators.base import with_gradient_of

POINT = LinearGaussian()
stopped = jax.lax.stop_gradient
ELBO_AT_TWO = {
    "Pathwise": vaejax.Pathwise(2),
    "StickTheLanding": vaejax.StickTheLanding(2),
    "ScoreFunction": vaejax.ScoreFunction(2),
}


def pieces(model, params, x, key):
    """q, two samples that move with it, their log p(x, z), and their log q(z | x)."""
    q = model.posterior(params, x)
    zs = sample_posterior(q, key, 2)
    return (
        q,
        zs,
        map_samples(lambda z: model.log_joint(params, x, z), zs),
        map_samples(q.log_prob, zs),
    )


def held(model, params, x, key):
    """The same with the samples held fixed."""
    q = model.posterior(params, x)
    zs = stopped(sample_posterior(q, key, 2))
    return map_samples(lambda z: model.log_joint(params, x, z), zs), map_samples(q.log_prob, zs)


def dropped_score_term(model, params, x, key):
    log_joint, log_q = held(model, params, x, key)
    return jnp.mean(log_joint - log_q)


def stopped_samples_in_place_of_parameters(model, params, x, key):
    q, zs, log_joint, _ = pieces(model, params, x, key)
    return jnp.mean(log_joint - map_samples(q.log_prob, stopped(zs)))


def stopped_prior_too(model, params, x, key):
    _, zs, _, log_q = pieces(model, params, x, key)
    return jnp.mean(map_samples(lambda z: model.log_joint(stopped(params), x, z), zs) - log_q)


def baseline_that_sees_its_own_sample(model, params, x, key):
    log_joint, log_q = held(model, params, x, key)
    f = stopped(log_joint - log_q)
    return with_gradient_of(jnp.mean(f), jnp.mean(log_joint + (f - jnp.mean(f)) * log_q))


def reward_that_is_differentiated_too(model, params, x, key):
    log_joint, log_q = held(model, params, x, key)
    f = log_joint - log_q
    others = stopped(f)[::-1]
    return with_gradient_of(jnp.mean(f), jnp.mean(log_joint + (f - others) * log_q))


def weight_where_its_square_belongs(model, params, x, key):
    q, zs, _, _ = pieces(model, params, x, key)
    path = log_weights(model, stopped(params), x, stopped(q), zs)
    w = jax.nn.softmax(stopped(path))
    fixed = map_samples(lambda z: model.log_joint(params, x, z), stopped(zs))
    return with_gradient_of(vaejax.iwae_bound(path), jnp.sum(w * path + w * fixed))


def square_where_the_weight_belongs(model, params, x, key):
    q, zs, _, _ = pieces(model, params, x, key)
    path = log_weights(model, stopped(params), x, stopped(q), zs)
    w = jax.nn.softmax(stopped(path))
    fixed = map_samples(lambda z: model.log_joint(params, x, z), stopped(zs))
    return with_gradient_of(vaejax.iwae_bound(path), jnp.sum(w**2 * path + w**2 * fixed))


def bound_without_its_constant(model, params, x, key):
    _, _, log_joint, log_q = pieces(model, params, x, key)
    return jax.scipy.special.logsumexp(log_joint - log_q)


def wake_gradient_of_the_wrong_sign(model, params, x, key):
    log_joint, log_q = held(model, params, x, key)
    w = jax.nn.softmax(stopped(log_joint - log_q))
    return with_gradient_of(vaejax.iwae_bound(log_joint - log_q), jnp.sum(w * (log_joint - log_q)))


def control_that_sees_its_own_sample(model, params, x, key):
    log_joint, log_q = held(model, params, x, key)
    log_w = stopped(log_joint - log_q)
    w, bound = jax.nn.softmax(log_w), vaejax.iwae_bound(log_w)
    control = jnp.mean(log_w)
    return with_gradient_of(bound, jnp.sum(w * log_joint + (bound - control - w) * log_q))


def score_without_the_weights_own_derivative(model, params, x, key):
    log_joint, log_q = held(model, params, x, key)
    log_w = stopped(log_joint - log_q)
    w, bound = jax.nn.softmax(log_w), vaejax.iwae_bound(log_w)
    return with_gradient_of(
        bound, jnp.sum(w * log_joint + (bound - log_mean_of_others(log_w)) * log_q)
    )


def one_draw_for_both_samples(model, params, x, key):
    q = model.posterior(params, x)
    z = sample_posterior(q, key, 2)[0]
    return model.log_joint(params, x, z) - q.log_prob(z)


PLANTED = {
    dropped_score_term: "Pathwise",
    stopped_samples_in_place_of_parameters: "StickTheLanding",
    stopped_prior_too: "Pathwise",
    one_draw_for_both_samples: "Pathwise",
    baseline_that_sees_its_own_sample: "ScoreFunction",
    reward_that_is_differentiated_too: "ScoreFunction",
    weight_where_its_square_belongs: "DReG",
    square_where_the_weight_belongs: "DReG",
    bound_without_its_constant: "IWAE",
    wake_gradient_of_the_wrong_sign: "RWS",
    control_that_sees_its_own_sample: "VIMCO, geometric",
    score_without_the_weights_own_derivative: "VIMCO, geometric",
}


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.__name__)
def test_a_planted_bug_is_seen(x64, planted):
    """Its exact value, mean gradient or variance is off by a thousand times more than the checks
    let pass.
    """
    name = PLANTED[planted]
    right = ELBO_AT_TWO.get(name) or AT_TWO_SAMPLES[name][0]
    ours, theirs = (
        np.concatenate([np.ravel(part) for part in exact_moments(e, POINT, 2, 30)])
        for e in (right, planted)
    )
    assert np.max(np.abs(ours - theirs)) > 1e-2


def test_nothing_is_seen_where_nothing_is_planted(x64):
    """The same comparison of two estimators that are one: the total derivative, and the score's
    coefficient at 0.
    """
    total, same = (
        exact_moments(e, LinearGaussian(), 2, 30)
        for e in (vaejax.Pathwise(2), vaejax.StickTheLanding(2, coefficient=0.0))
    )
    for ours, theirs in zip(total, same, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)

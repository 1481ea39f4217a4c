"""Baselines of the score function, learned ones by the same gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, gradient_vector

POINT = LinearGaussian()


@pytest.mark.parametrize(
    "baseline",
    [vaejax.MovingAverage(), vaejax.LearnedBaseline(vaejax.MLP(1, (3,)))],
    ids=["average", "net"],
)
def test_a_learned_baseline(baseline):
    """theta and phi get what the constant of its value would give them; psi the gradient of -(f -
    b)^2 / 2; the value is the bound.
    """
    estimator, key = vaejax.ScoreFunction(1, baseline), jax.random.key(2)
    psi = jax.tree.map(
        lambda leaf: leaf + 0.3,
        estimator.init(POINT.model, POINT.params, POINT.datum, jax.random.key(0)),
    )
    params = POINT.params._replace(psi=psi)
    b = baseline(psi, POINT.datum, jnp.zeros(1))
    plain = vaejax.ScoreFunction(1, vaejax.ConstantBaseline(float(b)))
    ours, theirs = (
        jax.value_and_grad(lambda p, e=e: e(POINT.model, p, POINT.datum, key))(params)
        for e in (estimator, plain)
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(gradient_vector(ours[1]), gradient_vector(theirs[1]), rtol=1e-5)
    f = vaejax.elbo(POINT.model, POINT.params, POINT.datum, key)
    expected = jax.grad(lambda psi: -0.5 * (f - baseline(psi, POINT.datum, jnp.zeros(1))) ** 2)(psi)
    for got, want in zip(jax.tree.leaves(ours[1].psi), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_leaving_one_out_is_the_mean_of_the_others():
    log_w = np.asarray([1.0, -2.0, 0.5, 4.0], np.float32)
    baselines = vaejax.LeaveOneOut()((), None, jnp.asarray(log_w))
    np.testing.assert_allclose(baselines, [np.delete(log_w, k).mean() for k in range(4)], rtol=1e-6)


def test_a_baseline_of_two_numbers_is_refused():
    estimator = vaejax.ScoreFunction(1, vaejax.LearnedBaseline(vaejax.MLP(2)))
    params = POINT.params._replace(
        psi=estimator.init(POINT.model, POINT.params, POINT.datum, jax.random.key(0))
    )
    with pytest.raises(TypeError, match="LearnedBaseline needs a net of one output"):
        estimator(POINT.model, params, POINT.datum, jax.random.key(0))

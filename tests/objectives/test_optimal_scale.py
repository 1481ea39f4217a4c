"""The best scale of a Gaussian likelihood, against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import vaejax
from tests.lib.fits import fit
from tests.lib.lines import (
    KEY,
    LEARNED,
    assert_close,
    log_scale_of,
    params_of,
    samples,
    terms_and_gradient,
    value_and_gradient,
)
from tests.lib.trees import assert_same_bits
from vaejax import Beta, optimal_scale, with_optimal_scale

# The best scale.


def learned():
    xs = np.random.default_rng(0).normal(size=(40, 2))
    return params_of(w=0.7, likelihood={"log_scale": jnp.asarray(0.4)}), xs


def test_optimal_scale(x64):
    """sigma^2 is the mean squared error, where the bound's derivative in the scale is zero at the
    same samples. As an objective, value and gradient are those at this scale, all but the gradient
    of the scale itself, which is its own, as if it were learned.
    """
    params, xs = learned()
    plain = vaejax.minibatch(vaejax.Pathwise(), LEARNED)
    weighted = vaejax.minibatch(Beta(3.0), LEARNED)

    @jax.jit
    def all_of_them(params):
        best = with_optimal_scale(LEARNED, params, xs, KEY)
        whole = vaejax.minibatch(vaejax.Pathwise(), LEARNED, dataset_size=1000)

        def gradient(params, objective):
            return value_and_gradient(objective)(params, xs, KEY)

        return (
            best,
            gradient(params, plain)[1],
            gradient(best, plain),
            gradient(params, optimal_scale(plain)),
            gradient(params, optimal_scale(whole)),
            terms_and_gradient(optimal_scale(weighted))(params, xs, KEY),
        )

    best, at_start, (value, at_best), optimal, scaled, (terms, at_weight) = all_of_them(params)
    errors = xs - 0.7 * samples(params, xs, KEY) - 0.2
    np.testing.assert_allclose(
        np.exp(2 * log_scale_of(best)), np.mean(np.square(errors)), rtol=1e-12
    )
    np.testing.assert_allclose(LEARNED.p_x_given_z(best, xs[0]).log_scale, log_scale_of(best))
    assert_same_bits(best, params_of(w=0.7, likelihood={"log_scale": log_scale_of(best)}))
    assert abs(log_scale_of(at_start)) > 0.1
    np.testing.assert_allclose(log_scale_of(at_best), 0, atol=1e-12)
    at_best.theta["likelihood"]["log_scale"] = log_scale_of(at_start)
    assert_close(optimal, (value, at_best), rtol=1e-9)
    assert_close(
        scaled, jax.tree.map(lambda leaf: 1000 * leaf, (value, at_best)), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        [terms.bound, log_scale_of(at_weight)], [value, log_scale_of(at_start)], rtol=1e-9
    )


def test_the_scale_is_held_constant(x64):
    """The net's gradient is that at the best scale, also for a bound of two samples, whose
    derivative in the scale is not zero there.
    """
    params, xs = learned()
    bound = vaejax.minibatch(vaejax.Pathwise(2), LEARNED)
    best = with_optimal_scale(LEARNED, params, xs, KEY)
    _, expected = value_and_gradient(bound)(best, xs, KEY)
    _, gradient = value_and_gradient(optimal_scale(bound))(params, xs, KEY)
    assert abs(log_scale_of(expected)) > 0.01
    for ours, theirs in ((gradient.phi, expected.phi), (gradient.theta, expected.theta)):
        net = lambda tree: tree["likelihood"]["net"] if "likelihood" in tree else tree  # noqa: E731
        assert_close(net(ours), net(theirs), rtol=1e-9)


def test_a_perfect_fit_has_a_finite_scale():
    params = params_of(w=0.0, likelihood={"log_scale": jnp.zeros(())}, dtype=jnp.float32)
    xs = np.full((5, 2), 0.2, np.float32)
    objective = optimal_scale(vaejax.minibatch(vaejax.Pathwise(), LEARNED))
    best, *values = jax.jit(
        lambda p: (
            with_optimal_scale(LEARNED, p, xs, KEY),
            value_and_gradient(objective)(p, xs, KEY),
        )
    )(params)
    assert log_scale_of(best) == -7
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values))


@pytest.mark.slow
def test_fit_at_the_optimal_scale_follows_it():
    """On data of scale 0.1 the parameter comes down from 1, the validation with it, and the closed
    form has little to add.
    """
    xs = 0.2 + 0.1 * np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    start = params_of(0.0, (0.0, 0.0), (0.0, 0.0), {"log_scale": jnp.zeros(())}, jnp.float32)
    only_the_scale = optax.multi_transform(
        {"scale": optax.adam(3e-2), "rest": optax.set_to_zero()},
        jax.tree.map(lambda _: "rest", start)._replace(
            theta={"prior": (), "likelihood": {"net": "rest", "log_scale": "scale"}}
        ),
    )
    objective = optimal_scale(vaejax.minibatch(vaejax.Pathwise(), LEARNED))
    run = fit(
        300, objective, start, only_the_scale, xs, 100, validation=vaejax.Validation(xs, every=300)
    )
    scales = [
        np.exp(log_scale_of(params))
        for params in (run.params, with_optimal_scale(LEARNED, run.params, xs, KEY))
    ]
    np.testing.assert_allclose(scales, xs.std(), rtol=0.05)
    np.testing.assert_allclose(
        run.history["validation_bound"], -2 * stats.norm(0, 0.1).entropy(), atol=0.1
    )
    np.testing.assert_allclose(
        run.history["bound"], -2 * stats.norm(0, 0.1).entropy(), atol=0.5
    )  # at the best scale from the first step
    np.testing.assert_allclose(run.history["objective"], run.history["bound"])

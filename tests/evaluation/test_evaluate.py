"""The bounds of a model over a data set: exact, and the same whatever the batches."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.evaluated import binary_model
from tests.lib.linear import Linear
from tests.lib.oracles import LinearGaussian, assert_mean, exact_moments
from vaejax.base.mapping import estimate
from vaejax.evaluation.evaluate import Evaluation, Summary

POINT = LinearGaussian()
XS = np.linspace(-2, 2, 23, dtype=np.float32)[:, None]


def test_evaluate_at_the_exact_posterior(x64):
    """With an exact q both bounds are log p(x), sample by sample, so their mean is known to
    rounding.
    """
    exact = POINT.at_posterior()
    xs = np.full((7, 1), POINT.x)
    evaluation = vaejax.evaluate(
        exact.model, exact.params, xs, jax.random.key(0), num_samples=30, batch_size=3
    )
    np.testing.assert_allclose(
        [evaluation.elbo.mean, evaluation.log_marginal.mean], exact.log_marginal, rtol=1e-12
    )
    assert evaluation.active_units == 0 and evaluation.num_samples == 30


def repeated(num_examples, **settings) -> Evaluation:
    """Of the frozen point, the same example many times, so that means over examples are means over
    keys.
    """
    xs = np.full((num_examples, 1), POINT.x)
    return vaejax.evaluate(POINT.model, POINT.params, xs, jax.random.key(0), **settings)


def test_every_rung_of_the_ladder_has_its_exact_mean(x64):
    """ELBO and IWAE-1 in closed form, IWAE-2 and IWAE-3 by tensor quadrature; IWAE-300 to the first
    order of its bias, (R - 1)/(2 K).

    So is the share of effective samples 1/R, R = E_q[(w/p(x))^2].
    """
    evaluation = repeated(2_000, num_samples=300, ladder=(1, 2, 3))
    by_example, second_moment = evaluation.by_example, POINT.weight_second_moment
    exact = {k: exact_moments(partial(vaejax.iwae, num_samples=k), POINT, k)[0] for k in (2, 3)}
    assert exact[2] == pytest.approx(-1.5314735497, abs=1e-10)
    for name, expected in {
        "elbo": POINT.elbo,
        "iwae_1": POINT.elbo,
        "iwae_2": exact[2],
        "iwae_3": exact[3],
    }.items():
        assert_mean(by_example[name], expected, detectable=4e-3)
    np.testing.assert_allclose(by_example["elbo"], by_example["iwae_1"], rtol=1e-12)
    assert_mean(
        by_example["iwae_300"], POINT.log_marginal - (second_moment - 1) / 600, detectable=4e-3
    )
    assert_mean(by_example["effective_samples"] / 300, 1 / second_moment, detectable=5e-3)
    assert evaluation.log_marginal == evaluation.iwae[300] == estimate(by_example["iwae_300"])
    assert list(evaluation.iwae) == [1, 2, 3, 300] and evaluation.bits_per_dim is None


def test_k_hat_sees_weights_without_a_variance(x64):
    """w has moments below order 1/(1 - lam s^2), so k = 1 - lam s^2: below 0 for the frozen q, 0.99
    for one a tenth as wide as p(z|x).

    By 1,000 weights the latter is found for 0.8 of the examples; fewer than half of 50 would be a
    chance of 1e-6.
    """
    narrow = LinearGaussian(s=0.1 * POINT.lam**-0.5)
    xs = np.full((50, 1), POINT.x)
    trusted = vaejax.evaluate(POINT.model, POINT.params, xs, jax.random.key(0), num_samples=1_000)
    doubtful = vaejax.evaluate(
        narrow.model, narrow.params, xs, jax.random.key(0), num_samples=1_000
    )
    assert trusted.unreliable == 0 and doubtful.unreliable > 0.5
    assert np.isnan(repeated(3, num_samples=20).unreliable)


@pytest.mark.parametrize("scale", [0.01, 0.001])
def test_a_narrow_likelihood_at_initialisation_is_not_trusted(scale):
    """One weight of 500 is all there is, of every example."""
    xs = np.random.default_rng(0).random((4, 8, 8), np.float32)
    likelihood = vaejax.Gaussian(vaejax.MLP((8, 8), (16,)), scale)
    encoder = vaejax.DiagNormal(vaejax.MLP(8, (16,), heads=2))
    model = vaejax.VAE(vaejax.StandardNormal(8), likelihood, encoder)
    params = model.init(jax.random.key(0), xs[0])
    evaluation = vaejax.evaluate(model, params, xs, jax.random.key(1))
    assert evaluation.unreliable == 1 and evaluation.effective_samples.mean < 1.2


def test_an_exact_q_is_trusted():
    """Its weights are constant up to the rounding of single precision, of every example."""
    slope = POINT.w / (POINT.tau**2 * POINT.lam)
    net = Linear(((slope,),), (-slope * POINT.b,), (float(np.log(POINT.lam**-0.5)),))
    model = replace(POINT.model, encoder=vaejax.DiagNormal(net, max_log_scale=None))
    params = POINT.params._replace(phi=())
    for xs in (XS, 30 * XS):
        evaluation = vaejax.evaluate(model, params, xs, jax.random.key(0))
        assert evaluation.unreliable == 0
        assert evaluation.effective_samples.mean == pytest.approx(500)


@vaejax.component
class Logarithm:
    """x -> (log x, 0), NaN below 0."""

    def init(self, key, example):
        return ()

    def apply(self, params, x):
        return jnp.log(x), jnp.zeros(1)


def test_an_example_whose_weights_are_nan_is_not_trusted():
    model = replace(POINT.model, encoder=vaejax.DiagNormal(Logarithm()))
    params = POINT.params._replace(phi=())
    xs = np.array([[1.0], [-1.0], [1.1], [0.9]], np.float32)
    evaluation = vaejax.evaluate(model, params, xs, jax.random.key(0), num_samples=100)
    assert np.isnan(evaluation.by_example["k_hat"]).tolist() == [False, True, False, False]
    assert evaluation.unreliable == 0.25 and np.isnan(evaluation.active_units)
    assert np.isnan(evaluation.elbo.mean) and "25.0%" in str(evaluation)


def test_weights_at_the_edges_have_their_limits():
    """All 0: nothing is effective, the bounds are -inf. One alone above 0: one is. Infinite or NaN:
    NaN.
    """
    log_w = np.zeros((5, 50))
    log_w[0], log_w[1, 1:], log_w[2, 3], log_w[3, 3] = -np.inf, -np.inf, np.nan, np.inf
    kept = Summary((1, 50))((log_w, np.zeros((5, 1))))
    np.testing.assert_array_equal(kept["k_hat"], [np.nan, np.inf, np.nan, np.inf, -np.inf])
    np.testing.assert_allclose(kept["effective_samples"], [0, 1, np.nan, np.nan, 50])
    iwae = [-np.inf, -np.log(50), np.nan, np.inf, 0]
    np.testing.assert_allclose(kept["iwae_50"], iwae, atol=1e-12)
    np.testing.assert_array_equal(kept["elbo"], [-np.inf, -np.inf, np.nan, np.inf, 0])
    unbounded = estimate(kept["elbo"][:1].repeat(2))
    assert unbounded.mean == -np.inf and np.isnan(unbounded.standard_error)


def test_batches_and_chunks_change_an_evaluation_by_rounding_only(x64):
    model, params, xs = binary_model()
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    whole, *others = (
        vaejax.evaluate(
            model, params, xs, jax.random.key(0), num_samples=30, batch_size=batch_size, chunk=chunk
        ).by_example
        for batch_size, chunk in ((23, 30), (1, 7), (5, 1), (100, 100))
    )
    for other in others:
        for name in whole:
            np.testing.assert_allclose(other[name], whole[name], rtol=1e-9)


def test_a_source_is_evaluated_as_its_arrays_are():
    model, params, xs = binary_model()
    settings = {"num_samples": 10, "batch_size": 5}
    of_arrays, of_source = (
        vaejax.evaluate(model, params, data, jax.random.key(0), **settings)
        for data in (xs, vaejax.RandomAccess(list(xs)))
    )
    for name, array in of_arrays.by_example.items():
        np.testing.assert_array_equal(of_source.by_example[name], array)
    assert of_source.bits_per_dim == of_arrays.bits_per_dim


def test_bits_per_dimension_are_of_discrete_data_alone():
    model, params, xs = binary_model()
    evaluation = vaejax.evaluate(model, params, xs, jax.random.key(0), num_samples=30)
    assert evaluation.bits_per_dim.mean == pytest.approx(
        -evaluation.log_marginal.mean / (6 * np.log(2))
    )
    assert "bits per dim" in str(evaluation) and "IWAE-10 " in str(evaluation)
    assert repeated(3, num_samples=30).bits_per_dim is None


def test_a_model_of_two_latents_is_evaluated():
    nodes = (
        vaejax.Node("z2", vaejax.StandardNormal(1)),
        vaejax.Node("z1", normal(3), "z2"),
        vaejax.Node("x", normal((2,)), "z1"),
    )
    encoder = vaejax.DirectedGraph(
        (vaejax.Node("z1", normal(3), "x"), vaejax.Node("z2", normal(1), "z1")), inputs=("x",)
    )
    model = vaejax.GraphModel(vaejax.DirectedGraph(nodes), encoder)
    params = model.init(jax.random.key(0), jnp.zeros(2))
    evaluation = vaejax.evaluate(
        model, params, np.zeros((5, 2), np.float32), jax.random.key(0), num_samples=10
    )
    assert np.isfinite(evaluation.log_marginal.mean) and evaluation.by_example["mean"].shape == (
        5,
        4,
    )


def normal(out):
    return vaejax.DiagNormal(vaejax.MLP(out, (4,), heads=2))


def test_evaluate_refuses_bad_arguments():
    with pytest.raises(
        ValueError, match="ladder has K = 50, but num_samples = 10; raise num_samples"
    ):
        repeated(3, num_samples=10, ladder=(50,))
    with pytest.raises(ValueError, match="chunk = 0"):
        repeated(3, num_samples=10, chunk=0)


def test_evaluate_refuses_bad_data():
    with pytest.raises(ValueError, match="NaN or infinity, first in row 3"):
        vaejax.evaluate(
            POINT.model,
            POINT.params,
            np.where(np.arange(23)[:, None] == 3, np.nan, XS),
            jax.random.key(0),
        )

"""Means over a whole data set: exact for any size, and the same whatever the batches."""

from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import vaejax
from tests.lib.oracles import LinearGaussian, assert_mean, exact_moments
from vaejax import plots
from vaejax.base.mapping import estimate, map_dataset
from vaejax.evaluation.evaluate import Evaluation

POINT = LinearGaussian()
XS = np.linspace(-2, 2, 23, dtype=np.float32)[:, None]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_example_once_and_the_same_for_any_batch(batch_size):
    def noisy(params, x, key):
        return x[0] + jax.random.uniform(key)

    expected = [
        x[0] + jax.random.uniform(jax.random.fold_in(jax.random.key(0), i))
        for i, x in enumerate(XS)
    ]
    np.testing.assert_allclose(
        map_dataset(noisy, POINT.params, XS, jax.random.key(0), batch_size), expected, rtol=1e-6
    )


def test_estimates_are_means_in_double_precision():
    values = np.full(10_001, 1e4, np.float32)
    values[0] = 0
    assert estimate(values).mean == pytest.approx(1e8 / 10_001, rel=1e-14)
    assert estimate(values).standard_error == pytest.approx(1e4 / 10_001, rel=1e-9)


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
    found, second_moment = evaluation.by_example, POINT.weight_second_moment
    exact = {k: exact_moments(partial(vaejax.iwae, num_samples=k), POINT, k)[0] for k in (2, 3)}
    assert exact[2] == pytest.approx(-1.5314735497, abs=1e-10)
    for name, expected in {
        "elbo": POINT.elbo,
        "iwae_1": POINT.elbo,
        "iwae_2": exact[2],
        "iwae_3": exact[3],
    }.items():
        assert_mean(found[name], expected, detectable=4e-3)
    np.testing.assert_allclose(found["elbo"], found["iwae_1"], rtol=1e-12)
    assert_mean(found["iwae_300"], POINT.log_marginal - (second_moment - 1) / 600, detectable=4e-3)
    assert_mean(found["effective_samples"] / 300, 1 / second_moment, detectable=5e-3)
    assert evaluation.log_marginal == evaluation.iwae[300] == estimate(found["iwae_300"])
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


def binary_model():
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Bernoulli(vaejax.MLP((3, 2), (4,))),
        vaejax.DiagNormal(vaejax.MLP(2, (4,), heads=2)),
    )
    return (
        model,
        model.init(jax.random.key(0), jnp.zeros((3, 2))),
        np.random.default_rng(0).integers(2, size=(23, 3, 2)),
    )


def test_batches_and_chunks_change_an_evaluation_by_rounding_only(x64):
    model, params, xs = binary_model()
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    one, *others = (
        vaejax.evaluate(
            model, params, xs, jax.random.key(0), num_samples=30, batch_size=batch_size, chunk=chunk
        ).by_example
        for batch_size, chunk in ((23, 30), (1, 7), (5, 1), (100, 100))
    )
    for other in others:
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-9)


def test_bits_per_dimension_are_of_discrete_data_alone():
    model, params, xs = binary_model()
    evaluation = vaejax.evaluate(model, params, xs, jax.random.key(0), num_samples=30)
    assert evaluation.bits_per_dim.mean == pytest.approx(
        -evaluation.log_marginal.mean / (6 * np.log(2))
    )
    assert "bits per dim" in str(evaluation) and "IWAE-10 " in str(evaluation)
    assert repeated(3, num_samples=30).bits_per_dim is None


def test_evaluation_goes_on_where_it_was_cut_off(tmp_path):
    """After a kill at the third batch of five, the call does the other batches alone, and gives the
    same bits as without a cut.
    """
    model, params, xs = binary_model()
    call = partial(
        vaejax.evaluate, model, params, key=jax.random.key(0), num_samples=30, batch_size=5
    )
    path = tmp_path / "evaluation.npz"
    batches = []

    def count(*args, **settings):
        batches.append(args)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return map_dataset(*args, **settings)

    with mock.patch.object(vaejax.evaluation, "map_dataset", count):
        with pytest.raises(KeyboardInterrupt):
            call(xs=xs, path=path)
        resumed = call(xs=xs, path=path)
        assert len(batches) == 3 + 3
        again = call(xs=xs, path=path)
        assert len(batches) == 6
    whole = call(xs=xs)
    for name, array in whole.by_example.items():
        np.testing.assert_array_equal(resumed.by_example[name], array)
        np.testing.assert_array_equal(again.by_example[name], array)
    with pytest.raises(ValueError, match=r"evaluation.npz holds the evaluation of another model"):
        call(xs=1 - xs, path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.npz"]


def test_a_larger_set_needs_no_more_memory():
    """The program that a data set runs through is that of one batch: 10,000 examples at K = 5,000
    are 100 times the same.
    """
    model, params, xs = binary_model()
    compiled = []
    real = jax.jit(map_dataset, static_argnames=("function", "batch_size"))

    def record(function, params, xs, key, batch_size, start):
        analysis = (
            real.lower(function, params, xs, key, batch_size, start).compile().memory_analysis()
        )
        compiled.append(
            analysis.temp_size_in_bytes
            + analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
        )
        return map_dataset(function, params, xs, key, batch_size, start)

    with mock.patch.object(vaejax.evaluation, "map_dataset", record):
        vaejax.evaluate(
            model, params, np.tile(xs, (2, 1, 1)), jax.random.key(0), num_samples=50, batch_size=10
        )
    assert len(compiled) == 5 and len(set(compiled)) == 1


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


def test_active_units():
    means = np.random.default_rng(0).normal(size=(1000, 3)) * [1.0, 0.05, 0.5]
    assert vaejax.active_units(means).tolist() == [True, False, True]


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


def image_model(dim, out=(8, 8)):
    model = vaejax.VAE(
        vaejax.StandardNormal(dim),
        vaejax.Bernoulli(vaejax.MLP(out, (4,))),
        vaejax.DiagNormal(vaejax.MLP(dim, (4,), heads=2)),
    )
    return model, model.init(jax.random.key(0), jnp.zeros(out))


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("labels", [None, np.arange(30) % 10], ids=["unlabelled", "labelled"])
def test_latent_plots(dim, labels):
    model, params = image_model(dim)
    means = np.random.default_rng(0).normal(size=(30, dim))
    figure = plots.latent(model, params, means, labels, size=4)
    assert isinstance(figure, Figure) and len(figure.axes) == (2 if dim == 2 else 1)


@pytest.mark.parametrize("out", [(8, 8), (6, 4), (4, 4, 3)])
def test_sample_and_reconstruction_plots(out):
    model, params = image_model(2, out)
    xs = np.zeros((5, *out), np.float32)
    for figure in (
        plots.samples(model, params, jax.random.key(0), 2, 3),
        plots.reconstructions(model, params, xs, jax.random.key(0), columns=3),
    ):
        assert isinstance(figure, Figure) and len(figure.axes[0].images) == 1


def test_tiles_hold_every_image_in_its_place():
    images = np.arange(1, 6)[:, None, None] * np.full((5, 2, 3), 0.1)
    canvas = plots.tile(images, columns=2)
    assert canvas.shape == (8, 7)
    np.testing.assert_allclose(
        [canvas[0, 0], canvas[0, 4], canvas[3, 0], canvas[3, 4], canvas[6, 0]],
        [0.1, 0.2, 0.3, 0.4, 0.5],
    )
    assert canvas[2].sum() == 0 and canvas[:, 3].sum() == 0 and canvas[6:, 4:].sum() == 0


def test_curves():
    history = {
        "bound": np.linspace(-100, -80, 500),
        "validation_step": np.array([250, 500]),
        "validation_bound": np.array([-91.0, -83.0]),
    }
    assert len(plots.curves(history).axes[0].lines) == 3
    plots.curves(
        {
            "bound": np.array([-3.0]),
            "validation_step": np.zeros(0, int),
            "validation_bound": np.zeros(0),
        }
    )

"""Means over a whole data set: exact for any size, and the same whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from oracles import LinearGaussian

import vaejax
from vaejax import plots
from vaejax.evaluation import estimate, map_dataset

POINT = LinearGaussian()
XS = np.linspace(-2, 2, 23, dtype=np.float32)[:, None]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_example_once_and_the_same_for_any_batch(batch_size):
    def noisy(params, x, key):
        return x[0] + jax.random.uniform(key)

    expected = [x[0] + jax.random.uniform(jax.random.fold_in(jax.random.key(0), i)) for i, x in enumerate(XS)]
    np.testing.assert_allclose(map_dataset(noisy, POINT.params, XS, jax.random.key(0), batch_size), expected, rtol=1e-6)


def test_estimates_are_means_in_double_precision():
    values = np.full(10_001, 1e4, np.float32)
    values[0] = 0
    assert estimate(values).mean == pytest.approx(1e8 / 10_001, rel=1e-14)
    assert estimate(values).standard_error == pytest.approx(1e4 / 10_001, rel=1e-9)


def test_evaluate_at_the_exact_posterior(x64):
    """With an exact q both bounds are log p(x), sample by sample, so their mean is known to rounding."""
    exact = POINT.at_posterior()
    xs = np.full((7, 1), POINT.x)
    evaluation = vaejax.evaluate(exact.model, exact.params, xs, jax.random.key(0), num_samples=30, batch_size=3)
    np.testing.assert_allclose([evaluation.elbo.mean, evaluation.log_marginal.mean], exact.log_marginal, rtol=1e-12)
    assert evaluation.active_units == 0 and evaluation.num_samples == 30


def test_active_units():
    means = np.random.default_rng(0).normal(size=(1000, 3)) * [1.0, 0.05, 0.5]
    assert vaejax.active_units(means).tolist() == [True, False, True]


def test_evaluate_refuses_bad_data():
    with pytest.raises(ValueError, match="NaN or infinity, first in row 3"):
        vaejax.evaluate(POINT.model, POINT.params, np.where(np.arange(23)[:, None] == 3, np.nan, XS), jax.random.key(0))


def image_model(dim, out=(8, 8)):
    model = vaejax.VAE(
        vaejax.StandardNormal(dim), vaejax.Bernoulli(vaejax.MLP(out, (4,))), vaejax.DiagNormal(vaejax.MLP(dim, (4,), heads=2))
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
    np.testing.assert_allclose([canvas[0, 0], canvas[0, 4], canvas[3, 0], canvas[3, 4], canvas[6, 0]], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert canvas[2].sum() == 0 and canvas[:, 3].sum() == 0 and canvas[6:, 4:].sum() == 0


def test_curves():
    history = {"bound": np.linspace(-100, -80, 500), "validation_step": np.array([250, 500]), "validation_bound": np.array([-91.0, -83.0])}
    assert len(plots.curves(history).axes[0].lines) == 3
    plots.curves({"bound": np.array([-3.0]), "validation_step": np.zeros(0, int), "validation_bound": np.zeros(0)})

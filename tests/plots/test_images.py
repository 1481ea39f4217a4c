"""Pictures made of images, of any model of images."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import vaejax
from tests.lib.cases import cases
from tests.lib.images import image_model
from tests.lib.kinds import KINDS, data_of, params_of
from vaejax import plots

KEY = jax.random.key(0)


@pytest.mark.parametrize("out", [(8, 8), (6, 4), (4, 4, 3)])
def test_sample_and_reconstruction_plots(out):
    model, params = image_model(2, out)
    xs = np.zeros((5, *out), np.float32)
    for figure in (
        plots.samples(model, params, jax.random.key(0), 2, 3),
        plots.reconstructions(model, params, xs, jax.random.key(0), columns=3),
    ):
        assert isinstance(figure, Figure) and len(figure.axes[0].images) == 1


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_a_reconstruction_stands_below_its_example(size):
    """In the last row too, which is not full: x is 1 everywhere, and its mean 1/2."""
    model, params = image_model(2, (8, 8))
    params = jax.tree.map(np.zeros_like, params)  # the logits are 0
    figure = plots.reconstructions(model, params, np.ones((size, 8, 8), np.float32), KEY, columns=3)
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    columns = min(3, size)
    assert canvas.shape[1] == 9 * columns - 1
    tops = np.flatnonzero(canvas[:, 0])[::8][: 2 * -(-size // columns)]
    shown = canvas[tops][:, ::9]
    missing = -size % columns
    np.testing.assert_allclose(shown[0::2].ravel(), [1.0] * size + [0.0] * missing)
    np.testing.assert_allclose(shown[1::2].ravel(), [0.5] * size + [0.0] * missing)


def test_tiles_hold_every_image_in_its_place():
    images = np.arange(1, 6)[:, None, None] * np.full((5, 2, 3), 0.1)
    canvas = plots.tile(images, columns=2)
    assert canvas.shape == (8, 7)
    np.testing.assert_allclose(
        [canvas[0, 0], canvas[0, 4], canvas[3, 0], canvas[3, 4], canvas[6, 0]],
        [0.1, 0.2, 0.3, 0.4, 0.5],
    )
    assert canvas[2].sum() == 0 and canvas[:, 3].sum() == 0 and canvas[6:, 4:].sum() == 0


@pytest.mark.parametrize("kind", cases(KINDS))
def test_samples_and_reconstructions_of_every_kind_of_model(kind):
    model, params, xs = kind, params_of(kind), data_of(kind)
    drawn = plots.samples(model, params, KEY, 1, 2, xs if model.inputs else None)
    decoded = plots.reconstructions(model, params, xs, KEY, columns=3)
    for figure in (drawn, decoded):
        assert len(figure.axes[0].images) == 1


def test_a_conditional_model_asks_for_its_inputs():
    model = KINDS["conditional"]
    with pytest.raises(ValueError, match=r"inputs u, which no density draws: give xs"):
        plots.samples(model, params_of(model), KEY)


@pytest.mark.parametrize("shape", [(1,), (2, 4, 4, 3)])
def test_what_is_neither_an_image_nor_a_signal_is_refused(shape):
    model, params = image_model(2, shape)
    for draw in (
        lambda: plots.samples(model, params, KEY, 1, 2),
        lambda: plots.reconstructions(model, params, np.zeros((2, *shape), np.float32), KEY),
    ):
        with pytest.raises(ValueError, match=r"has the shape \(.*\); pictures are of images"):
            draw()


def test_signals_are_lines():
    """Of x and of its mean in one cell; of every draw in one of its own."""
    model, params = image_model(2, (12,))
    xs = np.random.default_rng(0).integers(0, 2, (3, 12)).astype(np.float32)
    pairs = plots.reconstructions(model, params, xs, KEY, columns=2)
    seen, means = (kind.get_segments() for kind in pairs.axes[0].collections)
    assert len(seen) == len(means) == 3
    for i, line in enumerate(seen):
        np.testing.assert_allclose(line[:, 0], i % 2 + np.linspace(0, 0.85, 12))
        np.testing.assert_allclose(line[:, 1], 0.85 * xs[i] - i // 2, rtol=1e-6)
        assert 0 < np.abs(means[i] - line)[:, 1].max() < 0.85
    draws = plots.samples(model, params, KEY, 2, 3)
    assert len(draws.axes[0].collections[0].get_segments()) == 6


@pytest.mark.parametrize(
    "kinds, message",
    [
        ([], "give 1 to 3 kinds"),
        ([np.zeros((0, 4))], "give 1 to 3 kinds"),
        ([np.zeros((2, 4, 4))], "give 1 to 3 kinds"),
        ([np.zeros((2, 4))] * 4, "give 1 to 3 kinds"),
        ([np.full((2, 4), np.nan)], "NaN or infinity"),
    ],
)
def test_what_is_no_signal_is_refused(kinds, message):
    with pytest.raises(ValueError, match=message):
        plots.signal_grid(kinds, 2)


def test_a_signal_that_stands_still_is_shown():
    lines = plots.signal_grid([np.ones((1, 4))], 1).axes[0].collections[0].get_segments()
    np.testing.assert_array_equal(lines[0][:, 1], 0)


NO_IMAGES = {
    "a signal": ((12,), "give the decoder that shape"),
    "two channels": ((4, 4, 2), "give the decoder that shape"),
    "channels first": ((3, 8, 8), "move the channels to the end"),
    "one channel first": ((1, 8, 8), "move the channels to the end"),
    "a video": ((2, 4, 4, 3), "give the decoder that shape"),
    "a scalar": ((), "give the decoder that shape"),
}


@pytest.mark.parametrize("shape, remedy", NO_IMAGES.values(), ids=NO_IMAGES)
def test_every_other_shape_is_refused_in_a_line(shape, remedy):
    with pytest.raises(ValueError, match=f"pictures are of images, .*: .*{remedy}") as raised:
        plots.images.require_image(np.zeros(shape))
    assert "\n" not in str(raised.value)


def test_one_channel_is_grey():
    images = np.random.default_rng(0).random((3, 4, 5, 1))
    np.testing.assert_array_equal(plots.tile(images, 2), plots.tile(images[..., 0], 2))


@pytest.mark.parametrize(
    "images, columns, message",
    [
        (np.zeros((0, 2, 2)), 2, "give at least one"),
        (np.zeros((2, 2)), 2, "give at least one"),
        (np.full((1, 2, 2), 200, np.uint8), 2, "whole numbers up to 200, .* divide them"),
        (np.zeros((1, 2, 2)), 0, "columns = 0; it must be"),
    ],
)
def test_what_would_be_shown_wrong_is_refused(images, columns, message):
    with pytest.raises(ValueError, match=message):
        plots.image_grid(images, columns)


def test_a_mean_that_is_not_known_is_refused():
    @vaejax.pytree
    class Unknown(vaejax.distributions.BernoulliDensity):
        def mean(self):
            return vaejax.Distribution.mean(self)

    @vaejax.component
    class Likelihood(vaejax.Conditional):
        inner: vaejax.Conditional
        support = vaejax.supports.BINARY

        def init(self, key, given):
            return self.inner.init(key, given)

        def __call__(self, params, given):
            return Unknown(self.inner(params, given).logits)

    model, params = image_model(2)
    model = replace(model, likelihood=Likelihood(model.likelihood))
    with pytest.raises(vaejax.NotKnownError, match="Unknown has no closed form for its mean"):
        plots.samples(model, params, KEY, 1, 2)

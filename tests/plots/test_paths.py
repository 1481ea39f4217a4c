"""Pictures of paths through the latent space, of any model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import vaejax
from tests.lib.cases import cases
from tests.lib.images import image_model
from tests.lib.kinds import KINDS, data_of, params_of
from vaejax import plots
from vaejax.plots.paths import great_circle, nearest

KEY = jax.random.key(0)


def example(xs, i=0):
    return jax.tree.map(lambda leaf: leaf[i], xs)


def drawn_or_refused(draw):
    """A figure, or the one line that says why there is none."""
    try:
        figure = draw()
    except (ValueError, vaejax.distributions.base.NotKnownError) as error:
        line = str(error)
        assert "\n" not in line and ("nothing lies between" in line or "no prior" in line), line
        return
    assert isinstance(figure, Figure)


@pytest.mark.parametrize("kind", cases(KINDS))
def test_every_kind_of_model(kind):
    params, xs = params_of(kind), data_of(kind)
    drawn_or_refused(lambda: plots.traverse(kind, params, example(xs), KEY, columns=3))
    ends = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], xs) for rows in ([0, 1], [2, 3]))
    drawn_or_refused(lambda: plots.interpolate(kind, params, *ends, KEY, columns=3))


@vaejax.component
class Shown(vaejax.Model):
    """An image that is z itself, [2, 2], at a q that puts z on x."""

    support, latent_support = vaejax.supports.REAL, vaejax.supports.REAL

    def init(self, key, x):
        return vaejax.Params((), ())

    def p_z(self, params, x=None):
        return vaejax.distributions.DiagNormalDensity(jnp.full(4, 0.5), jnp.full(4, -2.0))

    def p_x_given_z(self, params, z, x=None):
        return vaejax.distributions.DiagNormalDensity(z.reshape(2, 2), jnp.zeros((2, 2)))

    def posterior(self, params, x):
        return vaejax.distributions.DiagNormalDensity(x.ravel(), jnp.full(4, -5.0))


def canvas(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def cells(figure, columns):
    """[row, column, 2, 2] of a picture of images [2, 2], which has a gap of one."""
    image = canvas(figure)
    rows = (image.shape[0] + 1) // 3
    return np.array([[image[3 * i : 3 * i + 2, 3 * j : 3 * j + 2] for j in range(columns)]
                     for i in range(rows)])  # fmt: skip


def test_a_traversal_moves_one_number_over_the_quantiles_of_the_prior():
    x = jnp.asarray([[0.2, 0.4], [0.6, 0.8]])
    model = Shown()
    params = model.init(KEY, x)
    figure = plots.traverse(model, params, x, KEY, columns=3)
    spread = 1.645 * np.exp(-2.0)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert sorted(labels) == ["z[0]", "z[1]", "z[2]", "z[3]"]
    for label, row in zip(labels, cells(figure, 3), strict=True):
        flat, moved = row.reshape(3, 4), int(label[2])
        # Of 2,000 draws a quantile at 5 % has a standard deviation of 0.047 of the scale.
        np.testing.assert_allclose(
            flat[:, moved], [0.5 - spread, 0.5, 0.5 + spread], atol=6 * 0.047 * np.exp(-2.0)
        )
        others = [i for i in range(4) if i != moved]
        np.testing.assert_allclose(flat[:, others], np.tile(x.ravel()[jnp.asarray(others)], (3, 1)))


def test_a_straight_path_has_equal_steps_between_the_examples():
    firsts, seconds = np.zeros((2, 2, 2), np.float32), np.ones((2, 2, 2), np.float32)
    model = Shown()
    figure = plots.interpolate(model, model.init(KEY, firsts[0]), firsts, seconds, KEY, columns=5)
    for row in cells(figure, 7):
        np.testing.assert_allclose(row.mean(axis=(1, 2)), [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-6)


def test_a_great_circle_has_equal_angles():
    start, end = jnp.asarray([1.0, 0.0, 0.0]), jnp.asarray([0.0, 0.6, 0.8])
    points = jax.vmap(lambda t: great_circle(start, end, t))(jnp.linspace(0, 1, 5))
    np.testing.assert_allclose(jnp.linalg.norm(points, axis=1), 1, rtol=1e-6)
    angles = np.arccos(np.clip(points @ start, -1, 1))
    np.testing.assert_allclose(angles, np.linspace(0, np.pi / 2, 5), atol=1e-3)
    np.testing.assert_allclose(great_circle(start, start, 0.5), start)


def test_the_nearest_point_of_a_support():
    supports = vaejax.supports
    value = jnp.asarray([0.2, 0.9, 0.4])
    np.testing.assert_array_equal(nearest(supports.BINARY, value), [0, 1, 0])
    np.testing.assert_array_equal(nearest(supports.ONE_HOT, value), [0, 1, 0])
    np.testing.assert_allclose(jnp.linalg.norm(nearest(supports.SPHERE, value)), 1, rtol=1e-6)
    np.testing.assert_array_equal(nearest(supports.REAL, value), value)
    np.testing.assert_array_equal(nearest({"a": supports.BINARY}, {"a": value})["a"], [0, 1, 0])


def test_a_latent_that_is_not_there_is_named():
    model, params = image_model(2)
    x = np.zeros((8, 8), np.float32)
    with pytest.raises(ValueError, match="unknown latent node 'y'"):
        plots.traverse(model, params, x, KEY, node="y")
    with pytest.raises(ValueError, match="1 examples to 2 others are not pairs"):
        plots.interpolate(model, params, x[None], np.zeros((2, 8, 8), np.float32), KEY)

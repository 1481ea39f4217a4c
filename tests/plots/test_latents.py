"""Pictures of a latent space, of any model."""

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import vaejax
from tests.lib.cases import cases
from tests.lib.images import image_model
from tests.lib.kinds import KINDS, data_of, normal, params_of
from vaejax import plots
from vaejax.plots.points import require_labels

KEY = jax.random.key(0)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("labels", [None, np.arange(30) % 10], ids=["unlabelled", "labelled"])
def test_latent_plots(dim, labels):
    model, params = image_model(dim)
    means = np.random.default_rng(0).normal(size=(30, dim))
    figure = plots.latent(model, params, means, labels, size=4)
    assert isinstance(figure, Figure) and len(figure.axes) == (1 if dim == 1 else 2)


def test_one_hot_labels_are_their_classes():
    classes = np.array([2, 0, 1, 2])
    for one_hot in (np.eye(3)[classes], np.eye(3, dtype=bool)[classes]):
        np.testing.assert_array_equal(require_labels(one_hot, 4), classes)
    np.testing.assert_array_equal(require_labels(["b", "a"], 2), ["b", "a"])


@pytest.mark.parametrize(
    "labels", [np.zeros(3), np.zeros(()), np.zeros((4, 3)), np.ones((4, 3)), np.full((4, 2), 0.5)]
)
def test_labels_that_name_no_class_of_each_example_are_refused(labels):
    model, params = image_model(3)
    for draw in (
        lambda: plots.latent(model, params, np.zeros((4, 3)), labels),
        lambda: plots.priors({"a": (model, params, np.zeros((4, 3)))}, labels, KEY),
    ):
        with pytest.raises(ValueError, match=r"labels (of|have) the shape .*; give"):
            draw()


def test_means_that_coincide_are_drawn():
    model, params = image_model(3)
    for size in (1, 5):
        assert plots.latent(model, params, np.ones((size, 3)), None).axes


@pytest.mark.parametrize("kind", cases(KINDS))
def test_latents_of_every_kind_of_model(kind):
    model = kind
    params = params_of(model)
    means = vaejax.posterior_means(model, params, data_of(model), KEY)
    figure = plots.latent(model, params, means, None, size=3)
    several = sum(leaf[0].size for leaf in jax.tree.leaves(means)) > 1
    assert len(figure.axes) == (2 if several and not model.inputs else 1)


@pytest.mark.parametrize("dim, support", [(3, "sphere"), (4, "binary")])
def test_latents_of_every_prior_are_decoded_in_their_places(dim, support):
    """On the sphere at points of length 1, of bits at bits: what the decoder is shown."""
    model, _ = image_model(dim)
    sphere = vaejax.UniformOnSphere(dim), vaejax.VonMisesFisher(vaejax.MLP(dim, (4,)))
    bits = vaejax.FactorialBernoulli(dim), vaejax.Bernoulli(vaejax.MLP(dim, (4,)))
    prior, encoder = sphere if support == "sphere" else bits
    model = vaejax.VAE(prior, model.likelihood, encoder)
    params = model.init(KEY, np.zeros((8, 8), np.float32))
    means = np.random.default_rng(0).random(size=(40, dim)).astype(np.float32)
    figure = plots.latent(model, params, means, None, size=3)
    assert [axes.get_title() for axes in figure.axes] == [
        "posterior means of 40 examples",
        "decoded means, each in its place",
    ]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("labels", [None, np.arange(30) % 3], ids=["unlabelled", "labelled"])
def test_priors_side_by_side(dim, labels):
    model, params = image_model(dim)
    graph = vaejax.GraphModel(
        vaejax.DirectedGraph(
            (vaejax.Node("z", model.prior), vaejax.Node("x", model.likelihood, "z"))
        ),
        model.encoder,
    )
    theta = {"z": params.theta["prior"], "x": params.theta["likelihood"]}
    zs = np.random.default_rng(0).normal(size=(30, dim)).astype(np.float32)
    entries = {"a": (model, params, zs), "b": (graph, params._replace(theta=theta), zs)}
    figure = plots.priors(entries, labels, KEY, (2, 2))
    assert len(figure.axes) == 4 and [axes.get_title() for axes in figure.axes[:2]] == ["a", "b"]
    assert len(figure.legends) == (labels is not None)
    below = [axes.images[0].get_array() for axes in figure.axes[2:]]
    np.testing.assert_allclose(*below)  # one model, whatever it is called


def named(model, first, second):
    """The same VAE with latents by name: one node of two numbers, or two of one."""
    names = [name for name in (first, second) if name]
    likelihood = vaejax.Bernoulli(Both(model.likelihood.net)) if second else model.likelihood
    dim = 2 // len(names)
    nodes = [vaejax.Node(name, vaejax.StandardNormal(dim)) for name in names]
    q = [vaejax.Node(name, normal(dim), "x") for name in names]
    return vaejax.GraphModel(
        vaejax.DirectedGraph((*nodes, vaejax.Node("x", likelihood, tuple(names)))),
        vaejax.DirectedGraph(tuple(q), inputs=("x",)),
    )


@vaejax.component
class Both:
    """A net of one vector, shown two in a row."""

    net: vaejax.MLP

    def init(self, key, parents):
        return self.net.init(key, jax.numpy.concatenate(parents))

    def apply(self, params, parents):
        return self.net.apply(params, jax.numpy.concatenate(parents))


@pytest.mark.parametrize("second", [None, "b"])
def test_two_numbers_have_a_manifold_and_a_density_whatever_they_are_called(second):
    model = named(KINDS["VAE"], "a", second)
    params = params_of(model)
    zs = vaejax.posterior_means(model, params, data_of(model), KEY)
    assert len(plots.latent(model, params, zs, None, size=3).axes) == 2
    figure = plots.priors({"named": (model, params, zs)}, None, KEY, (2, 2))
    assert len(figure.axes[0].collections) == 2  # the density, and the draws on it


@pytest.mark.parametrize("kind", cases(KINDS.keys()))
def test_priors_of_every_kind_of_model(kind):
    """Those of one prior and two numbers by their density, all others by draws."""
    model = KINDS[kind]
    params, xs = params_of(model), data_of(model)
    zs = vaejax.posterior_means(model, params, xs, KEY)
    figure = plots.priors({kind: (model, params, zs)}, None, KEY, (2, 2), xs)
    assert len(figure.axes) == 2 and len(figure.axes[1].images) == 1
    assert len(figure.axes[0].collections) == 2


def test_draws_that_are_not_those_of_the_prior_are_refused():
    for kind, zs in {"layers": np.zeros((6, 2)), "VAE": np.zeros((6, 3))}.items():
        model = KINDS[kind]
        with pytest.raises(ValueError, match=r"draws of all latents, of the shape .*; zs have"):
            plots.priors({"a": (model, params_of(model), zs)}, None, KEY)
    model = KINDS["conditional"]
    with pytest.raises(ValueError, match="inputs u, which no density draws: give xs"):
        plots.priors({"a": (model, params_of(model), np.zeros((6, 2)))}, None, KEY)

"""Pictures of a latent space, of any model."""

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


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("labels", [None, np.arange(30) % 10], ids=["unlabelled", "labelled"])
def test_latent_plots(dim, labels):
    model, params = image_model(dim)
    means = np.random.default_rng(0).normal(size=(30, dim))
    figure = plots.latent(model, params, means, labels, size=4)
    assert isinstance(figure, Figure) and len(figure.axes) == (2 if dim == 2 else 1)


MANIFOLD = {"VAE", "graph", "own"}  # two real latents without names, and no inputs


@pytest.mark.parametrize("kind", cases(KINDS))
def test_latents_of_every_kind_of_model(kind):
    model = kind
    params = params_of(model)
    means = vaejax.posterior_means(model, params, data_of(model), KEY)
    figure = plots.latent(model, params, means, None, size=3)
    shown = {name for name, other in KINDS.items() if other is model} & MANIFOLD
    assert len(figure.axes) == (2 if shown else 1)


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


@pytest.mark.parametrize(
    ("kind", "sentence"),
    {
        "layers": r"draws \[n, d\] of one latent vector.*the latents of the model \(1,\), \(2,\)",
        "one-hot": r"of one latent vector.*the latents of the model \(1, 3\)",
        "conditional": "one prior, and the prior of this model differs with its inputs u",
    }.items(),
)
def test_priors_of_other_latents_are_refused(kind, sentence):
    model = KINDS[kind]
    entry = model, params_of(model), np.zeros((6, 2), np.float32)
    with pytest.raises((TypeError, ValueError), match=sentence):
        plots.priors({"a": entry}, None, KEY)

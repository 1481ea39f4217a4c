"""What a picture leaves out is said in it, or refused: numbers that are not finite, parameters of
another model, panels that do not apply, classes without a legend, values that are cut.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.images import image_model
from tests.lib.kinds import KINDS, data_of, params_of
from vaejax import plots
from vaejax.plots.history import smoothed

KEY = jax.random.key(0)
MODEL, PARAMS = image_model(2)
OTHER, OTHER_PARAMS = image_model(3)
XS = np.zeros((4, 8, 8), np.float32)
MEANS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
HISTORY = {
    "bound": np.linspace(-9.0, -1.0, 50),
    "validation_step": np.array([25, 50]),
    "validation_bound": np.array([-3.0, -2.0]),
}
OF_PARAMETERS = {
    "latent": lambda params: plots.latent(MODEL, params, MEANS, None, 3),
    "samples": lambda params: plots.samples(MODEL, params, KEY, 2, 2),
    "reconstructions": lambda params: plots.reconstructions(MODEL, params, XS, KEY),
    "traverse": lambda params: plots.traverse(MODEL, params, XS[0], KEY, columns=3),
    "interpolate": lambda params: plots.interpolate(MODEL, params, XS, XS, KEY, columns=3),
    "priors": lambda params: plots.priors({"a": (MODEL, params, MEANS)}, None, KEY, (2, 2)),
}


def history(name, index, number):
    changed = HISTORY[name].copy()
    changed[index] = number
    return {**HISTORY, name: changed}


OF_NUMBERS = {
    "latent": lambda bad: plots.latent(MODEL, PARAMS, jnp.asarray(MEANS).at[3, 1].set(bad), None),
    "priors": lambda bad: plots.priors(
        {"a": (MODEL, PARAMS, np.where(MEANS[3, 1] == MEANS, bad, MEANS))}, None, KEY
    ),
    "image_grid": lambda bad: plots.image_grid(np.full((2, 4, 4), bad), 2),
    "signal_grid": lambda bad: plots.signal_grid([np.full((2, 4), bad)], 2),
    "originals": lambda bad: plots.reconstructions(
        MODEL, PARAMS, XS, KEY, originals=np.full(XS.shape, bad)
    ),
    "curves": lambda bad: plots.curves(history("validation_bound", 1, bad)),
    "compare": lambda bad: plots.compare({"a": history("validation_bound", 0, bad)}),
}


def refused(draw, message):
    with pytest.raises(ValueError, match=message) as error:
        draw()
    assert "\n" not in str(error.value).split("\n---")[0]


@pytest.mark.parametrize("draw", cases(OF_PARAMETERS))
def test_parameters_of_another_model_are_no_picture(draw):
    refused(lambda: draw(OTHER_PARAMS), "parameters")


@pytest.mark.parametrize("draw", cases(OF_PARAMETERS))
def test_a_model_that_gives_no_numbers_is_no_picture(draw):
    refused(lambda: draw(jax.tree.map(lambda leaf: leaf * np.nan, PARAMS)), "NaN or infinity")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("draw", cases(OF_NUMBERS))
def test_numbers_that_are_not_finite_are_no_picture(draw, bad):
    refused(lambda: draw(bad), "NaN or infinity")


SHAPES = {
    "no latents": (lambda: plots.latent(MODEL, PARAMS, MEANS[:0], None), "give at least one"),
    "a number each": (lambda: plots.latent(MODEL, PARAMS, MEANS[:, 0], None), "input of shape"),
    "of another model": (lambda: plots.latent(OTHER, OTHER_PARAMS, MEANS, None), "input of shape"),
    "originals": (
        lambda: plots.reconstructions(MODEL, PARAMS, XS, KEY, originals=np.zeros((4, 9, 9))),
        "originals have the shape",
    ),
    "bytes": (
        lambda: plots.reconstructions(MODEL, PARAMS, XS, KEY, originals=np.full(XS.shape, 255)),
        "whole numbers up to 255",
    ),
    "complex": (lambda: plots.image_grid(np.full((2, 4, 4), 1j), 2), "complex numbers"),
    "NaN for a class": (
        lambda: plots.latent(MODEL, PARAMS, MEANS, np.full(12, np.nan)),
        "neither a number nor a name",
    ),
    "None for a class": (
        lambda: plots.latent(MODEL, PARAMS, MEANS, np.array([None, "a"] * 6)),
        "neither a number nor a name",
    ),
    "a node that is none": (
        lambda: plots.graph(KINDS["layers"].graph, ("y",)),
        "unknown node 'y'",
    ),
}


@pytest.mark.parametrize("draw, message", SHAPES.values(), ids=SHAPES)
def test_what_does_not_fit_is_no_picture(draw, message):
    refused(draw, message)


@vaejax.pytree
class Unknown(vaejax.distributions.BernoulliDensity):
    def mean(self):
        return vaejax.Distribution.mean(self)


@vaejax.component
class WithoutMean(vaejax.Bernoulli):
    def __call__(self, params, given):
        return Unknown(super().__call__(params, given).logits)


VECTORS = image_model(2, out=(5,))
NO_PANEL = {
    "no image": (*VECTORS, MEANS, "the model explains no image"),
    "no mean": (
        vaejax.VAE(MODEL.prior, WithoutMean(MODEL.likelihood.net), MODEL.encoder),
        PARAMS,
        MEANS,
        "mean",
    ),
    "one latent": (*image_model(1), MEANS[:, :1], "one latent"),
    "inputs": (
        KINDS["conditional"],
        params_of(KINDS["conditional"]),
        MEANS,
        "x depends on the inputs u",
    ),
}


@pytest.mark.parametrize("model, params, means, reason", NO_PANEL.values(), ids=NO_PANEL)
def test_a_panel_that_is_left_out_is_said(model, params, means, reason):
    figure = plots.latent(model, params, means, None, 3)
    (axes,) = figure.axes
    first, second = axes.get_title().splitlines()
    assert first == "posterior means of 12 examples"
    assert second.startswith("not decoded: ") and reason in second


@pytest.mark.parametrize("kind", cases(KINDS))
def test_every_kind_of_model_is_decoded_or_says_why_not(kind):
    means = vaejax.posterior_means(kind, params_of(kind), data_of(kind), KEY)
    figure = plots.latent(kind, params_of(kind), means, None, size=3)
    assert (len(figure.axes) == 2) != ("not decoded" in figure.axes[0].get_title())


def test_classes_that_share_a_colour_are_said():
    figure = plots.latent(MODEL, PARAMS, MEANS, np.arange(12), 3)
    assert figure.axes[0].get_title().endswith(", of 12 classes in 10 colours")
    assert figure.axes[0].get_legend() is None
    figure = plots.priors({"a": (MODEL, PARAMS, MEANS)}, np.arange(12), KEY, (2, 2))
    assert figure.axes[0].get_ylabel().endswith(", of 12 classes in 10 colours")
    named = plots.latent(MODEL, PARAMS, MEANS, np.array(["b", "a"] * 6, object), 3)
    labels = [text.get_text() for text in named.axes[0].get_legend().get_texts()]
    assert labels == ["a", "b"]


@pytest.mark.parametrize("high, said", [(1.0, ""), (1.09, ""), (255.0, "0 to 255, cut to 0 and 1")])
def test_values_that_are_cut_are_said(high, said):
    images = np.full((2, 4, 4), high)
    images[0] = 0
    title = plots.image_grid(images, 2).axes[0].get_title()
    assert said in title and bool(said) == bool(title)


def test_numbers_that_a_traversal_does_not_show_are_said():
    figure = plots.traverse(OTHER, OTHER_PARAMS, XS[0], KEY, columns=3, most=2)
    assert "those 2 of 3 that change x most" in figure.axes[0].get_title()
    figure = plots.traverse(OTHER, OTHER_PARAMS, XS[0], KEY, columns=3)
    assert "change" not in figure.axes[0].get_title()


def test_runs_without_a_result_are_said():
    histories = dict.fromkeys(("a", "b", "c"), HISTORY)
    figure = plots.compare(histories, {"b": (-2.0, 0.1), "c": (np.nan, 0.1)})
    axes = figure.axes[1]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b", "c", "a"]
    assert [text.get_text() for text in axes.texts] == ["-2.00", "not finite", "no result"]


def test_skipped_steps_are_counted():
    skipped = history("bound", slice(3, 5), np.nan)
    figure = plots.curves(skipped)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["training, without 2 skipped", "validation, -2.00 at best"]
    plots.compare({"a": {**skipped, "validation_step": [], "validation_bound": []}})
    refused(lambda: plots.curves(history("bound", slice(0, 50), np.nan)), "every step .* skipped")
    refused(lambda: plots.curves(history("bound", 3, np.inf)), "bound: NaN or infinity")


def test_a_window_is_the_mean_of_the_steps_that_were_taken():
    bound = np.arange(250.0)
    bound[:2] = bound[5] = np.nan
    centres, means = smoothed(bound)
    assert centres[:3].tolist() == [3.0, 5.0, 7.0] and means[:3].tolist() == [2.5, 4.0, 6.5]
    assert len(means) == 124 and means[-1] == 248.5


def test_a_single_observed_node_needs_no_tuple():
    graph = KINDS["layers"].graph
    bare, same = (plots.graph(graph, observed) for observed in ("x", ("x",)))
    fills = [[patch.get_facecolor() for patch in figure.axes[0].patches] for figure in (bare, same)]
    assert fills[0] == fills[1] and len(set(fills[0])) == 2

"""Parameters of another model are refused where a model, its parameters and data are evaluated, by
the path of the first that does not fit, before anything compiles.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze

import vaejax
from tests.lib.cases import cases
from tests.lib.started import started
from vaejax import plots
from vaejax.models.learned import require_params_of

MLP, KEY = vaejax.MLP, jax.random.key(0)
XS = np.zeros((6, 3), np.float32)
MODEL = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Bernoulli(MLP(3, (4,))),
    vaejax.DiagNormal(MLP(2, (4,), heads=2)),
)
PARAMS = MODEL.init(KEY, XS[0])
PATH = r"params.theta\['likelihood'\]\['params'\]"
OTHERS = {
    "a wider layer": (
        replace(MODEL, likelihood=vaejax.Bernoulli(MLP(3, (5,)))),
        PATH + r"\['Dense_0'\]\['bias'\] has shape \(4,\), and \w+.init makes it with shape \(5,\)",
    ),
    "one more layer": (
        replace(MODEL, likelihood=vaejax.Bernoulli(MLP(3, (4, 3)))),
        PATH + r"\['Dense_2'\]\['bias'\] is not there, and \w+.init makes it with shape \(3,\)",
    ),
    "one layer less": (
        replace(MODEL, likelihood=vaejax.Bernoulli(MLP(3, ()))),
        PATH + r"\['Dense_0'\]\['bias'\] has shape \(4,\), and \w+.init makes it with shape \(3,\)",
    ),
    "a learned prior": (
        replace(MODEL, prior=vaejax.LearnedNormal(2)),
        r"params.theta\['prior'\]\['loc'\] is not there, and \w+.init makes it with shape \(2,\)",
    ),
    "another encoder": (
        replace(MODEL, encoder=vaejax.DiagNormal(vaejax.Free(2))),
        r"params.phi\['loc'\] is not there",
    ),
}
OF_ONE = {
    "elbo": lambda model, params: vaejax.elbo(model, params, XS[0], KEY),
    "log_marginal": lambda model, params: vaejax.log_marginal(model, params, XS[0], KEY, 2),
    "log_joint": lambda model, params: model.log_joint(params, XS[0], jnp.zeros(2)),
    "log_likelihood": lambda model, params: model.log_likelihood(params, XS[0], jnp.zeros(2)),
    "reconstruct": lambda model, params: model.reconstruct(params, XS[0], KEY),
    "Pathwise": lambda model, params: vaejax.Pathwise()(model, params, XS[0], KEY),
    "minibatch": lambda model, params: vaejax.minibatch(vaejax.Pathwise(), model)(
        params, XS, KEY, 0
    ),
    "in a jit": lambda model, params: jax.jit(partial(vaejax.elbo, model))(params, XS[0], KEY),
    "fit": lambda model, params: vaejax.fit(
        vaejax.minibatch(vaejax.Pathwise(), model),
        params,
        optax.sgd(0.1),
        XS,
        KEY,
        num_steps=1,
        batch_size=2,
        progress=False,
    ),
}
ASK = {
    "evaluate": lambda model, params: vaejax.evaluate(model, params, XS, KEY, num_samples=2),
    "latent_space": lambda model, params: vaejax.latent_space(model, params, XS, KEY),
    "posterior_means": lambda model, params: vaejax.posterior_means(model, params, XS, KEY),
    "inference_gap": lambda model, params: vaejax.inference_gap(
        vaejax.Refined(model, 1), params, XS, np.zeros(6), KEY
    ),
    "predictive_check": lambda model, params: vaejax.predictive_check(
        jnp.mean, model, params, XS, KEY
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_first_that_does_not_fit_is_named(name):
    model, message = OTHERS[name]
    for ask in ASK.values():
        with pytest.raises(ValueError, match=f"of another model: {message}") as error:
            ask(model, PARAMS)
        assert "\n" not in str(error.value)


def of_prior(prior):
    return replace(MODEL, prior=prior)


# Pairs of models of which the first computed with the parameters of the second, without a word.
SILENT = {
    "fewer components": [of_prior(vaejax.MixtureOfGaussians(2, n)) for n in (5, 3)],
    "fewer pseudo-inputs": [of_prior(vaejax.VampPrior(n)) for n in (5, 3)],
    "a prior that is left out": [MODEL, of_prior(vaejax.LearnedNormal(2))],
}


@pytest.mark.parametrize("ask", cases(OF_ONE))
@pytest.mark.parametrize("models", cases(SILENT))
def test_what_takes_one_example_or_a_batch_asks_too(ask, models):
    model, other = models
    with pytest.raises(ValueError, match="these are the parameters of another model") as error:
        ask(model, started(other, KEY, XS[0]))
    assert "\n" not in str(error.value).split("\n---")[0]
    ask(model, started(model, KEY, XS[0]))


def test_it_costs_a_look_at_the_shapes_once():
    """The `init` is traced once for a model and the shapes of its example."""

    traced = []

    @vaejax.component
    class Counts(vaejax.VAE):
        def init(self, key, x):
            traced.append(jnp.shape(x))
            return super().init(key, x)

    model = Counts(MODEL.prior, MODEL.likelihood, MODEL.encoder)
    for x in XS[:3]:
        vaejax.elbo(model, PARAMS, x, KEY)
    assert traced == [XS[0].shape]


def test_a_model_that_observes_more_reads_the_parameters_of_the_whole():
    graph = vaejax.DirectedGraph(
        (
            vaejax.Node("y", vaejax.OneHotCategorical(vaejax.Free(3, ("logits",)))),
            vaejax.Node("z", vaejax.StandardNormal(2)),
            vaejax.Node("x", vaejax.Gaussian(vaejax.MLP((3,), (3,)), 1.0), ("z", "y")),
        )
    )
    q = vaejax.DirectedGraph(
        (
            vaejax.Node("y", vaejax.OneHotCategorical(vaejax.MLP(3, (3,))), "x"),
            vaejax.Node("z", vaejax.DiagNormal(vaejax.MLP(2, (3,), heads=2)), ("x", "y")),
        ),
        inputs=("x",),
    )
    whole = vaejax.GraphModel(graph, q)
    params = whole.init(KEY, XS[0])
    labelled, example = whole.observe("y"), {"x": XS[0], "y": jnp.eye(3)[0]}
    assert np.isfinite(vaejax.elbo(labelled, params, example, KEY))
    data = {"x": XS, "y": np.eye(3, dtype=np.float32)[np.zeros(len(XS), int)]}
    vaejax.evaluate(labelled, params, data, KEY, num_samples=2)
    with pytest.raises(ValueError, match="parameters of another model"):
        vaejax.elbo(whole, labelled.init(KEY, example), XS[0], KEY)


def test_what_the_model_has_not_is_named():
    learned = replace(MODEL, prior=vaejax.LearnedNormal(2)).init(KEY, XS[0])
    with pytest.raises(ValueError, match=r"\['loc'\] has .*, and \w+.init makes no such"):
        vaejax.evaluate(MODEL, learned, XS, KEY, num_samples=2)


def test_psi_belongs_to_an_estimator():
    require_params_of(MODEL, PARAMS._replace(psi={"baseline": jnp.zeros(3)}), XS[0])


@vaejax.component
class ReadsItsExample(vaejax.Model):
    """A user's, whose `init` asks for the values of its example."""

    support = latent_support = vaejax.supports.REAL

    def init(self, key, x):
        return vaejax.Params(jnp.full(2, float(np.asarray(x).mean())), jnp.zeros(2))


def test_an_init_that_reads_its_example_says_nothing_of_shapes():
    require_params_of(ReadsItsExample(), vaejax.Params(jnp.zeros(2), jnp.zeros(2)), XS[0])
    require_params_of(
        ReadsItsExample(), vaejax.Params(jnp.zeros(2), jnp.zeros(2)),
        jax.ShapeDtypeStruct((3,), jnp.float32),
    )  # fmt: skip


# Where no example is given.

WITHOUT_EXAMPLE = {
    "sample": lambda model, params: model.sample(params, KEY),
    "simulate": lambda model, params: model.simulate(params, KEY, KEY),
    "p_z": lambda model, params: model.p_z(params),
    "p_x_given_z": lambda model, params: model.p_x_given_z(params, jnp.zeros(2)),
    "bdmc": lambda model, params: vaejax.AIS(model, vaejax.ais.Linear(2), 2).bdmc(params, KEY),
    "calibration": lambda model, params: vaejax.calibration(
        model, params, KEY, num_simulations=4, num_draws=3, num_bins=2
    ),
    "pictures of samples": lambda model, params: plots.samples(model, params, KEY, 1, 2),
}
AS_WIDE = [replace(MODEL, likelihood=vaejax.Bernoulli(MLP(3, widths))) for widths in ((3,), (3, 3))]


@pytest.mark.parametrize("ask", cases(WITHOUT_EXAMPLE))
@pytest.mark.parametrize("models", cases(SILENT | {"a layer as wide as the last": AS_WIDE}))
def test_what_takes_no_example_asks_one_that_the_model_draws(ask, models):
    """By its shapes alone."""
    model, other = models
    with pytest.raises(ValueError, match="these are the parameters of another model") as error:
        ask(model, other.init(KEY, XS[0]))
    assert "\n" not in str(error.value).split("\n---")[0]


def test_what_draws_needs_no_encoder():
    x, _ = MODEL.sample(PARAMS._replace(phi=()), KEY)
    np.testing.assert_array_equal(x, MODEL.sample(PARAMS, KEY)[0])
    with pytest.raises(ValueError, match=r"params.phi\['params'\]\['Dense_0'\]\['bias'\]"):
        MODEL.sample(OTHERS["another encoder"][0].init(KEY, XS[0]), KEY)


NO_NUMBERS = {
    "complex": lambda leaf: leaf + 0j,
    "shapes": lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
    "names": lambda leaf: "weights.npy",
}
ASKED = OF_ONE | WITHOUT_EXAMPLE | {"posterior": lambda m, params: m.posterior(params, XS[0])}


@pytest.mark.parametrize("name", [name for name in ASKED if name != "fit"])
@pytest.mark.parametrize("change", cases(NO_NUMBERS))
def test_what_holds_no_real_numbers_is_named(name, change):
    """Where it goes through `jax.jit` first, that says so of what is no array."""
    ours = r"params.theta\['likelihood'\].* arrays of real numbers"
    with pytest.raises(TypeError, match=f"{ours}|as an abstract array|not a valid JAX type"):
        ASKED[name](MODEL, jax.tree.map(change, PARAMS))


def test_flags_are_no_numbers():
    flags = jax.tree.map(lambda leaf: leaf > 0, PARAMS)
    with pytest.raises(ValueError, match=r"has shape \(4,\) of flags, and VAE.init makes it with"):
        vaejax.elbo(MODEL, flags, XS[0], KEY)


SAME = {
    "of float64": lambda leaf: np.asarray(leaf, np.float64),
    "of NumPy": np.asarray,
}


@pytest.mark.parametrize("change", cases(SAME))
def test_the_same_numbers_give_the_same(change):
    own = jax.tree.map(change, PARAMS)
    assert vaejax.elbo(MODEL, own, XS[0], KEY) == vaejax.elbo(MODEL, PARAMS, XS[0], KEY)
    frozen = vaejax.Params(*map(freeze, PARAMS[:2]))
    assert vaejax.elbo(MODEL, frozen, XS[0], KEY) == vaejax.elbo(MODEL, PARAMS, XS[0], KEY)

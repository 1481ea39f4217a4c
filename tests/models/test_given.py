"""Parameters of another model are refused where a model, its parameters and data are evaluated, by
the path of the first that does not fit, before anything compiles.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax.models.given import require_params_of

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

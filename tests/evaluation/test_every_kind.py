"""What can be asked of a model, for every kind of model: it works, or it is refused in a sentence
that names the remedy.
"""

import warnings
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.kinds import KINDS, REFINED, SHAPE, data_of, params_of
from vaejax import ais

KEY = jax.random.key(0)
ALL = {**KINDS, **REFINED}
NAMED = ("layers", "ladder", "one-hot", "conditional layers")  # their z is a mapping
CONDITIONAL = ("conditional", "conditional layers", "own conditional")

DIAGONAL = "must be diagonal normals, not .*; use vaejax.DiagNormal with vaejax.StandardNormal"
ONE_PRIOR = "the prior of this model differs with its inputs u; use a model without inputs"
OF_NORMALS = "Refined is for a q that is DiagNormal, .*; refine an encoder .*, or give a `family`"
NO_CLOSED_FORM = "has no closed form here; use vaejax.Pathwise"
NOT_REAL = r"latents z\['z'\] of this model are one-hot .*; vaejax.log_marginal takes any"
NO_GRADIENT = "differentiates through samples of q.*use ScoreFunction"

REFINEMENT = {"own": OF_NORMALS, **dict.fromkeys(NAMED, OF_NORMALS)}
SPLIT = dict.fromkeys(("own", "layers", "ladder", "one-hot"), DIAGONAL)
ONE_PRIOR_ALONE = dict.fromkeys(CONDITIONAL, ONE_PRIOR)
# {what is asked: {kind: the sentence that refuses it}}; all others work. What reads q refuses what
# cannot be refined, unless it refuses the kind first.
REFUSED = {
    "evaluate": {},
    "posterior_means": {},
    "latent_space": {},
    "reconstruct": {},
    "TCVAE": {**SPLIT, **ONE_PRIOR_ALONE},
    "calibration": {},
    "inference_gap": REFINEMENT,
    "AnalyticKL": {
        "layers": NO_CLOSED_FORM,
        "ladder": NO_CLOSED_FORM,
        "conditional layers": NO_CLOSED_FORM,
        "one-hot": NO_GRADIENT,
    },
    "predictive_check": {},
    "AIS": {"one-hot": NOT_REAL},
    "bdmc": {"one-hot": NOT_REAL},
}
WITHOUT_Q = ("predictive_check", "AIS", "bdmc")


def refusal(asked: str, kind: str) -> str | None:
    name = kind.removeprefix("Refined ")
    own = REFUSED[asked].get(name)
    if name == kind or own in (ONE_PRIOR, NOT_REAL) or asked in WITHOUT_Q:
        return own
    return REFINEMENT.get(name, own)


def expectation(asked: str, kind: str):
    sentence = refusal(asked, kind)
    if sentence is None:
        return nullcontext()
    return pytest.raises((TypeError, ValueError), match=f"(?s){sentence}")


def first(model):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), data_of(model))


def ink(x):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(x))


def annealed(model):
    return vaejax.AIS(model, ais.Linear(2), 2, transition=ais.HMC(1))


def bdmc(model, params):
    example = first(model) if model.inputs else None
    return jax.eval_shape(annealed(model).bdmc, params, KEY, example)


def gap(model, params, xs):
    refined = model if model in REFINED.values() else vaejax.Refined(model, 1)
    return vaejax.inference_gap(refined, params, xs, np.zeros(6), KEY, num_samples=2)


TRACED = {
    "TCVAE": lambda model, params: jax.eval_shape(
        vaejax.TCVAE(model, 6), params, data_of(model), KEY, 0
    ),
    "AnalyticKL": lambda model, params: jax.eval_shape(
        partial(vaejax.AnalyticKL(), model), params, first(model), KEY
    ),
    "reconstruct": lambda model, params: jax.eval_shape(
        model.reconstruct, params, first(model), KEY
    ),
    "AIS": lambda model, params: jax.eval_shape(annealed(model), params, first(model), KEY),
    "bdmc": bdmc,
}


def evaluate(model, params, xs):
    """Binary pixels have bits per dimension, under whatever name and beside whatever input."""
    evaluation = vaejax.evaluate(model, params, xs, KEY, num_samples=3)
    nats = np.log(2) * np.prod(SHAPE) * evaluation.bits_per_dim.mean
    assert nats == pytest.approx(-evaluation.log_marginal.mean, rel=1e-6)


def latent_space(model, params, xs):
    """There is one prior, and so the other part of the rate, where there are no inputs."""
    space = vaejax.latent_space(model, params, xs, KEY)
    assert space.mutual_information + 0.5 >= 0 and space.rate.mean > -1e-6
    assert (space.marginal_kl is None) == bool(model.inputs)


OVER_DATA = {
    "evaluate": evaluate,
    "posterior_means": lambda model, params, xs: vaejax.posterior_means(model, params, xs, KEY),
    "latent_space": latent_space,
    "calibration": lambda model, params, xs: vaejax.calibration(
        model, params, KEY, xs=xs, num_simulations=8, num_draws=3, num_bins=2
    ),
    "predictive_check": lambda model, params, xs: vaejax.predictive_check(
        ink, model, params, xs, KEY
    ),
    "inference_gap": gap,
}


@pytest.mark.parametrize("kind", cases(ALL.keys()))
def test_of_one_example_or_batch(kind):
    """Nothing is computed: that it can be traced is what is asked."""
    model = ALL[kind]
    params = params_of(model)
    for asked, function in TRACED.items():
        with expectation(asked, kind):
            function(model, params)


SLOW = {
    *("VAE", "Refined VAE", "Refined graph", "Refined conditional"),
    *("Refined own conditional", "conditional layers"),
}


@pytest.mark.parametrize("kind", cases(ALL.keys(), slow=SLOW))
def test_over_a_data_set(kind):
    model = ALL[kind]
    params, xs = params_of(model), data_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaejax.PosteriorCollapseWarning)
        for asked, function in OVER_DATA.items():
            with expectation(asked, kind):
                function(model, params, xs)


@pytest.mark.parametrize("kind", ["conditional", "own conditional", "Refined conditional layers"])
def test_a_conditional_model_asks_for_its_inputs(kind):
    model = ALL[kind]
    with pytest.raises(ValueError, match="calibration .* inputs u no density draws: give xs"):
        vaejax.calibration(model, params_of(model), KEY)

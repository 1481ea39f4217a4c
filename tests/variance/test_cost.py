"""Costs: evaluations of the decoder counted by reasoning, for estimators of every kind, and inside
loops.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

import vaejax
from tests.lib.kinds import KINDS, REFINED, data_of, params_of
from vaejax.variance.cost import Evaluations, counted, decoder_evaluations, gradient_cost

KEY, X = jax.random.key(0), jnp.ones(6)
LIKELIHOOD = vaejax.Bernoulli(vaejax.MLP(6, (4,)))
NORMAL = vaejax.VAE(
    vaejax.StandardNormal(3), LIKELIHOOD, vaejax.DiagNormal(vaejax.MLP(3, (4,), heads=2))
)
BINARY = vaejax.VAE(vaejax.FactorialBernoulli(3), LIKELIHOOD, vaejax.Bernoulli(vaejax.MLP(3, (4,))))
COSTS = {
    "one sample": (NORMAL, vaejax.Pathwise(), (1, 1)),
    "five samples": (NORMAL, vaejax.Pathwise(5), (5, 5)),
    "a pilot of eight": (NORMAL, vaejax.StickTheLanding(coefficient="estimated"), (9, 9)),
    "the path, and the joint at fixed samples": (NORMAL, vaejax.DReG(4), (8, 8)),
    "weights without a derivative, and the joint": (NORMAL, vaejax.RWS(4), (8, 4)),
    "score function": (NORMAL, vaejax.ScoreFunction(2), (2, 2)),
    "four for each latent, and the joint": (NORMAL, vaejax.MeasureValued(), (13, 1)),
    # The centre once; of each sample its own derivative, and one along a direction, differentiated;
    # the centre's slope.
    "a linear approximation": (NORMAL, vaejax.TaylorControlVariate(2), (3, 7)),
    "all states": (BINARY, vaejax.Enumerate(), (8, 8)),
    "pairs": (BINARY, vaejax.DisARM(4), (4, 4)),
    "chunks in a loop, computed again in reverse": (
        NORMAL,
        partial(vaejax.log_marginal, num_samples=6, chunk=2),
        (12, 6),
    ),
}


@pytest.mark.parametrize("model, estimator, expected", COSTS.values(), ids=COSTS)
def test_evaluations_of_the_decoder(model, estimator, expected):
    assert decoder_evaluations(estimator, model, model.init(KEY, X), X, KEY) == Evaluations(
        *expected
    )


def test_the_mark_changes_nothing():
    """Under jit, vmap and second derivatives the counted model is the model."""
    params = NORMAL.init(KEY, X)
    xs = jnp.stack([X, 1 - X])

    def slope(model):
        gradient = jax.grad(lambda params, x: vaejax.TaylorControlVariate()(model, params, x, KEY))
        return jax.jit(jax.vmap(gradient, (None, 0)))(params, xs)

    plain, marked = slope(NORMAL), slope(counted(NORMAL))
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: jnp.allclose(a, b, rtol=1e-6), plain, marked))
    )


def test_the_cost_of_a_program():
    params = NORMAL.init(KEY, X)
    cost = gradient_cost(vaejax.per_example(vaejax.Pathwise(), NORMAL), params, X, KEY, repeats=3)
    assert 0 < cost.seconds < 1 and cost.bytes >= sum(
        leaf.nbytes for leaf in jax.tree.leaves(params)
    )
    objective = vaejax.per_example(vaejax.Pathwise(), NORMAL)
    with pytest.raises(ValueError, match="repeats = 0; it must be a whole number, at least 1"):
        gradient_cost(objective, params, X, KEY, repeats=0)


def first_example(model):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), data_of(model))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_is_counted(name):
    """The score function evaluates the likelihood, and differentiates it, once a sample."""
    model = KINDS[name]
    evaluations = decoder_evaluations(
        vaejax.ScoreFunction(2), model, params_of(model), first_example(model), KEY
    )
    assert evaluations == Evaluations(2, 2)


@pytest.mark.parametrize("name", ["VAE", "graph", "conditional"])
def test_the_steps_of_refined_are_counted(name):
    """One step of StickTheLanding(8), whose gradient is used up inside, and two samples."""
    model = REFINED[f"Refined {name}"]
    evaluations = decoder_evaluations(
        vaejax.StickTheLanding(2), model, params_of(model), first_example(model), KEY
    )
    assert evaluations == Evaluations(8 + 2, 8 + 2)


@pytest.mark.parametrize(
    "estimator",
    [vaejax.Pathwise(5), vaejax.DReG(4), vaejax.AnalyticKL(2), vaejax.elbo],
    ids=["Pathwise", "DReG", "AnalyticKL", "a plain function"],
)
def test_a_graph_costs_what_the_vae_costs_that_it_is(estimator):
    x = first_example(KINDS["VAE"])
    vae, graph = (
        decoder_evaluations(estimator, KINDS[name], params_of(KINDS[name]), x, KEY)
        for name in ("VAE", "graph")
    )
    assert vae == graph


def test_an_estimator_that_reads_the_graph_is_counted():
    model = KINDS["layers"]
    evaluations = decoder_evaluations(
        vaejax.KLByNode(3), model, params_of(model), first_example(model), KEY
    )
    assert evaluations == Evaluations(3, 3)


@vaejax.component
class WithoutPrior(vaejax.Model):
    """A user's model that gives log p(x, z) alone."""

    support = latent_support = vaejax.supports.REAL

    def log_joint(self, params, x, z):
        return -jnp.sum((x - params.theta * z) ** 2)

    def posterior(self, params, x):
        return vaejax.distributions.DiagNormalDensity(params.phi * x, 0 * x)


def test_a_model_without_a_prior_is_refused():
    params = vaejax.Params(jnp.ones(()), jnp.ones(()))
    with pytest.raises(
        vaejax.NotKnownError, match="WithoutPrior has no prior to show: give it p_z"
    ):
        decoder_evaluations(vaejax.Pathwise(), WithoutPrior(), params, X, KEY)

"""Costs: evaluations of the decoder counted by reasoning, for estimators of every kind, and inside
loops.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

import vaejax
from vaejax.variance.cost import Counted, Evaluations, decoder_evaluations, gradient_cost

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
    "pairs, and the joint": (BINARY, vaejax.DisARM(4), (8, 4)),
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
    from dataclasses import replace

    params = NORMAL.init(KEY, X)
    xs = jnp.stack([X, 1 - X])

    def slope(model):
        gradient = jax.grad(lambda params, x: vaejax.TaylorControlVariate()(model, params, x, KEY))
        return jax.jit(jax.vmap(gradient, (None, 0)))(params, xs)

    plain, counted = slope(NORMAL), slope(replace(NORMAL, likelihood=Counted(LIKELIHOOD)))
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: jnp.allclose(a, b, rtol=1e-6), plain, counted))
    )


def test_the_cost_of_a_program():
    params = NORMAL.init(KEY, X)
    cost = gradient_cost(partial(vaejax.Pathwise(), NORMAL), params, X, KEY, repeats=3)
    assert 0 < cost.seconds < 1 and cost.bytes >= sum(
        leaf.nbytes for leaf in jax.tree.leaves(params)
    )

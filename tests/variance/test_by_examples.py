"""Variance as a sum over examples: the formula of the module from all gradients kept, and the
sample variance, within its error.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

import vaejax
from tests.lib.cases import cases
from tests.lib.gradient_moments import flat
from tests.lib.oracles import LinearGaussian, Z, exact_moments, gradient_vector
from tests.lib.programs import trip_counts
from tests.lib.recipes import recipe
from vaejax.base.mapping import estimate
from vaejax.objectives.base import Maximised
from vaejax.variance.by_examples import independent_example, moments_by_examples
from vaejax.variance.groups import Part, parts
from vaejax.variance.program import GradientProgram, gradient_program

Halved = recipe("Objective")

KEY = jax.random.key(0)
XS = (jax.random.uniform(jax.random.key(1), (6, 4, 4)) < 0.4).astype(jnp.float32)
DENSE = vaejax.VAE(
    vaejax.LearnedNormal(2),
    vaejax.Bernoulli(vaejax.MLP((4, 4), (5,))),
    vaejax.DiagNormal(vaejax.MLP(2, (5,), heads=2)),
)
CONVOLUTIONS = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Bernoulli(vaejax.ConvDecoder((4, 4), (2,), 5)),
    vaejax.DiagNormal(vaejax.ConvEncoder(2, (2,), 5, heads=2)),
)
VAMP = vaejax.VAE(vaejax.VampPrior(3), DENSE.likelihood, DENSE.encoder)
DISCRETE = vaejax.VAE(
    vaejax.FactorialBernoulli(3), DENSE.likelihood, vaejax.Bernoulli(vaejax.MLP(3, (5,)))
)

MODELS = {
    "dense": (DENSE, vaejax.Pathwise()),
    "stopped": (DENSE, vaejax.StickTheLanding()),
    "two samples": (DENSE, vaejax.Pathwise(2)),
    "doubly reparameterised": (DENSE, vaejax.DReG(3)),
    "discrete": (DISCRETE, vaejax.ScoreFunction(2)),
    "layers used twice": (VAMP, vaejax.Pathwise()),
    "convolutions": (CONVOLUTIONS, vaejax.Pathwise()),
}


def all_gradients(objective, params, num_draws):
    """[draws, examples, parameters], of the draws that `gradient_moments` takes from KEY."""
    _, draw_key = jax.random.split(KEY)
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(draw_key, i), len(XS)))(
        jnp.arange(num_draws)
    )
    gradient = jax.grad(Maximised(objective))
    by_example = jax.vmap(lambda x, key: ravel_pytree(gradient(params, x, key))[0])
    return np.asarray(jax.jit(jax.vmap(by_example, (None, 0)))(XS, keys), np.float64)


def in_turn(g, starts):
    """The mean over draws of sum_b (g_s - g_(s+1))^2 / 2, after the last draw of a chunk its first
    one.
    """
    chunks = [(chunk - np.roll(chunk, -1, axis=0)) ** 2 for chunk in np.split(g, starts)]
    return np.concatenate(chunks).sum(axis=1).mean(axis=0) / 2


@pytest.mark.parametrize(
    "pair",
    cases(MODELS, slow={"stopped", "two samples", "layers used twice", "discrete", "convolutions"}),
)
def test_it_is_its_formula(pair):
    """From 19 draws, by 8, 8 and 3."""
    model, estimator = pair
    check_formula(model, estimator, 19, [8, 16])


@pytest.mark.parametrize(
    "num_draws, starts",
    [pytest.param(9, [], id="9"), pytest.param(17, [8], id="17", marks=pytest.mark.slow)],
)
def test_no_draw_is_left_alone(num_draws, starts):
    """Chunks of 8 would leave one draw, which has no next one: 9 are one chunk, 17 are 8 and 9."""
    check_formula(DENSE, vaejax.Pathwise(), num_draws, starts)


def check_formula(model, estimator, num_draws, starts):
    """Of a kernel whose inputs move, differences in turn; of the rest, the sample variance; and the
    traces are the tree's.
    """
    params = model.init(KEY, XS[0])
    objective = vaejax.minibatch(estimator, model, dataset_size=12)
    moments = vaejax.gradient_moments(objective, params, XS, KEY, num_draws, order=2, by="examples")
    g = all_gradients(objective.independent_example, params, num_draws) * 12 / 6
    products = [leaf.product for leaf in program(model, estimator).leaves]
    kinds = [product is None or not product.moves for product in products]
    fixed = np.concatenate(
        [
            np.full(leaf.size, kind)
            for leaf, kind in zip(jax.tree.leaves(params), kinds, strict=True)
        ]
    )
    expected = np.where(fixed, g.var(axis=0, ddof=1).sum(axis=0), in_turn(g, starts))
    np.testing.assert_allclose(
        flat(moments.variance), expected, rtol=1e-4, atol=1e-5 * np.abs(g).max() ** 2
    )
    np.testing.assert_allclose(
        flat(moments.mean), g.mean(axis=0).sum(axis=0), rtol=1e-4, atol=1e-5 * np.abs(g).max()
    )
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.split(KEY)[1]))(jnp.arange(num_draws))
    values = jax.jit(jax.vmap(lambda key: Maximised(objective)(params, XS, key)))(keys)
    np.testing.assert_allclose(moments.value, estimate(values), rtol=1e-4)
    unravel = ravel_pytree(params)[1]
    for name, select in parts(params).items():
        trace_of_fixed = vaejax.tree_sum(select(unravel(jnp.where(fixed, expected, 0))))
        mean = (
            vaejax.tree_sum(select(moments.variance)) - trace_of_fixed / num_draws
        )  # 1/n, not 1/(n-1), about the mean
        np.testing.assert_allclose(moments.squares[name].mean(), mean, rtol=1e-3)


def test_it_is_exact():
    """Three times the same linear-Gaussian example and another: the variance of the mean of four,
    from quadrature.
    """
    points = [LinearGaussian(), LinearGaussian(), LinearGaussian(), LinearGaussian(x=-0.5)]
    with jax.enable_x64(True):
        exact = (
            np.mean(
                [np.asarray(exact_moments(vaejax.Pathwise(), point)[2]) for point in points], axis=0
            )
            / 4
        )
    objective = vaejax.minibatch(vaejax.Pathwise(), points[0].model)
    xs = jnp.stack([point.datum for point in points])
    moments = vaejax.gradient_moments(objective, points[0].params, xs, KEY, 40_000, order=2)
    assert moments.by == "examples"
    np.testing.assert_allclose(gradient_vector(moments.variance), exact, rtol=0.05)
    assert abs(vaejax.tree_sum(moments.variance.phi) / exact[:2].sum() - 1) < 0.02


@pytest.mark.slow
def test_it_agrees_with_draws_and_says_more():
    """The trace of each group by 4,000 draws of the batch and of 400 by examples agree, and a draw
    says more of one by examples.
    """
    params = DENSE.init(KEY, XS[0])
    xs = jnp.tile(XS, (5, 1, 1))
    objective = vaejax.minibatch(vaejax.Pathwise(), DENSE)
    measure = partial(vaejax.gradient_moments, objective, params, xs, order=2)
    examples, draws = measure(KEY, 400), measure(jax.random.key(1), 4_000, by="draws")
    assert (examples.by, draws.by) == ("examples", "draws")
    for name, ours in vaejax.gradient_spread(examples).items():
        other = vaejax.gradient_spread(draws)[name]
        errors = [np.log(spread.high / spread.low) / 3.92 for spread in (ours, other)]
        assert abs(np.log(ours.trace / other.trace)) < Z * np.hypot(*errors)
        assert errors[0] < 2.5 * errors[1] < 0.1  # of as many draws it would be sqrt(10)
        assert np.isnan(ours.kurtosis) and other.kurtosis > 1
    half = vaejax.gradient_moments(
        vaejax.minibatch(vaejax.Pathwise(2), DENSE), params, xs, KEY, 400, order=2
    )
    ratio = vaejax.variance_ratio(examples, half, "theta likelihood")
    assert ratio.low < 2 < ratio.high < 1.3 * ratio.low


@pytest.mark.slow
def test_the_interval_covers():
    """Of 200 intervals at 95 % from 300 draws, whose neighbours share a draw, the trace of 200,000
    lies in a number that is binomial.
    """
    params = DENSE.init(KEY, XS[0])
    measure = partial(
        vaejax.gradient_moments,
        vaejax.minibatch(vaejax.Pathwise(), DENSE),
        params,
        XS,
        order=2,
    )
    exact = vaejax.tree_sum(measure(jax.random.key(9), 200_000).variance.phi)
    spreads = [
        vaejax.gradient_spread(measure(jax.random.key(seed), 300))["phi"] for seed in range(200)
    ]
    covered = sum(spread.low < exact < spread.high for spread in spreads)
    assert stats.binom(200, 0.95).ppf(1e-6) <= covered
    assert sum(np.isfinite(spread.high) for spread in spreads) > 150


def program(model, estimator) -> GradientProgram:
    return gradient_program(
        Maximised(vaejax.per_example(estimator, model)),
        jax.eval_shape(model.init, KEY, XS[0]),
        XS[0],
        KEY,
    )


def test_what_is_left_as_a_product():
    """Every kernel and no bias; the encoder's inputs do not move with the noise, the decoder's
    do.
    """
    leaves = program(DENSE, vaejax.Pathwise(3)).leaves
    products = [leaf.product for leaf in leaves if leaf.product is not None]
    assert [(product.rows, product.moves) for product in products] == [
        (3, True),
        (3, True),
        (1, False),
        (1, False),
    ]
    many = program(DENSE, vaejax.Pathwise(9))  # too many rows: the decoder's are kept
    assert sum(leaf.product is not None for leaf in many.leaves) == 2


@pytest.mark.parametrize("num_pseudo_inputs, by", [(3, "examples"), (500, "draws")])
def test_the_way_is_chosen(num_pseudo_inputs, by):
    """Five hundred pseudo-inputs of 400 pixels are 200,000 numbers of each example, too many to
    keep.
    """
    xs = jnp.zeros((4, 20, 20))
    model = vaejax.VAE(
        vaejax.VampPrior(num_pseudo_inputs),
        vaejax.Bernoulli(vaejax.MLP((20, 20), (5,))),
        DENSE.encoder,
    )
    params = model.init(KEY, xs[0])
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    assert vaejax.gradient_moments(objective, params, xs, KEY, 2, order=2).by == by
    if by == "draws":
        with pytest.raises(
            ValueError,
            match=(
                'by = "examples" is not possible: .* numbers that are not products of 8 rows .* use'
                ' by="draws"'
            ),
        ):
            vaejax.gradient_moments(objective, params, xs, KEY, 2, order=2, by="examples")
    with pytest.raises(ValueError, match="is not possible: fewer than 4 examples"):
        vaejax.gradient_moments(objective, params, xs[:3], KEY, 2, order=2, by="examples")


@vaejax.component
class Weighted(vaejax.Around):
    """A user's objective that is a mean over examples, and says so: `scale` times `inner`."""

    inner: vaejax.Objective
    weight: float

    @property
    def scale(self):
        return self.weight

    @property
    def independent_example(self):
        return self.inner.independent_example

    def __call__(self, params, xs, key, step):
        terms = self.inner(params, xs, key, step)
        return jax.tree.map(lambda number: number * self.weight, terms)


def test_an_objective_of_ones_own_goes_by_examples():
    """Where it says its `independent_example` and `scale`; where it does not, by draws."""
    params, inner = DENSE.init(KEY, XS[0]), vaejax.minibatch(vaejax.Pathwise(), DENSE)
    plain, weighted = (
        vaejax.gradient_moments(objective, params, XS, KEY, 9, order=2)
        for objective in (inner, Weighted(inner, 3))
    )
    assert weighted.by == "examples"
    np.testing.assert_allclose(flat(weighted.variance), 9 * flat(plain.variance), rtol=1e-6)
    halved = vaejax.gradient_moments(Halved(inner), params, XS, KEY, 9, order=2)
    assert halved.by == "draws"


def test_a_device_is_never_asked_how_many_chunks_there_are():
    """The program is compiled for a number of draws, so the length of each loop is known."""
    objective = vaejax.minibatch(vaejax.Pathwise(), DENSE)
    params = DENSE.init(KEY, XS[0])
    example = independent_example(Maximised(objective))
    lowered = moments_by_examples.lower(example, 1.0, (Part(("phi",)),), params, XS, KEY, 50)
    counts = trip_counts(lowered.compile().as_text())
    assert counts and None not in counts

"""Objectives: a minibatch's mean, what is asked of a plain function, and what is refused."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.fits import PARAMS, beta_objective, fit
from tests.lib.lines import BERNOULLI, KEY, LEARNED, LINES, assert_close, params_of
from tests.lib.oracles import Line, LinearGaussian
from tests.lib.programs import compilations
from tests.lib.recipes import recipe
from tests.lib.trees import assert_same_bits
from vaejax import TCVAE, Beta, Cyclical, FreeBits, WarmUp, per_example, supports
from vaejax.objectives.base import Maximised

Halved = recipe("Objective")

POINT = LinearGaussian()


# Minibatches: five data points, a bound without noise (every sample of q is its mean), and all the
# batches there are.


def mean_bound(params, x, key):
    return jnp.sum(jnp.tanh(params @ x) * x)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_minibatch_gradient_is_unbiased(x64, size):
    """The mean over all C(N, M) minibatches of the N/M-scaled gradient is the full gradient."""
    generator = np.random.default_rng(0)
    xs, params = generator.normal(size=(5, 3)), generator.normal(size=(3, 3))
    full = jax.jit(jax.grad(lambda p: sum(mean_bound(p, x, None) for x in xs)))(params)
    scaled = Maximised(vaejax.minibatch(mean_bound, support=supports.REAL, dataset_size=5))
    batches = itertools.combinations(range(5), size)
    gradients = [jax.grad(scaled)(params, xs[list(rows)], jax.random.key(0)) for rows in batches]
    assert len(gradients) == math.comb(5, size)
    np.testing.assert_allclose(np.mean(gradients, axis=0), full, rtol=1e-12)


def test_minibatch_is_a_mean_with_a_key_for_each_example():
    model, params, xs = POINT.model, POINT.params, jnp.asarray([[1.0], [2.0], [-1.0]])
    keys = jax.random.split(jax.random.key(4), 3)
    expected = jnp.mean(
        jnp.stack(
            [vaejax.Pathwise()(model, params, x, key) for x, key in zip(xs, keys, strict=True)]
        )
    )
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    terms = objective(params, xs, jax.random.key(4), 0)
    np.testing.assert_allclose(terms[:2], [expected, expected], rtol=1e-6)
    assert objective == vaejax.minibatch(vaejax.Pathwise(), POINT.model)
    assert hash(objective) == hash(vaejax.minibatch(vaejax.Pathwise(), POINT.model))


def test_minibatch_refuses_an_objective_that_is_not_one_number():
    vectors = vaejax.minibatch(lambda params, x, key: x, support=supports.REAL)
    with pytest.raises(ValueError, match=r"has shape \(3,\); it must be one number"):
        vectors(None, jnp.zeros((2, 3)), jax.random.key(0), 0)


def test_equal_by_value():
    for make in (
        lambda: beta_objective(WarmUp(5)),
        lambda: FreeBits(LINES, 0.1),
        lambda: TCVAE(LINES, 50, beta=WarmUp(5)),
    ):
        assert make() == make() and hash(make()) == hash(make())
        assert make().model == LINES and make().support == LINES.support
    objective = TCVAE(LINES, 50, alpha=WarmUp(5), beta=2.0, gamma=Cyclical(3))
    assert objective.schedules == (("alpha", WarmUp(5)), ("gamma", Cyclical(3)))


VALIDATED = {
    "Beta": (vaejax.minibatch(Beta(3.0, 2), LINES), vaejax.Pathwise(2)),
    "FreeBits": (FreeBits(LINES, 5.0, 2), vaejax.AnalyticKL(2)),
    "TCVAE": (TCVAE(LINES, 60, 2.0, 3.0, 4.0), vaejax.Pathwise()),
    "optimal scale": (
        vaejax.optimal_scale(vaejax.minibatch(Beta(3.0), LEARNED)),
        vaejax.Pathwise(),
    ),
    "scaled": (vaejax.minibatch(Beta(3.0), LINES, dataset_size=60), vaejax.Pathwise()),
}


@pytest.mark.parametrize("objective, bound", VALIDATED.values(), ids=VALIDATED)
def test_a_validation_is_of_the_bound_of_one_example(objective, bound):
    """No weight, floor or scale moves it."""
    likelihood = {"log_scale": jnp.asarray(-0.3)} if objective.model == LEARNED else None
    params, x = params_of(likelihood=likelihood), jnp.asarray([0.3, -1.2])
    expected = bound(objective.model, params, x, KEY)
    np.testing.assert_allclose(objective.bound(params, x, KEY), expected, rtol=1e-5)


def test_a_validation_under_q_of_theta_is_at_its_mean():
    bayes = vaejax.VariationalBayes(vaejax.minibatch(Beta(3.0), LINES), 60)
    params, x = params_of(), jnp.asarray([0.3, -1.2])
    expected = vaejax.elbo(LINES, params, x, KEY)
    np.testing.assert_allclose(bayes.bound(bayes.start(params, 1.0), x, KEY), expected, rtol=1e-5)


# A plain function hides its model, so it is asked for the support of its data.

GREY = np.random.default_rng(0).random((60, 2)).astype(np.float32)


def hidden(params, x, key):
    """`Pathwise` of a model of binary data, as a closed box."""
    return vaejax.Pathwise()(BERNOULLI, params, x, key)


def test_a_function_is_asked_for_its_support():
    for make in (vaejax.minibatch, per_example):
        with pytest.raises(ValueError, match=r"does not show which data it is for: .* support="):
            make(hidden)
        with pytest.raises(ValueError, match=r"does not show which data it is for: .* support="):
            make(lambda p, x, k: vaejax.Pathwise()(BERNOULLI, p, x, k))


@pytest.mark.parametrize(
    "objective",
    [
        vaejax.minibatch(hidden, support=supports.BINARY),
        vaejax.minibatch(vaejax.Pathwise(), BERNOULLI),
        vaejax.minibatch(vaejax.elbo, BERNOULLI),
        vaejax.minibatch(partial(vaejax.iwae, num_samples=2), BERNOULLI),
        Halved(vaejax.minibatch(hidden, support=supports.BINARY)),
    ],
    ids=["function", "estimator", "function of a model", "partial", "around a function"],
)
def test_grey_data_are_refused_however_it_is_spelt(objective):
    with compilations() as names, pytest.raises(ValueError, match="this likelihood is for 0 and 1"):
        fit(5, objective, data=GREY)
    assert names == []


def test_a_function_with_support_is_what_it_hides():
    xs = np.round(GREY)
    shown = vaejax.minibatch(vaejax.Pathwise(), BERNOULLI)
    closed = vaejax.minibatch(hidden, support=supports.BINARY)
    theta = {"prior": (), "likelihood": PARAMS.theta["likelihood"]["net"]}
    params = PARAMS._replace(theta=theta)
    ours, theirs = (
        jax.jit(jax.value_and_grad(Maximised(objective)))(params, xs, KEY)
        for objective in (shown, closed)
    )
    assert_same_bits(ours, theirs)
    assert closed.model is None and closed.support == shown.support


MISSPELT = {
    "a partial": (
        lambda: vaejax.minibatch(partial(vaejax.Pathwise(), BERNOULLI)),
        r"a partial of Pathwise hides its model: write \(Pathwise\(...\), model\)",
    ),
    "a partial with support": (
        lambda: vaejax.minibatch(partial(vaejax.Pathwise(), BERNOULLI), support=supports.REAL),
        "a partial of Pathwise hides its model",
    ),
    "no model": (lambda: vaejax.minibatch(vaejax.Pathwise()), "needs a model too"),
    "a class": (lambda: vaejax.minibatch(vaejax.Pathwise, BERNOULLI), "the class Pathwise; write"),
    "an objective": (
        lambda: vaejax.minibatch(FreeBits(LINES, 0.1)),
        "FreeBits is an objective already",
    ),
    "no model of ours": (
        lambda: vaejax.minibatch(vaejax.Pathwise(), Line()),
        "does not derive from vaejax.Model",
    ),
}


@pytest.mark.parametrize("call, message", MISSPELT.values(), ids=MISSPELT)
def test_what_to_write_instead(call, message):
    with pytest.raises(TypeError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# A user's own, to the base class's letter.


@vaejax.component
class Tempered(vaejax.Estimator):
    """A user's estimator with a schedule, around one that has its own."""

    inner: vaejax.Estimator
    weight: vaejax.Schedule

    @property
    def schedules(self):
        return (*self.inner.schedules, ("temperature", self.weight))

    def __call__(self, model, params, x, key):
        return self.inner(model, params, x, key)

    def terms(self, model, params, x, key, step):
        terms = self.inner.terms(model, params, x, key, step)
        return terms._replace(objective=self.weight(step) * terms.objective)


@pytest.mark.parametrize("step", [0, 3, 7, 20])
def test_a_users_own_around_one_with_a_schedule(step):
    """`Halved` of the docstring, and an estimator: multiples of the inner value and gradient."""
    inner, weight = beta_objective(WarmUp(10)), WarmUp(8, start=0.5)
    tempered = vaejax.minibatch(Tempered(Beta(WarmUp(10)), weight), LINES)
    assert [name for name, _ in tempered.schedules] == ["beta", "temperature"]
    plain, halved, moved = (
        jax.value_and_grad(Maximised(objective, step))(PARAMS, GREY[:10], KEY)
        for objective in (inner, Halved(inner), tempered)
    )
    assert_close(halved, jax.tree.map(lambda leaf: leaf / 2, plain), rtol=1e-6)
    scaled = jax.tree.map(lambda leaf: leaf * float(weight(step)), plain)
    assert_close(moved, scaled, rtol=1e-5, atol=1e-6)


def test_a_users_own_is_held_against_the_run():
    late = vaejax.minibatch(Tempered(Beta(), WarmUp(50)), LINES)
    for objective in (late, Halved(late)):
        with pytest.raises(ValueError, match="temperature is warmed up over 50 steps"):
            fit(10, objective, data=GREY)


def test_what_an_objective_gives_is_checked():
    @vaejax.component
    class Bare(vaejax.Around):
        inner: vaejax.Objective

        def __call__(self, params, xs, key, step):
            return self.inner(params, xs, key, step).bound

    with pytest.raises(TypeError, match=r"Bare gave \w+; an objective gives vaejax.Terms"):
        fit(5, Bare(beta_objective(1.0)), data=GREY)
    with pytest.raises(TypeError, match="does not say `schedules`"):

        class Silent(vaejax.Objective):
            model = None

    with pytest.raises(TypeError, match="does not say `scale`"):

        class Unscaled(vaejax.Objective):
            model = None
            schedules = ()


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_data_set_has_a_whole_number_of_examples(size):
    with pytest.raises(ValueError, match=f"dataset_size = {size}; it must be a whole number"):
        vaejax.minibatch(vaejax.Pathwise(), LINES, dataset_size=size)

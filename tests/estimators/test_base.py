"""What every estimator asks of q: a density that says whether its samples move smoothly with its
parameters, and that they do where the gradient goes through them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.lines import KEY
from tests.lib.oracles import LinearGaussian
from vaejax import DirectedGraph, Node
from vaejax.estimators.base import (
    as_estimator,
    fixed_samples,
    log_weight_at,
    with_gradient_of,
)

NET = partial(vaejax.MLP, hidden=(4,))
X = jnp.asarray([0.5, -1.0])


class Undeclared:
    """Three binary latents, from no base class: nothing says what its samples are."""

    def __init__(self, logits):
        self.density = vaejax.distributions.BernoulliDensity(logits)
        self.sample, self.log_prob = self.density.sample, self.density.log_prob


@vaejax.pytree
class Declared(vaejax.Distribution):
    """The same to the base class's letter."""

    logits: jax.Array
    reparameterised = False

    def sample(self, key):
        return jax.random.bernoulli(key, jax.nn.sigmoid(self.logits)).astype(self.logits.dtype)

    def log_prob(self, value):
        value = vaejax.distributions.as_event("Declared", value, self.logits)
        return jnp.sum(value * self.logits - jnp.logaddexp(0.0, self.logits))


@vaejax.pytree
class Rounded(vaejax.distributions.DiagNormalDensity):
    """A normal density whose samples are rounded: a subclass of a smooth one that is not."""

    reparameterised = False

    def sample(self, key):
        return jnp.round(super().sample(key))


def conditioned(logits):
    """q(c | seen = 1) of a graph whose one-hot node c is above `seen`."""
    nodes = (
        Node("c", vaejax.OneHotCategorical(NET((1, 3)))),
        Node("seen", vaejax.Bernoulli(NET(1)), "c"),
    )
    graph = DirectedGraph(nodes)
    params = graph.init(jax.random.key(0), X, {"c": jnp.zeros((1, 3)), "seen": jnp.ones(1)})
    return graph(params, X).condition({"seen": jnp.ones(1)})


@vaejax.component
class Own(vaejax.Model):
    """A user's model: two numbers seen, and a q that `make` gives from three numbers."""

    make: Any
    support = vaejax.supports.REAL
    latent_support = None

    def init(self, key, x):
        return vaejax.Params(theta=jnp.ones(()), phi=jnp.zeros(3))

    def p_z(self, params, x=None):
        return vaejax.distributions.standard_normal(jnp.zeros(3))

    def p_x_given_z(self, params, z, x=None):
        mean = jnp.sum(jax.tree.leaves(z)[0]) * params.theta * jnp.ones(2)
        return vaejax.distributions.DiagNormalDensity(mean, jnp.zeros(2))

    def posterior(self, params, x):
        return self.make(params.phi)


def bernoulli_in_numpyro(logits):
    return npd.Bernoulli(logits=logits).to_event(1)


NOT_SMOOTH = "do not move smoothly with its parameters; use ScoreFunction"
POSTERIORS = {
    "from no base class": (
        Undeclared,
        "Own.posterior gave .*, which is not a density; give a vaejax.Distribution, or",
    ),
    "says that it is not": (Declared, f"those of Declared {NOT_SMOOTH}"),
    "a subclass that is not": (lambda phi: Rounded(phi, phi), f"those of Rounded {NOT_SMOOTH}"),
    "conditioned": (conditioned, f"those of Conditioned {NOT_SMOOTH}"),
    "raw NumPyro": (bernoulli_in_numpyro, f"those of Bernoulli\\w* {NOT_SMOOTH}"),
}


def test_a_value_may_have_the_gradient_of_another():
    """with_gradient_of: the value of the one, the slope of the other."""
    both = jax.value_and_grad(lambda t: with_gradient_of(t**3, 5 * t))
    assert both(2.0) == (8.0, 5.0)


def test_only_the_sample_moves_the_weight_at_it():
    """log w at z with all parameters held fixed, theta's and phi's; fixed samples have no path."""
    point = LinearGaussian()
    z = jnp.asarray([0.3])

    def log_weight(params, z):
        q = point.model.posterior(params, point.datum)
        return log_weight_at(point.model, params, point.datum, q)(z)

    of_params, of_z = jax.jit(jax.grad(log_weight, (0, 1)))(point.params, z)
    assert all(not leaf.any() for leaf in jax.tree.leaves(of_params))
    slope = -point.lam * (0.3 - point.posterior_mean) + (0.3 - point.mu) / point.s**2
    np.testing.assert_allclose(of_z, [slope], rtol=1e-5)

    def log_q(params):
        q = point.model.posterior(params, point.datum)
        return fixed_samples(point.model, params, point.datum, q, KEY, 1)[1][0]

    noise = jax.random.normal(jax.random.split(KEY, 1)[0], (1,))
    score = jax.jit(jax.grad(log_q))(point.params).phi["loc"]
    np.testing.assert_allclose(score, noise / point.s, rtol=1e-4)


@vaejax.component
class Twice(vaejax.Noise):
    """Each source is used twice."""

    def sources(self, q, key, num_samples):
        return jnp.repeat(jax.random.split(key, num_samples // 2), 2, axis=0)

    def at(self, q, source):
        return q, source


OF_NOISE = {
    "Pathwise": vaejax.Pathwise,
    "Pathwise of IWAE": partial(vaejax.Pathwise, bound=vaejax.iwae_bound),
    "AnalyticKL": vaejax.AnalyticKL,
    "StickTheLanding": vaejax.StickTheLanding,
    "TaylorControlVariate": vaejax.TaylorControlVariate,
    "DReG": vaejax.DReG,
    "GeneralisedDReG": vaejax.GeneralisedDReG,
    "PIWAE": partial(vaejax.PIWAE, num_groups=1),
    "RWS": vaejax.RWS,
    "RWS, doubly": partial(vaejax.RWS, doubly_reparameterised=True),
}


@pytest.mark.parametrize("make", cases(OF_NOISE))
def test_the_samples_are_those_of_the_noise(make):
    """Two that are one have the value of one, whatever the bound; two of their own have another."""
    point = LinearGaussian()
    estimators = make(1), make(2, noise=Twice()), make(2)
    values = jax.jit(
        lambda p: [estimator(point.model, p, point.datum, KEY) for estimator in estimators]
    )
    alone, twice, two = values(point.params)
    np.testing.assert_allclose(twice, alone, rtol=1e-5)
    assert abs(two - alone) > 1e-3


THROUGH_SAMPLES = {
    "Pathwise": vaejax.Pathwise(2),
    "Pathwise of IWAE": vaejax.Pathwise(2, vaejax.iwae_bound),
    "AnalyticKL": vaejax.AnalyticKL(),
    "StickTheLanding": vaejax.StickTheLanding(),
    "StickTheLanding, estimated": vaejax.StickTheLanding(coefficient="estimated"),
    "DReG": vaejax.DReG(2),
    "GeneralisedDReG": vaejax.GeneralisedDReG(2),
    "RWS, doubly": vaejax.RWS(2, doubly_reparameterised=True),
    "PIWAE": vaejax.PIWAE(2, 1),
    "Beta": vaejax.Beta(2.0),
    "KLByNode": vaejax.KLByNode(),
}


@pytest.mark.parametrize("make, message", POSTERIORS.values(), ids=POSTERIORS)
def test_a_discrete_posterior_is_refused(make, message):
    """By every estimator that goes through samples, alone and as an objective, in one line."""
    model = Own(make)
    params = model.init(KEY, X)
    for estimator in THROUGH_SAMPLES.values():
        with pytest.raises(TypeError, match=message) as error:
            estimator(model, params, X, KEY)
        assert "\n" not in str(error.value)
        with pytest.raises(TypeError, match=message):
            vaejax.minibatch(estimator, model)(params, X[None], KEY, 0)


DIAGONAL = "q and the prior must be diagonal normals, not"
NEEDS_MORE = {
    "FreeBits": lambda model: vaejax.FreeBits(model, 0.1),
    "TCVAE": lambda model: vaejax.TCVAE(model, 9),
}
OF_ONE_FAMILY = {
    "TaylorControlVariate": vaejax.TaylorControlVariate(),
    "MeasureValued": vaejax.MeasureValued(),
    "DisARM": vaejax.DisARM(),
    "Relaxed": vaejax.Relaxed(),
    "ByNode": vaejax.ByNode(),
}


@pytest.mark.parametrize("make, message", POSTERIORS.values(), ids=POSTERIORS)
def test_and_by_those_that_ask_for_a_family(make, message):
    model = Own(make)
    params, xs = model.init(KEY, X), jnp.stack([X, X])
    for objective in NEEDS_MORE.values():
        with pytest.raises(TypeError, match=f"{DIAGONAL}|{message}"):
            objective(model)(params, xs, KEY, 0)
    for name, estimator in OF_ONE_FAMILY.items():
        if make.__name__ == "<lambda>" and name == "MeasureValued":
            continue  # it takes no derivative of a sample
        with pytest.raises(TypeError, match=f"is for a q that is|{message}"):
            estimator(model, params, X, KEY)


def test_the_score_function_takes_those_that_say_so():
    """And its mean is that of enumeration: the recipe of `Distribution` for a discrete variable."""
    for estimator in (vaejax.ScoreFunction(2), vaejax.VIMCO(2), vaejax.OVIS(2), vaejax.RWS(2)):
        for make in (Declared, bernoulli_in_numpyro):
            model = Own(make)
            value = jax.jit(partial(estimator, model))(model.init(KEY, X), X, KEY)
            assert np.isfinite(value)


def graph_with(encoder):
    """z -> x, with an encoder by node."""
    nodes = (Node("z", vaejax.FactorialBernoulli(3)), Node("x", vaejax.Bernoulli(NET(2)), "z"))
    return vaejax.GraphModel(
        DirectedGraph(nodes), DirectedGraph((Node("z", encoder, "x"),), inputs=("x",))
    )


@pytest.mark.parametrize("estimator", cases(THROUGH_SAMPLES))
def test_a_discrete_node_is_refused(estimator):
    model = graph_with(vaejax.Bernoulli(NET(3)))
    params = jax.eval_shape(model.init, KEY, X)
    with pytest.raises(TypeError, match=NOT_SMOOTH):
        jax.eval_shape(partial(estimator, model), params, X, KEY)
    by_node = vaejax.FreeBitsByNode(model, 0.1)
    with pytest.raises(TypeError, match=NOT_SMOOTH):
        jax.eval_shape(partial(by_node, step=0), params, X[None], KEY)


def test_what_is_an_estimator():
    """One to the base class's letter, or a function of (model, params, x, key)."""
    assert as_estimator(vaejax.elbo)(*_point(), KEY) == vaejax.elbo(*_point(), KEY)
    assert as_estimator(vaejax.Pathwise()) == vaejax.Pathwise()
    with pytest.raises(TypeError, match=r"is the class Pathwise; write Pathwise\(...\)"):
        as_estimator(vaejax.Pathwise)
    with pytest.raises(TypeError, match="3 is not an estimator; derive it from vaejax.Estimator"):
        as_estimator(3)


def _point():
    model = Own(lambda phi: vaejax.distributions.standard_normal(phi))
    return model, model.init(KEY, X), X


LEARNING = (vaejax.REBAR(), vaejax.RELAX(NET(1)), vaejax.DoubleControlVariate())


@pytest.mark.parametrize("estimator", LEARNING, ids=lambda estimator: type(estimator).__name__)
def test_no_magic_names(estimator):
    """What an estimator has, it has from the contract: no method that reads like another's."""
    assert not {"objective", "loss", "model", "value"} & set(dir(estimator))

"""Logits of -inf: a class that is masked, a transition that is forbidden. Values and gradients are
those of the density without the impossible states.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import special, stats

import vaejax
from tests.lib.cases import cases
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.mixture import Mixture
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity
from vaejax.distributions.pixels import DiscretizedLogisticDensity, Levels
from vaejax.distributions.relaxed import RelaxedBernoulliDensity, RelaxedCategoricalDensity

INF = np.inf
MASKED = np.array([0.0, -INF, 1.0])
FEWER = np.array([0.0, 1.0])


def one_hot_kl(q, p):
    return vaejax.kl_divergence(OneHotCategoricalDensity(q), OneHotCategoricalDensity(p))


def of_levels(logits, x):
    return Levels(logits[None]).log_prob(jnp.asarray([x]))


def of_mixture(logits):
    locs = jnp.linspace(-1.0, 1.0, 3)[:: 2 // (len(logits) - 1), None]
    return Mixture(logits, DiagNormalDensity(locs, 0 * locs)).log_prob(jnp.ones(1))


def of_logistics(logits):
    locs = jnp.linspace(0.2, 0.8, 3)[None, :: 2 // (len(logits) - 1)]
    return DiscretizedLogisticDensity(logits[None], locs, 0 * locs - 2, 256).log_prob(jnp.zeros(1))


def of_labels(logits):
    return NumPyroDensity(npd.Categorical(logits=logits)).log_prob(len(logits) - 1)


def of_counts(logits):
    counts = jnp.asarray([2.0, 0.0, 3.0])[:: 2 // (len(logits) - 1)]
    return NumPyroDensity(npd.Multinomial(5, logits=logits)).log_prob(counts)


# Each at logits of three classes, the middle one masked, and of the other two alone.
FUNCTIONS = {
    "OneHotCategorical": lambda l: OneHotCategoricalDensity(l).log_prob(jnp.eye(len(l))[0]),
    "KL": one_hot_kl,
    "Levels": lambda l: of_levels(l, 1.0),
    "Mixture": of_mixture,
    "DiscretizedLogistic": of_logistics,
    "NumPyro's Categorical": of_labels,
    "NumPyro's Multinomial": of_counts,
}


@pytest.mark.parametrize("function", cases(FUNCTIONS))
def test_a_masked_class_is_as_if_it_were_not_there(function):
    if function is one_hot_kl:
        q, fewer = jnp.asarray(MASKED), jnp.asarray(FEWER)
        pairs = [(q, q * 2), (fewer, fewer * 2)]
        results = [jax.jit(jax.value_and_grad(one_hot_kl, (0, 1)))(*pair) for pair in pairs]
        gradients = [np.stack(gradient) for _, gradient in results]
    else:
        results = [
            jax.jit(jax.value_and_grad(function))(jnp.asarray(logits, jnp.float32))
            for logits in (MASKED, FEWER)
        ]
        gradients = [np.asarray(gradient)[None] for _, gradient in results]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(gradients[0][:, [0, 2]], gradients[1], rtol=1e-4, atol=1e-6)
    assert (gradients[0][:, 1] == 0).all()


def test_the_figures_of_the_report():
    logits, uniform = jnp.asarray(MASKED), jnp.zeros(3)
    log_prob = OneHotCategoricalDensity(logits).log_prob
    np.testing.assert_allclose(log_prob(np.eye(3)[0]), -1.3132617, rtol=1e-6)
    assert log_prob(np.eye(3)[1]) == -INF
    np.testing.assert_allclose(one_hot_kl(logits, uniform), 0.5164093, rtol=1e-6)
    assert one_hot_kl(uniform, logits) == INF
    assert np.isfinite(jax.jit(jax.grad(one_hot_kl))(logits, uniform)).all()


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", [-INF, INF])
def test_bernoulli_of_certain_variables(x, logit):
    certain = x == (logit > 0)
    value, gradient = jax.value_and_grad(
        lambda l, x: BernoulliDensity(l[None]).log_prob(x[None]), argnums=(0, 1)
    )(jnp.float32(logit), jnp.float32(x))
    assert value == (0 if certain else -INF)
    assert np.isfinite(gradient).all()
    both = [BernoulliDensity(jnp.asarray([l])) for l in (logit, 0.7)]
    kls = [vaejax.kl_divergence(q, p) for q in both for p in both]
    log_p = special.log_expit(0.7 if logit > 0 else -0.7)
    np.testing.assert_allclose(kls, [0, -log_p, INF, 0], rtol=1e-6)
    slope = jax.grad(lambda l: vaejax.kl_divergence(BernoulliDensity(l), both[1]))(both[0].logits)
    assert np.isfinite(slope).all()


def test_bernoulli_where_it_is_almost_certain():
    """log p(1) of a logit of 20 is -2e-9; a logit that is no number stays none."""
    p = BernoulliDensity(jnp.asarray([20.0, -30.0]))
    np.testing.assert_allclose(p.log_prob(np.array([1, 0])), -np.exp(-20) - np.exp(-30), atol=3e-9)
    assert np.isnan(BernoulliDensity(jnp.asarray([np.nan])).log_prob(np.zeros(1)))


def relaxed_one_hot(logits, y):
    return RelaxedCategoricalDensity(jnp.asarray(0.3), logits).log_prob(y)


def test_a_masked_class_of_a_relaxed_variable_is_as_if_it_were_not_there():
    q = RelaxedCategoricalDensity(jnp.asarray(0.3), jnp.asarray(MASKED, jnp.float32))
    y = q.sample(jax.random.key(0))
    assert y[1] == -INF and np.isfinite(y[np.array([0, 2])]).all()
    for of_y in (0, 1):
        masked = jax.value_and_grad(relaxed_one_hot, of_y)(q.logits, y)
        fewer = jax.value_and_grad(relaxed_one_hot, of_y)(jnp.asarray(FEWER), y[jnp.array([0, 2])])
        np.testing.assert_allclose(masked[0], fewer[0], rtol=1e-6)
        np.testing.assert_allclose(masked[1], np.insert(fewer[1], 1, 0), rtol=1e-5, atol=1e-6)
    # What one of two densities leaves out, the other never gives: a bound of the two is -inf.
    inside = jnp.log(jnp.asarray([0.2, 0.5, 0.3]))
    for logits, point in ((MASKED, inside), (np.zeros(3), y)):
        value, slopes = jax.value_and_grad(relaxed_one_hot, (0, 1))(jnp.asarray(logits), point)
        assert value == -INF and np.isfinite(slopes).all()


@pytest.mark.parametrize("logit", [-INF, -1.5, INF])
@pytest.mark.parametrize("y", [-INF, 0.4, INF])
def test_a_certain_relaxed_variable_is_a_mass(logit, y):
    value, slopes = jax.jit(
        jax.value_and_grad(
            lambda l, y: RelaxedBernoulliDensity(jnp.asarray(0.3), l[None]).log_prob(y[None]),
            (0, 1),
        )
    )(logit, y)
    noise = 0.3 * y - logit if np.isfinite([y, logit]).all() else INF
    expected = np.log(0.3) + stats.logistic.logpdf(noise)
    np.testing.assert_allclose(value, 0 if np.isinf(logit) and y == logit else expected, rtol=1e-5)
    assert np.isfinite(slopes).all()


# A hidden Markov model with forbidden transitions, by elimination and by every path.

FORBIDDEN = np.array([[0.0, -INF, 0.5], [0.3, 0.1, -INF], [-INF, -INF, 0.0]])


@vaejax.component
class Row:
    """The row of a table that a one-hot vector stands for."""

    def init(self, key, given):
        return jnp.zeros((3, 3))

    def apply(self, params, given):
        return params[jnp.argmax(given[0])][None]


def chain():
    start = vaejax.OneHotCategorical(vaejax.Free((1, 3), ("logits",)))
    nodes = [vaejax.Node("z0", start)]
    for t in range(1, 4):
        nodes.append(vaejax.Node(f"z{t}", vaejax.OneHotCategorical(Row()), f"z{t - 1}"))
    graph = vaejax.DirectedGraph(tuple(nodes))
    table = jnp.asarray(FORBIDDEN)
    return graph, {"z0": {"logits": jnp.zeros((1, 3))}, "z1": table, "z2": table, "z3": table}


def test_a_hidden_markov_model_with_forbidden_transitions():
    graph, params = chain()
    last = jnp.eye(3)[0][None]

    @jax.jit
    @jax.value_and_grad
    def log_p(params):
        return graph(params).log_marginal({"z3": last})

    value, gradient = log_p(params)
    p = special.softmax(FORBIDDEN, axis=1)
    np.testing.assert_allclose(value, np.log((np.ones(3) / 3 @ p @ p @ p)[0]), rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    _, marginal = graph(params).condition({"z3": last}).marginal("z2")
    joint = (np.ones(3) / 3 @ p @ p) * p[:, 0]
    np.testing.assert_allclose(marginal, joint / joint.sum(), rtol=1e-5, atol=1e-7)

    def log_p_of_no_path(params):
        return graph(params).log_marginal({"z2": jnp.eye(3)[2][None], "z3": last})

    assert log_p_of_no_path(params) == -INF
    assert all(
        np.isfinite(leaf).all()
        for leaf in jax.tree.leaves(jax.jit(jax.grad(log_p_of_no_path))(params))
    )


@pytest.mark.parametrize(
    "estimator", [vaejax.Enumerate(), vaejax.ByNode(enumerate=("z",))], ids=["all", "by node"]
)
def test_the_elbo_of_a_masked_encoder(estimator):
    """Equal to that of a q that has the other two classes alone; the masked one may be impossible
    under p too.
    """
    p = vaejax.DirectedGraph((
        vaejax.Node("z", vaejax.OneHotCategorical(vaejax.Free((1, 3), ("logits",)))),
        vaejax.Node("x", vaejax.Gaussian(vaejax.MLP(1, (2,)), 1.0), "z"),
    ))  # fmt: skip
    node = vaejax.Node("z", vaejax.OneHotCategorical(vaejax.Free((1, 3), ("logits",))), "x")
    model = vaejax.GraphModel(p, vaejax.DirectedGraph((node,), inputs=("x",)))
    x = jnp.asarray([0.4])
    params = model.init(jax.random.key(0), x)
    params.phi["z"]["logits"] = jnp.asarray(MASKED)[None]
    for logits in (np.zeros(3), np.array([0.2, -INF, 0.0])):
        params.theta["z"]["logits"] = jnp.asarray(logits, jnp.float32)[None]
        value, gradient = jax.jit(
            jax.value_and_grad(lambda params: estimator(model, params, x, jax.random.key(0)))
        )(params)
        q = special.softmax(FEWER)
        zs = jnp.eye(3)[:, None]
        log_joint = np.array([model.log_joint(params, x, {"z": zs[i]}) for i in (0, 2)])
        np.testing.assert_allclose(value, q @ (log_joint - np.log(q)), rtol=1e-5)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

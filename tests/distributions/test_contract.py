"""Every density keeps the contract: what it does not know is a NotKnownError, never an
AttributeError, under vmap, behind jit, and stopped.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.densities import FAMILIES, make, mixture
from vaejax.distributions.coupling import Autoregressive, Coupling
from vaejax.distributions.flows import Flow, init_layers
from vaejax.distributions.kl import kl_divergence
from vaejax.distributions.normal import standard_normal
from vaejax.distributions.numpyro import CholeskyNormal, NumPyroDensity, as_distribution

KEY = jax.random.key(0)


@vaejax.pytree
class Own(vaejax.Distribution):
    """A user's: a sampler and a density, and nothing else."""

    loc: jax.Array
    reparameterised = True

    def sample(self, key):
        return self.loc + jax.random.gumbel(key, self.loc.shape)

    def log_prob(self, value):
        noise = value - self.loc
        return -jnp.sum(noise + jnp.exp(-noise))


def flow(layer):
    params = init_layers((layer,), KEY, jnp.zeros(2), None)
    return Flow(standard_normal(jnp.zeros(2)), params, None, (layer,))


def joint(*conditionals):
    """a -> b, ... in a row."""
    names = "abcdef"[: len(conditionals)]
    nodes = [
        vaejax.Node(name, conditional, names[i - 1] if i else ())
        for i, (name, conditional) in enumerate(zip(names, conditionals, strict=True))
    ]
    graph = vaejax.DirectedGraph(tuple(nodes))
    return graph(graph.init(KEY))


NORMAL = vaejax.Gaussian(vaejax.MLP(2, (3,)), 1.0)
BINARY = vaejax.Bernoulli(vaejax.MLP(2, (3,)))
OTHERS = {
    "Mixture": mixture,
    "Mixture of flows": lambda: vaejax.distributions.Mixture(
        jnp.zeros(2), jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), flow(Coupling((3,))))
    ),
    "RealNVP": lambda: flow(Coupling((3,))),
    "InverseAutoregressive": lambda: flow(Autoregressive("forward", (3,))),
    "CholeskyNormal": lambda: CholeskyNormal(
        npd.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.eye(2))
    ),
    "Gamma": lambda: NumPyroDensity(npd.Gamma(jnp.ones(2), 1.0).to_event(1)),
    "Expanded": lambda: NumPyroDensity(npd.Laplace(0.0, 1.0).expand((2,)).to_event(1)),
    "Dirichlet": lambda: NumPyroDensity(npd.Dirichlet(jnp.ones(3))),
    "Weibull": lambda: NumPyroDensity(npd.Weibull(jnp.ones(2), 1.0).to_event(1)),
    "ProjectedNormal": lambda: NumPyroDensity(npd.ProjectedNormal(jnp.ones(3))),
    "Cauchy": lambda: NumPyroDensity(npd.Cauchy(jnp.ones(2), 1.0).to_event(1)),
    "VonMises": lambda: NumPyroDensity(npd.VonMises(0.0, 1.0)),
    "Categorical": lambda: NumPyroDensity(npd.Categorical(jnp.ones(3) / 3)),
    "Own": lambda: Own(jnp.zeros(2)),
    "Joint": lambda: joint(vaejax.StandardNormal(2), NORMAL),
    "Joint of independent factors": lambda: joint(vaejax.StandardNormal(2)),
    "Joint of finite factors": lambda: joint(vaejax.FactorialBernoulli(1), BINARY),
    "Conditioned": lambda: joint(vaejax.StandardNormal(2), NORMAL, NORMAL).condition(
        {"a": jnp.zeros(2)}
    ),
    "Conditioned and finite": lambda: joint(vaejax.FactorialBernoulli(1), BINARY).condition(
        {"b": jnp.zeros(2)}
    ),
}
DENSITIES = {
    **{name: lambda name=name: make(name)[0](*make(name)[1]) for name in FAMILIES},
    **OTHERS,
}
each_density = pytest.mark.parametrize("name", DENSITIES)


def known(question):
    """What a density answers, or None where it says that it does not know."""
    try:
        return question()
    except vaejax.NotKnownError:
        return None


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def own_density_is_known(q):
    """Not where only the density of its own samples is."""
    return not (isinstance(q, Flow) and not all(layer.fast_inverse for layer in q.layers))


@each_density
def test_every_question_has_an_answer(name):
    """By tracing alone: shapes, and no AttributeError."""
    q = DENSITIES[name]()
    event = jax.eval_shape(q.sample, KEY)
    leaves = jax.tree.leaves(event)
    size = sum(leaf.size for leaf in leaves)
    u = jnp.full(event.shape if leaves == [event] else (size,), 0.3)
    assert isinstance(q.name, str) and "Density" not in q.name
    assert isinstance(q.reparameterised, bool)
    z, log_prob = jax.eval_shape(q.sample_and_log_prob, KEY)
    assert shapes(z) == shapes(event) and log_prob.shape == ()
    if own_density_is_known(q):
        assert jax.eval_shape(q.log_prob, event).shape == ()
    mean = known(lambda: jax.eval_shape(q.mean))
    assert mean is None or shapes(mean) == shapes(event) or name == "Categorical"
    states = known(lambda: jax.eval_shape(q.states))
    if states is not None:
        several = jax.tree.leaves(states)
        assert [leaf.shape[1:] for leaf in several] == [leaf.shape for leaf in leaves]
        assert not q.reparameterised
    sample = known(lambda: jax.eval_shape(lambda: q.from_uniform(u)))
    assert sample is None or shapes(sample) == shapes(event)
    at_u = q.at_uniform(u)
    assert at_u.reparameterised == q.reparameterised
    if sample is not None:
        z, log_prob = jax.eval_shape(lambda: at_u.sample_and_log_prob(None))
        assert shapes(z) == shapes(event) and log_prob.shape == ()
        if own_density_is_known(q):
            assert jax.eval_shape(at_u.log_prob, event).shape == ()


@each_density
def test_jit_vmap_and_stop_gradient_keep_it(name):
    """Type, name and whether it is reparameterised; a batch of two gives two of everything."""
    q = DENSITIES[name]()
    answers = {}

    def inside(q):
        answers["jit"] = q
        return jax.lax.stop_gradient(q)

    stopped = jax.eval_shape(inside, q)
    assert type(stopped) is type(q)
    for other in (answers["jit"], jax.lax.stop_gradient(q)):
        assert other.name == q.name and other.reparameterised == q.reparameterised
    two = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), q)
    keys = jax.random.split(KEY, 2)
    zs, log_probs = jax.eval_shape(jax.vmap(lambda q, key: q.sample_and_log_prob(key)), two, keys)
    event = jax.eval_shape(q.sample, KEY)
    assert jax.tree.map(lambda leaf: leaf.shape[1:], zs) == shapes(event)
    assert log_probs.shape == (2,)


@pytest.mark.parametrize("layer", [Coupling((3,)), Autoregressive("inverse", (3,))])
def test_a_flow_at_a_uniform_number_knows_its_density(layer):
    """Stick-the-landing asks for the density at the sample, with the parameters stopped."""
    q, u = flow(layer), jnp.asarray([0.2, 0.7])
    z, log_prob = q.at_uniform(u).sample_and_log_prob(None)
    np.testing.assert_allclose(q.at_uniform(u).log_prob(z), log_prob, rtol=1e-5)
    np.testing.assert_allclose(q.log_prob(z), log_prob, rtol=1e-5)


# One event, and one density: `test_one_event` has those of users.


@each_density
def test_each_of_ours_says_the_shape_of_a_draw_and_refuses_a_batch_of_values(name):
    q = DENSITIES[name]()
    event = jax.eval_shape(q.sample, KEY)
    assert q.event == event
    if own_density_is_known(q):
        values = jax.tree.map(lambda leaf: jnp.zeros((3, *leaf.shape)), event)
        with pytest.raises(ValueError, match=r"one event has shape|take one example"):
            jax.eval_shape(q.log_prob, values)


def two_of(q):
    """A batch of two, as `jax.vmap` makes it."""
    return jax.vmap(lambda _: q)(jnp.arange(2))


@each_density
def test_a_batch_of_densities_is_asked_one_by_one(name):
    """All questions, of all densities, and the KL; within a `jax.vmap` each is one."""
    q = DENSITIES[name]()
    qs = two_of(q)
    if not jax.tree.leaves(q):
        return
    u = jnp.full(jax.tree.leaves(q.event)[0].shape, 0.5)  # of a graph another; it is not read
    questions = {
        "log_prob": lambda: qs.log_prob(q.event),
        "coordinate_log_probs": lambda: qs.coordinate_log_probs(q.event),
        "sample": lambda: qs.sample(KEY),
        "sample_and_log_prob": lambda: qs.sample_and_log_prob(KEY),
        "mean": lambda: qs.mean(),
        "states": lambda: qs.states(),
        "from_uniform": lambda: qs.from_uniform(u),
        "KL": lambda: kl_divergence(qs, qs),
        "door": lambda: as_distribution(qs, "q"),
    }
    for asked, question in questions.items():
        with pytest.raises(ValueError, match=r"is a batch of densities, \(2,\) of them") as error:
            question()
            pytest.fail(f"{asked} answers")
        assert "\n" not in str(error.value)
    keys = jax.random.split(KEY)
    jax.eval_shape(jax.vmap(lambda q, key: q.sample_and_log_prob(key)[1]), qs, keys)
    jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], qs).sample(KEY))

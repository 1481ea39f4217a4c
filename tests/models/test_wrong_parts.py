"""What is no part of a model is refused by each constructor in a line that says what to write: nets
of other libraries, classes for values, distributions for factors, unfrozen dataclasses, parameters
of another model, keys that are none.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as npd
import optax
import pytest
from flax import nnx

import vaejax
from tests.lib.recipes import recipes
from vaejax import Node, ais
from vaejax.networks.base import Net

KEY = jax.random.key(0)
MLP = vaejax.MLP
PRIOR, LIKELIHOOD = vaejax.StandardNormal(2), vaejax.Bernoulli(MLP(3, (3,)))
ENCODER = vaejax.DiagNormal(MLP(2, (3,), heads=2))
MODEL = vaejax.VAE(PRIOR, LIKELIHOOD, ENCODER)
GRAPH = vaejax.DirectedGraph((Node("z", PRIOR), Node("x", LIKELIHOOD, "z")))
X = jnp.ones(3)


class InNNX(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        return self.inner(x)


class NeedsRandomNumbers:  # as what `hk.transform` gives
    def init(self, rng, x):
        return ()

    def apply(self, params, rng, x):
        return x


NO_NETS = {
    "NNX": (InNNX(nnx.Rngs(0)), "write vaejax.from_nnx"),
    "NNX class": (InNNX, "write vaejax.from_nnx"),
    "Equinox": (eqx.nn.MLP(2, 3, 4, 1, key=KEY), "write vaejax.from_equinox"),
    "Linen class": (MLP, r"is the class MLP; write MLP\(\.\.\.\)"),
    "pair": ((jnp.zeros, jnp.ones), "write FromFunctions"),
    "function": (lambda params, x: x, "write FromFunctions"),
    "number": (3, "write FromFunctions"),
    "None": (None, "write FromFunctions"),
    "Haiku": (NeedsRandomNumbers(), r"vaejax.from_haiku\(f\)"),
}
# All that takes a net, of the net.
OF_NET = {
    kind.__name__: kind
    for kind in (
        vaejax.Bernoulli, vaejax.ContinuousBernoulli, vaejax.Categorical, vaejax.DiagNormal,
        vaejax.DiscretizedLogistic, vaejax.FullNormal, vaejax.LowRankNormal, vaejax.Laplace,
        vaejax.InverseAutoregressive, vaejax.NegativeBinomial, vaejax.OneHotCategorical,
        vaejax.Poisson, vaejax.RealNVP, vaejax.RelaxedBernoulli, vaejax.RelaxedCategorical,
        vaejax.VonMisesFisher, vaejax.HalfPrecision, vaejax.LearnedBaseline, vaejax.RELAX,
    )
} | {
    "Gaussian": lambda net: vaejax.Gaussian(net, 1.0),
    "NumPyroConditional": lambda net: vaejax.NumPyroConditional(net, npd.Poisson),
}  # fmt: skip


def line_of(error):
    line = str(error.value).split("\n---")[0]
    assert "\n" not in line
    return line


@pytest.mark.parametrize("owner", OF_NET)
def test_what_is_no_net(owner):
    for net, remedy in NO_NETS.values():
        with pytest.raises(TypeError, match=remedy) as error:
            OF_NET[owner](net)
        assert line_of(error).startswith(f"{owner}.net is")


def test_every_field_that_is_a_net_is_looked_at():
    """Those of a user, by the declaration alone."""

    @vaejax.component
    class Own(vaejax.Conditional):
        decoder: Net
        support = vaejax.supports.REAL

    with pytest.raises(TypeError, match=r"Own.decoder is .*, which is not a net"):
        Own(lambda params, x: x)


def test_two_functions_are_a_net():
    from_functions = recipes(Net)["FromFunctions"]
    net = from_functions(lambda key, x: jnp.eye(3, 2), lambda params, z: params @ z)
    model = vaejax.VAE(PRIOR, vaejax.Bernoulli(net), ENCODER)
    params = jax.eval_shape(model.init, KEY, X)
    assert jax.eval_shape(lambda p: vaejax.elbo(model, p, X, KEY), params).shape == ()


@dataclasses.dataclass
class UnfrozenPrior(vaejax.Prior):
    dim: int
    support = vaejax.supports.REAL


@dataclasses.dataclass
class UnfrozenConditional(vaejax.Conditional):
    dim: int
    support = vaejax.supports.REAL


@dataclasses.dataclass
class UnfrozenEstimator(vaejax.Estimator):
    k: int = 1


@dataclasses.dataclass
class UnfrozenModel(vaejax.Model):
    k: int = 1
    support = vaejax.supports.REAL
    latent_support = vaejax.supports.REAL


@dataclasses.dataclass
class UnfrozenNoise(vaejax.Noise):
    k: int = 1


@dataclasses.dataclass
class UnfrozenSchedule(vaejax.Schedule):
    k: int = 1


def numpyro_model():
    return numpyro.sample("z", npd.Normal(0.0, 1.0))


def subsampled():
    with numpyro.plate("n", 10, subsample_size=2):
        numpyro.sample("z", npd.Normal(0.0, 1.0))


NORMAL = npd.Normal(jnp.zeros(2), 1.0).to_event(1)
DENSITY = vaejax.distributions.standard_normal(jnp.zeros(2))
UNFROZEN = r"cannot be hashed; make the class a value: @vaejax.component in place of @dataclass on"
CLASS = r"is the class \w+; write \w+\(\.\.\.\)"
DISTRIBUTION = r"is a distribution, .*write vaejax.NumPyroPrior\(lambda: ...\), or"
NO_FACTOR = r"does not derive from vaejax\.\w+; its docstring is the recipe"
WRONG: dict[str, tuple[Any, str]] = {
    "an unfrozen prior": (lambda: vaejax.VAE(UnfrozenPrior(2), LIKELIHOOD, ENCODER), UNFROZEN),
    "an unfrozen encoder": (
        lambda: vaejax.VAE(PRIOR, LIKELIHOOD, UnfrozenConditional(2)),
        UNFROZEN,
    ),
    "an unfrozen node": (lambda: Node("z", UnfrozenPrior(2)), UNFROZEN),
    "an unfrozen estimator": (lambda: vaejax.minibatch(UnfrozenEstimator(), MODEL), UNFROZEN),
    "an unfrozen model": (lambda: vaejax.minibatch(vaejax.Pathwise(), UnfrozenModel()), UNFROZEN),
    "an unfrozen model, in AIS": (lambda: vaejax.AIS(UnfrozenModel()), UNFROZEN),
    "an unfrozen model, in TCVAE": (lambda: vaejax.TCVAE(UnfrozenModel(), 5), UNFROZEN),
    "an unfrozen noise": (lambda: vaejax.Pathwise(2, noise=UnfrozenNoise()), UNFROZEN),
    "an unfrozen schedule": (lambda: vaejax.Beta(UnfrozenSchedule()), UNFROZEN),
    "in a tuple": (
        lambda: vaejax.DirectedGraph((UnfrozenPrior(2),)),
        rf"DirectedGraph.nodes\[0\] = .*{UNFROZEN}",
    ),
    "a net for an encoder": (
        lambda: vaejax.VAE(PRIOR, LIKELIHOOD, MLP(2, (3,), heads=2)),
        r"VAE.encoder is the net MLP\(out=2, hidden=\(3,\), heads=2\); write the density .*"
        r"vaejax.DiagNormal\(net\)",
    ),
    "class of a prior": (
        lambda: vaejax.VAE(vaejax.StandardNormal, LIKELIHOOD, ENCODER),
        CLASS,
    ),
    "class of a likelihood": (lambda: vaejax.VAE(PRIOR, vaejax.Bernoulli, ENCODER), CLASS),
    "class of a node": (lambda: Node("z", vaejax.StandardNormal), CLASS),
    "class of a graph": (lambda: vaejax.GraphModel(vaejax.DirectedGraph, ENCODER), CLASS),
    "class of an estimator": (lambda: vaejax.minibatch(vaejax.Pathwise, MODEL), CLASS),
    "class of a model": (lambda: vaejax.minibatch(vaejax.Pathwise(), vaejax.VAE), CLASS),
    "class of a baseline": (lambda: vaejax.ScoreFunction(2, vaejax.LeaveOneOut), CLASS),
    "class of a noise": (lambda: vaejax.DReG(2, noise=vaejax.Antithetic), CLASS),
    "class of a schedule": (lambda: vaejax.Beta(vaejax.WarmUp), CLASS),
    "class of temperatures": (lambda: vaejax.AIS(MODEL, ais.Linear), CLASS),
    "a distribution as prior": (lambda: vaejax.VAE(NORMAL, LIKELIHOOD, ENCODER), DISTRIBUTION),
    "a density as prior": (lambda: vaejax.VAE(DENSITY, LIKELIHOOD, ENCODER), DISTRIBUTION),
    "a distribution as likelihood": (lambda: vaejax.VAE(PRIOR, NORMAL, ENCODER), DISTRIBUTION),
    "a distribution as node": (lambda: Node("z", NORMAL), DISTRIBUTION),
    "a distribution as encoder": (lambda: vaejax.GraphModel(GRAPH, NORMAL), DISTRIBUTION),
    "a distribution as family": (
        lambda: vaejax.Refined(MODEL, 1, "standard", family=NORMAL),
        DISTRIBUTION,
    ),
    "a NumPyro model as prior": (
        lambda: vaejax.VAE(numpyro_model, LIKELIHOOD, ENCODER),
        "is the function numpyro_model: a prior is vaejax.NumPyroPrior of a NumPyro model",
    ),
    "an observed site in NumPyroPrior": (
        lambda: vaejax.NumPyroPrior(lambda: numpyro.sample("z", npd.Normal(0.0, 1.0), obs=1.0)),
        "the site 'z' of a NumPyro model is observed, and a prior is a normalised density",
    ),
    "a factor in NumPyroPrior": (
        lambda: vaejax.NumPyroPrior(lambda: numpyro.factor("f", 1.0)),
        "the site 'f' of a NumPyro model is observed",
    ),
    "a parameter in NumPyroPrior": (
        lambda: vaejax.NumPyroPrior(lambda: numpyro.param("scale", 1.0)),
        "the site 'scale' of a NumPyro model is a parameter",
    ),
    "a subsampled plate in NumPyroPrior": (
        lambda: vaejax.NumPyroPrior(subsampled),
        "is scaled",
    ),
    "a distribution in NumPyroPrior": (
        lambda: vaejax.NumPyroPrior(NORMAL),
        r"write NumPyroPrior\(la",
    ),
    "a batch in NumPyroPrior": (
        lambda: vaejax.NumPyroPrior(lambda: npd.Normal(jnp.zeros(2), 1.0)),
        r"add \.to_event\(1\)",
    ),
    "an atom in NumPyroPrior": (
        lambda: vaejax.NumPyroPrior(lambda: npd.Delta(jnp.zeros(2)).to_event(1)),
        "Delta has no density, since all its mass is in a point: .* use a narrow Normal",
    ),
    "an atom as family": (
        lambda: vaejax.VAE(
            PRIOR, LIKELIHOOD, vaejax.NumPyroConditional(MLP(2, (3,)), lambda loc: npd.Delta(loc))
        ).init(KEY, X),
        "Delta has no density",
    ),
    "an atom in a mixture": (
        lambda: vaejax.NumPyroPrior(
            lambda: npd.MixtureGeneral(
                npd.Categorical(jnp.ones(2) / 2),
                [npd.Delta(0.0), npd.Normal(0.0, 1.0)],
                support=npd.constraints.real,
            )
        ),
        "Delta has no density",
    ),
    "an improper prior": (
        lambda: vaejax.NumPyroPrior(lambda: npd.ImproperUniform(npd.constraints.real, (), (2,))),
        "ImproperUniform has no density, since its mass is infinite",
    ),
    "a transformed atom": (
        lambda: vaejax.NumPyroPrior(
            lambda: npd.TransformedDistribution(
                npd.Delta(jnp.zeros(2)), npd.transforms.ExpTransform()
            ).to_event(1)
        ),
        "Delta has no density",
    ),
    "a NumPyro model as family": (
        lambda: vaejax.NumPyroConditional(
            MLP(1), lambda x: numpyro.sample("x", npd.Poisson(x)), vaejax.supports.COUNTS
        )(vaejax.NumPyroConditional(MLP(1), npd.Poisson).init(KEY, X), X),
        "no distribution: a NumPyro model draws",
    ),
    "a net as node": (lambda: Node("z", MLP(2)), r"is the net MLP\(out=2\); write the density"),
    "a prior as likelihood": (lambda: vaejax.VAE(LIKELIHOOD, PRIOR, ENCODER), NO_FACTOR),
    "a factor as node of a graph": (lambda: vaejax.DirectedGraph((PRIOR,)), NO_FACTOR),
    "nodes as graph": (lambda: vaejax.GraphModel(GRAPH.nodes, ENCODER), NO_FACTOR),
    "graph and encoder swapped": (lambda: vaejax.GraphModel(ENCODER, GRAPH), NO_FACTOR),
    "name and factor swapped": (lambda: Node(PRIOR, "z"), r"write Node\(name, factor, parents\)"),
    "likelihood and encoder swapped": (
        lambda: vaejax.VAE(PRIOR, ENCODER, LIKELIHOOD),
        "Bernoulli an encoder of binary latents",
    ),
    "model and number swapped": (lambda: vaejax.Refined(5, MODEL), NO_FACTOR),
    "a schedule of Optax": (
        lambda: vaejax.Beta(optax.linear_schedule(0, 1, 1000)),
        "use vaejax.WarmUp or",
    ),
    "a schedule of Optax in TCVAE": (
        lambda: vaejax.TCVAE(MODEL, 5, beta=optax.linear_schedule(0, 1, 9)),
        "use vaejax.WarmUp or",
    ),
    "a model as weight": (lambda: vaejax.Beta(MODEL), "at least 0, or a schedule"),
    "a number as baseline": (lambda: vaejax.ScoreFunction(2, 0.0), NO_FACTOR),
    "a string as bound": (
        lambda: vaejax.Pathwise(2, "iwae"),
        "must be a function of the log-weights",
    ),
    "a family of bounds as bound": (
        lambda: vaejax.StickTheLanding(2, vaejax.renyi_bound),
        r"renyi_bound\(0.5\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_part_of_a_model(name):
    make, remedy = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=remedy) as error:
        make()
    line_of(error)


# Parameters and keys.

PARAMS = jax.eval_shape(MODEL.init, KEY, X)
GRAPH_MODEL = vaejax.GraphModel(GRAPH, ENCODER)
NAMES = "(prior, likelihood|likelihood, prior)"
OTHERS = {
    "of a graph": (jax.eval_shape(GRAPH_MODEL.init, KEY, X), f"theta of VAE has {NAMES}"),
    "a dict": (PARAMS._asdict(), "give vaejax.Params, as model.init"),
    "theta alone": (PARAMS.theta, "give vaejax.Params, as model.init"),
    "None": (None, "give vaejax.Params, as model.init"),
    "an example": (X, "give vaejax.Params, as model.init"),
    "theta and phi swapped": (vaejax.Params(PARAMS.phi, PARAMS.theta), "of another"),
    "one name of two": (
        PARAMS._replace(theta={"prior": (), "x": PARAMS.theta["likelihood"]}),
        f"theta of VAE has {NAMES}, and this one prior, x",
    ),
    "no theta": (PARAMS._replace(theta=()), f"theta of VAE has {NAMES}, and this one no"),
}
ASKED = {
    "elbo": lambda params: vaejax.elbo(MODEL, params, X, KEY),
    "Beta": lambda params: vaejax.Beta()(MODEL, params, X, KEY),
    "sample": lambda params: MODEL.sample(params, KEY),
    "log_joint": lambda params: MODEL.log_joint(params, X, jnp.zeros(2)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_parameters_of_another_model(name):
    params, remedy = OTHERS[name]
    for asked, function in ASKED.items():
        with pytest.raises((TypeError, ValueError), match=remedy) as error:
            jax.eval_shape(function, params) if name not in ("None",) else function(params)
            pytest.fail(f"{asked} takes them")
        line_of(error)


def test_parameters_of_a_vae_in_a_graph_model():
    with pytest.raises(
        ValueError, match=r"theta of GraphModel has (z, x|x, z), and this one likelihood, prior"
    ):
        jax.eval_shape(lambda params: vaejax.elbo(GRAPH_MODEL, params, X, KEY), PARAMS)


@pytest.mark.parametrize("key", [0, 1.5, "0", X])
def test_a_key_is_a_key(key):
    for ask in (
        lambda params: MODEL.init(key, X),
        lambda params: vaejax.elbo(MODEL, params, X, key),
        lambda params: vaejax.iwae(MODEL, params, X, key, 2),
        lambda params: vaejax.log_marginal(MODEL, params, X, key, 2),
        lambda params: vaejax.ScoreFunction()(MODEL, params, X, key),
    ):
        with pytest.raises(TypeError, match=r"give a random key, such as jax.random.key\(0\)"):
            jax.eval_shape(ask, PARAMS)


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (5, 3)])
def test_a_raw_key_of_another_length_is_none(shape):
    raw = jnp.zeros(shape, jnp.uint32)
    with pytest.raises(TypeError, match="give a random key") as error:
        jax.eval_shape(lambda p: vaejax.elbo(MODEL, p, X, raw), PARAMS)
    line_of(error)


def test_a_raw_key_is_one_too():
    raw = jax.random.PRNGKey(0)
    assert jax.eval_shape(lambda p: vaejax.elbo(MODEL, p, X, raw), PARAMS).shape == ()

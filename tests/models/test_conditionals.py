"""Conditionals: the density that the docstring states at the outputs of the net, whatever these
outputs are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest
from scipy import special, stats

import vaejax
from tests.lib.cases import cases
from tests.lib.oracles import gauss_hermite
from vaejax import supports
from vaejax.distributions.base import is_reparameterised, sample_and_log_prob
from vaejax.distributions.flows import init_layers
from vaejax.models.conditionals.flow_based import OfFlow

GENERATOR = np.random.default_rng(0)
BOUND = 7.0  # of log-scales


@vaejax.component
class Outputs:
    """A net whose parameters are its outputs."""

    shape: tuple[int, ...]
    heads: int = 1

    def init(self, key, example):
        outputs = tuple(jax.random.normal(key, (self.heads, *self.shape)))
        return outputs if self.heads > 1 else outputs[0]

    def apply(self, params, example):
        return params


def bounded(raw, limit=BOUND):
    return limit * np.tanh(raw / limit)


def normal(outputs, x):
    return stats.norm.logpdf(x, outputs[0], np.exp(bounded(outputs[1]))).sum()


def full_normal(outputs, x):
    loc, log_scale, *rows = outputs
    factor = np.diag(np.exp(bounded(log_scale))) @ (
        np.eye(len(loc)) + np.tril(bounded(np.array(rows), 30.0), -1)
    )
    return stats.multivariate_normal.logpdf(x, loc, factor @ factor.T)


def low_rank_normal(outputs, x):
    loc, log_scale, *columns = outputs
    scale, factor = np.diag(np.exp(bounded(log_scale))), bounded(np.array(columns).T, 30.0)
    return stats.multivariate_normal.logpdf(
        x, loc, scale @ (np.eye(len(loc)) + factor @ factor.T) @ scale
    )


def laplace(outputs, x):
    scale = np.exp(bounded(outputs[1]))
    return np.sum(
        -np.abs(x - outputs[0]) / scale - np.log(2 * scale)
    )  # scipy's is log of a density that underflows


def von_mises_fisher(natural, x):
    kappa = np.linalg.norm(natural)
    return stats.vonmises_fisher.logpdf(x, natural / kappa, bounded(kappa, 1e4))


def bernoulli(logits, x):
    return stats.bernoulli.logpmf(x, special.expit(logits)).sum()


def continuous_bernoulli(logits, x):
    return np.sum(x * logits - np.log(np.expm1(logits) / logits))


def categorical(logits, x):
    levels = np.round(x * (logits.shape[-1] - 1)).astype(int)
    return np.take_along_axis(special.log_softmax(logits, -1), levels[..., None], -1).sum()


def discretized_logistic(outputs, x, num_levels=256):
    logits, loc, log_scale = np.array(
        outputs if len(outputs) > 2 else (0 * outputs[0], *outputs)
    ).reshape(3, -1, *x.shape)
    edges = [
        np.where(x == 0, -np.inf, x - 0.5 / (num_levels - 1)),
        np.where(x == 1, np.inf, x + 0.5 / (num_levels - 1)),
    ]
    low, high = ((edge - loc - 0.5) / np.exp(bounded(log_scale - 2, 10.0)) for edge in edges)
    low, high = (
        np.where(low > 0, -high, low),
        np.where(low > 0, -low, high),
    )  # in the left tail a difference loses nothing
    return np.log(
        np.sum(special.softmax(logits, 0) * (special.expit(high) - special.expit(low)), 0)
    ).sum()


def poisson(raw, x):
    return stats.poisson.logpmf(x, np.exp(bounded(raw, 15.0))).sum()


def negative_binomial(outputs, x):
    mean, concentration = np.exp(bounded(outputs[0], 15.0)), np.exp(bounded(outputs[1]))
    return stats.nbinom.logpmf(x, concentration, concentration / (concentration + mean)).sum()


def one_hot(logits, x):
    return np.sum(x * special.log_softmax(logits, -1))


def relaxed_categorical(logits, x, temperature=0.5):
    n = logits.shape[-1]
    weights = np.exp(logits)
    ratio = (
        np.prod(weights * x ** (-temperature - 1), -1) / np.sum(weights * x**-temperature, -1) ** n
    )
    return np.sum(np.log(special.gamma(n) * temperature ** (n - 1) * ratio))


def relaxed_bernoulli(logits, x, temperature=0.5):
    return relaxed_categorical(
        np.stack([logits, 0 * logits], -1), np.stack([x, 1 - x], -1), temperature
    )


def gumbel(outputs, x):
    return stats.gumbel_r.logpdf(x, outputs[0], np.exp(outputs[1])).sum()


def gumbel_family(loc, log_scale):
    return npd.Gumbel(loc, jnp.exp(log_scale))


REALS = [np.array([0.3, -1.2]), np.zeros(2), np.array([40.0, -1e3])]
PIXELS = [np.array([0.0, 1.0]), np.array([3 / 255, 1.0]), np.array([128 / 255, 127 / 255])]
UNIT = [np.array([0.3, 0.8]), np.array([0.5, 1e-3])]
COUNTS = [np.array([0.0, 3.0]), np.array([255.0, 17.0])]
TRIANGLE = [np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])]
CORNERS = [np.eye(3)[[0, 2]], np.eye(3)[[1, 1]]]
SPHERE = [np.array([0.6, 0.0, -0.8]), np.array([0.0, 0.0, 1.0])]


@dataclass(frozen=True)
class Case:
    """A conditional, the heads that it asks of its net, its density by scipy, its support, and
    data.
    """

    make: Callable[[Any], Any]
    heads: int
    density: Callable
    support: supports.Support
    data: list[np.ndarray]
    shape: tuple[int, ...] = (2,)
    boundary: tuple[np.ndarray, ...] = ()

    @property
    def component(self):
        return self.make(Outputs(self.shape, self.heads))

    def params(self, outputs):
        return outputs


@dataclass(frozen=True)
class GaussianCase(Case):
    """Its parameters have the net's in them."""

    extra: tuple = ()

    def params(self, outputs):
        return {"net": outputs} | {name: jnp.asarray(value) for name, value in self.extra}


def gaussian(log_scale, loc, x):
    return stats.norm.logpdf(x, loc, np.exp(log_scale)).sum()


CASES = {
    "DiagNormal": Case(vaejax.DiagNormal, 2, normal, supports.REAL, REALS),
    "FullNormal": Case(vaejax.FullNormal, 4, full_normal, supports.REAL, REALS),
    "LowRankNormal": Case(vaejax.LowRankNormal, 3, low_rank_normal, supports.REAL, REALS),
    "LowRankNormal, rank 2": Case(
        vaejax.LowRankNormal, 4, low_rank_normal, supports.REAL, [np.array([0.3, -1.2, 0.5])], (3,)
    ),
    "Gaussian": GaussianCase(
        partial(vaejax.Gaussian, scale=0.3), 1, partial(gaussian, np.log(0.3)), supports.REAL, REALS
    ),
    "Gaussian, learned": GaussianCase(
        partial(vaejax.Gaussian, scale="learned"),
        1,
        partial(gaussian, -0.7),
        supports.REAL,
        REALS,
        extra=(("log_scale", -0.7),),
    ),
    "Gaussian, per dimension": GaussianCase(
        partial(vaejax.Gaussian, scale="per-dimension"),
        1,
        partial(gaussian, np.array([-0.7, 1.1])),
        supports.REAL,
        REALS,
        extra=(("log_scale", (-0.7, 1.1)),),
    ),
    "Laplace": Case(vaejax.Laplace, 2, laplace, supports.REAL, REALS),
    "VonMisesFisher": Case(
        vaejax.VonMisesFisher, 1, von_mises_fisher, supports.SPHERE, SPHERE, (3,)
    ),
    "Bernoulli": Case(vaejax.Bernoulli, 1, bernoulli, supports.BINARY, [np.array([0.0, 1.0])]),
    "ContinuousBernoulli": Case(
        vaejax.ContinuousBernoulli,
        1,
        continuous_bernoulli,
        supports.UNIT_INTERVAL,
        [*UNIT, np.array([0.0, 1.0])],
    ),
    "Categorical": Case(vaejax.Categorical, 1, categorical, supports.levels(256), PIXELS, (2, 256)),
    "DiscretizedLogistic": Case(
        vaejax.DiscretizedLogistic, 2, discretized_logistic, supports.levels(256), PIXELS
    ),
    "DiscretizedLogistic, mixture": Case(
        vaejax.DiscretizedLogistic, 9, discretized_logistic, supports.levels(256), PIXELS
    ),
    "Poisson": Case(vaejax.Poisson, 1, poisson, supports.COUNTS, COUNTS),
    "NegativeBinomial": Case(
        vaejax.NegativeBinomial, 2, negative_binomial, supports.COUNTS, COUNTS
    ),
    "OneHotCategorical": Case(
        vaejax.OneHotCategorical, 1, one_hot, supports.ONE_HOT, CORNERS, (2, 3)
    ),
    "RelaxedBernoulli": Case(
        vaejax.RelaxedBernoulli,
        1,
        relaxed_bernoulli,
        supports.UNIT_INTERVAL,
        UNIT,
        boundary=(np.array([0.0, 1.0]),),
    ),
    "RelaxedCategorical": Case(
        vaejax.RelaxedCategorical,
        1,
        relaxed_categorical,
        supports.SIMPLEX,
        TRIANGLE,
        (2, 3),
        boundary=tuple(CORNERS),
    ),
    "NumPyroConditional": Case(
        partial(vaejax.NumPyroConditional, family=gumbel_family),
        2,
        gumbel,
        supports.REAL,
        REALS[:2],
    ),
}
of_all = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def stacked(outputs):
    """Outputs [heads, *shape] in the form that a net gives."""
    return tuple(outputs) if len(outputs) > 1 else outputs[0]


@of_all
def test_density_equals_scipy(x64, case):
    outputs = GENERATOR.normal(size=(12, case.heads, *case.shape)) * 1.5
    xs = jnp.asarray(np.array(case.data))

    def log_probs(outputs):
        return jax.vmap(case.component(case.params(stacked(outputs)), jnp.zeros(1)).log_prob)(xs)

    expected = [[case.density(stacked(np.asarray(o)), x) for x in case.data] for o in outputs]
    np.testing.assert_allclose(jax.jit(jax.vmap(log_probs))(outputs), expected, rtol=1e-10)


@pytest.mark.slow
def test_full_normal_in_many_dimensions_is_finite_where_it_samples():
    """There the inverse of its factor overflows at such outputs, so that the density elsewhere
    does.
    """
    signs = GENERATOR.choice([-1.0, 1.0], size=(8, 22, 20)).astype(np.float32)

    def own_log_prob(outputs, key):
        z, log_prob = sample_and_log_prob(
            vaejax.FullNormal(Outputs((20,), 22))(stacked(outputs), 0.0), key
        )
        return log_prob + jnp.sum(z)

    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(own_log_prob)))(
        1e4 * signs, jax.random.split(jax.random.key(0), 8)
    )
    assert np.isfinite(values).all() and np.isfinite(gradients).all()


def test_full_normal_correlates_by_more_than_0_999(x64):
    outputs = jnp.zeros((4, 2)).at[3, 0].set(1e4)
    covariance = jax.jit(
        lambda o: vaejax.FullNormal(Outputs((2,), 4))(stacked(o), 0.0).base.covariance_matrix
    )(outputs)
    assert 0.999 < covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < 0.9995


def test_low_rank_normal_keeps_its_digits():
    """In single precision, at scales from 0.001 to 10 that the loadings are in units of; in other
    units hundreds of nats were lost.
    """
    generator = np.random.default_rng(0)
    outputs = generator.normal(size=(50, 4, 8)) * np.array([0, 2, 3, 3])[None, :, None]
    outputs[:, 1] -= 2
    xs = np.exp(outputs[:, 1]) * (
        generator.normal(size=(50, 8))
        + np.sum(outputs[:, 2:] * generator.normal(size=(50, 2, 1)), 1)
    )
    conditional = vaejax.LowRankNormal(Outputs((8,), 4))
    log_prob = jax.jit(jax.vmap(lambda outputs, x: conditional(stacked(outputs), 0.0).log_prob(x)))
    expected = [low_rank_normal(o, x) for o, x in zip(outputs, xs, strict=True)]
    np.testing.assert_allclose(
        log_prob(outputs.astype(np.float32), xs.astype(np.float32)), expected, rtol=0, atol=2e-3
    )


# Beside these, the family of a NumPyroConditional is the user's, who bounds what he likes.
ALIKE = {
    "Gaussian, learned",
    "Gaussian, per dimension",
    "LowRankNormal, rank 2",
    "DiscretizedLogistic",
    "NumPyroConditional",
}


@pytest.mark.parametrize(
    "name",
    cases(
        [name for name in CASES if name not in ALIKE],
        slow=("VonMisesFisher", "FullNormal", "LowRankNormal"),
    ),
)
def test_extreme_outputs_are_finite(name):
    """The density of data, that of samples where they move with the outputs, and all their
    gradients, at raw outputs of +-1e4.
    """
    case = CASES[name]
    signs = GENERATOR.choice([-1.0, 0.0, 1.0], size=(30, case.heads, *case.shape))
    outputs = 1e4 * np.concatenate(
        [[np.ones_like(signs[0]), -np.ones_like(signs[0])], signs]
    ).astype(np.float32)
    xs = np.array([*case.data, *case.boundary], np.float32)

    def total(outputs, key):
        p = case.component(case.params(stacked(outputs)), jnp.zeros(1))
        of_data = jnp.sum(jax.vmap(p.log_prob)(xs))
        return of_data + sample_and_log_prob(p, key)[1] if is_reparameterised(p) else of_data

    keys = jax.random.split(jax.random.key(0), len(outputs))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(total)))(outputs, keys)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()


@pytest.mark.parametrize("family", [vaejax.RealNVP, vaejax.InverseAutoregressive])
def test_flows_are_finite_at_extreme_outputs(family):
    """As above, with the location, the scale and the context at +-1e4: of own samples, and of data
    where the density is known.
    """
    conditional = family(Outputs((3,), 3), hidden=(8,))
    layers = init_layers(conditional.layers, jax.random.key(0), jnp.zeros(3), jnp.zeros(3))
    outputs = 1e4 * GENERATOR.choice([-1.0, 0.0, 1.0], size=(30, 3, 3)).astype(np.float32)

    def total(outputs, layers, key):
        q = conditional({"net": stacked(outputs), "flow": layers}, 0.0)
        z, log_q = sample_and_log_prob(q, key)
        return (
            log_q
            + jnp.sum(z)
            + (q.log_prob(jnp.asarray([0.3, -1.2, 40.0])) if family is vaejax.RealNVP else 0.0)
        )

    values = jax.jit(jax.vmap(jax.value_and_grad(total, argnums=(0, 1)), (0, None, 0)))(
        outputs, layers, jax.random.split(jax.random.key(1), 30)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values))


WITH_MLP = {
    "DiagNormal": vaejax.DiagNormal(vaejax.MLP(2, hidden=(4,), heads=2)),
    "FullNormal": vaejax.FullNormal(vaejax.MLP(2, hidden=(4,), heads=4)),
    "LowRankNormal": vaejax.LowRankNormal(vaejax.MLP(2, hidden=(4,), heads=3)),
    "Gaussian": vaejax.Gaussian(vaejax.MLP((2, 2), hidden=(4,)), scale="per-dimension"),
    "Laplace": vaejax.Laplace(vaejax.MLP(2, hidden=(4,), heads=2)),
    "RealNVP": vaejax.RealNVP(vaejax.MLP(2, hidden=(4,), heads=3), num_layers=2, hidden=(4,)),
    "InverseAutoregressive": vaejax.InverseAutoregressive(
        vaejax.MLP(2, hidden=(4,), heads=2), hidden=(4,)
    ),
    "VonMisesFisher": vaejax.VonMisesFisher(vaejax.MLP(3, hidden=(4,))),
    "Bernoulli": vaejax.Bernoulli(vaejax.MLP((2, 2), hidden=(4,))),
    "ContinuousBernoulli": vaejax.ContinuousBernoulli(vaejax.MLP((2, 2), hidden=(4,))),
    "Categorical": vaejax.Categorical(vaejax.MLP((2, 4), hidden=(4,)), num_levels=4),
    "DiscretizedLogistic": vaejax.DiscretizedLogistic(vaejax.MLP((2, 2), hidden=(4,), heads=6)),
    "Poisson": vaejax.Poisson(vaejax.MLP(2, hidden=(4,))),
    "NegativeBinomial": vaejax.NegativeBinomial(vaejax.MLP(2, hidden=(4,), heads=2)),
    "OneHotCategorical": vaejax.OneHotCategorical(vaejax.MLP((2, 3), hidden=(4,))),
    "RelaxedBernoulli": vaejax.RelaxedBernoulli(vaejax.MLP(2, hidden=(4,))),
    "RelaxedCategorical": vaejax.RelaxedCategorical(vaejax.MLP((2, 3), hidden=(4,))),
    "NumPyroConditional": vaejax.NumPyroConditional(
        vaejax.MLP(2, hidden=(4,), heads=2), gumbel_family
    ),
}
EVENTS = dict.fromkeys(
    ("Gaussian", "Bernoulli", "ContinuousBernoulli", "DiscretizedLogistic"), (2, 2)
) | {
    "VonMisesFisher": (3,),
    "OneHotCategorical": (2, 3),
    "RelaxedCategorical": (2, 3),
}


def random_params(conditional, given):
    shapes = jax.eval_shape(conditional.init, jax.random.key(0), given)
    return jax.tree.map(
        lambda leaf: np.random.default_rng(1).normal(size=leaf.shape).astype(leaf.dtype), shapes
    )


def a_batch(conditional, params, given, keys):
    """Distributions, samples and log-densities of a batch: here `vmap` gives back distributions, so
    every field must be mappable.
    """
    ps = jax.vmap(conditional, (None, 0))(params, given)
    return ps, *jax.vmap(sample_and_log_prob)(ps, keys)


GIVEN = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.mark.parametrize("name", WITH_MLP)
def test_a_sample_has_the_shape_of_the_event(name):
    """By tracing alone, which is what `jit` and `vmap` do before they compile."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = random_params(WITH_MLP[name], GIVEN[0])
    _, zs, log_probs = jax.eval_shape(partial(a_batch, WITH_MLP[name]), params, GIVEN, keys)
    assert zs.shape == (3, *EVENTS.get(name, (2,))) and log_probs.shape == (3,)


@pytest.mark.parametrize("name", ["FullNormal", "RealNVP", "RelaxedBernoulli"])
def test_a_batch_of_distributions_is_a_pytree(name):
    conditional, keys = WITH_MLP[name], jax.random.split(jax.random.key(0), 3)
    params = random_params(conditional, GIVEN[0])
    _, zs, log_probs = jax.jit(partial(a_batch, conditional))(params, GIVEN, keys)
    np.testing.assert_allclose(
        jax.jit(lambda x, z: conditional(params, x).log_prob(z))(GIVEN[1], zs[1]),
        log_probs[1],
        rtol=1e-4,
    )
    assert conditional.support.contains(np.asarray(zs))


@pytest.mark.parametrize("name", WITH_MLP)
def test_a_conditional_is_a_value(name):
    same = replace(WITH_MLP[name], net=replace(WITH_MLP[name].net))
    assert same == WITH_MLP[name] and hash(same) == hash(WITH_MLP[name])
    assert replace(same, net=vaejax.MLP(3)) != same


@of_all
def test_support(case):
    assert case.component.support == case.support
    assert case.support.contains(np.array([*case.data, *case.boundary]))


HEADS = {
    "DiagNormal": 2,
    "FullNormal": 5,
    "LowRankNormal": 3,
    "Laplace": 2,
    "RealNVP": 2,
    "InverseAutoregressive": 2,
    "NegativeBinomial": 2,
    "DiscretizedLogistic": 2,
}
ONE_HEAD = [
    "Bernoulli",
    "ContinuousBernoulli",
    "Categorical",
    "Poisson",
    "OneHotCategorical",
    "RelaxedBernoulli",
    "RelaxedCategorical",
]


def given_heads(make, *shapes):
    """What `make` says to a net with heads of these shapes (one shape: one array)."""
    outputs = tuple(jnp.zeros(shape) for shape in shapes)
    conditional = make(Outputs((3,)))
    params = outputs if len(outputs) > 1 else outputs[0]
    return conditional({"net": params} if isinstance(conditional, vaejax.Gaussian) else params, 0.0)


@pytest.mark.parametrize("name", HEADS)
def test_wrong_numbers_of_heads(name):
    make = getattr(vaejax, name)
    if issubclass(make, OfFlow):
        make = partial(_called_by_its_net, make)
    refusal = rf"{name} wants .*"
    for number in {
        "FullNormal": (1, 4, 6),
        "LowRankNormal": (1, 2),
        "DiscretizedLogistic": (1, 4, 5),
    }.get(name, (1, 4)):
        with pytest.raises(TypeError, match=refusal):
            given_heads(make, *[(3,)] * number)
    with pytest.raises(
        TypeError,
        match=(
            rf"{name} wants a net that returns \(.*\), such as vaejax.MLP\(dim,"
            rf" heads={HEADS[name]}\)"
        ),
    ):
        given_heads(make, (3,))
    with pytest.raises(
        TypeError, match=rf"{name} wants .* of one shape; its net's have \[\(3,\), \(2,\)"
    ):
        given_heads(make, (3,), (2,), *[(3,)] * (HEADS[name] - 2))


def _called_by_its_net(make, net):
    conditional = make(net)
    return lambda params, given: conditional({"net": params, "flow": ()}, given)


OF_ONE_HEAD = [
    *(getattr(vaejax, name) for name in ONE_HEAD),
    partial(vaejax.Gaussian, scale=1.0),
    vaejax.VonMisesFisher,
]


@pytest.mark.parametrize("make", OF_ONE_HEAD)
def test_two_heads_where_one_belongs(make):
    with pytest.raises(
        TypeError,
        match=r"wants a net that returns .* alone, such as vaejax.MLP\(dim\), not 2 heads",
    ):
        given_heads(make, (3,), (3,))


def test_other_wrong_outputs():
    for name, number in (("FullNormal", 6), ("LowRankNormal", 3)):
        with pytest.raises(
            TypeError,
            match=(
                rf"{name} is a density of vectors, .*not \[\(2, 2\), .*write vaejax.MLP\(d, ...\)"
            ),
        ):
            given_heads(getattr(vaejax, name), *[(2, 2)] * number)
    with pytest.raises(
        TypeError,
        match=(
            r"Categorical wants .* logits of shape \[\*x.shape, 256\], such as .*, not \(3, 255\)"
        ),
    ):
        given_heads(vaejax.Categorical, (3, 255))
    with pytest.raises(
        TypeError, match=r"VonMisesFisher wants a vector of 2 or more .*, not shape \(1,\)"
    ):
        given_heads(vaejax.VonMisesFisher, (1,))
    for scale in (0.0, -1.0, "fixed"):
        with pytest.raises(ValueError, match="give a positive number"):
            vaejax.Gaussian(Outputs((2,)), scale)
    with pytest.raises(ValueError, match="optimal_scale"):
        vaejax.Gaussian(Outputs((2,)), "optimal")


def grids(low, high, number, dim):
    axes = np.meshgrid(*[np.linspace(low, high, number)] * dim, indexing="ij")
    return np.stack(axes, -1).reshape(-1, dim), ((high - low) / (number - 1)) ** dim


def the_sum(conditional, xs, weights=1.0):
    p = conditional(jax.tree.map(jnp.asarray, conditional.init(jax.random.key(1), 0.0)), 0.0)
    return np.sum(np.exp(jax.jit(jax.vmap(p.log_prob))(jnp.asarray(xs))) * weights)


@pytest.mark.slow
def test_densities_integrate_to_one(x64):
    plane, cell = grids(-20, 20, 201, 2)
    for make, heads in ((vaejax.FullNormal, 4), (vaejax.LowRankNormal, 3)):
        np.testing.assert_allclose(the_sum(make(Outputs((2,), heads)), plane) * cell, 1, rtol=1e-9)
    line, step = grids(-80, 80, 100_001, 1)
    np.testing.assert_allclose(the_sum(vaejax.Laplace(Outputs((1,), 2)), line) * step, 1, rtol=1e-5)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    unit = the_sum(vaejax.ContinuousBernoulli(Outputs((1,))), (nodes[:, None] + 1) / 2, weights / 2)
    np.testing.assert_allclose(unit, 1, rtol=1e-12)
    logits, step = grids(-60, 60, 2_001, 1)
    x = special.expit(logits)
    inside = (x > 0) & (x < 1)
    jacobian = special.expit(logits) * special.expit(-logits)
    relaxed = the_sum(
        vaejax.RelaxedBernoulli(Outputs((1,))), x, np.where(inside, jacobian, 0)[:, 0]
    )
    np.testing.assert_allclose(relaxed * step, 1, rtol=1e-6)
    plane, cell = grids(-40, 40, 201, 2)
    simplex = special.softmax(np.concatenate([plane, np.zeros((len(plane), 1))], 1), 1)
    relaxed = the_sum(
        vaejax.RelaxedCategorical(Outputs((1, 3))), simplex[:, None], np.prod(simplex, 1)
    )
    np.testing.assert_allclose(relaxed * cell, 1, rtol=1e-6)


def test_masses_sum_to_one(x64):
    levels = np.arange(256)[:, None] / 255
    np.testing.assert_allclose(
        the_sum(vaejax.DiscretizedLogistic(Outputs((1,), 6)), levels), 1, rtol=1e-12
    )
    np.testing.assert_allclose(
        the_sum(vaejax.Categorical(Outputs((1, 256))), levels), 1, rtol=1e-12
    )
    np.testing.assert_allclose(
        the_sum(vaejax.Poisson(Outputs((1,))), np.arange(200.0)[:, None]), 1, rtol=1e-12
    )
    np.testing.assert_allclose(
        the_sum(vaejax.NegativeBinomial(Outputs((1,), 2)), np.arange(2_000.0)[:, None]),
        1,
        rtol=1e-10,
    )


def test_a_net_that_gives_no_direction():
    """At h = 0 von Mises-Fisher is uniform, its samples lie on the sphere, and the net still
    learns.
    """
    vmf = vaejax.VonMisesFisher(Outputs((3,)))
    value, gradient = jax.jit(
        jax.value_and_grad(lambda h: vmf(h, 0.0).log_prob(jnp.asarray([0.0, 0.6, 0.8])))
    )(jnp.zeros(3))
    np.testing.assert_allclose(value, -np.log(4 * np.pi), atol=3e-6)
    np.testing.assert_allclose(gradient, [0, 0.6, 0.8], atol=1e-4)
    assert np.linalg.norm(vmf(jnp.zeros(3), 0.0).loc) == 1


@vaejax.component
class Linear:
    """z -> W z + b."""

    def init(self, key, example):
        return {"W": jnp.eye(2), "b": jnp.zeros(2)}

    def apply(self, params, z):
        return params["W"] @ z + params["b"]


@pytest.mark.slow
def test_posterior_families_nest():
    """ELBO of the trained q on a correlated linear-Gaussian model: diagonal <= low rank <= full <=
    log p(x), the first by the exact gap.

    In two dimensions a diagonal plus rank one is any covariance, so the last three are equal. The
    trained ELBO is exact: a three-point Gauss-Hermite rule integrates its quadratic integrand.
    Reference: oracles.md, section 2.
    """
    W, b, tau, x = (
        np.array([[1.5, 1.2], [0.3, 1.0]]),
        np.array([0.2, -0.1]),
        0.5,
        np.array([1.1, -0.4]),
    )
    precision = np.eye(2) + W.T @ W / tau**2
    log_marginal = stats.multivariate_normal.logpdf(x, b, W @ W.T + tau**2 * np.eye(2))
    theta = {"prior": (), "likelihood": {"net": {"W": W, "b": b}}}

    def trained(encoder):
        model = vaejax.VAE(vaejax.StandardNormal(2), vaejax.Gaussian(Linear(), scale=tau), encoder)
        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1_500))
        data, on_device = (
            jnp.asarray(x, jnp.float32),
            jax.tree.map(partial(jnp.asarray, dtype=jnp.float32), theta),
        )

        def step(carry, key):
            phi, state = carry

            def loss(phi):
                return -vaejax.StickTheLanding(32)(model, vaejax.Params(on_device, phi), data, key)

            updates, state = optimizer.update(jax.grad(loss)(phi), state)
            return (optax.apply_updates(phi, updates), state), None

        phi = jax.tree.map(lambda leaf: 0.1 * leaf, encoder.init(jax.random.key(3), data))
        keys = jax.random.split(jax.random.key(0), 1_500)
        return model, jax.jit(
            lambda phi: jax.lax.scan(step, (phi, optimizer.init(phi)), keys)[0][0]
        )(phi)

    def exact_elbo(model, phi):
        with jax.enable_x64(True):
            params = jax.tree.map(
                partial(jnp.asarray, dtype=jnp.float64), vaejax.Params(theta, phi)
            )
            q = model.posterior(params, x)
            covariance = (
                jnp.diag(jnp.exp(2 * q.log_scale))
                if hasattr(q, "log_scale")
                else q.base.covariance_matrix
            )
            noise, weights = gauss_hermite(3, 2)
            zs = q.mean[None] + noise @ jnp.linalg.cholesky(covariance).T
            log_w = jax.jit(jax.vmap(lambda z: model.log_joint(params, x, z) - q.log_prob(z)))(zs)
            return float(weights @ log_w)

    families = (
        vaejax.DiagNormal(Outputs((2,), 2)),
        vaejax.LowRankNormal(Outputs((2,), 3)),
        vaejax.FullNormal(Outputs((2,), 4)),
    )
    diagonal, low_rank, full = (exact_elbo(*trained(encoder)) for encoder in families)
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert gap > 0.5
    np.testing.assert_allclose(diagonal, log_marginal - gap, rtol=0, atol=1e-3)
    np.testing.assert_allclose(full, log_marginal, rtol=0, atol=1e-3)
    np.testing.assert_allclose(low_rank, log_marginal, rtol=0, atol=1e-3)
    assert max(diagonal, low_rank, full) <= log_marginal + 1e-9
    assert diagonal <= log_marginal - gap + 1e-9  # no diagonal q does better

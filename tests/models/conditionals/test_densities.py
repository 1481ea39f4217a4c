"""The density that the docstring states at the outputs of the net, whatever these are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vaejax
from tests.lib.cases import cases
from tests.lib.conditionals import CASES, Outputs, low_rank_normal, stacked
from vaejax.distributions.flows import init_layers

GENERATOR = np.random.default_rng(0)


of_all = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


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
        q = vaejax.FullNormal(Outputs((20,), 22))(stacked(outputs), 0.0)
        z, log_prob = q.sample_and_log_prob(key)
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
        return of_data + p.sample_and_log_prob(key)[1] if p.reparameterised else of_data

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
        z, log_q = q.sample_and_log_prob(key)
        return (
            log_q
            + jnp.sum(z)
            + (q.log_prob(jnp.asarray([0.3, -1.2, 40.0])) if family is vaejax.RealNVP else 0.0)
        )

    values = jax.jit(jax.vmap(jax.value_and_grad(total, argnums=(0, 1)), (0, None, 0)))(
        outputs, layers, jax.random.split(jax.random.key(1), 30)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values))


@of_all
def test_support(case):
    assert case.component.support == case.support
    assert case.support.contains(np.array([*case.data, *case.boundary]))


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
    relaxed = the_sum(vaejax.RelaxedBernoulli(Outputs((1,))), logits)
    np.testing.assert_allclose(relaxed * step, 1, rtol=1e-6)
    plane, cell = grids(-40, 40, 201, 2)
    logarithms = special.log_softmax(np.concatenate([plane, np.zeros((len(plane), 1))], 1), 1)
    relaxed = the_sum(vaejax.RelaxedCategorical(Outputs((1, 3))), logarithms[:, None])
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

"""What all densities share: transformations, refused shapes, extreme parameters."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from scipy import special

from tests.lib.cases import cases
from tests.lib.densities import FAMILIES, KEYS, make, mixture
from vaejax.distributions.base import Distribution
from vaejax.distributions.bernoulli import (
    BernoulliDensity,
    ContinuousBernoulliDensity,
)
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.mixture import Mixture
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity
from vaejax.distributions.pixels import DiscretizedLogisticDensity, Levels
from vaejax.distributions.relaxed import RelaxedBernoulliDensity, RelaxedCategoricalDensity

each_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.mark.parametrize(
    "name", [name for name in FAMILIES if name not in ("Laplace", "RelaxedBernoulliLogits")]
)
def test_transformations(name):
    """Made under vmap, as a VampPrior makes them, then mapped over; inside jit; stopped. Each
    equals one after another.

    A sample of a reparameterised family has a derivative in its parameters, and of another none.
    """
    family, arrays, shape = make(name)
    several = [
        jnp.stack([array, array if name == "VonMisesFisher" else -array]) for array in arrays
    ]
    if name.startswith("Relaxed"):
        several[0] = jnp.abs(several[0])

    @jax.jit
    def everything(several, keys):
        made = jax.vmap(family)(*several)

        def draw(several):
            return jax.vmap(lambda p, key: p.sample_and_log_prob(key))(
                jax.vmap(family)(*several), keys
            )

        (draws, log_probs), (moves, _) = jax.jvp(draw, (several,), (several,))
        single = [array[1] for array in several]
        live = jax.grad(lambda single: family(*single).log_prob(draws[1]))(single)
        stopped = jax.grad(
            lambda single: jax.lax.stop_gradient(family(*single)).log_prob(draws[1])
        )(single)
        mixed = Mixture(jnp.zeros(2), made)
        both = jnp.stack(
            [family(*[array[i] for array in several]).log_prob(draws[1]) for i in range(2)]
        )
        return draws, log_probs, live, stopped, moves, both, mixed.log_prob(draws[1])

    draws, log_probs, live, stopped, moves, both, mixed = everything(several, KEYS[:2])
    assert draws.shape == (2, *shape) and log_probs.shape == (2,)
    np.testing.assert_allclose(log_probs[1], both[1], rtol=1e-5)
    np.testing.assert_allclose(mixed, special.logsumexp(both) - np.log(2), rtol=1e-5)

    def moved(tree):
        return any(
            leaf.dtype != jax.dtypes.float0 and (leaf != 0).any() for leaf in jax.tree.leaves(tree)
        )

    assert not moved(stopped)
    assert moved(live) == (name != "UniformOnSphere")
    assert moved(moves) == (family(*arrays).reparameterised and name != "UniformOnSphere")


@each_family
def test_a_wrong_shape_never_passes(name):
    family, arrays, shape = make(name)
    for wrong in (
        (5, *shape),
        (1, *shape),
        (*shape, 1),
        shape[:-1],
        (1,) * len(shape),
        (shape[0] + 1, *shape[1:]),
    ):
        is_batch = wrong[1:] == shape
        remedy = (
            ".* one example: use jax.vmap" if is_batch else ".* must have the shape of the value"
        )
        message = rf"{name}.log_prob got a value of shape .* one event has shape .*; {remedy}"
        with pytest.raises(ValueError, match=message):
            family(*arrays).log_prob(jnp.zeros(wrong))


EXTREMES = [-1e4, -30.0, 0.0, 1e-6, 30.0, 1e4]


EXTREME = {
    "ContinuousBernoulli": (
        lambda l, s: ContinuousBernoulliDensity(l[None]),
        [[0.0], [0.5], [1.0]],
    ),
    "OneHotCategorical": (
        lambda l, s: OneHotCategoricalDensity(jnp.stack([l, 0.0 * l])),
        [[0.0, 1.0], [1.0, 0.0]],
    ),
    "RelaxedCategorical": (
        lambda l, s: RelaxedCategoricalDensity(jnp.exp(s / 7), jnp.stack([l, 0.0 * l])),
        [[-1e4, 0.0], [0.0, -1e4], [-0.7, -0.7]],
    ),
    "RelaxedBernoulli": (
        lambda l, s: RelaxedBernoulliDensity(jnp.exp(s / 7), l[None]),
        [[-1e4], [0.0], [1e4]],
    ),
    "Levels": (lambda l, s: Levels(jnp.stack([l, 0.0 * l, -l])[None]), [[0.0], [0.5], [1.0]]),
    "DiscretizedLogistic": (
        lambda l, s: DiscretizedLogisticDensity(
            jnp.stack([l, -l])[None], jnp.stack([l, -l])[None], jnp.stack([s, -s])[None]
        ),
        [[0.0], [0.2], [1.0]],
    ),
}


@pytest.mark.parametrize("case", cases(EXTREME, slow=("DiscretizedLogistic",)))
def test_finite_at_extreme_parameters(case):
    """In float32: values, gradients in the parameters and in x, and gradients through a sample, at
    boundary data too.
    """
    family, xs = case

    def log_prob(l, s, x):
        return family(l, s).log_prob(x)

    def of_sample(l, s, key):
        z, log_q = family(l, s).sample_and_log_prob(key)
        return log_q + jnp.sum(z)

    l, s = (
        jnp.asarray(array)
        for array in zip(*itertools.product(EXTREMES, [-7.0, 0.0, 7.0]), strict=True)
    )
    given = jax.jit(
        jax.vmap(
            jax.vmap(jax.value_and_grad(log_prob, argnums=(0, 1, 2)), (0, 0, None)), (None, None, 0)
        )
    )
    sampled = jax.jit(
        jax.vmap(
            jax.vmap(jax.value_and_grad(of_sample, argnums=(0, 1)), (0, 0, None)), (None, None, 0)
        )
    )
    for leaf in jax.tree.leaves((given(l, s, jnp.asarray(xs)), sampled(l, s, KEYS[:50]))):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()


def test_integer_data_are_taken_as_numbers():
    p = BernoulliDensity(jnp.asarray([0.5, -2.0]))
    assert p.log_prob(np.array([1, 0], np.uint8)) == p.log_prob(jnp.asarray([1.0, 0.0]))


def test_which_are_reparameterised():
    """A mixture is not: its gradient in the logits would be missing."""
    rough = {"Bernoulli", "OneHotCategorical", "Levels", "DiscretizedLogistic", "Poisson"}
    for name in FAMILIES:
        family, arrays, _ = make(name)
        assert family(*arrays).reparameterised == (name not in rough), name
    assert not mixture().reparameterised
    assert NumPyroDensity(npd.Normal(0.0, 1.0)).reparameterised
    assert not NumPyroDensity(npd.Bernoulli(0.5)).reparameterised


def test_the_density_at_a_uniform_number_has_its_sample():
    q, u = DiagNormalDensity(jnp.zeros(2), jnp.ones(2)), jnp.asarray([0.2, 0.7])
    z, log_prob = q.at_uniform(u).sample_and_log_prob(None)
    np.testing.assert_array_equal(z, q.from_uniform(u))
    assert log_prob == q.log_prob(z) and z[0] < 0 < z[1]


def test_sample_and_log_prob():
    """One after the other, or by the method that a distribution has for it."""
    q = DiagNormalDensity(jnp.zeros(2), jnp.ones(2))
    z, log_prob = q.sample_and_log_prob(KEYS[0])
    assert log_prob == q.log_prob(z) and (z == q.sample(KEYS[0])).all()

    class Both(Distribution):
        reparameterised = True

        def sample_and_log_prob(self, key):
            return 1.0, 2.0

    assert Both().sample_and_log_prob(KEYS[0]) == (1.0, 2.0)

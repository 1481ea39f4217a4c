"""Temperatures and moves, ours and a user's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, assert_mean
from tests.lib.recipes import recipe
from vaejax import ais
from vaejax.inference.annealing import AnnealedPath, annealed_log_weight, pilot_step_sizes

POINT = LinearGaussian()


def test_temperatures_rise_from_0_to_1():
    for temperatures in (ais.Linear(7), ais.Sigmoid(7), ais.Sigmoid(50, width=8.0), ais.Linear(1)):
        betas = temperatures.betas()
        assert (
            betas[0] == 0
            and betas[-1] == 1
            and np.all(np.diff(betas) > 0)
            and len(betas) == temperatures.num_steps + 1
        )
    steps = np.diff(ais.Sigmoid(50).betas())
    assert steps[0] < steps[25] and steps[-1] < steps[25]


Quadratic, RandomWalk = recipe("Temperatures"), recipe("Transition")


def test_temperatures_and_moves_of_a_user(x64):
    """E w = p(x), with moves that are accepted about as often as they aim at."""
    point = LinearGaussian(w=0.45)
    sampler = vaejax.AIS(point.model, Quadratic(8), 4_000, transition=RandomWalk())
    steps_key, key = jax.random.split(jax.random.key(0))
    chains = sampler.chains(point.params, point.datum)
    steps = jax.jit(chains.step_sizes)(steps_key)
    log_w, acceptance = jax.jit(chains.upwards)(steps, key)
    assert_mean(np.exp(log_w - point.log_marginal), 1, detectable=0.05)
    assert 0.15 < acceptance < 0.35


def test_the_pilot_finds_a_step_size_for_each_temperature(x64):
    """From N(0, 1) to N(0, 0.01) in ten temperatures: moves of one target acceptance are about
    scale-free, so the last step is a tenth of the first, to within a factor of 2.5.
    """
    betas = ais.Linear(40).betas() ** 3
    log_start, log_end = (lambda z, v=v: -0.5 * jnp.sum(z**2) / v for v in (1.0, 0.01))
    zs = jax.random.normal(jax.random.key(0), (200, 1))
    key, path = jax.random.key(1), AnnealedPath(log_start, log_end)
    steps = jax.jit(lambda zs: pilot_step_sizes(path, jnp.asarray(betas), RandomWalk(), zs, key))(
        zs
    )
    assert steps.shape == betas.shape
    assert 4 < steps[0] / steps[-1] < 25
    first = AnnealedPath(log_start, log_start), jnp.zeros(30), jnp.full(30, steps[0])
    _, acceptance = jax.vmap(lambda z, key: annealed_log_weight(*first, RandomWalk(), z, key))(
        zs, jax.random.split(key, 200)
    )
    assert abs(acceptance.mean() - RandomWalk.target) < 0.1


def test_each_move_is_at_the_temperature_of_its_weight(x64):
    """Against a chain written out, under a move that is told apart by its density and its step."""
    betas, steps = jnp.asarray([0.0, 0.2, 0.7, 1.0]), jnp.asarray([9.0, 0.1, 0.2, 0.3])
    log_start, log_end = (lambda z, m=m: -0.5 * jnp.sum((z - m) ** 2) for m in (0.0, 3.0))
    z, expected = jnp.asarray([0.4]), 0.0
    path = AnnealedPath(log_start, log_end)
    log_w, _ = annealed_log_weight(path, betas, steps, Climb(), z, jax.random.key(0))
    for before, after, step in zip(betas[:-1], betas[1:], steps[1:], strict=True):
        expected += (after - before) * (log_end(z) - log_start(z))
        z = z + step * (3.0 * after - z)
    np.testing.assert_allclose(log_w, expected, rtol=1e-12)


class Climb(ais.Transition):
    """No move that AIS could use: a step up the density, without noise."""

    target = None

    def __call__(self, log_density, z, step_size, key):
        return z + step_size * jax.grad(log_density)(z), jnp.ones(())


class Backwards(ais.Temperatures):
    def betas(self):
        return np.linspace(1, 0, 5)


class Short(ais.Temperatures):
    def betas(self):
        return np.linspace(0, 0.9, 5)


def test_mistakes_are_named():
    for temperatures in (Backwards(), Short()):
        with pytest.raises(ValueError, match=r"betas\(\) gave .*temperatures rise from 0 to 1"):
            vaejax.AIS(POINT.model, temperatures)
    with pytest.raises(TypeError, match=r"Silent does not say `target`: the acceptance that a"):

        class Silent(ais.Transition):
            pass

    with pytest.raises(ValueError, match="Sigmoid.width = 0; it must be positive"):
        ais.Sigmoid(5, 0)
    with pytest.raises(ValueError, match="Linear.num_steps = 0"):
        ais.Linear(0)
    with pytest.raises(ValueError, match=r"HMC.target = 1.5"):
        ais.HMC(target=1.5)

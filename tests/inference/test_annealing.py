"""Temperatures and moves, ours and a user's."""

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, assert_mean
from tests.lib.recipes import recipe
from vaejax import ais

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
    steps = jax.jit(sampler.step_sizes)(point.params, point.datum, steps_key)
    log_w, acceptance = jax.jit(sampler.upwards)(point.params, point.datum, steps, key)
    assert_mean(np.exp(log_w - point.log_marginal), 1, detectable=0.05)
    assert 0.15 < acceptance < 0.35


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

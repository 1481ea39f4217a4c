"""What experiments say of measured gradients."""

import numpy as np
import pytest

from experiments.lib.gradients import measured_steps, squared_bias, squared_distance, where
from vaejax import Params
from vaejax.base.mapping import estimate
from vaejax.variance.groups import Part
from vaejax.variance.moments import Moments

PHI = Part(("phi",))
DIFFERENCE = np.array([0.3, -0.1, 0.0, 0.2])
NUM_DRAWS, NUM_REFERENCE, REPEATS = 5, 10, 2_000


def moments(draws):
    mean, variance = Params((), draws.mean(axis=0)), Params((), draws.var(axis=0, ddof=1))
    return Moments(len(draws), estimate(draws[:, 0]), mean, variance, None, None, {})


@pytest.mark.parametrize("against", ["a number", "a reference"])
def test_squared_biases_are_without_the_noise_of_the_means(against):
    """|E g - c|^2 over repeated measurements, to 5 standard errors (a false alarm of 6e-7); the
    noise that is left out would be seen.
    """
    generator, found = np.random.default_rng(0), []
    for _ in range(REPEATS):
        measured = moments(1 + DIFFERENCE + generator.normal(size=(NUM_DRAWS, 4)))
        reference = moments(1 + generator.normal(size=(NUM_REFERENCE, 4)))
        found.append(
            squared_distance(measured, PHI, 1.0)
            if against == "a number"
            else squared_bias(measured, reference, PHI)
        )
    error = np.std(found) / np.sqrt(REPEATS)
    assert np.mean(found) == pytest.approx(np.sum(DIFFERENCE**2), abs=5 * error)
    assert 15 * error < 4 / NUM_DRAWS


def test_rows_and_steps():
    rows = [{"step": step, "name": name} for step in (0, 4) for name in "ab"]
    assert where(rows, step=4) == rows[2:] and where(rows, step=4, name="a") == [rows[2]]
    assert measured_steps((1.0, 0.0, 0.5, 0.001), 8) == [0, 4, 8]

"""The steps at which gradients are measured."""

from experiments.lib.gradients import measured_steps


def test_the_steps_after_fractions_of_a_run():
    assert measured_steps((1.0, 0.0, 0.5, 0.001), 8) == [0, 4, 8]

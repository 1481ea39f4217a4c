"""Schedules at stated steps, and the runs that they are refused by."""

import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.fits import beta_objective, fit
from tests.lib.lines import LEARNED, LINES
from tests.lib.programs import compilations
from tests.lib.recipes import recipe
from vaejax import TCVAE, Cyclical, WarmUp, optimal_scale

Halved = recipe("Objective")

# Schedules.


def test_schedules_at_stated_steps():
    warm_up, cyclical = WarmUp(10, start=0.2, end=1.2), Cyclical(8, ramp=0.5, start=0.0, end=2.0)
    np.testing.assert_allclose(
        [warm_up(step) for step in (0, 1, 5, 10, 11, 10**6)],
        [0.2, 0.3, 0.7, 1.2, 1.2, 1.2],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        [cyclical(step) for step in (0, 1, 3, 4, 7, 8, 10, 15)],
        [0, 0.5, 1.5, 2, 2, 0, 1, 2],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        cyclical(jnp.arange(16)), [cyclical(step) for step in range(16)], rtol=1e-6
    )
    assert WarmUp(50_000)(49_999) < 1 == WarmUp(50_000)(50_000)


UNFINISHED = {
    "a warm-up": (
        beta_objective(WarmUp(50)),
        (
            "beta is warmed up over 50 steps, but num_steps = 10: the run would end at beta 0.2; "
            "warm up over at most 10 steps, or train for at least 50"
        ),
    ),
    "by one step": (
        beta_objective(WarmUp(11)),
        "beta is warmed up over 11 steps, but num_steps = 10",
    ),
    "a cycle": (
        beta_objective(Cyclical(40)),
        "beta has a cycle of 40 steps, and num_steps = 10 .* train for 40 steps",
    ),
    "the plateau of a first cycle": (
        beta_objective(Cyclical(16, ramp=0.1)),
        "beta has a cycle of 16 steps",
    ),
    "a rise": (
        beta_objective(Cyclical(8)),
        "the last step would be at beta 0.25; train for 16 steps",
    ),
    "a weight of TCVAE": (TCVAE(LINES, 60, gamma=WarmUp(50)), "gamma is warmed up over 50 steps"),
    "a weight inside": (
        optimal_scale(beta_objective(WarmUp(50), LEARNED)),
        "beta is warmed up over 50 steps",
    ),
    "under q(theta)": (
        vaejax.VariationalBayes(beta_objective(WarmUp(50)), 60),
        "beta is warmed up over 50 steps",
    ),
    "in a user's own": (Halved(beta_objective(WarmUp(50))), "beta is warmed up over 50 steps"),
}


@pytest.mark.parametrize("objective, message", UNFINISHED.values(), ids=UNFINISHED)
def test_a_schedule_that_the_run_does_not_finish_is_refused(tmp_path, objective, message):
    with compilations() as names, pytest.raises(ValueError, match=message) as error:
        fit(10, objective=objective, checkpoints=vaejax.Checkpoints(tmp_path / "run"))
    assert "\n" not in str(error.value) and names == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "schedule", [WarmUp(10), WarmUp(3), Cyclical(5), Cyclical(6), Cyclical(10, 0.9)]
)
def test_a_schedule_that_the_run_finishes_is_not(schedule):
    schedule.check(10, "beta")
    assert schedule(9) == (0.9 if schedule == WarmUp(10) else 1)

"""k-hat is that of arviz-stats wherever its fit is defined, and at the edges never trusts weights
that few rule.
"""

import math

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

from vaejax.evaluation.pareto import pareto_k

NUM_SHAPES = 10


def random_log_weights(seed: int) -> np.ndarray:
    """Of 25 to 1,000 samples: normal, Student's t, Pareto, in steps, many at one value, few above
    the others, some -inf, or equal, by `seed` in turn.
    """
    generator = np.random.default_rng(seed)
    n, scale = int(generator.integers(25, 1_000)), 10 ** generator.uniform(-3, 3)
    noise = generator.normal(size=n)
    few = generator.permutation(n) < generator.integers(1, n)
    shapes = (
        lambda: scale * noise,
        lambda: scale * generator.standard_t(3, size=n),
        lambda: -np.log(generator.random(n)) * generator.uniform(0, 2),
        lambda: np.round(noise, 1),
        lambda: np.round(2 * noise),
        lambda: np.where(few, scale * np.abs(noise), 0),
        lambda: np.where(few, noise, -1e4 * scale),
        lambda: np.where(few, scale * noise, -np.inf),
        lambda: np.where(few, 1.0, 0.0),
        lambda: np.zeros(n),
    )
    assert len(shapes) == NUM_SHAPES
    return 1e3 * generator.normal() + shapes[seed % NUM_SHAPES]()


def largest(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """The sorted weights that a fit is made to, and the largest of the others, beside the largest
    of all.
    """
    n = len(log_weights)
    count = math.floor(n / 5) if n <= 225 else math.floor(3 * math.sqrt(n))
    weights = np.exp(np.sort(log_weights)[-count - 1 :] - log_weights.max())
    return weights[1:], weights[0]


def theirs(log_weights: np.ndarray) -> float | None:
    """k-hat of arviz-stats; None where it divides by 0, in its fit of a tail of which a quarter
    lies on the threshold, or refuses one without a spread.
    """
    tail, threshold = largest(log_weights)
    quartile = tail[int(len(tail) / 4 + 0.5) - 1] - threshold
    if quartile < 1e-306 or tail[-1] - tail[0] < np.finfo(float).tiny:
        return None
    with np.errstate(all="ignore"):
        return float(array_stats.psislw(-log_weights)[1])


def check(seeds: range) -> int:
    """How many of the cases have a k-hat by arviz-stats, to which ours is equal."""
    compared = 0
    for seed in seeds:
        log_weights = random_log_weights(seed)
        ours, expected = pareto_k(log_weights), theirs(log_weights)
        tail, threshold = largest(log_weights)
        if expected is not None:
            compared += 1
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6, err_msg=f"{seed}")
        elif tail[-1] - threshold < 1e-3:
            assert ours == -math.inf, seed
        elif np.sum(tail > threshold) < 5:
            assert ours == math.inf, seed
        else:
            assert not math.isnan(ours), seed
    return compared


def test_as_arviz_has_it():
    assert check(range(2_000)) > 1_000


@pytest.mark.slow
def test_as_arviz_has_it_of_ten_thousand():
    assert check(range(10_000)) > 5_000


def above(num_above: int, others: float | np.ndarray) -> np.ndarray:
    """500 log-weights, of which a few lie about 1 and the others elsewhere."""
    few = np.linspace(1, 2, num_above)
    return np.concatenate([few, np.broadcast_to(others, 500 - num_above)])


NOISE = np.random.default_rng(0).normal(size=500)
RULED_BY_FEW = {
    "one above equal ones": above(1, 0.0),
    "two above equal ones": above(2, 0.0),
    "four above equal ones": above(4, 0.0),
    "one above underflowed ones": above(1, -1e4 + NOISE[:499]),
    "ten above underflowed ones": above(10, -1e4 + NOISE[:490]),
    "one above zeros": above(1, -np.inf),
    "four above zeros": above(4, -np.inf),
    "a wide spread": 1e5 * NOISE,
    "an infinite one": np.where(np.arange(500) == 7, np.inf, NOISE),
}


@pytest.mark.parametrize("log_weights", RULED_BY_FEW.values(), ids=RULED_BY_FEW)
def test_weights_ruled_by_few_are_not_trusted(log_weights):
    assert pareto_k(log_weights) == math.inf
    assert pareto_k(log_weights[::-1] - 1e5) == math.inf


def test_where_there_is_no_k_hat():
    assert pareto_k(np.full(500, -3.0)) == pareto_k(np.full(25, 1e5)) == -math.inf
    assert math.isnan(pareto_k(np.where(np.arange(500) == 7, np.nan, NOISE)))
    assert math.isnan(pareto_k(np.full(500, -np.inf)))
    assert math.isnan(pareto_k(NOISE[:24])) and math.isfinite(pareto_k(NOISE[:25]))


def test_a_table_is_refused():
    with pytest.raises(ValueError, match=r"of one sample, \[n\], and these have shape \(20, 25\)"):
        pareto_k(NOISE.reshape(20, 25))


def test_constants_up_to_rounding_have_no_tail():
    """A constant in single precision: levels of rounding, of which few have the highest."""
    levels = np.round(NOISE) * np.finfo(np.float32).eps * 30
    assert np.sum(levels == levels.max()) < 5
    assert pareto_k(levels - 30) == -math.inf
    assert pareto_k(above(1, 1.0 - 1e-4)) == -math.inf


def test_two_values_of_which_many_are_the_larger_are_trusted():
    """As the weights of few discrete states: all moments are there."""
    for num_above in (5, 30, 60, 67, 68, 300):
        assert pareto_k(np.where(np.arange(500) < num_above, 1.0, 0.0)) < 0


def test_a_grid_point_at_zero():
    """Where b = -k / scale is 0, k is 0 and the scale the mean. Of the 38 points for 67 values the
    tenth is there if the largest excess is three quartiles: here 3/4 and 1/4 above 1/4.
    """

    def with_quartile(value):
        return pareto_k(np.log(np.repeat([0.25, value, 0.75, 1.0], [433, 17, 49, 1])))

    assert with_quartile(0.5) == pytest.approx(with_quartile(0.5 + 1e-9), abs=1e-6)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_the_shape_of_a_tail(k):
    draws = (stats.genpareto(k).rvs(20_000, random_state=seed) for seed in range(20))
    shapes = [pareto_k(np.log(values)) for values in draws]
    np.testing.assert_allclose(np.mean(shapes), k, atol=0.08)

"""The curves of the review against printed values and closed forms, and the script as a user runs
it.
"""

import sys

import numpy as np
import pytest

from experiments.gradients.mc_gradient_review import COSTS
from experiments.lib.logistic_regression import signed_rows
from experiments.lib.normal_gradients import MVD, NAMES, PARAMETERS, PW, SF, SF_BEST, exact
from tests.lib.scripts import files, run

# mu = sigma = 1; for each parameter the variances of NAMES, to the digits that are known.
TABLE = {
    "square": {
        -3: {"mu": "495 134 4 17.487", "sigma": "1546 664 72 68"},
        0: {"mu": "30 14 4 1.0930", "sigma": "136 64 12 8"},
        1: {"mu": "15 6 4 0", "sigma": "74 24 8 4"},
    },
    "exponential": {
        0.1: {"mu": ".56353 .040468 .01629 .0025091", "sigma": ".93538 .14099 .02777 .021971"},
        10: {"mu": ".076940 .060197 .94163 .020656", "sigma": ".0090346 .0087391 .89205 .11673"},
    },
    "cosine": {
        0.5: {"mu": ".45525 .11786 .039285 .0082755", "sigma": ".79866 .4601 .087513 .065266"},
        1: {"mu": ".32399 .32399 .26767 .028004", "sigma": ".83629 .78259 .30813 .20263"},
        5: {"mu": ".5 .5 12.5 .29572", "sigma": "1 1 12.5 .99999"},
    },
}


@pytest.mark.parametrize("cost", TABLE)
def test_the_variances_are_those_of_the_table(cost):
    ks = list(TABLE[cost])
    moments = exact(COSTS[cost].f, ks)
    for i, k in enumerate(ks):
        for parameter in PARAMETERS:
            for name, printed in zip(NAMES, TABLE[cost][k][parameter].split(), strict=True):
                half_a_digit = 0.5 * 10.0 ** -len(printed.partition(".")[2])
                assert (
                    abs(moments[name, parameter].variance[i] - float(printed)) < 1.01 * half_a_digit
                ), (cost, k, parameter, name)


@pytest.mark.parametrize("sigma", [1.0, 0.6])
def test_square_cost(sigma):
    """The closed forms, at D = mu - k, for any sigma; and every estimator has the mean (2 D, 2
    sigma).
    """
    mu, ks, s = 0.7, np.linspace(-3, 3, 7), sigma
    d = mu - ks
    forms = {
        (SF, "mu"): (d**4 + 14 * d**2 * s**2 + 15 * s**4) / s**2,
        (SF, "sigma"): (2 * d**4 + 60 * d**2 * s**2 + 74 * s**4) / s**2,
        (SF_BEST, "mu"): 6 * s**2 + 8 * d**2,
        (SF_BEST, "sigma"): 24 * s**2 + 40 * d**2,
        (PW, "mu"): np.full(7, 4 * s**2),
        (PW, "sigma"): 4 * d**2 + 8 * s**2,
        (MVD, "mu"): (16 / np.pi - 4) * d**2,
        (MVD, "sigma"): 4 * d**2 + 4 * s**2,
    }
    means = {"mu": 2 * d, "sigma": np.full(7, 2 * s)}
    moments = exact(COSTS["square"].f, ks, mu, sigma)
    for (name, parameter), form in forms.items():
        np.testing.assert_allclose(moments[name, parameter].variance, form, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(
            moments[name, parameter].mean, means[parameter], rtol=1e-11, atol=1e-12
        )


def test_exponential_cost():
    """exp(-a x^2) times the density of N(1, 1) is that of N(v, v), v = 1 / (1 + 2 a), times sqrt(v)
    exp(-a v): polynomials remain.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()

    def expectation(a, polynomial):
        v = 1 / (1 + 2 * a)
        return np.sqrt(v) * np.exp(-a * v) * np.sum(weights * polynomial(v + np.sqrt(v) * points))

    ks = np.geomspace(0.1, 10, 5)
    moments = exact(COSTS["exponential"].f, ks)
    scores = {"mu": (lambda x: x - 1, 1), "sigma": (lambda x: (x - 1) ** 2 - 1, 2)}
    for i, k in enumerate(ks):
        for parameter, (score, of_square) in scores.items():
            mean = expectation(k, score)
            second = expectation(2 * k, lambda x: score(x) ** 2)
            c = expectation(k, lambda x: score(x) ** 2) / of_square
            step = (lambda x: 1) if parameter == "mu" else (lambda x: x - 1)  # dx/dmu, dx/dsigma
            forms = {
                SF: second - mean**2,
                SF_BEST: second - c**2 * of_square - mean**2,
                PW: expectation(2 * k, lambda x: (2 * k * x * step(x)) ** 2) - mean**2,
            }
            for name, form in forms.items():
                assert moments[name, parameter].variance[i] == pytest.approx(form, rel=1e-10)


def test_every_estimator_has_the_same_mean_and_pathwise_can_lose():
    curves = {name: exact(cost.f, cost.ks[::33]) for name, cost in COSTS.items()}
    for of_cost in curves.values():
        for parameter in PARAMETERS:
            for name in NAMES:
                np.testing.assert_allclose(
                    of_cost[name, parameter].mean,
                    of_cost[PW, parameter].mean,
                    rtol=1e-9,
                    atol=1e-11,
                )
    for cost in ("exponential", "cosine"):
        for parameter in PARAMETERS:
            first, last = (
                curves[cost][SF, parameter].variance[i] < curves[cost][PW, parameter].variance[i]
                for i in (0, -1)
            )
            assert last and not first


@pytest.mark.slow
def test_script(tmp_path):
    flags = (
        "--num-draws 2000 --num-steps 20 --num-samples 20 --learning-rate 1e-4 --measured-samples 2"
        " --regression-draws 40 --measured-at 0 1"
    )
    result, _ = run("mc_gradient_review", *flags.split(), folder=tmp_path)
    assert result["curves"]["intervals_that_cover"] > 0.8
    assert result["curves"]["pathwise_loses_from"]["square"] == {"mu": None, "sigma": None}
    assert 1 < result["curves"]["pathwise_loses_from"]["cosine"]["mu"] < 1.1
    assert result["regression"]["least_p_value"] > 1e-4
    assert all(
        end["elbo"] < result["regression"]["best_elbo"]
        for end in result["regression"]["ends"].values()
    )
    assert files(tmp_path) == {"curves.png", "regression.png", "result.json"}


def test_mistakes_are_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'vaejax\[experiments\]'"):
        signed_rows()

"""How exact the densities are: a sample of docs/numerics.md, and the page itself."""

import math

import mpmath
import numpy as np
import pytest
from numerics import (
    DIGITS,
    DTYPES,
    ORDERS,
    TOLERATED,
    Worst,
    cell,
    document,
    error,
    right_answers,
    worst_errors,
)
from questions import QUESTIONS
from scipy import stats

from tests.lib.paths import ROOT

# Of these nothing is above what the page tolerates, in either precision.
SAMPLE = ("DiagNormalDensity", "Gaussian, scale 0.1", "Laplace", "GeometricLogits, by the adapter")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_is_exact(name):
    with mpmath.workdps(DIGITS):
        right = right_answers(QUESTIONS[name])
    for dtype in DTYPES:
        for order, worst in zip(ORDERS, worst_errors(QUESTIONS[name], right, dtype), strict=True):
            assert worst.error <= TOLERATED[dtype], f"{dtype}, {order}: {worst}"


def test_what_is_asked_by_mpmath_is_the_density():
    """Against scipy, so that the page does not hold a wrong formula against a wrong density."""

    def first(name, *numbers):
        with mpmath.workdps(DIGITS):
            return float(QUESTIONS[name].exact(*map(mpmath.mpf, numbers)))

    def rate(raw):
        return math.exp(15 * math.tanh(raw / 15))

    for ours, right in (
        (first("DiagNormalDensity", 0.7, 0.2, -0.5), stats.norm.logpdf(0.7, 0.2, math.exp(-0.5))),
        (first("Laplace", 0.7, 0.2, 0.0), stats.laplace.logpdf(0.7, 0.2, 1.0)),
        (first("Poisson", 3, 1.0), stats.poisson.logpmf(3, rate(1.0))),
        (
            first("NegativeBinomial", 3, 1.0, 0.0),
            stats.nbinom.logpmf(3, 1.0, 1 / (1 + rate(1.0))),
        ),
        (
            first("BetaBinomial of 255, by the adapter", 100, 2.0, 3.0),
            stats.betabinom.logpmf(100, 255, 2.0, 3.0),
        ),
        (
            first("VonMisesFisherDensity, d = 3", 0.6, 3.0),
            stats.vonmises_fisher([1, 0, 0], 3.0).logpdf([0.6, 0.8, 0.0]),
        ),
    ):
        assert ours == pytest.approx(right, rel=1e-9)
    levels = [first("DiscretizedLogisticDensity", k / 255, 0.4, -2.0) for k in range(256)]
    assert np.exp(levels).sum() == pytest.approx(1, abs=1e-9)


def test_an_error_that_is_none_is_not_written_off():
    assert error(1.5, 1.0) == 0.5
    assert error(150.0, 100.0) == 0.5
    assert error(-math.inf, -math.inf) == 0
    assert math.isinf(error(-math.inf, -3.0)) and math.isinf(error(-1e30, -math.inf))
    assert math.isnan(error(math.nan, -3.0)) and math.isnan(error(math.nan, -math.inf))
    assert cell(Worst(2e-3, "large: x 1"), "float32") == "**2e-03** (large: x 1)"
    assert cell(Worst(math.nan, "infinite: x inf"), "float32") == "**nan** (infinite: x inf)"
    assert cell(Worst(1e-8, "typical: x 1"), "float32") == "exact"


def test_the_page_is_that_of_the_script():
    """Its words and rows, not its digits, which differ from machine to machine."""

    def skeleton(page: str) -> list[str]:
        return [line.split(" | ")[0] for line in page.splitlines()]

    committed = skeleton((ROOT / "docs" / "numerics.md").read_text())
    head = skeleton(document([]))
    rows = [f"| {name}" for name in QUESTIONS]
    end = head.index("## float64") - 1
    expected = [*head[:end], *rows, *head[end:], *rows]
    assert committed == expected, "make numerics"

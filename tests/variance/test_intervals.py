"""Intervals cover, a tail is called heavy where it is, and a bias is found where there is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vaejax
from tests.lib.gradient_moments import OBJECTIVE, POINT, measure
from tests.lib.oracles import LinearGaussian, Z, exact_moments
from vaejax.base.mapping import Estimate
from vaejax.variance.groups import Part
from vaejax.variance.moments import Moments


def test_the_interval_covers():
    """Of 200 intervals at 95 % of the trace in phi, from 2,000 draws each, the exact trace lies in
    a number that is binomial.
    """
    with jax.enable_x64(True):
        exact = float(np.sum(np.asarray(exact_moments(vaejax.Pathwise(), LinearGaussian())[2])[:2]))
    groups = {"phi": Part(("phi",))}
    covered = 0
    for seed in range(200):
        moments = measure(
            OBJECTIVE, num_draws=2_000, order=2, groups=groups, key=jax.random.key(seed), chunk=100
        )
        spread = vaejax.gradient_spread(moments, groups)["phi"]
        covered += spread.low < exact < spread.high
    assert stats.binom(200, 0.95).ppf(1e-6) <= covered


def test_signal_to_noise_is_unbiased_at_no_signal():
    """A gradient of mean zero: the plug-in would show its floor 1/n, the estimate averages to 0."""

    def noise(params, x, key):
        return jnp.vdot(params.phi, jax.random.normal(key, (3,)))

    objective = vaejax.per_example(noise, support=vaejax.supports.REAL)
    params = vaejax.Params((), jnp.ones(3))
    spreads = [
        vaejax.gradient_spread(
            vaejax.gradient_moments(objective, params, 0.0, jax.random.key(seed), 50, order=2)
        )["phi"]
        for seed in range(200)
    ]
    plug_in = np.array([spread.snr_squared + spread.floor for spread in spreads])
    error = plug_in.std(ddof=1) / np.sqrt(200)
    assert abs(np.mean([spread.snr_squared for spread in spreads])) < Z * error < 0.01
    assert plug_in.mean() > spreads[0].floor / 2 and spreads[0].floor == 1 / 50


def moments_of(squares, mean, variance, by="draws"):
    """Of a gradient of these numbers in phi."""
    params = [vaejax.Params((), np.asarray(leaf, np.float64)) for leaf in (mean, variance)]
    value = Estimate(0.0, 0.0)
    return Moments(len(squares), value, *params, None, None, {"phi": np.asarray(squares)}, by)


def test_a_spread_is_its_formulas():
    """At squares whose mean is the trace: kurtosis 1 + Var / trace^2, the error of the mean, and
    |E g|^2 = |mean|^2 - trace / n; by examples neighbours share a draw.
    """
    squares = np.random.default_rng(0).uniform(size=60)
    squares *= 5 / squares.mean()
    spread = vaejax.gradient_spread(moments_of(squares, [1.0, -2.0], [2.0, 3.0]))["phi"]
    assert spread.trace == 5 and spread.floor == 1 / 60
    assert spread.kurtosis == pytest.approx(1 + squares.var(ddof=1) / 25)
    assert spread.snr_squared == pytest.approx((5 - 5 / 60) / 5)
    half = 1.96 * stats.sem(squares) / 5
    np.testing.assert_allclose(np.log([spread.high / 5, 5 / spread.low]), half, rtol=1e-9)
    paired = vaejax.gradient_spread(moments_of(squares, [1.0], [5.0], by="examples"))["phi"]
    centred = squares - 5
    # Var of the mean of a series whose neighbours covary: (c_0 + 2 c_1) / (n - 1), around a ring
    error = np.sqrt((np.mean(centred**2) + 2 * np.mean(centred * np.roll(centred, 1))) / 59)
    np.testing.assert_allclose(np.log(paired.high / 5), 1.96 * error / 5, rtol=1e-9)
    assert np.isnan(paired.kurtosis)


def test_a_bias_is_its_formulas():
    """z, Bonferroni's p-value of the largest, and what would be found 99 times in 100."""
    moments = moments_of(np.ones(100), [1.0, 2.0, 3.0], [4.0, 1.0, 9.0])
    reference = vaejax.Params((), np.array([1.5, 2.0, 2.0]))
    bias = vaejax.gradient_bias(moments, reference, false_alarm=1e-3)
    assert bias.largest_z == pytest.approx(1 / 0.3)
    assert bias.p_value == pytest.approx(3 * 2 * stats.norm.sf(1 / 0.3))
    needed = stats.norm.isf(1e-3 / 3 / 2) + stats.norm.ppf(0.99)
    assert bias.detectable == pytest.approx(0.3 * needed)
    measured = vaejax.Params((), np.array([0.1, 0.2, 0.4]))
    bias = vaejax.gradient_bias(moments, reference, measured)
    assert bias.largest_z == pytest.approx(max(0.5 / np.hypot(0.2, 0.1), 1 / np.hypot(0.3, 0.4)))


def test_a_ratio_is_its_formulas():
    a, b = np.random.default_rng(1).uniform(1, 3, size=(2, 50))
    ratio = vaejax.variance_ratio(moments_of(a, [0.0], [2.0]), moments_of(b, [0.0], [2.0]), "phi")
    half = 1.96 * stats.sem(a / a.mean() - b / b.mean())
    assert ratio.ratio == pytest.approx(a.mean() / b.mean())
    assert np.log(ratio.high / ratio.ratio) == pytest.approx(half)


@pytest.mark.slow
def test_a_heavy_tail_is_called_infinite():
    """A gradient with the tail of Student's t of 3 degrees has no fourth moment; a normal one
    has.
    """

    def draw(params, x, key):
        return jnp.sum(params.phi * x(key))

    objective = vaejax.per_example(draw, support=vaejax.supports.REAL)
    params = vaejax.Params((), jnp.ones(1))
    heavy, light = (
        vaejax.gradient_spread(
            vaejax.gradient_moments(
                objective, params, jax.tree_util.Partial(noise), jax.random.key(1), 20_000
            )
        )["phi"]
        for noise in (
            lambda key: jax.random.t(key, 3.0, (1,)),
            lambda key: jax.random.normal(key, (1,)),
        )
    )
    assert heavy.kurtosis == np.inf and (heavy.low, heavy.high) == (0, np.inf)
    np.testing.assert_allclose(light.kurtosis, 3, rtol=0.1)
    assert light.low < 1 < light.high < 1.1


def test_a_constant_gradient():
    spread = vaejax.gradient_spread(
        measure(
            vaejax.per_example(vaejax.StickTheLanding(), POINT.model),
            num_draws=10,
            params=POINT.at_posterior().params,
        )
    )["phi"]
    assert spread.trace < 1e-10


def test_a_variance_that_is_rounding_has_no_upper_end():
    moments = measure(OBJECTIVE, num_draws=10)
    tiny = moments._replace(variance=jax.tree.map(lambda leaf: 1e-40 * leaf, moments.variance))
    assert vaejax.gradient_spread(tiny)["phi"].high > 1e100


def test_ratio_of_two_estimators():
    """Total against stopped at the frozen point: the exact ratio lies in the interval, which
    pairing makes narrower.
    """
    total, stopped = (
        measure(vaejax.per_example(family(), POINT.model), num_draws=20_000)
        for family in (vaejax.Pathwise, vaejax.StickTheLanding)
    )
    ratio = vaejax.variance_ratio(total, stopped, "phi")
    with jax.enable_x64(True):
        variances = [
            exact_moments(family(), LinearGaussian())[2]
            for family in (vaejax.Pathwise, vaejax.StickTheLanding)
        ]
        exact = [float(np.sum(np.asarray(variance)[:2])) for variance in variances]
    assert ratio.low < exact[0] / exact[1] < ratio.high < 1.1 * ratio.low
    with pytest.raises(
        ValueError,
        match="20000 draws, by='draws', against 10, by='draws'; .* so that draws are pairs",
    ):
        vaejax.variance_ratio(total, measure(OBJECTIVE, num_draws=10), "phi")


def of_squares(squares) -> Moments:
    """Moments of one group of one parameter, with these squares."""
    squares = np.asarray(squares, float)
    mean = vaejax.Params((), np.zeros(1))
    variance = vaejax.Params((), np.full(1, squares.mean()))
    value = Estimate(0.0, 0.0)
    return Moments(len(squares), value, mean, variance, None, None, {"phi": squares})


SQUARES = np.random.default_rng(0).exponential(size=100)


def test_a_ratio_against_an_exact_estimator():
    """0 or inf, and of two exact ones NaN, where no ratio is; rounding below 0 counts as 0."""
    noisy, exact, below = of_squares(SQUARES), of_squares(0 * SQUARES), of_squares(-1e-20 * SQUARES)
    for nothing in (exact, below):
        assert vaejax.variance_ratio(nothing, noisy, "phi") == (0, 0, 0)
        assert vaejax.variance_ratio(noisy, nothing, "phi") == (np.inf,) * 3
        assert np.isnan(vaejax.variance_ratio(nothing, exact, "phi")).all()
    unknown = of_squares(np.where(np.arange(100) == 3, np.nan, SQUARES))
    assert np.isnan(vaejax.variance_ratio(noisy, unknown, "phi")).all()
    assert np.isnan(vaejax.gradient_spread(unknown)["phi"][:5]).all()
    tiny = vaejax.variance_ratio(of_squares(1e-200 * SQUARES), of_squares(SQUARES[::-1]), "phi")
    assert tiny.ratio == pytest.approx(1e-200) and tiny.low < tiny.ratio < tiny.high
    huge = of_squares(1e300 * SQUARES)
    assert vaejax.variance_ratio(huge, of_squares(1e-300 * SQUARES), "phi").ratio == np.inf


def test_a_ratio_of_a_real_exact_estimator():
    """At q = p(z|x) the gradient of stick-the-landing is its rounding."""
    posterior = POINT.at_posterior().params
    exact, noisy = (
        measure(vaejax.per_example(family(), POINT.model), num_draws=30, params=posterior)
        for family in (vaejax.StickTheLanding, vaejax.Pathwise)
    )
    assert vaejax.variance_ratio(exact, noisy, "phi").high < 1e-8
    assert vaejax.variance_ratio(noisy, exact, "phi").low > 1e8


def test_a_bias_is_not_told_of_nan():
    """Its p-value was 1."""
    moments, reference = of_squares(SQUARES), vaejax.Params((), np.zeros(1))
    unknown = vaejax.Params((), np.full(1, np.nan))
    assert vaejax.gradient_bias(moments, reference).p_value == 1
    for call in (
        lambda: vaejax.gradient_bias(moments._replace(mean=unknown), reference),
        lambda: vaejax.gradient_bias(moments._replace(variance=unknown), reference),
        lambda: vaejax.gradient_bias(moments, unknown),
        lambda: vaejax.gradient_bias(moments, reference, unknown),
    ):
        with pytest.raises(ValueError, match="has NaN or infinity, so its bias is not defined"):
            call()
    with pytest.raises(ValueError, match="not equally many numbers: mean 1, .* reference 2"):
        vaejax.gradient_bias(moments, vaejax.Params((), np.zeros(2)))
    with pytest.raises(ValueError, match="false_alarm = 0; it must be a number between 0 and 1"):
        vaejax.gradient_bias(moments, reference, false_alarm=0)
    with pytest.raises(ValueError, match="unknown group 'theta'; .*known: phi"):
        vaejax.variance_ratio(moments, moments, "theta")


@pytest.mark.slow
def test_bias_is_found_and_not_imagined():
    """Stick-the-landing on the importance-weighted bound is off by the wake gradient; the doubly
    reparameterised one is not off.
    """
    with jax.enable_x64(True):
        mu, rho, w = np.asarray(
            exact_moments(vaejax.Pathwise(2, vaejax.iwae_bound), LinearGaussian(), 2, 40)[1]
        )
        b = np.asarray(
            exact_moments(
                vaejax.Pathwise(2, vaejax.iwae_bound), LinearGaussian(), 2, 40, vector=b_gradient
            )[1]
        )
    theta = {"prior": (), "likelihood": {"net": {"w": w, "b": b[0]}}}
    exact = vaejax.Params(theta, {"loc": np.array([mu]), "log_scale": np.array([rho])})
    for estimator, off in (
        (vaejax.DReG(2), False),
        (vaejax.StickTheLanding(2, vaejax.iwae_bound), True),
    ):
        bias = vaejax.gradient_bias(
            measure(vaejax.per_example(estimator, POINT.model), num_draws=20_000), exact
        )
        assert (bias.p_value < 1e-6) == off and bias.detectable < 0.1


@pytest.mark.slow
def test_no_false_alarms_over_a_thousand_seeds():
    """Unbiased estimators against the exact gradient: no p-value below 1e-6, and as many below 1 %
    as a binomial number can be.
    """
    with jax.enable_x64(True):
        mu, rho, w = np.asarray(exact_moments(vaejax.Pathwise(), LinearGaussian())[1])
        b = np.asarray(exact_moments(vaejax.Pathwise(), LinearGaussian(), vector=b_gradient)[1])
    exact = vaejax.Params(
        {"prior": (), "likelihood": {"net": {"w": w, "b": b[0]}}},
        {"loc": np.array([mu]), "log_scale": np.array([rho])},
    )
    for estimator in (vaejax.Pathwise(), vaejax.ScoreFunction(2)):
        objective = vaejax.per_example(estimator, POINT.model)
        biases = [
            vaejax.gradient_bias(
                measure(objective, num_draws=2_000, chunk=100, key=jax.random.key(seed), order=2),
                exact,
            )
            for seed in range(1_000)
        ]
        p_values = np.array([bias.p_value for bias in biases])
        assert p_values.min() > 1e-6
        assert (p_values < 0.01).sum() <= stats.binom(1_000, 0.01).isf(1e-6)


def b_gradient(gradient):
    return jnp.stack([gradient.theta["likelihood"]["net"]["b"]])


@pytest.mark.parametrize("against", ["a number", "a reference"])
def test_a_squared_bias_is_without_the_noise_of_the_means(against):
    """|E g - c|^2 over repeated measurements, to 5 standard errors (a false alarm of 6e-7); the
    noise that is left out would be seen.
    """
    num_draws, num_reference, repeats = 5, 10, 2_000
    difference, phi = np.array([0.3, -0.1, 0.0, 0.2]), Part(("phi",))

    def moments(draws):
        mean, variance = draws.mean(axis=0), draws.var(axis=0, ddof=1)
        trees = (vaejax.Params((), mean), vaejax.Params((), variance))
        return Moments(len(draws), Estimate(0.0, 0.0), *trees, None, None, {})

    generator, squares = np.random.default_rng(0), []
    for _ in range(repeats):
        measured = moments(1 + difference + generator.normal(size=(num_draws, 4)))
        reference = moments(1 + generator.normal(size=(num_reference, 4)))
        error = jax.tree.map(lambda v: np.sqrt(v / num_reference), reference.variance)
        known = jax.tree.map(np.ones_like, reference.mean)
        expected = (known,) if against == "a number" else (reference.mean, error)
        squares.append(vaejax.gradient_bias(measured, *expected, select=phi).squared)
    error = np.std(squares) / np.sqrt(repeats)
    assert np.mean(squares) == pytest.approx(np.sum(difference**2), abs=5 * error)
    assert 15 * error < 4 / num_draws

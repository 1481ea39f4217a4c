"""Moments of gradients: equal to NumPy's over kept draws and to the exact ones, with intervals that
cover, whatever the chunks.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

import vaejax
from tests.lib.oracles import LinearGaussian, Z, exact_moments, gradient_vector
from vaejax.base.values import by_value
from vaejax.evaluation.pareto import pareto_k
from vaejax.variance.groups import Part, heads
from vaejax.variance.moments import _add_draws

POINT = LinearGaussian()
OBJECTIVE = partial(vaejax.Pathwise(), POINT.model)
measure = partial(
    vaejax.gradient_moments, params=POINT.params, x=POINT.datum, key=jax.random.key(0)
)


def by_hand(objective, num_draws, params=POINT.params, x=POINT.datum, key=jax.random.key(0)):
    """All draws, kept, as rows."""
    _, draw_key = jax.random.split(key)
    keys = jax.vmap(lambda i: jax.random.fold_in(draw_key, i))(jnp.arange(num_draws))
    return np.asarray(
        jax.jit(jax.vmap(lambda key: ravel_pytree(jax.grad(objective)(params, x, key))[0]))(keys),
        np.float64,
    )


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize(
    "layout", [{"chunk": 1}, {"chunk": 64}, {"strategy": "scan", "chunk": 3}], ids=str
)
def test_moments_are_numpys(layout):
    """For 100 draws, a number that no chunk divides but 1."""
    moments, draws = measure(OBJECTIVE, num_draws=100, **layout), by_hand(OBJECTIVE, 100)
    mean = draws.mean(0)
    np.testing.assert_allclose(flat(moments.mean), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flat(moments.variance), draws.var(0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(
        flat(moments.third), ((draws - mean) ** 3).mean(0), rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(flat(moments.fourth), ((draws - mean) ** 4).mean(0), rtol=1e-3)
    assert moments.num_draws == 100 and moments.squares["phi"].shape == (100,)
    bound = np.mean(
        [
            vaejax.elbo(POINT.model, POINT.params, POINT.datum, key)
            for key in jax.random.split(jax.random.key(1), 3)
        ]
    )
    assert abs(moments.value.mean - bound) < 3


@pytest.mark.parametrize("chunk", [1, 3])
def test_devices_share_the_draws(chunk):
    """1,003 draws on eight devices, a number that they do not divide: the same draws, in the same
    order.
    """
    alone = measure(OBJECTIVE, num_draws=1_003, order=2)
    shared = measure(OBJECTIVE, num_draws=1_003, order=2, strategy="devices", chunk=chunk)
    np.testing.assert_allclose(flat(shared.variance), flat(alone.variance), rtol=1e-5)
    # About the mean of the draws so far, which on a device are fewer; other draws, or another
    # order, would not be correlated.
    assert np.corrcoef(shared.squares["phi"], alone.squares["phi"])[0, 1] > 0.95


def test_second_order_keeps_less():
    moments = measure(OBJECTIVE, num_draws=10, order=2)
    assert moments.third is None and moments.fourth is None
    np.testing.assert_allclose(
        flat(moments.variance), flat(measure(OBJECTIVE, num_draws=10).variance), rtol=1e-6
    )


def test_the_exact_moments():
    """50,000 draws against quadrature: means and variances within their errors, from the fourth
    moment.
    """
    moments = measure(OBJECTIVE, num_draws=50_000)
    with jax.enable_x64(True):
        _, mean, exact = map(np.asarray, exact_moments(vaejax.Pathwise(), LinearGaussian()))
    variances, fourth = gradient_vector(moments.variance), gradient_vector(moments.fourth)
    assert (np.abs(gradient_vector(moments.mean) - mean) < Z * np.sqrt(exact / 50_000)).all()
    error = np.sqrt((np.asarray(fourth) - np.asarray(variances) ** 2) / 50_000)
    assert (np.abs(variances - exact) < Z * error).all() and (error < 0.03 * exact).all()


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
        one = vaejax.gradient_spread(moments, groups)["phi"]
        covered += one.low < exact < one.high
    assert stats.binom(200, 0.95).ppf(1e-6) <= covered


def test_groups_add_up():
    model = vaejax.VAE(
        vaejax.LearnedNormal(2),
        vaejax.Bernoulli(vaejax.MLP(3, (4,))),
        vaejax.DiagNormal(vaejax.MLP(2, (4,), heads=2)),
    )
    params, x = model.init(jax.random.key(0), jnp.ones(3)), jnp.asarray([0.0, 1.0, 1.0])
    groups = heads(model, params, x)
    assert list(groups) == [
        "theta prior",
        "theta likelihood",
        "phi body",
        "phi location",
        "phi scale",
    ]
    moments = vaejax.gradient_moments(
        partial(vaejax.Pathwise(), model), params, x, jax.random.key(0), 50, groups=groups
    )
    spreads = vaejax.gradient_spread(moments, groups)
    np.testing.assert_allclose(
        sum(one.trace for one in spreads.values()), vaejax.tree_sum(moments.variance), rtol=1e-6
    )
    location = groups["phi location"](moments.variance)
    np.testing.assert_allclose(
        location["bias"], moments.variance.phi["params"]["Dense_1"]["bias"][:2], rtol=1e-6
    )
    np.testing.assert_allclose(
        moments.squares["phi location"].mean(), spreads["phi location"].trace, rtol=1e-6
    )
    conv = vaejax.VAE(
        vaejax.StandardNormal(2), model.likelihood, vaejax.FullNormal(vaejax.MLP(2, (4,), heads=4))
    )
    with pytest.raises(
        ValueError, match=r"heads wants an encoder DiagNormal .* use parts\(params\)"
    ):
        heads(conv, conv.init(jax.random.key(0), x), x)


def test_signal_to_noise_is_unbiased_at_no_signal():
    """A gradient of mean zero: the plug-in would show its floor 1/n, the estimate averages to 0."""

    def noise(params, x, key):
        return jnp.vdot(params.phi, jax.random.normal(key, (3,)))

    params = vaejax.Params((), jnp.ones(3))
    found = [
        vaejax.gradient_spread(
            vaejax.gradient_moments(noise, params, 0.0, jax.random.key(seed), 50, order=2)
        )["phi"]
        for seed in range(200)
    ]
    plug_in = np.array([one.snr_squared + one.floor for one in found])
    error = plug_in.std(ddof=1) / np.sqrt(200)
    assert abs(np.mean([one.snr_squared for one in found])) < Z * error < 0.01
    assert plug_in.mean() > found[0].floor / 2 and found[0].floor == 1 / 50


@pytest.mark.slow
def test_a_heavy_tail_is_called_infinite():
    """A gradient with the tail of Student's t of 3 degrees has no fourth moment; a normal one
    has.
    """

    def draw(params, x, key):
        return jnp.sum(params.phi * x(key))

    params = vaejax.Params((), jnp.ones(1))
    heavy, light = (
        vaejax.gradient_spread(
            vaejax.gradient_moments(
                draw, params, jax.tree_util.Partial(of), jax.random.key(1), 20_000
            )
        )["phi"]
        for of in (
            lambda key: jax.random.t(key, 3.0, (1,)),
            lambda key: jax.random.normal(key, (1,)),
        )
    )
    assert heavy.kurtosis == np.inf and (heavy.low, heavy.high) == (0, np.inf)
    np.testing.assert_allclose(light.kurtosis, 3, rtol=0.1)
    assert light.low < 1 < light.high < 1.1


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_the_shape_of_a_tail(k):
    found = [pareto_k(stats.genpareto(k).rvs(20_000, random_state=seed)) for seed in range(20)]
    np.testing.assert_allclose(np.mean(found), k, atol=0.08)


def test_a_constant_gradient():
    one = vaejax.gradient_spread(
        measure(
            partial(vaejax.StickTheLanding(), POINT.model),
            num_draws=10,
            params=POINT.at_posterior().params,
        )
    )["phi"]
    assert one.trace < 1e-10
    assert pareto_k(np.zeros(100)) == -np.inf and np.isnan(pareto_k(np.arange(10.0)))


def test_a_variance_that_is_rounding_has_no_upper_end():
    moments = measure(OBJECTIVE, num_draws=10)
    tiny = moments._replace(variance=jax.tree.map(lambda leaf: 1e-40 * leaf, moments.variance))
    assert vaejax.gradient_spread(tiny)["phi"].high > 1e100


def test_ratio_of_two_estimators():
    """Total against stopped at the frozen point: the exact ratio lies in the interval, which
    pairing makes narrower.
    """
    total, stopped = (
        measure(partial(family(), POINT.model), num_draws=20_000)
        for family in (vaejax.Pathwise, vaejax.StickTheLanding)
    )
    ratio = vaejax.variance_ratio(total, stopped, "phi")
    with jax.enable_x64(True):
        variances = [
            exact_moments(family(), LinearGaussian())[2]
            for family in (vaejax.Pathwise, vaejax.StickTheLanding)
        ]
        exact = [float(np.sum(np.asarray(one)[:2])) for one in variances]
    assert ratio.low < exact[0] / exact[1] < ratio.high < 1.1 * ratio.low
    with pytest.raises(
        ValueError, match="20000 draws by draws against 10 by draws; .* so that draws are pairs"
    ):
        vaejax.variance_ratio(total, measure(OBJECTIVE, num_draws=10), "phi")


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
        found = vaejax.gradient_bias(
            measure(partial(estimator, POINT.model), num_draws=20_000), exact
        )
        assert (found.p_value < 1e-6) == off and found.detectable < 0.1


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
        objective = partial(estimator, POINT.model)
        found = [
            vaejax.gradient_bias(
                measure(objective, num_draws=2_000, chunk=100, key=jax.random.key(seed), order=2),
                exact,
            )
            for seed in range(1_000)
        ]
        p_values = np.array([one.p_value for one in found])
        assert p_values.min() > 1e-6
        assert (p_values < 0.01).sum() <= stats.binom(1_000, 0.01).isf(1e-6)


def b_gradient(gradient):
    return jnp.stack([gradient.theta["likelihood"]["net"]["b"]])


XS = jnp.asarray([[0.3], [-1.0], [2.1], [0.7], [1.4]])


@pytest.mark.slow
def test_sources_of_a_minibatchs_variance():
    """Both parts against the closed forms of each example, and their sum against the variance of
    minibatches, all of them.
    """
    num_draws = 4_000
    sources = vaejax.variance_sources(OBJECTIVE, POINT.params, XS, jax.random.key(0), num_draws)
    points = [LinearGaussian(x=float(x[0])) for x in XS]
    means = np.array([point.elbo_gradient[:2] for point in points])
    exact = [
        [p.lam**2 * p.s**2, p.lam**2 * p.d**2 * p.s**2 + 2 * p.lam**2 * p.s**4] for p in points
    ]
    np.testing.assert_allclose(
        gradient_vector(sources.data)[:2], means.var(0, ddof=1), rtol=0.1, atol=0.1
    )
    np.testing.assert_allclose(
        gradient_vector(sources.sampling)[:2], np.mean(exact, axis=0), rtol=0.1
    )

    pairs = np.array(list(itertools.combinations(range(5), 2)))

    def of_a_random_pair(params, xs, key):
        pair_key, noise_key = jax.random.split(key)
        rows = jnp.asarray(pairs)[jax.random.randint(pair_key, (), 0, len(pairs))]
        return vaejax.minibatch(OBJECTIVE)(params, xs[rows], noise_key)

    direct = vaejax.gradient_moments(of_a_random_pair, POINT.params, XS, jax.random.key(1), 40_000)
    predicted = vaejax.minibatch_variance(sources, batch_size=2)
    np.testing.assert_allclose(
        gradient_vector(direct.variance), gradient_vector(predicted), rtol=0.1
    )


def test_the_prediction_for_another_batch_and_another_k():
    sources = vaejax.variance_sources(OBJECTIVE, POINT.params, XS, jax.random.key(0), 4_000)
    objective = partial(vaejax.Pathwise(4), POINT.model)
    whole_batch = vaejax.gradient_moments(
        vaejax.minibatch(objective), POINT.params, XS, jax.random.key(1), 10_000
    )
    predicted = vaejax.minibatch_variance(sources, batch_size=5, num_repeats=4)
    np.testing.assert_allclose(
        gradient_vector(whole_batch.variance), gradient_vector(predicted), rtol=0.1
    )
    scaled = vaejax.minibatch_variance(sources, 5, 4, dataset_size=10)
    np.testing.assert_allclose(
        gradient_vector(scaled), 100 * np.asarray(gradient_vector(predicted)), rtol=1e-6
    )


def test_memory_does_not_grow_with_the_draws():
    """Temporaries of the compiled program, in bytes: at order 2 below three times the parameters
    and one chunk of gradients.
    """
    encoder = vaejax.DiagNormal(vaejax.MLP(8, (200,), heads=2))
    model = vaejax.VAE(vaejax.StandardNormal(8), vaejax.Bernoulli(vaejax.MLP(200, (200,))), encoder)
    params, x = model.init(jax.random.key(0), jnp.zeros(200)), jnp.zeros(200)
    sums = (params, params)

    def temporaries(size, chunk=1):
        arguments = (
            by_value(partial(vaejax.Pathwise(), model)),
            (Part(("phi",)),),
            False,
            chunk,
            size,
            None,
        )
        lowered = _add_draws.lower(*arguments, params, x, jax.random.key(0), params, sums, 0, size)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    bytes_of_params = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert temporaries(1_000) < temporaries(10) + 20_000
    assert temporaries(1_000) < 3 * bytes_of_params
    assert temporaries(1_000, chunk=4) < (3 + 4) * bytes_of_params


REFUSED = {
    "one draw": ({"num_draws": 1}, "num_draws = 1; a variance needs at least 2"),
    "order": ({"num_draws": 10, "order": 3}, "order = 3; give 2 or 4"),
    "chunk": ({"num_draws": 10, "chunk": -1}, "chunk = -1"),
    "strategy": ({"num_draws": 10, "strategy": "pmap"}, "unknown strategy 'pmap'"),
    "a long scan": (
        {"num_draws": 10, "strategy": "scan", "chunk": 500},
        "chunk = 500, and a scan writes its chunk out .* at most 32",
    ),
    "by": ({"num_draws": 10, "by": "layers"}, "unknown by 'layers'"),
    "fourth by examples": ({"num_draws": 10, "by": "examples"}, "two moments, .* say order=2"),
    "no minibatch": (
        {"num_draws": 10, "order": 2, "by": "examples"},
        "cannot be: the objective is no vaejax.minibatch",
    ),
}


@pytest.mark.parametrize("changes, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        measure(OBJECTIVE, **changes)

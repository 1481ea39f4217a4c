"""Objectives beside the bound: exact against closed forms and enumeration in float64, and what
`fit` makes of them.

The reported value is the bound at beta 1 throughout. The models have no nets, so that they compile
fast.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.special import logsumexp
from scipy import stats
from test_training import assert_same_bits, compilations

import vaejax
from tests.lib.oracles import Line, LinearGaussian, assert_mean, exact_moments, gauss_hermite
from vaejax import objectives
from vaejax.base.mapping import Transformed, estimate, map_dataset
from vaejax.base.types import Terms
from vaejax.data.base import batch_rows
from vaejax.objectives.base import model_of, schedules_of
from vaejax.objectives.beta import Beta
from vaejax.objectives.free_bits import FreeBits
from vaejax.objectives.optimal_scale import optimal_scale, with_optimal_scale
from vaejax.objectives.schedules import Cyclical, WarmUp
from vaejax.objectives.total_correlation import TCVAE, kl_decomposition
from vaejax.training.trainer import NonFiniteError

KEY = jax.random.key(1)
POINT = LinearGaussian()


@vaejax.component
class Slope:
    """(loc, log_scale) = (a x, log_scale), coordinate by coordinate."""

    def init(self, key, x):
        return {"a": jnp.ones(jnp.shape(x)), "log_scale": jnp.zeros(jnp.shape(x))}

    def apply(self, params, x):
        return params["a"] * x, params["log_scale"]


def lines_with(scale, prior=vaejax.StandardNormal(2)):
    """x = w z + b + noise, coordinate by coordinate, and q(z|x) = N(a x, exp(2 log_scale))."""
    return vaejax.VAE(
        prior, vaejax.Gaussian(Line(), scale), vaejax.DiagNormal(Slope(), max_log_scale=None)
    )


LINES, LEARNED = lines_with(0.8), lines_with("learned")


def params_of(
    w=1.3, a=(1.4, 2.0), log_scale=(-0.7, -1.0), of_likelihood=None, dtype=float, prior=()
):
    net = {"w": jnp.asarray(w, dtype), "b": jnp.asarray(0.2, dtype)}
    theta = {"prior": prior, "likelihood": {"net": net, **(of_likelihood or {})}}
    return vaejax.Params(
        theta, {"a": jnp.asarray(a, dtype), "log_scale": jnp.asarray(log_scale, dtype)}
    )


def terms_and_gradient(objective):
    """params -> (Terms, gradient of its objective)."""

    def of(*args):
        value, gradient = jax.value_and_grad(
            lambda *args: tuple(objective(*args))[::-1], has_aux=True
        )(*args)
        return Terms(*value[::-1]), gradient

    return of


def assert_close(actual, expected, **tolerance):
    jax.tree.map(
        partial(np.testing.assert_allclose, **{"rtol": 1e-10, "atol": 1e-12, **tolerance}),
        actual,
        expected,
    )


# Beta.


def test_beta_in_closed_form(x64):
    """E log p(x|z) - beta KL(q || p) and its gradient in (mu, log s, w) by quadrature; the bound
    has beta 1 whatever the weight.

    beta comes from a schedule that is `step` at each step.
    """
    w, b, tau, x, mu, s = POINT.w, POINT.b, POINT.tau, POINT.x, POINT.mu, POINT.s
    betas = np.array([0.0, 0.3, 1.0, 4.0])
    log_p_x = -0.5 * np.log(2 * np.pi * tau**2) - ((x - b - w * mu) ** 2 + w**2 * s**2) / (
        2 * tau**2
    )
    kl = 0.5 * (mu**2 + s**2 - 1) - np.log(s)
    d_mu, d_log_scale = (
        w * (x - b - w * mu) / tau**2 - betas * mu,
        -((w * s / tau) ** 2) - betas * (s**2 - 1),
    )
    for num_samples, num_nodes in ((1, 20), (2, 8)):
        beta = Beta(WarmUp(10, 0.0, 10.0), num_samples)

        def moments(step, part, beta=beta, num_samples=num_samples, num_nodes=num_nodes):
            return exact_moments(
                lambda *args: getattr(beta(*args, step=step), part), POINT, num_samples, num_nodes
            )[:2]

        value, gradient = jax.jit(jax.vmap(partial(moments, part="objective")))(betas)
        np.testing.assert_allclose(value, log_p_x - betas * kl, rtol=1e-12)
        np.testing.assert_allclose(
            gradient.T, [d_mu, d_log_scale, np.full(4, POINT.elbo_gradient[2])], rtol=1e-10
        )
    value, gradient = jax.jit(partial(moments, part="bound"))(4.0)
    np.testing.assert_allclose(value, POINT.elbo, rtol=1e-12)
    np.testing.assert_allclose(gradient, POINT.elbo_gradient, rtol=1e-10)


def test_beta_one_is_pathwise(x64):
    """Sample by sample, value and gradient, under a prior of two components made of q."""
    model = lines_with(0.8, vaejax.VampPrior(2))
    params = params_of(prior=jnp.asarray([[0.3, -1.0], [0.5, 0.2]]))
    xs = np.random.default_rng(0).normal(size=(3, 2))
    pathwise, beta = (
        vaejax.minibatch(partial(one, model)) for one in (vaejax.Pathwise(2), Beta(1.0, 2))
    )
    both = jax.jit(
        lambda *args: (jax.value_and_grad(pathwise)(*args), terms_and_gradient(beta)(*args))
    )
    expected, (terms, gradient) = both(params, xs, KEY)
    assert_close((terms.objective, gradient), expected)


def test_beta_of_a_posterior_that_knows_only_its_own_samples(x64):
    """An inverse autoregressive q has no log-density elsewhere."""
    encoder = vaejax.InverseAutoregressive(vaejax.MLP(2, (), heads=2), num_layers=1, hidden=(2,))
    model, x = vaejax.VAE(LINES.prior, LINES.likelihood, encoder), jnp.asarray([0.3, -0.4])
    params = jax.jit(model.init)(KEY, x)
    terms, bound = jax.jit(lambda p: (Beta(2.0)(model, p, x, KEY), vaejax.elbo(model, p, x, KEY)))(
        params
    )
    np.testing.assert_allclose(terms.bound, bound, rtol=1e-5)
    assert abs(terms.objective - bound) > 0.01


def test_beta_vae_is_reverse_water_filling(x64):
    """A linear beta-VAE of Gaussian modes with variances l: at the known optimum the gradient is
    zero, and rate and error are known.

    With water level t = beta sigma^2: decoder slope^2 = max(l - t, 0), encoder slope w / (w^2 + t),
    variance t / (w^2 + t). The expectation over x and noise is of a quadratic, so a few nodes are
    exact. Squared errors and rates of `oracles.md`, section 3.
    """
    variances, noise = np.array([5, 3, 1.5, 0.6, 0.2]), 0.25
    model = vaejax.VAE(
        vaejax.StandardNormal(1),
        vaejax.Gaussian(Line(), float(np.sqrt(noise))),
        vaejax.DiagNormal(Slope(), max_log_scale=None),
    )
    nodes, weights = gauss_hermite(5, 2)

    def expected(w, a, log_scale, variance, beta):
        params = vaejax.Params(
            {"prior": (), "likelihood": {"net": {"w": w, "b": jnp.zeros(())}}},
            {"a": a[None], "log_scale": log_scale[None]},
        )

        def one(node):
            with pytest.MonkeyPatch.context() as patch:  # a key is its noise
                patch.setattr(jax.random, "split", lambda key, num=2: key[None])
                patch.setattr(jax.random, "normal", lambda key, shape, dtype: key)
                return Beta(WarmUp(10, 0.0, 10.0))(
                    model, params, jnp.sqrt(variance) * node[:1], node[1:], step=beta
                )

        terms = jax.vmap(one)(nodes)
        return weights @ terms.objective, weights @ terms.bound

    value_and_gradient = jax.jit(
        jax.vmap(jax.value_and_grad(expected, (0, 1, 2), has_aux=True), (0, 0, 0, 0, None))
    )
    for beta, rate, squared_error in ((1.0, 4.073934, 1.2), (2.0, 2.687639, 2.2)):
        w = np.sqrt(np.maximum(variances - beta * noise, 0))
        a, log_scale = w / (w**2 + beta * noise), 0.5 * np.log(beta * noise / (w**2 + beta * noise))
        (objective, bound), gradient = value_and_gradient(w, a, log_scale, variances, beta)
        np.testing.assert_allclose(np.array(gradient), 0, atol=1e-12)
        log_p_x = -0.5 * (len(variances) * np.log(2 * np.pi * noise) + squared_error / noise)
        np.testing.assert_allclose(
            [objective.sum(), bound.sum()], [log_p_x - beta * rate, log_p_x - rate], atol=2e-6
        )


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


def beta_objective(weight, model=LINES):
    return vaejax.minibatch(partial(Beta(weight), model))


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
    "in a partial": (
        partial(optimal_scale(beta_objective(WarmUp(50), LEARNED))),
        "beta is warmed up over 50 steps",
    ),
}


@pytest.mark.parametrize("objective, message", UNFINISHED.values(), ids=UNFINISHED)
def test_a_schedule_that_the_run_does_not_finish_is_refused(tmp_path, objective, message):
    with compilations() as names, pytest.raises(ValueError, match=message) as error:
        fit(10, objective=objective, checkpoints=tmp_path / "run")
    assert "\n" not in str(error.value) and names == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "schedule", [WarmUp(10), WarmUp(3), Cyclical(5), Cyclical(6), Cyclical(10, 0.9)]
)
def test_a_schedule_that_the_run_finishes_is_not(schedule):
    schedule.check(10, "beta")
    assert schedule(9) == (0.9 if schedule == WarmUp(10) else 1)


# Free bits: with w = 0 the decoder does not read z, and only the KL moves phi.


def test_free_bits(x64):
    """The floor holds for the mean over the batch: one of the examples tells more than it of latent
    0, whose gradient is zero.
    """
    xs, a, log_scale = (
        np.random.default_rng(0).normal(size=(6, 2)),
        np.array([0.4, 2.0]),
        np.array([-0.05, -1.0]),
    )
    kl = 0.5 * (np.exp(2 * log_scale) + (a * xs) ** 2 - 1) - log_scale
    floor = 0.05
    assert kl.mean(0)[0] < floor < kl.mean(0)[1] and (kl[:, 0] > floor).sum() == 1
    params = params_of(0.0, a, log_scale)
    terms, gradient = jax.jit(terms_and_gradient(FreeBits(LINES, floor)))(params, xs, KEY)
    log_p_x = stats.norm.logpdf(xs, 0.2, 0.8).sum(1).mean()
    np.testing.assert_allclose(
        terms, [log_p_x - kl.mean(0).sum(), log_p_x - floor - kl.mean(0)[1]], rtol=1e-12
    )
    np.testing.assert_allclose(gradient.phi["a"], [0, -a[1] * (xs[:, 1] ** 2).mean()], rtol=1e-12)
    np.testing.assert_allclose(
        gradient.phi["log_scale"], [0, 1 - np.exp(2 * log_scale[1])], rtol=1e-12
    )


def test_no_free_bits_are_the_bound(x64):
    """At 0 nats: `AnalyticKL`, in value and gradient; and it is what is validated."""
    xs, params = np.random.default_rng(0).normal(size=(6, 2)), params_of()
    analytic, floor = (
        vaejax.minibatch(partial(vaejax.AnalyticKL(2), LINES)),
        FreeBits(LINES, 5.0, 2),
    )

    @jax.jit
    def all_of_them(params):
        free = terms_and_gradient(FreeBits(LINES, 0.0, 2))(params, xs, KEY)
        return jax.value_and_grad(analytic)(params, xs, KEY), free, floor(params, xs, KEY)

    expected, (terms, gradient), floored = all_of_them(params)
    assert_close((terms.objective, gradient), expected)
    np.testing.assert_allclose(floored.bound, expected[0], rtol=1e-12)
    assert floored.objective < floored.bound - 3
    assert vaejax.minibatch(FreeBits(LINES, 0.1, 2).objective) == vaejax.minibatch(
        partial(vaejax.AnalyticKL(2), LINES)
    )


# The parts of the KL.


@jax.jit
def samples(params, xs, key):
    """z_i ~ q(z | x_i) as the one-sample bound of the batch draws them."""
    keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(jax.random.split(key, len(xs)))
    return jax.vmap(lambda x, key: LINES.posterior(params, x).sample(key))(xs, keys)


def exact_parts(params, xs, zs):
    """The three parts with q(z) the mixture over xs, by scipy."""
    loc, scale = np.asarray(params.phi["a"]) * xs, np.exp(np.asarray(params.phi["log_scale"]))
    log_q = stats.norm.logpdf(np.asarray(zs)[:, None], loc[None], scale)
    own = np.einsum("iid->i", log_q)
    joint = np.log(np.exp(log_q.sum(2)).mean(1))
    marginals = np.log(np.exp(log_q).mean(1)).sum(1)
    return np.array(
        [own - joint, joint - marginals, marginals - stats.norm.logpdf(zs).sum(1)]
    ).mean(1)


def correlated():
    """Seven examples with dependent coordinates."""
    x = np.random.default_rng(0).normal(size=(7, 1))
    return np.hstack([x, 0.5 - x])


def test_decomposition_of_all_the_data_is_exact(x64):
    """Stratified: the parts themselves. Weighted: q(z) and every q(z_j) are too low by N, which
    moves the parts by multiples of log N.
    """
    xs, params = correlated(), params_of()
    exact, log_size = exact_parts(params, xs, samples(params, xs, KEY)), np.log(len(xs))
    assert (exact > 0.1).all()
    np.testing.assert_allclose(
        jax.jit(partial(kl_decomposition, LINES))(params, xs, KEY), exact, rtol=1e-12
    )
    weighted = jax.jit(partial(kl_decomposition, LINES, estimator="weighted"))(params, xs, KEY)
    np.testing.assert_allclose(weighted, exact + log_size * np.array([1, 1, -2]), rtol=1e-12)


def chen(size, dataset_size):
    """The weights of Chen et al.'s stratified estimator for the first example of a batch: its own,
    one odd one, the others.
    """
    m = size - 1
    return np.array([1 / dataset_size, (dataset_size - m) / (dataset_size * m)] + [1 / m] * (m - 1))


@pytest.mark.parametrize("size", [2, 3, 6])
def test_aggregated_posterior_over_all_minibatches(x64, size):
    """The mean over all batches that hold example 0: q(z) itself, and it is the mean over the
    orders of the published weights.
    """
    density = np.random.default_rng(0).gamma(1.0, size=6)  # q(z | x_j) at a z of example 0
    batches = [(0, *others) for others in itertools.combinations(range(1, 6), size - 1)]
    stratified = np.asarray(objectives.aggregation_weights(size, 6, "stratified"))[0]
    np.testing.assert_allclose(
        np.mean([stratified @ density[list(rows)] for rows in batches]), density.mean(), rtol=1e-12
    )
    orders = [(0, *order) for order in itertools.permutations(batches[0][1:])]
    published = np.mean([chen(size, 6) @ density[list(rows)] for rows in orders])
    np.testing.assert_allclose(stratified @ density[list(batches[0])], published, rtol=1e-12)
    weighted = np.asarray(objectives.aggregation_weights(size, 6, "weighted"))[0]
    mean = np.mean([weighted @ density[list(rows)] for rows in batches])
    np.testing.assert_allclose(
        mean, (density[0] + (size - 1) * density[1:].mean()) / (6 * size), rtol=1e-12
    )
    assert mean <= density.mean() / size


@pytest.mark.slow
def test_decomposition_of_a_linear_encoder(x64):
    """q(z|x) = N(A x, V) on N(0, C): q(z) = N(0, V + A C A'), so all three parts are known. 1,000
    data of covariance exactly C, 40 keys.
    """
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    noise = np.random.default_rng(0).normal(size=(1000, 2))
    noise -= noise.mean(0)
    xs = (
        noise
        @ np.linalg.inv(np.linalg.cholesky(np.cov(noise.T, bias=True))).T
        @ np.linalg.cholesky(covariance).T
    )
    a, log_scale = np.array([1.5, 2.0]), np.log([0.8, 0.9])
    aggregated = np.diag(np.exp(2 * log_scale)) + a[:, None] * covariance * a[None]
    variances, log_det = np.diag(aggregated), np.linalg.slogdet(aggregated)[1]
    exact = [
        0.5 * log_det - log_scale.sum(),
        0.5 * (np.log(variances).sum() - log_det),
        0.5 * (variances - 1 - np.log(variances)).sum(),
    ]
    parts = jax.lax.map(
        partial(kl_decomposition, LINES, params_of(1.0, a, log_scale), jnp.asarray(xs)),
        jax.random.split(KEY, 40),
    )
    assert_mean(np.array(parts).T, exact, detectable=0.1)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_tcvae_is_the_weighted_sum_of_its_parts(x64, estimator):
    """Value and gradient against the formula written out, of a batch of 7 out of 10; with all
    weights at 1 the ELBO, to the last bit.
    """
    xs, params = correlated(), params_of()

    def written_out(params, xs, key):
        keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(jax.random.split(key, 7))
        loc, log_scale = params.phi["a"] * xs, params.phi["log_scale"]
        zs = loc + jnp.exp(log_scale) * jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
        log_q = jax.scipy.stats.norm.logpdf(zs[:, None], loc[None], jnp.exp(log_scale))
        log_w = np.log(
            np.where(np.eye(7) == 1, 1 / 10, 9 / 60)
            if estimator == "stratified"
            else np.full((7, 7), 1 / 70)
        )
        own, joint = jnp.einsum("iid->i", log_q), logsumexp(log_w + log_q.sum(2), axis=1)
        marginals = logsumexp(log_w[:, :, None] + log_q, axis=1).sum(1)
        net = params.theta["likelihood"]["net"]
        log_p_x = jax.scipy.stats.norm.logpdf(xs, net["w"] * zs + net["b"], 0.8).sum(1)
        parts = own - joint, joint - marginals, marginals - jax.scipy.stats.norm.logpdf(zs).sum(1)
        return jnp.mean(log_p_x - 0.5 * parts[0] - 6.0 * parts[1] - 2.0 * parts[2])

    weighted, plain = (
        TCVAE(LINES, 10, 0.5, 6.0, 2.0, estimator),
        TCVAE(LINES, 10, estimator=estimator),
    )

    @jax.jit  # one program, for it is the random numbers that take long to compile
    def both(params):
        with jax.numpy_rank_promotion("allow"):
            expected = jax.value_and_grad(written_out)(params, xs, KEY)
        actual = terms_and_gradient(weighted)(params, xs, KEY)
        bound = vaejax.minibatch(partial(vaejax.Pathwise(), LINES))(params, xs, KEY)
        return (
            expected,
            actual,
            bound,
            plain(params, xs, KEY),
            kl_decomposition(LINES, params, xs, KEY, 10, estimator),
        )

    expected, (terms, gradient), bound, unweighted, parts = both(params)
    assert_close((terms.objective, gradient), expected)
    assert unweighted.bound == unweighted.objective
    np.testing.assert_allclose([terms.bound, unweighted.bound], bound, rtol=1e-12)
    np.testing.assert_allclose(
        sum(parts), exact_parts(params, xs, samples(params, xs, KEY)).sum(), rtol=1e-12
    )


# The best scale.


def learned():
    xs = np.random.default_rng(0).normal(size=(40, 2))
    return params_of(w=0.7, of_likelihood={"log_scale": jnp.asarray(0.4)}), xs


def log_scale_of(params):
    return params.theta["likelihood"]["log_scale"]


def test_optimal_scale(x64):
    """sigma^2 is the mean squared error, where the bound's derivative in the scale is zero at the
    same samples. As an objective, value and gradient are those at this scale, all but the gradient
    of the scale itself, which is its own, as if it were learned.
    """
    params, xs = learned()
    plain = vaejax.minibatch(partial(vaejax.Pathwise(), LEARNED))
    weighted = vaejax.minibatch(partial(Beta(3.0), LEARNED))

    @jax.jit
    def all_of_them(params):
        best = with_optimal_scale(LEARNED, params, xs, KEY)
        gradient = jax.value_and_grad(lambda p, objective: objective(p, xs, KEY))
        scaled = optimal_scale(vaejax.minibatch(plain.objective, 1000))
        of_scaled, of_weighted = (
            gradient(params, scaled),
            terms_and_gradient(optimal_scale(weighted))(params, xs, KEY),
        )
        return (
            best,
            gradient(params, plain)[1],
            gradient(best, plain),
            gradient(params, optimal_scale(plain)),
            of_scaled,
            of_weighted,
        )

    best, at_start, (value, at_best), optimal, scaled, (terms, at_weight) = all_of_them(params)
    errors = xs - 0.7 * samples(params, xs, KEY) - 0.2
    np.testing.assert_allclose(
        np.exp(2 * log_scale_of(best)), np.mean(np.square(errors)), rtol=1e-12
    )
    np.testing.assert_allclose(LEARNED.p_x_given_z(best, xs[0]).log_scale, log_scale_of(best))
    assert_same_bits(best, params_of(w=0.7, of_likelihood={"log_scale": log_scale_of(best)}))
    assert abs(log_scale_of(at_start)) > 0.1
    np.testing.assert_allclose(log_scale_of(at_best), 0, atol=1e-12)
    at_best.theta["likelihood"]["log_scale"] = log_scale_of(at_start)
    assert_close(optimal, (value, at_best), rtol=1e-9)
    assert_close(
        scaled, jax.tree.map(lambda leaf: 1000 * leaf, (value, at_best)), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        [terms.bound, log_scale_of(at_weight)], [value, log_scale_of(at_start)], rtol=1e-9
    )


def test_a_perfect_fit_has_a_finite_scale():
    params = params_of(w=0.0, of_likelihood={"log_scale": jnp.zeros(())}, dtype=jnp.float32)
    xs = np.full((5, 2), 0.2, np.float32)
    objective = optimal_scale(vaejax.minibatch(partial(vaejax.Pathwise(), LEARNED)))
    best, *values = jax.jit(
        lambda p: (
            with_optimal_scale(LEARNED, p, xs, KEY),
            jax.value_and_grad(objective)(p, xs, KEY),
        )
    )(params)
    assert log_scale_of(best) == -7
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values))


# What fit makes of them: 60 examples of two numbers.

XS = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
PARAMS = params_of(of_likelihood=None, dtype=np.float32)
OBJECTIVE = vaejax.minibatch(partial(vaejax.Pathwise(), LINES))
STILL = optax.sgd(0.0)


def fit(
    num_steps,
    objective=OBJECTIVE,
    params=PARAMS,
    optimizer=optax.adam(1e-3),
    data=XS,
    batch_size=10,
    **settings,
):
    return vaejax.fit(
        objective,
        params,
        optimizer,
        data,
        KEY,
        num_steps=num_steps,
        batch_size=batch_size,
        progress=False,
        **settings,
    )


def steps_written_out(num_steps):
    """(log p(x|z), log p(z) - log q(z|x)) of each step's batch as functions of the parameters, by
    the rule of the keys alone.
    """
    order_key, noise_key, _ = jax.random.split(KEY, 3)
    rows = batch_rows(order_key, len(XS), 10, 0, num_steps)

    def parts(params, step):
        _, objective_key = jax.random.split(jax.random.fold_in(noise_key, step))
        xs = jnp.asarray(XS[rows])[step]

        def one(x, z):
            q = LINES.posterior(params, x)
            return LINES.p_x_given_z(params, z).log_prob(x), LINES.p_z(params).log_prob(
                z
            ) - q.log_prob(z)

        return [part.mean() for part in jax.vmap(one)(xs, samples(params, xs, objective_key))]

    return parts


@pytest.mark.slow
def test_history_has_both_and_the_gradient_is_of_the_objective():
    """With parameters that stand still, row t is the objective at step t, written out. Then one
    step along its gradient.
    """
    parts = steps_written_out(12)
    run = fit(12, beta_objective(Cyclical(6, ramp=0.5, end=2.0)), optimizer=STILL)
    log_p_x, log_ratio = np.array([jax.jit(parts)(PARAMS, step) for step in range(12)]).T
    np.testing.assert_allclose(run.history["bound"], log_p_x + log_ratio, rtol=1e-5)
    np.testing.assert_allclose(
        run.history["objective"],
        log_p_x + np.array([0, 2 / 3, 4 / 3, 2, 2, 2] * 2) * log_ratio,
        rtol=1e-5,
    )
    assert run.history["objective"].dtype == np.float32
    moved = fit(1, beta_objective(3.0), optimizer=optax.sgd(1.0)).params
    gradient = jax.jit(jax.grad(lambda p: parts(p, 0)[0] + 3 * parts(p, 0)[1]))(PARAMS)
    assert_close(moved, jax.tree.map(jnp.add, PARAMS, gradient), rtol=1e-4, atol=1e-4)


class Cut(Exception):  # noqa: N818
    """What stops a run in the middle."""


def cut_at(step):
    def callback(run):
        if run.step >= step:
            raise Cut

    return callback


def test_resumed_to_the_same_bits_in_the_middle_of_a_schedule(tmp_path):
    """In the first rise and in the second."""
    settings = {"checkpoint_every": 3, "validation": XS[:30], "validate_every": 4}
    objective = beta_objective(Cyclical(8))
    whole = fit(16, objective, **settings)
    assert len(whole.history["objective"]) == 16 and not np.array_equal(
        whole.history["objective"], whole.history["bound"]
    )
    for cut in (3, 9):
        with pytest.raises(Cut):
            fit(16, objective, checkpoints=tmp_path / str(cut), callback=cut_at(cut), **settings)
        assert_same_bits(
            fit(16, objective, checkpoints=tmp_path / str(cut), resume=True, **settings), whole
        )


@pytest.mark.slow
def test_rows_stay_aligned_when_the_objective_changes(tmp_path):
    """Before there was a weight, and after, the bound was what was maximised. A bound alone has no
    second row.
    """
    first = fit(4, checkpoints=tmp_path)
    assert sorted(first.history) == ["bound", "validation_bound", "validation_step"]
    fit(8, beta_objective(2.0), checkpoints=tmp_path, resume=True)
    history = fit(12, checkpoints=tmp_path, resume=True).history
    assert len(history["bound"]) == len(history["objective"]) == 12
    assert (
        (history["bound"] == history["objective"]) == ([True] * 4 + [False] * 4 + [True] * 4)
    ).all()


def test_typed_anew_a_scheduled_objective_compiles_nothing():
    settings = {"validation": XS[:50], "validate_every": 4}
    fit(8, beta_objective(Cyclical(8)), **settings)
    with compilations() as names:
        fit(16, beta_objective(Cyclical(period=8)), **settings)
    assert names == []


@pytest.mark.slow
def test_validation_is_of_the_bound():
    """Whatever is maximised, at parameters that stand still. And patience begins after the
    schedule: the validation at 16 is the first that counts.
    """
    settings = {"optimizer": STILL, "validation": XS, "validate_every": 4}
    run = fit(40, beta_objective(WarmUp(16, end=5.0)), patience=2, **settings)
    assert run.step == 24
    held_out = Transformed(partial(vaejax.elbo, LINES), None)
    expected = estimate(map_dataset(held_out, PARAMS, XS, jax.random.split(KEY, 3)[2])).mean
    np.testing.assert_allclose(run.history["validation_bound"], expected, rtol=1e-6)
    run = fit(4, TCVAE(LINES, len(XS), beta=WarmUp(4, end=5.0)), **settings)
    np.testing.assert_allclose(run.history["validation_bound"], expected, rtol=1e-6)
    run = fit(4, FreeBits(LINES, 3.0), **settings)
    np.testing.assert_allclose(
        run.history["validation_bound"], expected, atol=0.5
    )  # the KL in closed form, the rest the same
    assert (run.history["objective"] < run.history["bound"] - 1).all()


@pytest.mark.slow
def test_fit_at_the_optimal_scale_follows_it():
    """On data of scale 0.1 the parameter comes down from 1, the validation with it, and the closed
    form has little to add.
    """
    xs = 0.2 + 0.1 * np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    start = params_of(0.0, (0.0, 0.0), (0.0, 0.0), {"log_scale": jnp.zeros(())}, jnp.float32)
    only_the_scale = optax.multi_transform(
        {"scale": optax.adam(3e-2), "rest": optax.set_to_zero()},
        jax.tree.map(lambda _: "rest", start)._replace(
            theta={"prior": (), "likelihood": {"net": "rest", "log_scale": "scale"}}
        ),
    )
    objective = optimal_scale(vaejax.minibatch(partial(vaejax.Pathwise(), LEARNED)))
    run = fit(300, objective, start, only_the_scale, xs, 100, validation=xs, validate_every=300)
    scales = [
        np.exp(log_scale_of(params))
        for params in (run.params, with_optimal_scale(LEARNED, run.params, xs, KEY))
    ]
    np.testing.assert_allclose(scales, xs.std(), rtol=0.05)
    np.testing.assert_allclose(
        run.history["validation_bound"], -2 * stats.norm(0, 0.1).entropy(), atol=0.1
    )
    np.testing.assert_allclose(
        run.history["bound"], -2 * stats.norm(0, 0.1).entropy(), atol=0.5
    )  # at the best scale from the first step
    assert "objective" not in run.history


BERNOULLI = vaejax.VAE(LINES.prior, vaejax.Bernoulli(Line()), LINES.encoder)


@pytest.mark.parametrize(
    "objective",
    [FreeBits(BERNOULLI, 0.1), TCVAE(BERNOULLI, 60), beta_objective(2.0, BERNOULLI)],
    ids=lambda o: type(o).__name__,
)
def test_the_data_are_held_against_the_model(objective):
    with compilations() as names, pytest.raises(ValueError, match="this likelihood is for 0 and 1"):
        fit(5, objective)
    assert names == []


def of_factors(params, x, key):
    return Terms(*(vaejax.elbo(LINES, params, x, key) * jax.lax.stop_gradient(params.psi)))


def test_a_non_finite_part_is_named():
    for broken, factors in (("bound", [np.inf, 1.0]), ("objective", [1.0, np.inf])):
        with pytest.raises(NonFiniteError, match=f"step 0: the {broken} is not finite; rows"):
            fit(5, vaejax.minibatch(of_factors), PARAMS._replace(psi=jnp.asarray(factors)), STILL)


def test_equal_by_value():
    for make in (
        lambda: beta_objective(WarmUp(5)),
        lambda: FreeBits(LINES, 0.1),
        lambda: TCVAE(LINES, 50, beta=WarmUp(5)),
    ):
        assert make() == make() and hash(make()) == hash(make())
        assert model_of(make()) == LINES
    assert [
        name
        for name, _ in schedules_of(TCVAE(LINES, 50, alpha=WarmUp(5), beta=2.0, gamma=Cyclical(3)))
    ] == ["alpha", "gamma"]


# Refusals.


def traced(objective, model, shape=(2,)):
    """A call that traces the objective of one example, or of a batch, with this model."""

    def call():
        params = jax.eval_shape(model.init, KEY, jnp.zeros(2))
        return jax.eval_shape(partial(objective, model), params, jnp.zeros(shape), KEY)

    return call


VAMP = lines_with(0.8, vaejax.VampPrior(2))
FULL = vaejax.VAE(LINES.prior, LINES.likelihood, vaejax.FullNormal(vaejax.MLP(2, (), heads=4)))
BINARY = vaejax.VAE(
    vaejax.FactorialBernoulli(2), LINES.likelihood, vaejax.Bernoulli(vaejax.MLP(2, ()))
)
DIAGONAL = "must be diagonal normals, not"
WEIGHTS = objectives.aggregation_weights
REFUSED = {
    "free bits of a mixture": (
        traced(lambda model, *args: FreeBits(model, 0.1)(*args), VAMP, (5, 2)),
        TypeError,
        (
            f"FreeBits splits .* {DIAGONAL} DiagNormal and Mixture; use vaejax.DiagNormal with .*"
            " or vaejax.Beta, which takes any"
        ),
    ),
    "total correlation of a mixture": (
        traced(lambda model, *args: TCVAE(model, 9)(*args), VAMP, (5, 2)),
        TypeError,
        f"TCVAE splits .* {DIAGONAL} DiagNormal and Mixture",
    ),
    "parts of a full normal": (
        traced(kl_decomposition, FULL, (5, 2)),
        TypeError,
        f"kl_decomposition .* {DIAGONAL} MultivariateNormal and",
    ),
    "beta of a discrete code": (
        traced(Beta(2.0), BINARY),
        TypeError,
        "Beta differentiates through samples of q, and those of Bernoulli",
    ),
    "no prior to show": (
        lambda: FreeBits(Line(), 0.1),
        TypeError,
        "FreeBits needs a model with p_z and p_x_given_z; Line has no prior",
    ),
    "no step": (
        traced(Beta(WarmUp(5)), LINES),
        TypeError,
        r"WarmUp\(num_steps=5.*needs the step: call the objective with step=",
    ),
    "no length": (
        lambda: Beta(lambda step: 1.0),
        TypeError,
        "Beta.weight = .* does not say how long it is.* use vaejax.WarmUp",
    ),
    "a negative weight": (
        lambda: Beta(-1.0),
        ValueError,
        "Beta.weight = -1.0; it must be a number, at least 0",
    ),
    "no number": (
        lambda: TCVAE(LINES, 9, beta="4"),
        ValueError,
        "TCVAE.beta = '4'; it must be a number",
    ),
    "NaN": (lambda: FreeBits(LINES, float("nan")), ValueError, "FreeBits.nats = nan"),
    "no samples": (
        lambda: Beta(1.0, 0),
        ValueError,
        "Beta.num_samples = 0; it must be a whole number, at least 1",
    ),
    "an endless ramp": (
        lambda: Cyclical(10, ramp=0.95),
        ValueError,
        "Cyclical.ramp = 0.95; .* leaves a step of 10 at end",
    ),
    "no ramp": (lambda: Cyclical(10, ramp=0.0), ValueError, "Cyclical.ramp = 0.0"),
    "no warm-up": (lambda: WarmUp(0), ValueError, "WarmUp.num_steps = 0"),
    "unknown estimator": (
        lambda: TCVAE(LINES, 9, estimator="mss"),
        ValueError,
        'choose "stratified" or "weighted"',
    ),
    "more than the data": (
        lambda: WEIGHTS(9, 8, "weighted"),
        ValueError,
        "dataset_size = 8, but the batch has 9 examples",
    ),
    "a batch of one": (
        lambda: WEIGHTS(1, 8, "stratified"),
        ValueError,
        "a batch of at least 2 examples",
    ),
    "no scale": (
        lambda: optimal_scale(beta_objective(1.0, BERNOULLI)),
        TypeError,
        r"Gaussian\(net, 'learned'\); this one has Bernoulli",
    ),
    "a fixed scale": (
        lambda: with_optimal_scale(LINES, None, None, KEY),
        TypeError,
        "this one has Gaussian with scale=0.8",
    ),
    "one example": (
        lambda: optimal_scale(partial(vaejax.Pathwise(), LEARNED)),
        TypeError,
        "make it by vaejax.minibatch",
    ),
}


@pytest.mark.parametrize("call, error, message", REFUSED.values(), ids=REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)

"""A model against data of its own: an exact q and an exact model pass, planted errors do not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vaejax
from tests.lib.cases import cases
from tests.lib.linear import Linear
from tests.lib.oracles import Line, LinearGaussian, Z, assert_mean
from vaejax.evaluation.model_checks import Calibration, PredictiveCheck, Repeated

POINT = LinearGaussian()


def exact_model(factor=1.0):
    """The frozen linear-Gaussian model with its exact posterior, the scale of q times `factor`."""
    slope = POINT.w / (POINT.tau**2 * POINT.lam)
    net = Linear(((slope,),), (-slope * POINT.b,), (float(np.log(factor * POINT.lam**-0.5)),))
    return replace(POINT.model, encoder=vaejax.DiagNormal(net, max_log_scale=None))


def test_calibration_passes_the_exact_q_and_fails_a_wrong_scale(x64):
    """At a false-alarm rate of 1e-6; a scale wrong by 1.2 is caught with room to spare: p below
    1e-12 of 10,000 simulations.
    """
    params = POINT.params._replace(phi=())
    settings = {"num_simulations": 10_000}
    right = vaejax.calibration(exact_model(), params, jax.random.key(0), **settings)
    assert right.p_value > 1e-6 and right.ranks.shape == (10_000, 1)
    for factor in (1.2, 1 / 1.2):
        wrong = vaejax.calibration(exact_model(factor), params, jax.random.key(0), **settings)
        assert wrong.p_value < 1e-12
    with pytest.raises(ValueError, match="num_bins = 10; .* divide num_draws . 1 = 64"):
        vaejax.calibration(exact_model(), params, jax.random.key(0), num_bins=10)


# Of discrete latents, whose ranks tie: one of three categories, and a few pixels that depend on it.

PIXEL_LOGITS = np.array([[0.8, -1.1, 0.3, 1.9], [-0.7, 0.4, -1.2, 0.2], [0.1, 1.3, 0.9, -0.6]])
LOG_PRIOR = np.log([0.2, 0.5, 0.3])


@vaejax.component
class ExactPosterior:
    """x -> log p(z) + log p(x | z) of each category, tempered: logits of the posterior at 1."""

    temperature: float = 1.0

    def init(self, key, x):
        return ()

    def apply(self, params, x):
        log_p_x = jnp.sum(x[None] * PIXEL_LOGITS - jnp.logaddexp(0, PIXEL_LOGITS), axis=1)
        return (LOG_PRIOR + log_p_x)[None] / self.temperature


@vaejax.component
class Rows:
    """One-hot z [1, 3] -> its row of the logits."""

    def init(self, key, z):
        return ()

    def apply(self, params, z):
        return (z @ PIXEL_LOGITS)[0]


def discrete_model(temperature):
    prior = vaejax.FactorialCategorical(1, 3)
    encoder = vaejax.OneHotCategorical(ExactPosterior(temperature))
    return vaejax.VAE(prior, vaejax.Bernoulli(Rows()), encoder)


def discrete_graph(temperature):
    vae = discrete_model(temperature)
    nodes = vaejax.Node("z", vae.prior), vaejax.Node("x", vae.likelihood, "z")
    encoder = vaejax.DirectedGraph((vaejax.Node("z", vae.encoder, "x"),), inputs=("x",))
    return vaejax.GraphModel(vaejax.DirectedGraph(nodes), encoder)


DISCRETE = vaejax.Params({"prior": jnp.asarray(LOG_PRIOR[None]), "likelihood": ()}, ())
DISCRETE_GRAPH = vaejax.Params({"z": jnp.asarray(LOG_PRIOR[None]), "x": ()}, {"z": ()})


OF_DISCRETE = {"VAE": (discrete_model, DISCRETE), "graph": (discrete_graph, DISCRETE_GRAPH)}


@pytest.mark.parametrize("model_and_params", cases(OF_DISCRETE, slow={"graph"}))
def test_calibration_breaks_the_ties_of_discrete_latents(model_and_params, x64):
    """The exact discrete q passes at a false-alarm rate of 1e-6, and one that is too sure, or not
    sure enough, does not.
    """
    model_at, params = model_and_params
    settings = {"num_simulations": 10_000, "num_draws": 15, "num_bins": 8}
    right = vaejax.calibration(model_at(1.0), params, jax.random.key(0), **settings)
    assert right.p_value > 1e-6 and right.ranks.shape == (10_000, 3)
    assert set(np.unique(right.ranks)) == set(range(16))
    for temperature in (0.5, 2.0):
        wrong = vaejax.calibration(model_at(temperature), params, jax.random.key(0), **settings)
        assert wrong.p_value < 1e-6


def test_p_values_are_those_of_scipy(x64):
    """Of the ranks in equal bins; and the ranks are those of all draws, 0 to 63."""
    params = POINT.params._replace(phi=())
    calibration = vaejax.calibration(
        exact_model(1.05), params, jax.random.key(1), num_simulations=2_000
    )
    table = np.histogram(calibration.ranks[:, 0], bins=16, range=(0, 64))[0]
    np.testing.assert_allclose(calibration.p_values, stats.chisquare(table).pvalue, rtol=1e-6)
    assert set(calibration.ranks[:, 0].tolist()) == set(range(64))


def test_a_rank_is_the_number_of_draws_below(x64):
    """A q far above z has it below all its draws, one far below has it above them."""
    for shift, rank in ((50.0, 0), (-50.0, 63)):
        encoder = exact_model().encoder
        net = replace(encoder.net, shift=(encoder.net.shift[0] + shift,))
        model = replace(POINT.model, encoder=replace(encoder, net=net))
        params = POINT.params._replace(phi=())
        calibration = vaejax.calibration(model, params, jax.random.key(0), num_simulations=32)
        assert (calibration.ranks == rank).all()


def test_the_smallest_of_several_p_values_is_weighed_by_their_number():
    ranks = np.zeros((5, 3), int)
    assert Calibration(ranks, 63, np.array([0.2, 0.01, 0.5])).p_value == pytest.approx(0.03)
    assert Calibration(ranks, 63, np.array([0.9, 0.8, 0.7])).p_value == 1


def test_a_z_score_is_in_errors_of_the_difference():
    check = PredictiveCheck(np.array([1.0, 2.0, 6.0]), np.array([0.0, 0.5, 1.0, 2.5]))
    errors = [np.var(part, ddof=1) / len(part) for part in (check.observed, check.drawn)]
    assert check.z_score == pytest.approx((3 - 1) / np.sqrt(sum(errors)))


def test_a_source_is_repeated_from_its_first_example_on():
    source = Repeated(vaejax.Arrays(np.arange(3)), 8)
    assert len(source) == 8
    np.testing.assert_array_equal(source[np.arange(8)], [0, 1, 2, 0, 1, 2, 0, 1])


def first(x):
    return x[0]


def squared(x):
    return x[0] ** 2


def test_predictive_checks_see_a_wrong_variance(x64):
    """Data of the model's own pass; data twice as wide fail in the square and pass in the mean. |z|
    < 4.9 has a false alarm of 1e-6.
    """
    params, rng = POINT.params, np.random.default_rng(0)
    wide = POINT.b + np.sqrt(POINT.w**2 + POINT.tau**2) * rng.normal(size=(4_000, 1))
    for factor, statistic, passes in ((1, first, True), (1, squared, True), (2, squared, False)):
        check = vaejax.predictive_check(
            statistic, POINT.model, params, factor * wide, jax.random.key(0)
        )
        assert (abs(check.z_score) < Z) == passes
    assert_mean(check.drawn, POINT.b**2 + POINT.w**2 + POINT.tau**2, detectable=0.6)


# Of a conditional model: p(z | u) = N(u, 1), p(x | z) = N(w z + b, tau^2).


@vaejax.component
class Both:
    """{u, x} -> (loc, log_scale) of p(z | x, u), the scale times `factor`."""

    factor: float = 1.0

    def init(self, key, example):
        return ()

    def apply(self, params, example):
        slope = POINT.w / (POINT.tau**2 * POINT.lam)
        loc = example["u"] / POINT.lam + slope * (example["x"] - POINT.b)
        return loc, jnp.full(1, np.log(self.factor * POINT.lam**-0.5))


def conditional_model(factor=1.0):
    encoder = vaejax.DiagNormal(Both(factor), max_log_scale=None)
    prior = vaejax.Gaussian(Line(), scale=1.0)
    nodes = vaejax.Node("z", prior, "u"), vaejax.Node("x", POINT.model.likelihood, "z")
    return vaejax.GraphModel(vaejax.DirectedGraph(nodes, inputs=("u",)), encoder)


UNIT = {"net": {"w": jnp.ones(()), "b": jnp.zeros(())}}
CONDITIONAL = vaejax.Params({"z": UNIT, "x": POINT.params.theta["likelihood"]}, ())
PAIRS = {"u": np.linspace(-3, 3, 7)[:, None], "x": np.zeros((7, 1))}


def test_calibration_of_a_conditional_model_has_the_inputs_of_the_data(x64):
    """The exact q(z | x, u) passes, one that is too wide does not; simulation i has the inputs of
    example i mod 7, whether from arrays or a source.
    """
    settings = {"num_simulations": 5_000, "xs": PAIRS}
    key = jax.random.key(0)
    right = vaejax.calibration(conditional_model(), CONDITIONAL, key, **settings)
    wrong = vaejax.calibration(conditional_model(1.25), CONDITIONAL, key, **settings)
    assert right.p_value > 1e-6 and wrong.p_value < 1e-12
    rows = [{name: values[i] for name, values in PAIRS.items()} for i in range(7)]
    settings["xs"] = vaejax.RandomAccess(rows)
    again = vaejax.calibration(conditional_model(), CONDITIONAL, key, **settings)
    np.testing.assert_array_equal(again.ranks, right.ranks)


def test_latents_by_name_are_all_ranked(x64):
    """Two latents of a graph, each with its exact posterior but for one scale: that one is seen."""
    prior, likelihood = POINT.model.prior, POINT.model.likelihood
    names = ("a", "b")
    nodes = [vaejax.Node(name, prior) for name in names]
    nodes += [vaejax.Node(f"x {name}", likelihood, name) for name in names]
    q = [
        vaejax.Node(name, exact_model(factor).encoder, f"x {name}")
        for name, factor in zip(names, (1.0, 1.3), strict=True)
    ]
    inputs = tuple(f"x {name}" for name in names)
    encoder = vaejax.DirectedGraph(tuple(q), inputs=inputs)
    model = vaejax.GraphModel(vaejax.DirectedGraph(tuple(nodes)), encoder, observed=inputs)
    line = POINT.params.theta["likelihood"]
    theta = {"a": (), "b": (), "x a": line, "x b": line}
    params = vaejax.Params(theta, {"a": (), "b": ()})
    calibration = vaejax.calibration(model, params, jax.random.key(0), num_simulations=5_000)
    assert calibration.ranks.shape == (5_000, 2)
    assert calibration.p_values[0] > 1e-6 and calibration.p_values[1] < 1e-12


def residual(example):
    """Of x from its mean given u."""
    return (example["x"][0] - POINT.b - POINT.w * example["u"][0]) ** 2


def test_a_predictive_check_of_a_conditional_model_is_shown_its_inputs(x64):
    """E [x - E(x|u)]^2 = w^2 + tau^2, of the draws for the data's own inputs."""
    u = np.random.default_rng(1).normal(size=(4_000, 1))
    variance = POINT.w**2 + POINT.tau**2
    noise = np.sqrt(variance) * np.random.default_rng(2).normal(size=u.shape)
    for factor, passes in ((1, True), (1.5, False)):
        pairs = {"u": u, "x": POINT.b + POINT.w * u + factor * noise}
        check = vaejax.predictive_check(
            residual, conditional_model(), CONDITIONAL, pairs, jax.random.key(0)
        )
        assert (abs(check.z_score) < Z) == passes
        assert_mean(check.drawn, variance, detectable=0.4)


def test_a_statistic_is_shown_the_same_of_data_and_draws(x64):
    """One observed node by name or bare: the value itself."""
    nodes = vaejax.Node("z", POINT.model.prior), vaejax.Node("x", POINT.model.likelihood, "z")
    model = vaejax.GraphModel(vaejax.DirectedGraph(nodes), POINT.model.encoder)
    params = vaejax.Params({"z": (), "x": POINT.params.theta["likelihood"]}, POINT.params.phi)
    xs, key = np.linspace(-1, 1, 9)[:, None], jax.random.key(0)
    bare = vaejax.predictive_check(first, model, params, xs, key)
    vae = vaejax.predictive_check(first, POINT.model, POINT.params, xs, key)
    np.testing.assert_allclose(bare.drawn, vae.drawn, rtol=1e-12)
    np.testing.assert_array_equal(bare.observed, xs[:, 0])

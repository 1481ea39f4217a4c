"""Closed forms of a linear encoder on Gaussian data, reverse water-filling, planted collapse."""

import itertools
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.linear import Linear
from tests.lib.oracles import Z
from vaejax.base.mapping import estimate
from vaejax.evaluation.latents import LatentSpace


def model_of(encoder_matrix, log_scale, decoder_matrix=((1.0, 0.0), (0.0, 1.0)), sigma=0.5):
    encoder = vaejax.DiagNormal(Linear(encoder_matrix, None, log_scale), max_log_scale=None)
    return vaejax.VAE(
        vaejax.StandardNormal(len(log_scale)),
        vaejax.Gaussian(Linear(decoder_matrix), sigma),
        encoder,
    )


PARAMS = vaejax.Params({"prior": (), "likelihood": {"net": ()}}, ())


def gaussian_data(covariance, size, seed=0):
    """[size, d] with exactly this covariance and mean 0."""
    raw = np.random.default_rng(seed).normal(size=(size, len(covariance)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / size)).T
    return white @ np.linalg.cholesky(np.asarray(covariance)).T


def test_the_parts_of_the_kl_have_their_closed_forms(x64):
    """q(z) = N(0, V + A C A') of q(z|x) = N(A x, V): mutual information, total correlation and
    dimension-wise KL, nats.
    """
    a, v, c = (
        np.array([[0.6, 0.3], [0.2, 0.7]]),
        np.array([0.3, 0.4]),
        np.array([[1.0, 0.5], [0.5, 1.5]]),
    )
    model = model_of(tuple(map(tuple, a)), tuple(0.5 * np.log(v)))
    xs = gaussian_data(c, 2_000)
    marginal = np.diag(v) + a @ c @ a.T
    log_det = np.linalg.slogdet(marginal)[1]
    information = 0.5 * (log_det - np.log(v).sum())
    correlation = 0.5 * (np.log(np.diag(marginal)).sum() - log_det)
    dimension_wise = 0.5 * np.sum(np.diag(marginal) - 1 - np.log(np.diag(marginal)))
    keys = jax.random.split(jax.random.key(0), 12)
    spaces = [vaejax.latent_space(model, PARAMS, xs, key) for key in keys]
    # Of 1,000 examples q(z) is a mixture and not quite its limit: each part is that of the limit to
    # within 0.02.
    for name, expected in (
        ("mutual_information", information),
        ("total_correlation", correlation),
        ("dimension_wise", dimension_wise),
    ):
        values = [getattr(space, name) for space in spaces]
        assert abs(np.mean(values) - expected) < 0.02 + Z * estimate(values).standard_error
    assert (
        abs(np.mean([space.marginal_kl for space in spaces]) - correlation - dimension_wise) < 0.04
    )
    rate = 0.5 * np.sum(np.diag(a @ c @ a.T) + v - 1 - np.log(v))
    np.testing.assert_allclose(spaces[0].rate.mean, rate, rtol=1e-10)
    np.testing.assert_allclose(spaces[0].kl.sum(), rate, rtol=1e-10)
    assert (
        spaces[0].limit == np.log(1_000)
        and spaces[0].active.all()
        and "active units              2 of 2" in str(spaces[0])
    )


def test_a_source_and_a_user_of_names_have_the_same_latent_space(x64):
    """From a source of single examples, and from the same model written as a graph."""
    model = model_of(((0.6, 0.3), (0.2, 0.7)), (-0.6, -0.5))
    xs, key = gaussian_data(np.eye(2), 50), jax.random.key(0)
    nodes = vaejax.Node("z", model.prior), vaejax.Node("x", model.likelihood, "z")
    graph = vaejax.GraphModel(vaejax.DirectedGraph(nodes), model.encoder)
    graph_params = vaejax.Params({"z": (), "x": {"net": ()}}, ())
    space = vaejax.latent_space(model, PARAMS, xs, key)
    for other in (
        vaejax.latent_space(model, PARAMS, vaejax.RandomAccess(list(xs)), key),
        vaejax.latent_space(graph, graph_params, xs, key),
        vaejax.latent_space(vaejax.Refined(model, 0), PARAMS, xs, key),
    ):
        np.testing.assert_allclose(other.kl, space.kl, rtol=1e-12)
        assert other.mutual_information == pytest.approx(space.mutual_information, rel=1e-12)
        assert other.total_correlation == pytest.approx(space.total_correlation, rel=1e-10)


def test_what_a_latent_space_says_of_its_numbers():
    """Near log N from nine tenths of it; collapsed where no latent has 0.01 nats."""
    kl = np.array([0.5, 0.001])
    rate, limit = estimate(np.array([0.4, 0.6])), np.log(50)
    for share, near in ((0.89, False), (0.91, True)):
        active = np.array([True, False])
        space = LatentSpace(kl, rate, share * limit, None, 1.0, 0.25, 0.75, limit, active)
        assert space.near_limit == near and not space.collapsed
    assert replace(space, kl=np.array([0.009, 0.0])).collapsed
    assert not replace(space, kl=np.array([0.02, 0.0])).collapsed


def test_collapse_is_reported_and_its_absence_is_not():
    xs = gaussian_data(np.eye(2), 200)
    with pytest.warns(
        vaejax.PosteriorCollapseWarning,
        match=r"largest KL of a latent is 0.0000 nats.*vaejax.WarmUp",
    ):
        space = vaejax.latent_space(
            model_of(((0.0, 0.0), (0.0, 0.0)), (0.0, 0.0)), PARAMS, xs, jax.random.key(0)
        )
    assert (
        space.collapsed and not space.active.any() and "the posterior has collapsed" in str(space)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        used = vaejax.latent_space(
            model_of(((0.0, 0.0), (0.5, 0.0)), (0.0, -0.5)), PARAMS, xs, jax.random.key(0)
        )
    assert used.active.tolist() == [False, True] and not used.collapsed


def test_a_planted_collapse_is_reported():
    """A decoder that ignores z: training takes q to the prior."""
    model = model_of(((0.0, 0.0), (0.0, 0.0)), (0.0, 0.0), ((0.0, 0.0), (0.0, 0.0)))
    model = replace(model, encoder=vaejax.DiagNormal(vaejax.MLP(2, (), heads=2)))
    xs = gaussian_data(np.eye(2), 200).astype(np.float32)
    params = model.init(jax.random.key(0), jnp.asarray(xs[0]))
    objective = vaejax.minibatch(vaejax.AnalyticKL(), model)
    run = vaejax.fit(
        objective,
        params,
        optax.adam(0.03),
        xs,
        jax.random.key(1),
        num_steps=500,
        batch_size=50,
        progress=False,
    )
    with pytest.warns(vaejax.PosteriorCollapseWarning):
        vaejax.latent_space(model, run.params, xs, jax.random.key(0))


# Any q and any prior, against sums over all states and quadrature in float64.


def exact_parts(log_q, log_p, weight=1.0):
    """(parts, variances) from log q(s | x_n) [N, S] and log p(s) [S] at states s of this weight: of
    one sample's rate, mutual information and marginal KL.
    """
    joint = weight * np.exp(log_q) / len(log_q)
    aggregated = np.log(np.exp(log_q).mean(axis=0))
    values = {
        "rate": log_q - log_p,
        "mutual_information": log_q - aggregated,
        "marginal_kl": np.broadcast_to(aggregated - log_p, log_q.shape),
    }
    means = {name: np.sum(joint * value) for name, value in values.items()}
    variances = {name: np.sum(joint * values[name] ** 2) - means[name] ** 2 for name in values}
    return means, variances


def assert_parts(space, means, variances, size, **more):
    """Within Z standard errors of `size` samples, each from the exact joint of x and z."""
    nats = {"mutual_information": space.mutual_information, "marginal_kl": space.marginal_kl}
    for name, value in nats.items():
        assert abs(value - means[name]) < Z * np.sqrt(variances[name] / size) + 1e-9, name
    # Of every example there are 16 samples, or a closed form.
    assert abs(space.rate.mean - means["rate"]) < Z * np.sqrt(variances["rate"] / size) + 1e-9


REPEATS = 100  # of ten examples: q(z) is that of the ten, and each gives so many samples
TEN = np.linspace(-2, 2, 10)[:, None]


def repeated(xs):
    return np.repeat(xs, REPEATS, axis=0)


def normal_log_density(z, loc, scale):
    return -0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def test_a_vamp_prior_has_its_parts(x64):
    """q(z | x) = N(0.8 x, 0.5^2), p(z) the mean of q at two pseudo-inputs: quadrature over z."""
    model = replace(model_of(((0.8,),), (np.log(0.5),), ((1.0,),)), prior=vaejax.VampPrior(2))
    pseudo = np.array([[-1.5], [1.0]])
    params = vaejax.Params({"prior": jnp.asarray(pseudo), "likelihood": {"net": ()}}, ())
    z = np.linspace(-8, 8, 4_001)
    log_q = normal_log_density(z, 0.8 * TEN, 0.5)
    log_p = np.log(np.exp(normal_log_density(z, 0.8 * pseudo, 0.5)).mean(axis=0))
    exact = exact_parts(log_q, log_p, z[1] - z[0])
    space = vaejax.latent_space(model, params, repeated(TEN), jax.random.key(0))
    assert_parts(space, *exact, len(TEN) * REPEATS)
    # One latent: it has all the information, and nothing correlates with it.
    np.testing.assert_allclose(space.information, [space.mutual_information], rtol=1e-10)
    assert abs(space.total_correlation) < 1e-10
    assert space.kl is None and space.dimension_wise is None
    assert "not" not in str(space).splitlines()[2]
    wrong = exact_parts(log_q, normal_log_density(z, 0.0, 1.0), z[1] - z[0])
    with pytest.raises(AssertionError):
        assert_parts(space, *wrong, len(TEN) * REPEATS)


def states_of(num_values, num_variables):
    return np.array(list(itertools.product(range(num_values), repeat=num_variables)))


SLOPES = np.array([1.0, -0.6, 0.3])
BINARY_PRIOR = np.array([0.5, -1.0, 0.2])


def logit_rows(x):
    """[N, 3] logits of three binary latents."""
    return x * SLOPES + np.array([0.1, 0.0, -0.4])


def test_binary_latents_have_their_parts(x64):
    """Three Bernoulli latents, over their eight states: also what belongs to each."""
    net = Linear(tuple((slope,) for slope in SLOPES), (0.1, 0.0, -0.4))
    model = vaejax.VAE(
        vaejax.FactorialBernoulli(3),
        vaejax.Gaussian(Linear(((1.0, 0.0, 0.0),)), 1.0),
        vaejax.Bernoulli(net),
    )
    theta = {"prior": jnp.asarray(BINARY_PRIOR), "likelihood": {"net": ()}}
    states = states_of(2, 3)

    def log_bernoulli(logits):
        """[N, S, 3]"""
        return states * logits[:, None] - np.logaddexp(0, logits)[:, None]

    of_q, of_p = log_bernoulli(logit_rows(TEN)), log_bernoulli(BINARY_PRIOR[None])[0]
    exact = exact_parts(of_q.sum(2), of_p.sum(1))
    space = vaejax.latent_space(model, vaejax.Params(theta, ()), repeated(TEN), jax.random.key(0))
    assert_parts(space, *exact, len(TEN) * REPEATS)
    on = 1 / (1 + np.exp(-logit_rows(TEN)))
    p_on = 1 / (1 + np.exp(-BINARY_PRIOR))

    def kl(q, p):
        return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))

    # In closed form.
    np.testing.assert_allclose(space.kl, kl(on, p_on).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(space.rate.mean, space.kl.sum(), rtol=1e-6)
    # From the samples: no number here varies by more than 1.5 nats.
    error = Z * 1.5 / np.sqrt(len(TEN) * REPEATS)
    information = kl(on, on.mean(axis=0)).mean(axis=0)
    np.testing.assert_allclose(space.information, information, atol=error)
    dimension_wise = kl(on.mean(axis=0), p_on).sum()
    correlation = exact[0]["marginal_kl"] - dimension_wise
    assert abs(space.dimension_wise - dimension_wise) < error
    assert abs(space.total_correlation - correlation) < error
    parts = space.total_correlation + space.dimension_wise
    assert parts == pytest.approx(space.marginal_kl, abs=1e-9)


def test_latents_by_name_and_depending_on_each_other_have_their_parts(x64):
    """Two one-hot layers of three, q(a, b | x) = q(a | x) q(b | a): over their nine states. No
    part is said to belong to a latent, since none is independent of the other.
    """
    table = np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0], [-0.5, 0.5, 1.0]])

    def one_hot(matrix, bias=None):
        return vaejax.OneHotCategorical(Row(matrix, bias))

    slopes, bias = ((1.2,), (-0.5,), (0.2,)), (0.0, 0.3, -0.2)
    as_tuple = tuple(map(tuple, table))
    a, b = vaejax.FactorialCategorical(1, 3), one_hot(as_tuple)
    x = vaejax.Gaussian(Column(), 1.0)
    nodes = vaejax.Node("a", a), vaejax.Node("b", b, "a"), vaejax.Node("x", x, "b")
    q = vaejax.Node("a", one_hot(slopes, bias), "x"), vaejax.Node("b", b, "a")
    model = vaejax.GraphModel(vaejax.DirectedGraph(nodes), vaejax.DirectedGraph(q, inputs=("x",)))
    prior = np.array([0.3, 0.0, -0.3])
    theta = {"a": jnp.asarray(prior[None]), "b": (), "x": {"net": ()}}
    params = vaejax.Params(theta, {"a": (), "b": ()})

    def log_softmax(logits):
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    first, second = states_of(3, 2).T
    # b given a: logits are table @ one-hot(a), its column.
    given = log_softmax(table.T)[first, second]
    log_q = log_softmax(TEN @ np.array(slopes).T + bias)[:, first] + given
    exact = exact_parts(log_q, log_softmax(prior)[first] + given)
    space = vaejax.latent_space(model, params, repeated(TEN), jax.random.key(0))
    assert_parts(space, *exact, len(TEN) * REPEATS)
    assert space.kl is None and space.information is None and space.total_correlation is None
    assert space.active.shape == (6,)


@vaejax.component
class Row(Linear):
    """One row of logits, [1, n], of a vector or of one row."""

    def apply(self, params, x):
        return super().apply(params, jnp.ravel(x))[None]


@vaejax.component
class Column:
    """A one-hot row [1, 3] -> one number."""

    def init(self, key, z):
        return ()

    def apply(self, params, z):
        return z[0, :1]


def test_a_conditional_model_has_no_marginal_kl(x64):
    """p(z | u) = N(u, 1), q(z | x, u) = N(u + x / 2, 0.5^2): the rate is in closed form, I is over
    the whole examples, and q(z) is held against no one prior.
    """
    nodes = (
        vaejax.Node("z", vaejax.Gaussian(Linear(((1.0,),)), 1.0), "u"),
        vaejax.Node("x", vaejax.Gaussian(Linear(((1.0,),)), 1.0), "z"),
    )
    encoder = vaejax.DiagNormal(OfBoth(), max_log_scale=None)
    model = vaejax.GraphModel(vaejax.DirectedGraph(nodes, inputs=("u",)), encoder)
    params = vaejax.Params({"z": {"net": ()}, "x": {"net": ()}}, ())
    u = TEN[::-1] * 0.7
    xs = {"u": repeated(u), "x": repeated(TEN)}
    space = vaejax.latent_space(model, params, xs, jax.random.key(0))
    shift = 0.5 * TEN[:, 0]
    kl = np.mean(0.5 * (0.25 + shift**2 - 1) - np.log(0.5))
    np.testing.assert_allclose([space.rate.mean, *space.kl], kl, rtol=1e-6)
    z = np.linspace(-8, 8, 4_001)
    log_q = normal_log_density(z, u + 0.5 * TEN, 0.5)
    means, variances = exact_parts(log_q, np.zeros(len(z)), z[1] - z[0])
    error = Z * np.sqrt(variances["mutual_information"] / len(xs["x"]))
    assert abs(space.mutual_information - means["mutual_information"]) < error
    assert space.marginal_kl is None and space.dimension_wise is None
    assert "not known" in str(space)


@vaejax.component
class OfBoth:
    def init(self, key, example):
        return ()

    def apply(self, params, example):
        loc = example["u"] + 0.5 * example["x"]
        return loc, jnp.full_like(loc, jnp.log(0.5))


def half_normals():
    return npd.HalfNormal(jnp.ones(2)).to_event(1)


def log_normals(loc):
    return npd.LogNormal(loc, 0.5)


def net(dim, heads):
    return vaejax.MLP(dim, (3,), heads=heads)


NORMAL, FLOW = vaejax.StandardNormal(2), vaejax.FlowPrior(2, 2, (3,))
PRIORS_AND_ENCODERS = {
    "full normal": (NORMAL, vaejax.FullNormal(net(2, 4)), {"kl", "parts"}),
    "low rank, learned": (
        vaejax.LearnedNormal(2),
        vaejax.LowRankNormal(net(2, 3)),
        {"kl", "parts"},
    ),
    "Laplace": (NORMAL, vaejax.Laplace(net(2, 2)), set()),
    "mixture": (vaejax.MixtureOfGaussians(2, 3), vaejax.DiagNormal(net(2, 2)), {"kl"}),
    "flow prior": (FLOW, vaejax.DiagNormal(net(2, 2)), {"kl"}),
    "coupling": (NORMAL, vaejax.RealNVP(net(2, 2), 2, (3,)), {"kl", "parts"}),
    "autoregressive": (
        NORMAL,
        vaejax.InverseAutoregressive(net(2, 2), 2, (3,)),
        {"kl", "parts", "all"},
    ),
    "vamp of full normals": (vaejax.VampPrior(3), vaejax.FullNormal(net(2, 4)), {"kl", "parts"}),
    "sphere": (vaejax.UniformOnSphere(2), vaejax.VonMisesFisher(net(2, 1)), {"kl", "parts"}),
    "NumPyro": (
        vaejax.NumPyroPrior(half_normals),
        vaejax.NumPyroConditional(vaejax.MLP(2, (3,)), log_normals),
        set(),
    ),
}


QUICK = {"full normal", "flow prior", "vamp of full normals"}


@pytest.mark.parametrize(
    "name", cases(PRIORS_AND_ENCODERS.keys(), slow=PRIORS_AND_ENCODERS.keys() - QUICK)
)
def test_any_prior_and_any_encoder_have_a_latent_space(name):
    """The parts add up to the rate within its error, and what has no definition is None."""
    prior, encoder, unknown = PRIORS_AND_ENCODERS[name]
    model = vaejax.VAE(prior, vaejax.Gaussian(vaejax.MLP(2, (3,)), 1.0), encoder)
    xs = gaussian_data(np.eye(2), 200).astype(np.float32)
    params = model.init(jax.random.key(0), jnp.asarray(xs[0]))
    space = vaejax.latent_space(model, params, xs, jax.random.key(1))
    assert (space.kl is None) == ("kl" in unknown)
    assert (space.information is None) == ("parts" in unknown)
    assert (space.mutual_information is None) == ("all" in unknown)
    assert np.isfinite(space.rate.mean) and np.isfinite(space.active).all()
    assert str(space).count("\n") >= 3
    if "all" in unknown:
        assert space.marginal_kl is None
        return
    # I + KL(q(z) || p(z)) is the mean of log q(z | x) - log p(z) at samples of their own.
    difference = space.mutual_information + space.marginal_kl - space.rate.mean
    assert abs(difference) < 0.6 + 5 * space.rate.standard_error
    assert space.mutual_information <= space.limit + 1e-4


def test_active_units():
    means = np.random.default_rng(0).normal(size=(1000, 3)) * [1.0, 0.05, 0.5]
    assert vaejax.active_units(means).tolist() == [True, False, True]


EIGENVALUES, SIGMA = np.array([5.0, 3.0, 1.5, 0.6, 0.2]), 0.5


@pytest.mark.slow
def test_a_linear_vae_reaches_the_maximum_likelihood_of_ppca():
    """-7.60289 nats at sigma^2 = 0.25, and at the learned sigma^2 = mean of the two discarded
    eigenvalues with three latents.
    """
    xs = gaussian_data(np.diag(EIGENVALUES), 500).astype(np.float32)
    for dim, scale in ((5, SIGMA), (3, "learned")):
        floor = SIGMA**2 if scale == SIGMA else EIGENVALUES[3:].mean()
        variances = np.where(np.arange(5) < dim, np.maximum(EIGENVALUES, floor), floor)
        expected = -0.5 * np.sum(np.log(2 * np.pi * variances) + EIGENVALUES / variances)
        if scale == SIGMA:
            assert expected == pytest.approx(-7.602890328185609, abs=1e-12)
        likelihood = vaejax.Gaussian(vaejax.MLP(5, ()), scale)
        model = vaejax.VAE(
            vaejax.StandardNormal(dim), likelihood, vaejax.DiagNormal(vaejax.MLP(dim, (), heads=2))
        )
        params = model.init(jax.random.key(0), jnp.asarray(xs[0]))
        objective = vaejax.minibatch(vaejax.StickTheLanding(4), model)
        optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 8_000))
        run = vaejax.fit(
            objective,
            params,
            optimizer,
            xs,
            jax.random.key(1),
            num_steps=8_000,
            batch_size=100,
            progress=False,
        )
        evaluation = vaejax.evaluate(model, run.params, xs, jax.random.key(2), num_samples=1_000)
        # Both bounds: at the optimum q is the posterior.
        np.testing.assert_allclose(
            [evaluation.elbo.mean, evaluation.log_marginal.mean], expected, atol=0.015
        )

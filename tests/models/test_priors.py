"""Priors: each against its closed form, and what holds for all of them."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from jax.extend.core import jaxprs_in_params
from jax.scipy.special import logsumexp
from scipy import stats

import vaejax
from tests.lib.oracles import LinearGaussian, assert_mean
from vaejax import supports

POINT = LinearGaussian()
X = jnp.array([0.0, 0.0, 1.0, 1.0])


def laplace():
    return npd.Laplace(0.0, 1.0).expand((2,)).to_event(1)


def model_with(prior):
    encoder = vaejax.DiagNormal(vaejax.MLP(2, (5,), heads=2))
    return vaejax.VAE(prior, vaejax.Bernoulli(vaejax.MLP(4, (5,))), encoder)


def test_standard_normal(x64):
    z = np.array([0.3, -1.2])
    log_p = vaejax.StandardNormal(2)((), None).log_prob(z)
    np.testing.assert_allclose(log_p, stats.norm.logpdf(z).sum(), rtol=1e-13)


def test_learned_priors_are_their_formulas(x64):
    """N(loc, exp(2 log_scale)), and a mixture of such with weights softmax(logits)."""
    z, loc, log_scale = np.array([0.3, -1.2]), np.array([0.5, -0.4]), np.array([-0.7, 0.6])
    params = {"loc": jnp.asarray(loc), "log_scale": jnp.asarray(log_scale)}
    log_p = vaejax.LearnedNormal(2)(params, None).log_prob(z)
    expected = stats.norm.logpdf(z, loc, np.exp(log_scale)).sum()
    np.testing.assert_allclose(log_p, expected, rtol=1e-12)
    logits, locs = np.array([0.3, -1.0]), np.stack([loc, 1 - loc])
    params = {"logits": logits, "loc": locs, "log_scale": np.stack([log_scale, 0 * log_scale])}
    mixture = vaejax.MixtureOfGaussians(2, 2)(jax.tree.map(jnp.asarray, params), None)
    components = [stats.norm.logpdf(z, locs[0], np.exp(log_scale)).sum(),
                  stats.norm.logpdf(z, locs[1]).sum()]  # fmt: skip
    expected = logsumexp(jnp.asarray(components) + jax.nn.log_softmax(jnp.asarray(logits)))
    np.testing.assert_allclose(mixture.log_prob(z), expected, rtol=1e-12)


def test_pseudo_inputs_start_around_the_example():
    """Normal noise of the scale that is given: of 4,000 numbers a scale that is off by 0.06 of
    itself is seen at a false alarm of 1e-6.
    """
    for scale in (0.1, 2.0):
        u = vaejax.VampPrior(1_000, init_scale=scale).init(jax.random.key(0), X)
        noise = (np.asarray(u) - np.asarray(X)) / scale
        assert_mean(np.stack([noise, noise**2], axis=-1).reshape(-1, 2), [0, 1], detectable=0.2)


def test_vamp_prior_is_the_mean_of_the_encoder_at_its_pseudo_inputs():
    model = model_with(vaejax.VampPrior(3))
    params = model.init(jax.random.key(0), X)
    pseudo_inputs = params.theta["prior"]
    assert pseudo_inputs.shape == (3, 4)
    z = jnp.asarray([0.3, -1.2])
    expected = logsumexp(
        jnp.stack([model.posterior(params, u).log_prob(z) for u in pseudo_inputs])
    ) - np.log(3)
    np.testing.assert_allclose(model.p_z(params).log_prob(z), expected, rtol=1e-5)


def test_vamp_prior_of_all_the_data_is_the_aggregated_posterior(x64):
    """Its density is mean_n q(z | x_n), which integrates to one."""
    point = LinearGaussian()
    model = vaejax.VAE(
        vaejax.VampPrior(2), point.model.likelihood, vaejax.DiagNormal(vaejax.MLP(1, (), heads=2))
    )
    params = model.init(jax.random.key(0), jnp.zeros(1))
    params.theta["prior"] = jnp.asarray([[-1.0], [2.0]])
    grid = np.linspace(-30, 30, 20_001)
    density = np.exp(jax.jit(jax.vmap(model.p_z(params).log_prob))(grid[:, None]))
    np.testing.assert_allclose(np.trapezoid(density, grid), 1, rtol=1e-10)
    encodings = [model.posterior(params, u) for u in params.theta["prior"]]
    expected = np.mean(
        [stats.norm.pdf(grid, q.loc, np.exp(q.log_scale)) for q in encodings], axis=0
    )
    np.testing.assert_allclose(density, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    "prior, zero",
    [
        (vaejax.StandardNormal(2), True),
        (vaejax.NumPyroPrior(laplace), True),
        (vaejax.VampPrior(3), False),
    ],
)
def test_phi_gradient_of_the_log_joint(prior, zero):
    """Exactly zero for a plain prior, and not for a VampPrior, whose density needs the encoder."""
    model = model_with(prior)
    params = model.init(jax.random.key(0), X)
    gradient = jax.jit(jax.grad(lambda p: model.log_joint(p, X, jnp.ones(2))))(params)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient.phi))
    assert largest == 0 if zero else largest > 1e-3


def test_pseudo_inputs_are_encoded_once_a_batch():
    """A batch's program has one row for each pseudo-input in the encoder's products; and its
    compiled work hardly grows with the batch.
    """
    wide = vaejax.DiagNormal(vaejax.MLP(2, (512, 512), heads=2))
    model = vaejax.VAE(vaejax.VampPrior(50), vaejax.Bernoulli(vaejax.MLP(4, (5,))), wide)
    params = model.init(jax.random.key(0), X)
    log_joint = jax.vmap(model.log_joint, (None, 0, 0))

    def batch(size):
        return params, jnp.zeros((size, 4)), jnp.zeros((size, 2))

    def products(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "matmul":
                yield equation.outvars[0].aval.shape
            for inner in jaxprs_in_params(equation.params):
                yield from products(inner)

    of_pseudo_inputs, of_examples = [(50, 512), (50, 512), (50, 4)], [(64, 5), (64, 4)]
    assert (
        list(products(jax.make_jaxpr(log_joint)(*batch(64)).jaxpr))
        == of_pseudo_inputs + of_examples
    )

    def flops(size):
        return jax.jit(log_joint).lower(*batch(size)).compile().cost_analysis()["flops"]

    assert flops(64) < 1.2 * flops(1)


def test_numpyro_prior(x64):
    z = np.array([0.3, -1.2])
    prior = vaejax.NumPyroPrior(laplace)
    np.testing.assert_allclose(
        prior((), None).log_prob(z), stats.laplace.logpdf(z).sum(), rtol=1e-12
    )
    assert prior == vaejax.NumPyroPrior(laplace)
    with pytest.raises(ValueError, match=r"batch_shape \(2,\).* add .to_event\(1\)"):
        vaejax.NumPyroPrior(lambda: npd.Laplace(jnp.zeros(2), 1.0))((), None)


@pytest.mark.parametrize("components", [0, -3])
def test_a_mixture_has_components(components):
    with pytest.raises(ValueError, match=f"num_components = {components}"):
        vaejax.VampPrior(components)
    with pytest.raises(ValueError, match=f"num_components = {components}"):
        vaejax.MixtureOfGaussians(2, components)


Z = np.array([0.3, -1.2])


def test_a_learned_normal_starts_standard_and_a_mixture_of_one_is_a_normal(x64):
    learned = vaejax.LearnedNormal(2)
    standard = vaejax.StandardNormal(2)((), None).log_prob(Z)
    assert learned(learned.init(jax.random.key(0), X), None).log_prob(Z) == standard
    params = {"loc": jnp.array([0.5, -1.0]), "log_scale": jnp.array([0.2, -0.3])}
    single = jax.tree.map(lambda leaf: leaf[None], params) | {"logits": jnp.array([7.0])}
    expected = learned(params, None).log_prob(Z)
    np.testing.assert_allclose(
        expected, stats.norm.logpdf(Z, params["loc"], np.exp(params["log_scale"])).sum(), rtol=1e-12
    )
    np.testing.assert_allclose(
        vaejax.MixtureOfGaussians(2, 1)(single, None).log_prob(Z), expected, rtol=1e-12
    )


def test_mixture_of_gaussians_is_its_sum(x64):
    prior = vaejax.MixtureOfGaussians(2, 3)
    params = prior.init(jax.random.key(0), X) | {"logits": jnp.array([0.3, -1.0, 0.5])}
    weights = np.exp(params["logits"]) / np.exp(params["logits"]).sum()
    density = weights @ stats.norm.pdf(Z, params["loc"], np.exp(params["log_scale"])).prod(1)
    np.testing.assert_allclose(prior(params, None).log_prob(Z), np.log(density), rtol=1e-12)
    assert len(np.unique(params["loc"])) == 6  # equal components would never part


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_a_flow_without_layers_is_its_base(kind, x64):
    prior = vaejax.FlowPrior(2, num_layers=0, kind=kind)
    assert prior(prior.init(jax.random.key(0), X), None).log_prob(Z) == vaejax.StandardNormal(2)(
        (), None
    ).log_prob(Z)
    with pytest.raises(
        ValueError, match='FlowPrior.kind = \'spline\'; choose "coupling" or "autoregressive"'
    ):
        vaejax.FlowPrior(2, kind="spline")


def test_discrete_priors_start_fair_and_sum_to_one(x64):
    logits = jnp.array([[0.5, -1.0, 0.2], [0.0, 2.0, -0.3]])
    states = np.array(list(itertools.product(np.eye(3), repeat=2)))
    log_p = jax.jit(jax.vmap(vaejax.FactorialCategorical(2, 3)(logits, None).log_prob))(states)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-13)
    prior = vaejax.FactorialBernoulli(3)
    fair = prior(prior.init(jax.random.key(0), X), None)
    np.testing.assert_allclose(fair.log_prob(np.array([1.0, 0.0, 1.0])), -3 * np.log(2), rtol=1e-13)


def test_the_temperature_makes_a_relaxed_prior():
    assert vaejax.FactorialBernoulli(2).support == supports.BINARY
    assert vaejax.FactorialBernoulli(2, 0.5).support == supports.RELAXED_BINARY
    assert vaejax.FactorialCategorical(2, 3, 0.5).support == supports.RELAXED_ONE_HOT
    z = vaejax.FactorialBernoulli(2, 0.5)(jnp.zeros(2), None).sample(jax.random.key(0))
    assert z.shape == (2,)
    z = vaejax.FactorialCategorical(2, 3, 0.5)(jnp.zeros((2, 3)), None).sample(jax.random.key(0))
    np.testing.assert_allclose(np.exp(z).sum(1), 1, rtol=1e-5)


PRIORS = {
    "learned normal": vaejax.LearnedNormal(2),
    "mixture": vaejax.MixtureOfGaussians(2, 3),
    "vamp": vaejax.VampPrior(3),
    "flow": vaejax.FlowPrior(2, 1, (4,)),
    "laplace": vaejax.NumPyroPrior(laplace),
}


def test_swapping_a_prior_changes_nothing_else_and_traces_once():
    """A trained encoder and likelihood can be carried over: their parameters keep their structure,
    and their values for the same key.
    """
    plain = model_with(vaejax.StandardNormal(2)).init(jax.random.key(0), X)
    traces = []

    @partial(jax.jit, static_argnames="model")
    def log_joint(model, params, x, z):
        traces.append(model)
        return model.log_joint(params, x, z)

    for prior in PRIORS.values():
        params = model_with(prior).init(jax.random.key(0), X)
        jax.tree.map(np.testing.assert_array_equal, params.phi, plain.phi)
        jax.tree.map(
            np.testing.assert_array_equal, params.theta["likelihood"], plain.theta["likelihood"]
        )
        carried = plain._replace(theta=plain.theta | {"prior": params.theta["prior"]})
        for _ in range(2):  # an equal model made anew is the same static
            assert np.isfinite(log_joint(model_with(prior), carried, X, jnp.zeros(2)))
    assert len(traces) == len(PRIORS)


def test_a_prior_and_an_encoder_on_different_sets_are_refused():
    with pytest.raises(
        ValueError,
        match=(
            "StandardNormal is a prior on real latents .* Bernoulli an encoder of binary latents .*"
            " DiagNormal"
        ),
    ):
        vaejax.VAE(
            vaejax.StandardNormal(2),
            vaejax.Bernoulli(vaejax.MLP(4)),
            vaejax.Bernoulli(vaejax.MLP(2)),
        )
    positive = vaejax.NumPyroPrior(lambda: npd.HalfNormal(1.0).expand((2,)).to_event(1))
    with pytest.raises(ValueError, match="NumPyroPrior is a prior on .* KL"):
        model_with(positive)

"""The sample that a uniform number stands for, of every NumPyro family of one number: it has the
family's own density, or is refused in a sentence.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from numpyro.distributions import transforms
from scipy import stats

import vaejax
from tests.lib.cases import cases
from tests.lib.numpyro_members import (
    COMPOSITES,
    COUNTS,
    MEMBERS,
    NO_DENSITY,
    REAL_VECTORS,
    SCALARS,
    VECTORS,
    member,
)
from tests.lib.oracles import assert_distributed
from vaejax.distributions.numpyro import NumPyroDensity, from_numpyro

REFUSAL = r"\w+ does not say which sample a uniform number stands for; use vaejax.Independent\(\)"
U = np.linspace(0.0005, 0.9995, 2_000)
# Those whose quantiles are known here. NumPyro takes those of Beta, Gamma, Student's t and what is
# made of them from another package: right with it, refused without.
FROM_ELSEWHERE = {"Beta", "BetaProportion", "Chi2", "Gamma", "InverseGamma", "StudentT"} | {
    "ExpandedDistribution",
    "Independent",
    "TransformedDistribution",
    "truncated student's t",
}
WITHOUT = {"FoldedDistribution", "Kumaraswamy", "TruncatedPolyaGamma", "VonMises", "Weibull"} | {
    "MixtureGeneral",
    "MixtureSameFamily",
}
SERVED = {*SCALARS, *COMPOSITES} - FROM_ELSEWHERE - WITHOUT


SIMILAR = {"AsymmetricLaplaceQuantile", "Cauchy", "Gompertz", "HalfCauchy", "Logistic", "Normal"}
BY_BISECTION = {"LeftTruncatedGamma", "RightTruncatedGamma", "TwoSidedTruncatedGamma"}


@pytest.mark.parametrize(
    "name", cases(sorted(SERVED | FROM_ELSEWHERE), slow=BY_BISECTION | SIMILAR)
)
def test_the_sample_at_a_uniform_number_has_the_familys_density(x64, name):
    """z(u) rises, and p(z(u)) dz/du = 1, so z has the density p; P(Z <= z(u)) = u where NumPyro
    knows it; and by a Kolmogorov-Smirnov test of 40,000 draws its sampler agrees.
    """
    with jax.numpy_rank_promotion("allow"):
        q = from_numpyro(member(name))
        u = jnp.asarray(U).reshape(-1, *q.base.event_shape)

        def log_ratio(u):
            z, slope = jax.jvp(q.from_uniform, (u,), (jnp.ones_like(u),))
            return z, slope, q.log_prob(z) + jnp.log(jnp.sum(slope))

        try:
            z, slope, log_ratio = jax.jit(jax.vmap(log_ratio))(u)
        except vaejax.NotKnownError:
            assert name in FROM_ELSEWHERE
            return
    assert (slope > 0).all()
    np.testing.assert_allclose(log_ratio, 0, atol=1e-9)
    draws = member(name).sample(jax.random.key(0), (40_000,))
    assert_distributed(draws, lambda x: np.interp(x, np.ravel(z), U))
    try:
        np.testing.assert_allclose(np.ravel(member(name).cdf(z)), U, atol=1e-9)
    except NotImplementedError:
        assert isinstance(q.base, npd.Independent)


KOLMOGOROV = ["LogNormal", "Pareto", "RelaxedBernoulliLogits", "TwoSidedTruncatedDistribution"]


@pytest.mark.parametrize(
    "noise", cases({"sobol": vaejax.Sobol(), "pairs": vaejax.Antithetic()}, slow={"sobol"})
)
@pytest.mark.parametrize("name", KOLMOGOROV)
def test_draws_by_other_noise_are_distributed_as_numpyros_own(name, noise):
    """Both are held against scipy's distribution function."""
    cdf = {
        "LogNormal": stats.lognorm(0.7, scale=np.exp(0.3)).cdf,
        "Pareto": stats.pareto(2.5, scale=0.5).cdf,
        "RelaxedBernoulliLogits": lambda x: stats.logistic(0.4 / 1.5, 1 / 1.5).cdf(
            np.log(x) - np.log1p(-x)
        ),
        "TwoSidedTruncatedDistribution": stats.truncnorm(-0.5 / 0.7, 0.9 / 0.7, 0.3, 0.7).cdf,
    }[name]
    q = NumPyroDensity(member(name))

    @jax.jit
    @jax.vmap
    def draws(key):
        sources = noise.sources(q, key, 2)
        return jax.vmap(lambda source: noise.at(q, source)[0].sample(None))(sources), q.sample(key)

    by_noise, own = draws(jax.random.split(jax.random.key(0), 40_000))
    for samples in (by_noise[:, 0], by_noise[:, 1], own):
        assert_distributed(samples, cdf)


def refused(p):
    with pytest.raises(vaejax.NotKnownError, match=REFUSAL) as error:
        jax.eval_shape(from_numpyro(p).from_uniform, jnp.zeros(p.shape()))
    assert "\n" not in str(error.value)


OTHERS = sorted({*COUNTS, *VECTORS, *REAL_VECTORS} | WITHOUT)


@pytest.mark.parametrize("name", cases(OTHERS, slow=OTHERS[::2]))
def test_others_are_refused(name):
    """The icdf of NumPyro's DiscreteUniform is no whole number, that of a folded one its base's."""
    refused(member(name))


def test_every_family_is_served_or_refused():
    assert set(MEMBERS) == SERVED | FROM_ELSEWHERE | WITHOUT | {*COUNTS, *VECTORS, *REAL_VECTORS}
    assert not NO_DENSITY.keys() & MEMBERS.keys()


class Shifted(npd.Normal):
    """A user's: another density, and no quantiles of its own."""

    def log_prob(self, value):
        return super().log_prob(value - 1)

    def sample(self, key, sample_shape=()):
        return super().sample(key, sample_shape) + 1


class ShiftedLogNormal(npd.LogNormal):
    """A user's, the same of a transformed family."""

    def sample(self, key, sample_shape=()):
        return super().sample(key, sample_shape) + 1


UNSAFE = {
    "a changed density": lambda: Shifted(0.0, 1.0),
    "a changed sampler": lambda: ShiftedLogNormal(0.0, 1.0),
    "masked": lambda: npd.Normal(0.0, 1.0).mask(jnp.asarray(True)),
    "of a changed density": lambda: npd.TransformedDistribution(
        Shifted(0.0, 1.0), transforms.ExpTransform()
    ),
    "of no known sign": lambda: npd.TransformedDistribution(
        npd.HalfNormal(1.0), transforms.AbsTransform()
    ),
    "of vectors": lambda: npd.TransformedDistribution(
        npd.Normal(jnp.zeros(3), 1.0).to_event(1), transforms.StickBreakingTransform()
    ),
    "an atom at 0": lambda: npd.HurdleGamma(0.3, 2.0, 1.5),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_numpyro_would_give_wrongly_is_refused(name):
    refused(UNSAFE[name]())


def test_transforms_rise_and_fall_with_their_parameters():
    """The sign of a scale may be known on the device alone; coordinate by coordinate."""

    @jax.jit
    def z(scale, u):
        normal = npd.Normal(0.0, 1.0).expand((2,))
        pushed = npd.TransformedDistribution(
            normal, [transforms.AffineTransform(1.0, scale), transforms.ExpTransform()]
        )
        return from_numpyro(pushed).from_uniform(u)

    u = np.array([0.2, 0.7])
    expected = np.exp(1 + np.array([2.0, 0.5]) * stats.norm.ppf(u))
    np.testing.assert_allclose(z(jnp.asarray([2.0, -0.5]), jnp.asarray(u)), expected, rtol=1e-5)

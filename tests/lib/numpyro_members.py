"""A member of every family of NumPyro, for tests that walk them: a new family fails a test until it
is listed here.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as npd
from numpyro.distributions import constraints, transforms

TRIL = jnp.asarray([[0.8, 0.0], [-0.3, 0.6]])
PAIR = jnp.asarray([0.3, -0.4])
CORRELATION = jnp.asarray([[1.0, 0.4], [0.4, 1.0]])
THREE = jnp.asarray([0.5, 1.5, 2.5])
PROBS = THREE / THREE.sum()


def mixing(num_components=2):
    return npd.Categorical(probs=jnp.full(num_components, 1 / num_components))


# Families of one number: their density can be integrated along a line, or summed over integers.
SCALARS: dict[str, Callable[[], npd.Distribution]] = {
    "AsymmetricLaplace": lambda: npd.AsymmetricLaplace(0.3, 0.7, 1.4),
    "AsymmetricLaplaceQuantile": lambda: npd.AsymmetricLaplaceQuantile(0.3, 0.7, 0.4),
    "Beta": lambda: npd.Beta(2.0, 1.5),
    "BetaProportion": lambda: npd.BetaProportion(0.4, 6.0),
    "Cauchy": lambda: npd.Cauchy(0.3, 0.7),
    "Chi2": lambda: npd.Chi2(3.0),
    "Dagum": lambda: npd.Dagum(1.5, 2.0, 0.7),
    "DoublyTruncatedPowerLaw": lambda: npd.DoublyTruncatedPowerLaw(-1.5, 0.5, 3.0),
    "Exponential": lambda: npd.Exponential(0.7),
    "FoldedDistribution": lambda: npd.FoldedDistribution(npd.Normal(0.4, 0.8)),
    "Gamma": lambda: npd.Gamma(2.0, 1.5),
    "Gompertz": lambda: npd.Gompertz(1.2, 0.5),
    "Gumbel": lambda: npd.Gumbel(0.3, 0.7),
    "HalfCauchy": lambda: npd.HalfCauchy(0.7),
    "HalfNormal": lambda: npd.HalfNormal(0.7),
    "InverseGamma": lambda: npd.InverseGamma(3.0, 1.5),
    "Kumaraswamy": lambda: npd.Kumaraswamy(2.0, 1.5),
    "Laplace": lambda: npd.Laplace(0.3, 0.7),
    "LeftTruncatedDistribution": lambda: npd.TruncatedNormal(0.3, 0.7, low=-0.2),
    "LeftTruncatedGamma": lambda: npd.TruncatedGamma(2.0, 1.5, low=0.4),
    "Levy": lambda: npd.Levy(0.3, 0.7),
    "LogNormal": lambda: npd.LogNormal(0.3, 0.7),
    "LogUniform": lambda: npd.LogUniform(0.5, 3.0),
    "Logistic": lambda: npd.Logistic(0.3, 0.7),
    "LowerTruncatedPowerLaw": lambda: npd.LowerTruncatedPowerLaw(-2.5, 0.5),
    "Normal": lambda: npd.Normal(0.3, 0.7),
    "Pareto": lambda: npd.Pareto(0.5, 2.5),
    "RelaxedBernoulliLogits": lambda: npd.RelaxedBernoulliLogits(1.5, jnp.asarray(0.4)),
    "RightTruncatedDistribution": lambda: npd.TruncatedNormal(0.3, 0.7, high=1.2),
    "RightTruncatedGamma": lambda: npd.TruncatedGamma(2.0, 1.5, high=2.4),
    "SoftLaplace": lambda: npd.SoftLaplace(0.3, 0.7),
    "StudentT": lambda: npd.StudentT(4.0, 0.3, 0.7),
    "TwoSidedTruncatedDistribution": lambda: npd.TruncatedNormal(0.3, 0.7, low=-0.2, high=1.2),
    "TwoSidedTruncatedGamma": lambda: npd.TruncatedGamma(2.0, 1.5, low=0.4, high=2.4),
    "TruncatedPolyaGamma": lambda: npd.TruncatedPolyaGamma(),
    "Uniform": lambda: npd.Uniform(0.5, 3.0),
    "VonMises": lambda: npd.VonMises(0.3, 2.0),
    "Weibull": lambda: npd.Weibull(0.7, 1.5),
}

REALS = (
    "AsymmetricLaplace",
    "AsymmetricLaplaceQuantile",
    "Cauchy",
    "Gumbel",
    "Laplace",
    "Logistic",
    "Normal",
    "SoftLaplace",
    "StudentT",
)

# Families of one whole number.
COUNTS: dict[str, Callable[[], npd.Distribution]] = {
    "BernoulliLogits": lambda: npd.BernoulliLogits(0.4),
    "BernoulliProbs": lambda: npd.BernoulliProbs(0.4),
    "BetaBinomial": lambda: npd.BetaBinomial(2.0, 1.5, 5),
    "BetaNegativeBinomial": lambda: npd.BetaNegativeBinomial(1.5, 12.0, 3.0),
    "BinomialLogits": lambda: npd.BinomialLogits(0.4, 5),
    "BinomialProbs": lambda: npd.BinomialProbs(0.4, 5),
    "CategoricalLogits": lambda: npd.CategoricalLogits(THREE),
    "CategoricalProbs": lambda: npd.CategoricalProbs(PROBS),
    "DiscreteUniform": lambda: npd.DiscreteUniform(2, 6),
    "GammaPoisson": lambda: npd.GammaPoisson(2.0, 1.5),
    "GeometricLogits": lambda: npd.GeometricLogits(0.4),
    "GeometricProbs": lambda: npd.GeometricProbs(0.4),
    "HurdleLogits": lambda: npd.HurdleDistribution(npd.Poisson(1.5), gate_logits=0.4),
    "HurdlePoisson": lambda: npd.HurdlePoisson(0.4, 1.5),
    "HurdleProbs": lambda: npd.HurdleDistribution(npd.Poisson(1.5), gate=0.4),
    "NegativeBinomial2": lambda: npd.NegativeBinomial2(1.5, 2.0),
    "NegativeBinomialLogits": lambda: npd.NegativeBinomialLogits(2.0, 0.4),
    "NegativeBinomialProbs": lambda: npd.NegativeBinomialProbs(2.0, 0.4),
    "OrderedLogistic": lambda: npd.OrderedLogistic(0.4, THREE),
    "Poisson": lambda: npd.Poisson(1.5),
    "ZeroInflatedLogits": lambda: npd.ZeroInflatedDistribution(npd.Poisson(1.5), gate_logits=0.4),
    "ZeroInflatedPoisson": lambda: npd.ZeroInflatedPoisson(0.4, 1.5),
    "ZeroInflatedProbs": lambda: npd.ZeroInflatedDistribution(npd.Poisson(1.5), gate=0.4),
}

# Families of vectors and matrices, on a part of R^d and on all of it.
VECTORS: dict[str, Callable[[], npd.Distribution]] = {
    "Dirichlet": lambda: npd.Dirichlet(THREE),
    "DirichletMultinomial": lambda: npd.DirichletMultinomial(THREE, 4),
    "GaussianCopula": lambda: npd.GaussianCopula(npd.Exponential(jnp.ones(2)), CORRELATION),
    "GaussianCopulaBeta": lambda: npd.GaussianCopulaBeta(
        jnp.full(2, 2.0), jnp.full(2, 1.5), CORRELATION
    ),
    "InverseWishart": lambda: npd.InverseWishart(4.0, scale_tril=TRIL),
    "InverseWishartCholesky": lambda: npd.InverseWishartCholesky(4.0, scale_tril=TRIL),
    "LKJ": lambda: npd.LKJ(3, 1.5),
    "LKJCholesky": lambda: npd.LKJCholesky(3, 1.5),
    "MultinomialLogits": lambda: npd.MultinomialLogits(THREE, 4),
    "MultinomialProbs": lambda: npd.MultinomialProbs(PROBS, 4),
    "ProjectedNormal": lambda: npd.ProjectedNormal(THREE),
    "SineBivariateVonMises": lambda: npd.SineBivariateVonMises(0.3, -0.4, 2.0, 1.5, 0.5),
    "SineSkewed": lambda: npd.SineSkewed(
        npd.VonMises(PAIR, jnp.asarray([2.0, 1.5])).to_event(1), jnp.asarray([0.2, -0.3])
    ),
    "Wishart": lambda: npd.Wishart(4.0, scale_tril=TRIL),
    "WishartCholesky": lambda: npd.WishartCholesky(4.0, scale_tril=TRIL),
    "ZeroSumNormal": lambda: npd.ZeroSumNormal(0.7, (3,)),
}
REAL_VECTORS: dict[str, Callable[[], npd.Distribution]] = {
    "CAR": lambda: npd.CAR(PAIR, 0.3, 1.2, jnp.asarray([[0.0, 1.0], [1.0, 0.0]])),
    "CirculantNormal": lambda: npd.CirculantNormal(jnp.zeros(3), jnp.asarray([1.0, 0.2, 0.2])),
    "EulerMaruyama": lambda: npd.EulerMaruyama(
        jnp.linspace(0.0, 1.0, 4), lambda x, t: (-x, 0.5 + 0 * x), npd.Normal(0.0, 1.0)
    ),
    "GaussianRandomWalk": lambda: npd.GaussianRandomWalk(0.7, 3),
    "GaussianStateSpace": lambda: npd.GaussianStateSpace(3, 0.5 * jnp.eye(2), scale_tril=TRIL),
    "LowRankMultivariateNormal": lambda: npd.LowRankMultivariateNormal(
        PAIR, jnp.asarray([[0.5], [-0.8]]), jnp.asarray([0.3, 0.6])
    ),
    "MatrixNormal": lambda: npd.MatrixNormal(jnp.zeros((2, 2)), TRIL, TRIL),
    "MultivariateNormal": lambda: npd.MultivariateNormal(PAIR, scale_tril=TRIL),
    "MultivariateStudentT": lambda: npd.MultivariateStudentT(4.0, PAIR, TRIL),
}

# Densities of one number that are made of others.
COMPOSITES: dict[str, Callable[[], npd.Distribution]] = {
    "MixtureGeneral": lambda: npd.MixtureGeneral(
        mixing(), [npd.Gamma(2.0, 1.5), npd.Normal(0.3, 0.7)], support=constraints.real
    ),
    "MixtureSameFamily": lambda: npd.MixtureSameFamily(mixing(), npd.Gamma(THREE[1:], 1.5)),
    "ExpandedDistribution": lambda: npd.Gamma(2.0, 1.5).expand((1,)).to_event(1),
    "Independent": lambda: npd.Gamma(jnp.full(1, 2.0), 1.5).to_event(1),
    "TransformedDistribution": lambda: npd.TransformedDistribution(
        npd.Gamma(2.0, 1.5), transforms.AffineTransform(-0.5, 2.0)
    ),
    "increasing and decreasing": lambda: npd.TransformedDistribution(
        npd.Exponential(jnp.asarray(1.5)).expand(()),
        [transforms.AffineTransform(0.5, -2.0), transforms.ExpTransform()],
    ),
    "truncated student's t": lambda: npd.LeftTruncatedDistribution(npd.StudentT(4.0, 0.3), -0.2),
    "truncated Cauchy": lambda: npd.TruncatedCauchy(0.3, 0.7, low=-0.2, high=1.2),
}

# A density beside an atom at 0: on a set of its own.
WITH_ATOM: dict[str, Callable[[], npd.Distribution]] = {
    "HurdleGamma": lambda: npd.HurdleGamma(0.3, 2.0, 1.5),
    "HurdleLogNormal": lambda: npd.HurdleLogNormal(0.3, 0.2, 0.7),
}
# What has no density, of two numbers: a point has a mass, and others are not normalised.
NO_DENSITY: dict[str, Callable[[], npd.Distribution]] = {
    "Delta": lambda: npd.Delta(PAIR),
    "ImproperUniform": lambda: npd.ImproperUniform(constraints.real, (2,), ()),
    "IntervalCensoredDistribution": lambda: npd.IntervalCensoredDistribution(
        npd.Normal(PAIR, 0.7), jnp.asarray([True, False]), jnp.asarray([False, False])
    ),
    "LeftCensoredDistribution": lambda: npd.LeftCensoredDistribution(
        npd.Normal(PAIR, 0.7), jnp.asarray([True, False])
    ),
    "MaskedDistribution": lambda: npd.Normal(PAIR, 0.7).mask(jnp.asarray([True, False])),
    "RightCensoredDistribution": lambda: npd.RightCensoredDistribution(
        npd.Normal(PAIR, 0.7), jnp.asarray([True, False])
    ),
    "Unit": lambda: npd.Unit(jnp.zeros(2)),
}
MEMBERS = {**SCALARS, **COUNTS, **VECTORS, **REAL_VECTORS, **COMPOSITES}


def member(name: str) -> npd.Distribution:
    """That of the name, if it is one of the family that it is listed under."""
    p = MEMBERS[name]()
    inside = p.base_dist if isinstance(p, npd.Independent) and name not in VECTORS else p
    assert vars(npd).get(name, type(p)) in (type(p), type(inside)), name
    return p

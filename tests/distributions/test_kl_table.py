"""Every pair of the table of KLs in closed form against float64 quadrature or enumeration, at
typical parameters and at the edge; what NumPyro registers beside is refused.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from numpyro.distributions.kl import kl_divergence as dispatcher
from scipy.special import betaln, gammaln, log_expit, logsumexp

from tests.lib.cases import cases
from tests.lib.numpyro_members import member
from tests.lib.oracles import gauss_hermite
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.kl import FORMULAS, family_of, kl_divergence
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity
from vaejax.distributions.sphere import UniformOnSphereDensity, VonMisesFisherDensity

# Families of one number: parameters, and the log-density of an invertible function of it (the
# number itself, its log, its logit), which leaves a KL as it is and has no ends.

LOC_SCALES = [(0.3, 0.7), (-20.0, 5.0), (0.3, 1e-3), (0.2, 60.0)]
SHAPE_RATES = [(2.0, 1.5), (0.04, 0.3), (300.0, 20.0), (1.0, 1e-4)]
ENDS = [(2.0, 1.5), (0.05, 0.04), (0.05, 40.0), (300.0, 200.0)]


def log_normal(y, loc, scale):
    return -0.5 * ((y - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def log_student_t(y, df, loc, scale):
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * np.pi) - np.log(scale)
    return constant - (df + 1) / 2 * np.log1p(((y - loc) / scale) ** 2 / df)


def log_gamma(y, shape, rate):
    return shape * (np.log(rate) + y) - rate * np.exp(y) - gammaln(shape)


def log_beta(y, a, b):
    return a * log_expit(y) + b * log_expit(-y) - betaln(a, b)


SCALARS = {  # family: (parameters, log-density of y, how the library makes it)
    DiagNormalDensity: (
        LOC_SCALES,
        log_normal,
        lambda loc, scale: DiagNormalDensity(loc, jnp.log(scale)),
    ),
    npd.Normal: (LOC_SCALES, log_normal, npd.Normal),
    npd.LogNormal: (LOC_SCALES, log_normal, npd.LogNormal),
    npd.Laplace: (
        LOC_SCALES,
        lambda y, loc, scale: -np.abs(y - loc) / scale - np.log(2 * scale),
        npd.Laplace,
    ),
    npd.Logistic: (
        LOC_SCALES,
        lambda y, m, s: log_expit((y - m) / s) + log_expit((m - y) / s) - np.log(s),
        npd.Logistic,
    ),
    npd.StudentT: (
        [(3.0, 0.3, 0.7), (2.5, -2.0, 1e-3), (300.0, 5.0, 20.0)],
        log_student_t,
        npd.StudentT,
    ),
    npd.Gamma: (SHAPE_RATES, log_gamma, npd.Gamma),
    npd.Chi2: ([(3.0,), (0.08,), (600.0,)], lambda y, df: log_gamma(y, df / 2, 0.5), npd.Chi2),
    npd.Weibull: (
        [(0.7, 1.5), (1e-2, 0.2), (40.0, 3.0)],
        lambda y, scale, k: np.log(k) + k * (y - np.log(scale)) - np.exp(k * (y - np.log(scale))),
        npd.Weibull,
    ),
    npd.Beta: (ENDS, log_beta, npd.Beta),
    npd.BetaProportion: (
        [(0.4, 6.0), (0.6, 0.1), (0.001, 40.0)],
        lambda y, mean, size: log_beta(y, mean * size, (1 - mean) * size),
        npd.BetaProportion,
    ),
}
S = np.linspace(-90, 90, 60_001)


def quadrature(q, p):
    """integral of q (log q - log p) over y = c + w sinh(s), with c, w where q is."""
    log_q, log_p = SCALARS[q[0]][1], SCALARS[p[0]][1]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        y = np.sinh(S)
        first = np.exp(log_q(y, *q[1]) - (log_q(y, *q[1]) + np.log(np.cosh(S))).max())
        center = y[np.argmax(first)]
        width = 1.0
        for _ in range(2):  # once more from a better width
            y = center + width * np.sinh(S)
            mass = np.exp(log_q(y, *q[1])) * np.cosh(S) * width
            mass = np.where(np.isfinite(mass), mass, 0)
            center, width = _middle_and_width(y, mass)
        y, jacobian = center + width * np.sinh(S), width * np.cosh(S) * (S[1] - S[0])
        density = np.exp(log_q(y, *q[1])) * jacobian
        terms = np.where(density > 0, density * (log_q(y, *q[1]) - log_p(y, *p[1])), 0)
    np.testing.assert_allclose(density[np.isfinite(density)].sum(), 1, rtol=1e-6)
    return terms[np.isfinite(density)].sum()


def _middle_and_width(y, mass):
    """The median, and a quarter of the middle half."""
    low, middle, high = np.interp([0.25, 0.5, 0.75], np.cumsum(mass) / mass.sum(), y)
    return middle, (high - low) / 2


def scalar_cases(q_family, p_family):
    """[(arrays of q, arrays of p, exact KL)]"""
    pairs = itertools.product(SCALARS[q_family][0], SCALARS[p_family][0])
    return [(q, p, quadrature((q_family, q), (p_family, p))) for q, p in pairs]


def event(family, parameters):
    """The density of one vector of these coordinates."""
    density = SCALARS[family][2](*(jnp.asarray(column) for column in parameters))
    return NumPyroDensity(density.to_event(1)) if isinstance(density, npd.Distribution) else density


def assert_scalars(q_family, p_family):
    cases = scalar_cases(q_family, p_family)
    qs, ps = (np.asarray([case[i] for case in cases]).T for i in range(2))  # [parameters, n]
    exact = np.asarray([case[2] for case in cases])
    one_by_one = jax.jit(
        jax.vmap(
            lambda q, p: kl_divergence(
                event(q_family, [a[None] for a in q]), event(p_family, [a[None] for a in p])
            )
        )
    )(list(qs), list(ps))
    np.testing.assert_allclose(one_by_one, exact, rtol=1e-6, atol=1e-9)
    total = kl_divergence(event(q_family, qs[:, :3]), event(p_family, ps[:, :3]))
    np.testing.assert_allclose(total, exact[:3].sum(), rtol=1e-6)


# Families of vectors.

TRILS = [np.array([[0.7, 0.0], [-0.4, 1.1]]), np.array([[1e-2, 0.0], [-3.0, 5.0]])]
LOCS = [np.array([0.3, -0.4]), np.array([-10.0, 20.0])]
FACTOR, VARIANCES = np.array([[0.5], [-0.8]]), np.array([0.3, 0.6])


def normals(family):
    """[(density, loc, covariance)]"""
    members = []
    for loc, tril in zip(LOCS, TRILS, strict=True):
        if family is npd.MultivariateNormal:
            density = npd.MultivariateNormal(jnp.asarray(loc), scale_tril=jnp.asarray(tril))
            members.append((density, loc, tril @ tril.T))
        elif family is npd.LowRankMultivariateNormal:
            parts = (jnp.asarray(part) for part in (loc, FACTOR, VARIANCES))
            covariance = FACTOR @ FACTOR.T + np.diag(VARIANCES)
            members.append((npd.LowRankMultivariateNormal(*parts), loc, covariance))
        else:
            scale = np.abs(np.diag(tril))
            density = DiagNormalDensity(jnp.asarray(loc), jnp.log(jnp.asarray(scale)))
            members.append((density, loc, np.diag(scale**2)))
    return members


def log_density(z, loc, covariance):
    square = np.einsum("ni,ij,nj->n", z - loc, np.linalg.inv(covariance), z - loc)
    return -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])


def assert_multivariate(q_family, p_family):
    noise, weights = (np.asarray(part) for part in gauss_hermite(6, 2))  # of polynomials, so exact
    for (q, *of_q), (p, *of_p) in itertools.product(normals(q_family), normals(p_family)):
        z = of_q[0] + noise @ np.linalg.cholesky(of_q[1]).T
        exact = weights @ (log_density(z, *of_q) - log_density(z, *of_p))
        np.testing.assert_allclose(kl_divergence(q, p), exact, rtol=1e-7)


def assert_dirichlets(q_family, p_family):
    """A stick is broken off by independent betas: x_1, then x_2 / (1 - x_1)."""
    points = [(0.5, 1.5, 2.5), (0.05, 0.04, 0.03), (300.0, 0.05, 40.0)]
    for q, p in itertools.product(points, points):
        exact = sum(
            quadrature((npd.Beta, (q[i], sum(q[i + 1 :]))), (npd.Beta, (p[i], sum(p[i + 1 :]))))
            for i in range(2)
        )
        kl = kl_divergence(q_family(jnp.asarray(q)), p_family(jnp.asarray(p)))
        np.testing.assert_allclose(kl, exact, rtol=1e-6, atol=1e-9)


LOGITS = np.array([[0.4, -1.0, 2.0], [30.0, -40.0, 0.0], [-300.0, 2.0, 300.0]])


def assert_bernoullis(q_family, p_family):
    states = np.array(list(itertools.product([0, 1], repeat=3)))
    for q, p in itertools.product(LOGITS, LOGITS):
        log_q, log_p = (
            states @ log_expit(logits) + (1 - states) @ log_expit(-logits) for logits in (q, p)
        )
        kl = kl_divergence(q_family(jnp.asarray(q)), p_family(jnp.asarray(p)))
        np.testing.assert_allclose(kl, np.exp(log_q) @ (log_q - log_p), rtol=1e-9)


def assert_one_hots(q_family, p_family):
    """Two variables of three values."""
    tables = [np.stack(pair) for pair in itertools.product(LOGITS, LOGITS)]
    for q, p in itertools.product(tables[:4], tables[2:6]):
        log_q, log_p = (t - logsumexp(t, axis=-1, keepdims=True) for t in (q, p))
        kl = kl_divergence(q_family(jnp.asarray(q)), p_family(jnp.asarray(p)))
        np.testing.assert_allclose(kl, np.sum(np.exp(log_q) * (log_q - log_p)), rtol=1e-9)


def assert_categoricals(q_family, p_family):
    """+inf where p has no mass and q has; nothing where q has none."""
    tables = np.array([[0.2, 0.3, 0.5], [0.0, 0.4, 0.6], [1.0, 0.0, 0.0], [1e-12, 1.0, 1e-12]])
    tables /= tables.sum(1, keepdims=True)
    for q, p in itertools.product(tables, tables):
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = np.where(q > 0, q * (np.log(q) - np.log(p)), 0).sum()
        kl = kl_divergence(q_family(jnp.asarray(q)), p_family(jnp.asarray(p)))
        np.testing.assert_allclose(kl, exact, rtol=1e-6, atol=1e-9)


def assert_spheres(q_family, p_family):
    """In t = <z, loc>, whose density is e^(kt) (1 - t^2)^((d-3)/2) up to a constant."""
    angle = (np.arange(200_000) + 0.5) / 200_000 * np.pi
    kappas = np.array([1e-3, 2.0, 400.0])[:, None]
    for dim in (2, 20):
        log_p = (dim - 2) * np.log(np.sin(angle))
        log_q = log_p + kappas * np.cos(angle)
        log_p, log_q = (table - logsumexp(table, -1, keepdims=True) for table in (log_p, log_q))
        p, loc = p_family(jnp.zeros(dim)), jnp.eye(dim)[0]
        kl = jax.jit(jax.vmap(lambda kappa: kl_divergence(q_family(loc, kappa), p)))
        exact = np.sum(np.exp(log_q) * (log_q - log_p), axis=-1)
        np.testing.assert_allclose(kl(jnp.asarray(kappas[:, 0])), exact, rtol=1e-6, atol=1e-12)


OTHERS = {
    (npd.Dirichlet, npd.Dirichlet): assert_dirichlets,
    (BernoulliDensity, BernoulliDensity): assert_bernoullis,
    (OneHotCategoricalDensity, OneHotCategoricalDensity): assert_one_hots,
    (npd.CategoricalProbs, npd.CategoricalProbs): assert_categoricals,
    (VonMisesFisherDensity, UniformOnSphereDensity): assert_spheres,
    (npd.MultivariateNormal, npd.MultivariateNormal): assert_multivariate,
    (npd.MultivariateNormal, DiagNormalDensity): assert_multivariate,
    (npd.LowRankMultivariateNormal, DiagNormalDensity): assert_multivariate,
}


PAIRS = {"-".join(kind.__name__ for kind in pair): pair for pair in FORMULAS}
SIMILAR = {"Beta-BetaProportion", "BetaProportion-Beta", "Chi2-Gamma", "Gamma-Chi2"} | {
    "Normal-DiagNormalDensity",
    "DiagNormalDensity-Normal",
    "Weibull-Chi2",
}


@pytest.mark.parametrize("pair", cases(PAIRS, slow=SIMILAR))
def test_every_pair_of_the_table_is_exact(x64, pair):
    """A pair that has no case here fails by a KeyError."""
    with jax.numpy_rank_promotion("allow"):
        if pair in OTHERS:
            OTHERS[pair](*pair)
        else:
            assert set(pair) <= set(SCALARS), f"{pair} is held against nothing"
            assert_scalars(*pair)


@pytest.mark.parametrize("df", [0.3, 1.0, 1.5, 2.0])
def test_to_a_normal_it_is_infinite_where_the_second_moment_is(df):
    """One coordinate is enough; and no gradient is NaN, that of the others is as it was."""
    p = DiagNormalDensity(jnp.zeros(2), jnp.zeros(2))

    def kl(df):
        return kl_divergence(NumPyroDensity(npd.StudentT(df, 0.1, 1.0).to_event(1)), p)

    value, gradient = jax.value_and_grad(kl)(jnp.asarray([df, 5.0]))
    assert value == np.inf and np.isfinite(gradient).all()


@pytest.mark.parametrize("df", [1e3, 1e5, 1e7])
def test_students_t_of_many_degrees_is_near_the_normal_in_float32(df):
    """Here NumPyro's entropy gives -1.9e-4, -.025 and .5."""
    q = NumPyroDensity(npd.StudentT(jnp.full(1, df)).to_event(1))
    kl = kl_divergence(q, DiagNormalDensity(jnp.zeros(1), jnp.zeros(1)))
    np.testing.assert_allclose(kl, 1 / (df - 2) - 1 / df - 1 / (4 * df**2), atol=2e-6)


def test_of_a_normal_of_a_tiny_scale_in_float32():
    """Where the square of the scale is 0."""
    kl = kl_divergence(npd.Normal(0.0, 1e-25), npd.Normal(0.0, 1.0))
    np.testing.assert_allclose(kl, 25 * np.log(10) - 0.5, rtol=1e-6)


# What is not in the table is refused, whatever NumPyro would say.

WRAPPERS = (npd.Distribution, npd.ExpandedDistribution, npd.Independent, npd.MaskedDistribution)
REGISTERED = [pair for pair in dispatcher.funcs if not set(pair) & set(WRAPPERS)]


@pytest.mark.parametrize("pair", REGISTERED, ids=lambda pair: "-".join(k.__name__ for k in pair))
def test_what_numpyro_registers_is_in_the_table_or_refused(pair):
    if pair in FORMULAS:
        return
    q, p = (member(kind.__name__) for kind in pair)
    with pytest.raises(TypeError, match=r"has no closed form here; use vaejax.Pathwise or"):
        kl_divergence(q, p)


REFUSED = {
    "a series": lambda: (npd.Kumaraswamy(2.0, 1.5), npd.Beta(2.0, 1.5)),
    "a heavy tail": lambda: (npd.Cauchy(0.0, 1.0), npd.Normal(0.0, 1.0)),
    "independent to circulant": lambda: (
        npd.Normal(jnp.zeros(3), 1.0).to_event(1),
        member("CirculantNormal"),
    ),
    "two sets": lambda: (npd.Normal(0.0, 1.0), npd.Gamma(2.0, 1.5)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_pairs_are_refused(name):
    q, p = REFUSED[name]()
    with pytest.raises(TypeError, match=r"KL\(\w+ \|\| \w+\) has no closed form here;") as error:
        kl_divergence(q, p)
    assert "\n" not in str(error.value)
    assert (family_of(NumPyroDensity(q)), family_of(NumPyroDensity(p))) not in FORMULAS

"""What `numerics.py` asks each density: as a function of scalars, by the library and by mpmath, and
at which arguments.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import exact_densities as exact
import jax
import jax.numpy as jnp
import numpyro.distributions as npd

import vaejax
from vaejax import distributions
from vaejax.distributions import RelaxedBernoulliDensity, RelaxedCategoricalDensity

INF = math.inf


@vaejax.component
class Given:
    """A net that gives what it is given: the heads of a conditional."""

    def init(self, key, given):
        return ()

    def apply(self, params, given):
        return given


@dataclasses.dataclass(frozen=True)
class Question:
    """log p(x; parameters) of scalars, by the library and by mpmath, and where it is asked.

    `points` are (what kind of argument, x, *parameters); at an infinite one `exact` is not asked,
    since log p is -inf there.
    """

    names: tuple[str, ...]
    density: Callable
    exact: Callable
    points: Sequence[tuple]
    discrete: bool = False


def of(conditional: Any, *heads: Any) -> Any:
    """The density of a conditional whose net gives these heads, each for a vector of one number."""
    return conditional(() if not isinstance(conditional, vaejax.Gaussian) else {"net": ()}, heads)


def vector(*scalars: Any) -> jax.Array:
    return jnp.stack(scalars)


def one(head: Any) -> jax.Array:
    return jnp.reshape(head, (1,))


def family(make: Callable) -> Callable:
    """log p(x; parameters) of a NumPyro family through the library's adapter."""
    conditional = vaejax.NumPyroConditional(Given(), make)
    return lambda x, *heads: of(conditional, *map(one, heads)).log_prob(one(x))


def discretized_logistic(x, loc, log_scale):
    parameters = jnp.zeros((1, 1), loc.dtype), loc.reshape(1, 1), log_scale.reshape(1, 1)
    return distributions.DiscretizedLogisticDensity(*parameters, num_levels=256).log_prob(one(x))


def sphere(dim, x, kappa):
    x = x.astype(kappa.dtype)
    loc = jnp.zeros(dim, kappa.dtype).at[0].set(1)
    rest = jnp.sqrt(jnp.maximum(1 - x**2, 0))
    value = jnp.zeros(dim, kappa.dtype).at[0].set(x).at[1].set(rest)
    return distributions.VonMisesFisherDensity(loc, kappa).log_prob(value)


def pair(conditional, x, *heads):
    """Of (x, 1) under a normal of two coordinates around 0."""
    both = jnp.stack([x, jnp.ones_like(x)])
    return of(conditional, *heads).log_prob(both)


def full(x, log_scale, row):
    zeros = jnp.zeros(2, log_scale.dtype)
    rows = zeros, jnp.stack([row, jnp.zeros_like(row)])
    return pair(vaejax.FullNormal(Given()), x, zeros, jnp.full(2, log_scale), *rows)


def low_rank(x, log_scale, column):
    zeros = jnp.zeros(2, log_scale.dtype)
    heads = zeros, jnp.full(2, log_scale), jnp.full(2, column)
    return pair(vaejax.LowRankNormal(Given()), x, *heads)


def mixture_of_two(x, logit, first, second):
    locs = jnp.stack([first, second])[:, None]
    components = distributions.DiagNormalDensity(locs, jnp.zeros_like(locs))
    logits = jnp.stack([logit, jnp.zeros_like(logit)])
    return distributions.Mixture(logits, components).log_prob(one(x))


def gaussian(x, loc):
    return vaejax.Gaussian(Given(), 0.1)({"net": ()}, one(loc)).log_prob(one(x))


def one_hot(x, a, b):
    """x is the number of the category of three, the last with logit 0."""
    logits = jnp.stack([a, b, jnp.zeros_like(a)])
    value = jnp.asarray(jnp.arange(3) == x, jnp.result_type(x))
    return distributions.OneHotCategoricalDensity(logits).log_prob(value)


def levels(x, a, b):
    """x is the number of the level of three, the last with logit 0."""
    logits = jnp.stack([a, b, jnp.zeros_like(a)])
    return distributions.Levels(logits[None]).log_prob(one(jnp.asarray(x, a.dtype) / 2))


def uniform_on_sphere(x):
    density = distributions.UniformOnSphereDensity(jnp.zeros(5, jnp.result_type(x, jnp.float32)))
    return density.log_prob(jnp.eye(5, dtype=density.like.dtype)[0] * x)


LOGITS = [("typical", 0.3), ("large", 30.0), ("large", -90.0), ("tiny", 1e-6), ("saturated", 2e4)]
PIXELS = [("typical", 0.25), ("saturated", 1.0), ("saturated", 0.0)]
CATEGORIES = [("typical", 0, 0.5, -0.5), ("large", 1, 60.0, -60.0), ("saturated", 2, 3e3, -3e3)]
CATEGORIES += [("integer", 1, 0.5, 2.0), ("tiny", 0, 1e-6, -1e-6)]
COUNTS = [("typical", 3, 1.0), ("large", 1_000_000, 14.0), ("large", 0, 14.0), ("tiny", 0, -14.0)]
COUNTS += [("large", 1_000_000, 23.94)]  # the mode: soft_bound makes it log 1e6
CORRELATED = [
    ("typical", 0.7, -0.5, 0.4),
    ("large", 1e4, 0.0, 0.4),
    ("tiny", 1e-6, -20.0, 0.4),
    ("saturated", 0.7, 0.5, 90.0),
    ("integer", 2, 0.5, 0.4),
    ("infinite", INF, 0.0, 0.4),
]
QUESTIONS: dict[str, Question] = {
    "DiagNormalDensity": Question(
        ("x", "loc", "log_scale"),
        lambda x, *p: distributions.DiagNormalDensity(*map(one, p)).log_prob(one(x)),
        exact.normal,
        [
            ("typical", 0.7, 0.2, -0.5),
            ("large", 1e4, 0.0, 0.0),
            ("large", 1e6, 999_999.0, 1.0),
            ("tiny", 1e-20, 0.0, -10.0),
            ("saturated", 0.0, 0.0, 30.0),
            ("integer", 2, 1.0, 0.5),
            ("infinite", INF, 0.0, 0.0),
        ],
    ),
    "BernoulliDensity": Question(
        ("x", "logit"),
        lambda x, l: distributions.BernoulliDensity(one(l)).log_prob(one(x)),
        lambda x, l: x * l - exact.softplus(l),
        [
            *((kind, x, l) for kind, l in LOGITS for x in (0.0, 1.0)),
            ("integer", 1, 0.3),
            ("infinite", 0.0, INF),
            ("infinite", 1.0, -INF),
        ],
        discrete=True,
    ),
    "ContinuousBernoulliDensity": Question(
        ("x", "logit"),
        lambda x, l: distributions.ContinuousBernoulliDensity(one(l)).log_prob(one(x)),
        exact.continuous_bernoulli,
        [
            *((kind, x, l) for kind, l in LOGITS for _, x in PIXELS),
            *(("near the series' end", 0.25, l) for l in (0.39, 0.41)),
            ("integer", 1, 0.3),
            ("infinite", 0.5, INF),
        ],
    ),
    "OneHotCategoricalDensity": Question(
        ("x", "logit 1", "logit 2"),
        one_hot,
        exact.category,
        [*CATEGORIES, ("infinite", 0, -INF, 0.0)],
        discrete=True,
    ),
    "Levels": Question(
        ("x", "logit 1", "logit 2"), levels, exact.category, CATEGORIES, discrete=True
    ),
    "RelaxedBernoulliDensity": Question(
        ("logit of the point", "temperature", "logit"),
        lambda y, t, l: RelaxedBernoulliDensity(t, one(l)).log_prob(one(y)),
        exact.relaxed_binary,
        [
            ("typical", -0.8, 0.5, 0.4),
            ("large", -0.8, 0.5, 40.0),
            ("tiny", 1e-30, 0.5, 0.4),
            ("tiny", -0.8, 0.01, 0.4),
            ("saturated", 80.0, 0.1, 8.0),
            ("saturated", 2e3, 0.01, 20.0),
        ],
    ),
    "RelaxedCategoricalDensity": Question(
        ("logit of the point", "temperature", "logit 1", "logit 2"),
        lambda y, t, *l: RelaxedCategoricalDensity(t, vector(*l)).log_prob(
            jax.nn.log_sigmoid(vector(y, -y))
        ),
        exact.relaxed_one_hot,
        [
            ("typical", -0.8, 0.5, 0.4, -0.2),
            ("large", -0.8, 0.5, 40.0, -40.0),
            ("tiny", 1e-25, 0.5, 0.4, -0.2),
            ("tiny", -0.8, 0.01, 0.4, -0.2),
            ("saturated", 80.0, 0.1, 8.0, 0.0),
            ("saturated", 2e3, 0.01, 20.0, 0.0),
        ],
    ),
    "DiscretizedLogisticDensity": Question(
        ("x", "loc", "log_scale"),
        discretized_logistic,
        exact.logistic_levels,
        [
            *((kind, x, 0.4, -2.0) for kind, x in (("typical", 102 / 255), *PIXELS[1:])),
            ("tiny", 102 / 255, 0.4, -9.0),
            ("large", 102 / 255, 0.9, -7.0),
            ("saturated", 102 / 255, 0.4, 6.0),
            ("saturated", 0.0, 1.0, -7.0),
        ],
        discrete=True,
    ),
    "Mixture": Question(
        ("x", "logit", "loc 1", "loc 2"),
        mixture_of_two,
        exact.mixture,
        [
            ("typical", 0.5, 0.3, -1.0, 2.0),
            ("large", 300.0, 0.3, -1.0, 2.0),
            ("tiny", 0.5, 1e-6, 0.0, 1e-6),
            ("saturated", 0.5, 90.0, -1.0, 2.0),
            ("integer", 1, 0.3, -1.0, 2.0),
            ("infinite", INF, 0.3, -1.0, 2.0),
        ],
    ),
    "UniformOnSphereDensity, d = 5": Question(
        ("x",), uniform_on_sphere, exact.uniform_on_sphere, [("typical", 1.0)], True
    ),
    **{
        f"VonMisesFisherDensity, d = {dim}": Question(
            ("cosine", "concentration"),
            partial(sphere, dim),
            partial(exact.von_mises_fisher, dim=dim),
            [
                ("typical", 0.6, 3.0),
                ("large", 1.0, 5e3),
                ("large", 0.6, 5e3),
                ("tiny", 0.6, 1e-4),
                ("saturated", -1.0, 9e3),
                ("integer", 1, 3.0),
            ],
            discrete=True,
        )
        for dim in (2, 3, 30)
    },
    "Gaussian, scale 0.1": Question(
        ("x", "loc"),
        gaussian,
        lambda x, loc: exact.normal(x, loc, exact.mp.log(exact.mp.mpf("0.1"))),
        [("typical", 0.7, 0.2), ("large", 1e4, 0.0), ("integer", 2, 1.0), ("infinite", INF, 0.0)],
    ),
    "FullNormal": Question(
        ("x", "raw log_scale", "raw row"),
        full,
        exact.full_normal,
        CORRELATED,
    ),
    "LowRankNormal": Question(
        ("x", "raw log_scale", "raw column"),
        low_rank,
        exact.low_rank_normal,
        CORRELATED,
    ),
    "Laplace": Question(
        ("x", "loc", "raw log_scale"),
        lambda x, *p: of(vaejax.Laplace(Given()), *map(one, p)).log_prob(one(x)),
        exact.laplace,
        [
            ("typical", 0.7, 0.2, -0.5),
            ("large", 1e6, 0.0, 0.0),
            ("tiny", 1e-20, 0.0, -20.0),
            ("saturated", 0.7, 0.2, 30.0),
            ("integer", 2, 1.0, 0.5),
            ("infinite", INF, 0.0, 0.0),
        ],
    ),
    "Poisson": Question(
        ("x", "raw log-rate"),
        lambda x, r: vaejax.Poisson(Given())((), one(r)).log_prob(one(x)),
        exact.poisson,
        [*COUNTS, ("saturated", 3, 300.0), ("integer", 3, 1.0)],
        discrete=True,
    ),
    "NegativeBinomial": Question(
        ("x", "raw log-mean", "raw log-concentration"),
        lambda x, *p: of(vaejax.NegativeBinomial(Given()), *map(one, p)).log_prob(one(x)),
        exact.negative_binomial,
        [(kind, x, r, 0.5) for kind, x, r in COUNTS]
        + [("saturated", 1_000_000, 14.0, 300.0), ("tiny", 3, 1.0, -300.0), ("integer", 3, 1.0, 0)],
        discrete=True,
    ),
    "Binomial of 255, by the adapter": Question(
        ("x", "logit"),
        family(lambda logits: npd.Binomial(255, logits=logits)),
        lambda x, l: exact.log_choose(255, x) + x * l - 255 * exact.softplus(l),
        [
            ("typical", 100, 0.3),
            ("saturated", 255, 30.0),
            ("saturated", 0, -90.0),
            ("tiny", 100, 1e-6),
            ("integer", 255, 0.3),
            ("large", 100, 90.0),
        ],
        discrete=True,
    ),
    "BetaBinomial of 255, by the adapter": Question(
        ("x", "a", "b"),
        family(lambda a, b: npd.BetaBinomial(a, b, 255)),
        exact.beta_binomial,
        [
            ("typical", 100, 2.0, 3.0),
            ("large", 100, 1e5, 2e5),
            ("saturated", 255, 0.05, 0.05),
            ("tiny", 0, 1e-4, 1.0),
            ("integer", 255, 2.0, 3.0),
        ],
        discrete=True,
    ),
    "GeometricLogits, by the adapter": Question(
        ("x", "logit"),
        family(lambda logits: npd.GeometricLogits(logits)),
        lambda x, l: -x * exact.softplus(l) - exact.softplus(-l),
        [
            ("typical", 3, 0.3),
            ("large", 60_000, -9.0),
            ("saturated", 0, 90.0),
            ("tiny", 3, -30.0),
            ("integer", 60_000, -9.0),
        ],
        discrete=True,
    ),
}

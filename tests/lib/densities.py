"""Every density of the library at some parameters, for tests that hold for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd

from vaejax.distributions.bernoulli import (
    BernoulliDensity,
    ContinuousBernoulliDensity,
)
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.mixture import Mixture
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import NumPyroDensity
from vaejax.distributions.pixels import DiscretizedLogisticDensity, Levels
from vaejax.distributions.relaxed import RelaxedBernoulliDensity, RelaxedCategoricalDensity
from vaejax.distributions.sphere import UniformOnSphereDensity, VonMisesFisherDensity

GENERATOR = np.random.default_rng(0)


LOC, LOG_SCALE, LOGITS = (GENERATOR.normal(size=3) for _ in range(3))


KEYS = jax.random.split(jax.random.key(0), 40_000)


def mixture():
    return Mixture(
        jnp.asarray([0.3, -1.0]),
        DiagNormalDensity(jnp.asarray([[-2.0], [1.0]]), jnp.asarray([[-0.5], [0.2]])),
    )


# Categorical variables: one-hot, relaxed, levels.

ONE_HOT_LOGITS = GENERATOR.normal(size=(2, 3)) * 2


# What all of them share.

UNIT = np.array([0.6, 0.0, 0.8])


FAMILIES = {  # name: (how it is made of arrays, the arrays, the shape of its event)
    "DiagNormal": (DiagNormalDensity, (LOC, LOG_SCALE), (3,)),
    "Bernoulli": (BernoulliDensity, (LOGITS,), (3,)),
    "ContinuousBernoulli": (ContinuousBernoulliDensity, (LOGITS,), (3,)),
    "OneHotCategorical": (OneHotCategoricalDensity, (ONE_HOT_LOGITS,), (2, 3)),
    "RelaxedBernoulli": (RelaxedBernoulliDensity, (np.float64(0.7), LOGITS), (3,)),
    "RelaxedCategorical": (
        RelaxedCategoricalDensity,
        (np.float64(0.7), ONE_HOT_LOGITS),
        (2, 3),
    ),
    "Levels": (Levels, (ONE_HOT_LOGITS,), (2,)),
    "DiscretizedLogistic": (
        DiscretizedLogisticDensity,
        (LOGITS[:, None], LOC[:, None], LOG_SCALE[:, None]),
        (3,),
    ),
    "VonMisesFisher": (VonMisesFisherDensity, (UNIT, np.float64(2.0)), (3,)),
    "UniformOnSphere": (UniformOnSphereDensity, (LOC,), (3,)),
    "Laplace": (lambda loc: NumPyroDensity(npd.Laplace(loc, 1.0).to_event(1)), (LOC,), (3,)),
    "MultivariateNormal": (
        lambda loc: NumPyroDensity(npd.MultivariateNormal(loc, scale_tril=2 * jnp.eye(3))),
        (LOC,),
        (3,),
    ),
    "LowRankMultivariateNormal": (
        lambda l: NumPyroDensity(npd.LowRankMultivariateNormal(l, jnp.ones((3, 1)), jnp.ones(3))),
        (LOC,),
        (3,),
    ),
    "RelaxedBernoulliLogits": (
        lambda l: NumPyroDensity(npd.RelaxedBernoulliLogits(jnp.asarray(0.5), l).to_event(1)),
        (LOGITS,),
        (3,),
    ),
    "Poisson": (lambda l: NumPyroDensity(npd.Poisson(jnp.exp(l)).to_event(1)), (LOGITS,), (3,)),
}


def make(name):
    family, arrays, shape = FAMILIES[name]
    return family, [jnp.asarray(array, jnp.float32) for array in arrays], shape

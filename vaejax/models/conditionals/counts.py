"""Conditionals of counts."""

import jax.numpy as jnp
import numpyro.distributions as npd

from vaejax.base.supports import COUNTS
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.masses import ExactNegativeBinomial
from vaejax.distributions.numpyro import from_numpyro
from vaejax.models.conditionals.base import (
    MAX_LOG_SCALE,
    OfNet,
    take_heads,
    take_one_head,
)
from vaejax.networks.base import Net, apply_net
from vaejax.networks.layers import soft_bound

MAX_LOG_RATE = 15.0  # three million counts


@component
class Poisson(OfNet):
    """prod_i Poisson(x_i; rate = exp(r_i)). The net gives raw log-rates of x's shape.

    In float32 right to 1e-6 for the rate that it has, up to three million; but there a log-rate
    itself has steps of 1e-6, each of which moves log p by 1e-6 |x - rate|.
    """

    net: Net
    support = COUNTS

    def __call__(self, params: PyTree, given) -> Distribution:
        log_rate = take_one_head(self, apply_net(self.net, params, given), "log-rates")
        return from_numpyro(npd.Poisson(jnp.exp(soft_bound(log_rate, MAX_LOG_RATE))))


@component
class NegativeBinomial(OfNet):
    """prod_i NB(x_i; mean m_i, variance m_i + m_i^2 / c_i). The net gives two heads of x's shape,
    raw log m and raw log c.
    """

    net: Net
    support = COUNTS

    def __call__(self, params: PyTree, given) -> Distribution:
        log_mean, log_concentration = take_heads(
            self, apply_net(self.net, params, given), "log_mean, log_concentration"
        )
        mean, concentration = (
            jnp.exp(soft_bound(log_mean, MAX_LOG_RATE)),
            jnp.exp(soft_bound(log_concentration, MAX_LOG_SCALE)),
        )
        return from_numpyro(ExactNegativeBinomial(mean, concentration))

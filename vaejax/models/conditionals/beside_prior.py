"""Conditionals of a latent that start from the prior's own factor: nodes of an encoder, which say
only how the data move it.

They are for an encoder that is a `DirectedGraph`, in a `vaejax.GraphModel`, and for factors of the
prior that are diagonal normals.
"""

import jax
import jax.numpy as jnp

from vaejax.base.checks import require_positive
from vaejax.base.supports import REAL
from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.models.conditionals.base import MAX_LOG_SCALE, OfNet, take_heads
from vaejax.models.node import BesidePrior
from vaejax.networks.base import Net, apply_net, init_net
from vaejax.networks.layers import soft_bound


class OfNetBesidePrior(OfNet, abstract=True):
    """What two heads of a net, (loc, raw log_scale), make of the prior's factor N(m, s^2). The net
    is shown the node's parents alone; log_scale = soft_bound(raw, max_log_scale), as in
    `DiagNormal`.
    """

    net: Net
    max_log_scale: float | None = MAX_LOG_SCALE
    is_shown_prior = True

    def __post_init__(self):
        if self.max_log_scale is not None:
            require_positive(self.max_log_scale, f"{type(self).__name__}.max_log_scale")

    def init(self, key: Key, given: BesidePrior) -> PyTree:
        return init_net(self.net, key, given.given)

    def normals(self, params: PyTree, given: BesidePrior) -> tuple[jax.Array, ...]:
        """(loc, log_scale) of the net, and (m, log s) of the prior's factor."""
        prior, name = given.prior, type(self).__name__
        if not isinstance(prior, DiagNormalDensity):
            raise TypeError(
                f"{name} is for a prior whose factor is a diagonal normal, not {prior.name}; use"
                " vaejax.DiagNormal, which is not shown the prior"
            )
        loc, log_scale = take_heads(
            self, apply_net(self.net, params, given.given), "loc, log_scale"
        )
        if loc.shape != prior.loc.shape:
            raise TypeError(
                f"{name} needs heads of the shape of its latent under the prior, {prior.loc.shape},"
                f" and its net's have {loc.shape}"
            )
        if self.max_log_scale is not None:
            log_scale = soft_bound(log_scale, self.max_log_scale)
        return loc, log_scale, prior.loc, prior.log_scale


@component
class PrecisionWeightedNormal(OfNetBesidePrior):
    """q = N(m + w (loc - m), 1 / (1/s^2 + 1/scale^2)), w = s^2 / (s^2 + scale^2): proportional to
    the prior's factor N(m, s^2) times a likelihood N(loc, scale^2) that the net gives.

    The net gives two heads, (loc, raw log_scale). Where its precision is 0, q is the prior; it is
    never wider. Where the likelihood of the latent is normal, as in a linear-Gaussian chain, q can
    be the posterior itself. Reference: Sønderby et al. 2016, eq. 17 and 18 (ladder VAE).
    """

    net: Net
    max_log_scale: float | None = MAX_LOG_SCALE
    support = REAL

    def __call__(self, params: PyTree, given: BesidePrior) -> Distribution:
        loc, log_scale, m, log_s = self.normals(params, given)
        weight = jax.nn.sigmoid(2 * (log_s - log_scale))
        log_precision = jnp.logaddexp(-2 * log_s, -2 * log_scale)
        return DiagNormalDensity(m + weight * (loc - m), -0.5 * log_precision)


@component
class ResidualNormal(OfNetBesidePrior):
    """q = N(m + s loc, (s scale)^2): the net gives two heads, (loc, raw log_scale), in units of the
    prior's factor N(m, s^2).

    Where both are 0, q is the prior; KL(q || p) = sum (loc^2 + scale^2 - 1) / 2 - log scale does
    not depend on the prior. Reference: Vahdat & Kautz 2020 (NVAE), where loc is in units of z.
    """

    net: Net
    max_log_scale: float | None = MAX_LOG_SCALE
    support = REAL

    def __call__(self, params: PyTree, given: BesidePrior) -> Distribution:
        loc, log_scale, m, log_s = self.normals(params, given)
        return DiagNormalDensity(m + jnp.exp(log_s) * loc, log_s + log_scale)

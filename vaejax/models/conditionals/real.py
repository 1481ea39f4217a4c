"""Conditionals of real vectors."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd

from vaejax.base.checks import Reals, require_positive
from vaejax.base.devices import on_automatic_axes
from vaejax.base.supports import REAL, SPHERE
from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import CholeskyNormal, NumPyroDensity, from_numpyro
from vaejax.distributions.sphere import VonMisesFisherDensity
from vaejax.models.base import Conditional
from vaejax.models.conditionals.base import (
    MAX_LOG_SCALE,
    OfNet,
    require_vectors,
    take_heads,
    take_one_head,
)
from vaejax.networks.base import Net, apply_net, init_net
from vaejax.networks.layers import soft_bound

# in units of the scale: two coordinates correlate by up to 0.999, and float32 can still invert that
MAX_LOADING = 30.0


MAX_CONCENTRATION = 1e4  # of a direction: 0.01 wide


NO_DIRECTION = 1e-6  # a concentration that is uniform to as many digits


@component
class DiagNormal(OfNet):
    """N(x; loc, diag exp(2 log_scale)). The net gives two heads, (loc, raw log_scale), of x's
    shape.

    log_scale = soft_bound(raw, max_log_scale); `None` leaves the raw head as it is.
    """

    net: Net
    max_log_scale: float | None = MAX_LOG_SCALE
    support = REAL

    def __post_init__(self):
        if self.max_log_scale is not None:
            require_positive(self.max_log_scale, "DiagNormal.max_log_scale")

    def __call__(self, params: PyTree, given) -> Distribution:
        loc, log_scale = take_heads(self, apply_net(self.net, params, given), "loc, log_scale")
        return DiagNormalDensity(
            loc,
            log_scale if self.max_log_scale is None else soft_bound(log_scale, self.max_log_scale),
        )


@component
class FullNormal(OfNet):
    """N(x; loc, S L L' S), S = diag exp(log_scale), L = I + strictly lower. The net gives d + 2
    heads of shape [d].

    They are loc, raw log_scale, and d raw rows of which only what lies below the diagonal is used:
    `vaejax.MLP(d, heads=d + 2)`. The entries of L are in units of the scale, bounded at 30, so that
    a pair correlates by up to 0.9994. From ten dimensions on, rows that are all at that bound have
    an inverse beyond float32: of its own samples the density stays finite, of others it may not.
    """

    net: Net
    support = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        output = apply_net(self.net, params, given)
        dim = jax.tree.leaves(output)[0].size
        outputs = take_heads(
            self, output, "loc, log_scale, row 1, ..., row d", at_least=dim + 2, at_most=dim + 2
        )
        loc, log_scale, *rows = require_vectors(self, outputs)
        below = jnp.asarray(np.tri(dim, k=-1), loc.dtype)
        unit = jnp.eye(dim, dtype=loc.dtype) + below * soft_bound(jnp.stack(rows), MAX_LOADING)
        scale_tril = jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))[:, None] * unit
        # It is lower triangular; NumPyro's check of that does not run within jax.shard_map.
        return CholeskyNormal(
            npd.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
        )


@component
class LowRankNormal(OfNet):
    """N(x; loc, S (I + F F') S), S = diag exp(log_scale), F [d, r]. The net gives 2 + r heads of
    shape [d].

    They are loc, raw log_scale, and the r raw columns of F: the number of heads is the rank,
    `vaejax.MLP(d, heads=2 + r)`. The entries of F are in units of the scale, bounded at 30, so that
    a pair correlates by up to 0.9989.
    """

    net: Net
    support = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        outputs = take_heads(
            self,
            apply_net(self.net, params, given),
            "loc, log_scale, column 1, ..., column r",
            at_least=3,
            at_most=1_000,
        )
        loc, log_scale, *columns = require_vectors(self, outputs)
        scale = jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))
        factor = scale[:, None] * soft_bound(jnp.stack(columns, axis=1), MAX_LOADING)
        return NumPyroDensity(
            on_automatic_axes(npd.LowRankMultivariateNormal, loc, factor, scale**2)
        )


@component
class Gaussian(Conditional):
    """N(x; net(z), diag scale^2). The net gives a mean of x's shape.

    `scale` is a number, "learned" (one for all dimensions) or "per-dimension" (learned, one for
    each). It decides the balance between reconstruction and KL, so it is never silently 1. The best
    shared scale for a batch, in closed form (sigma-VAE, Rybkin et al. 2021), is
    `vaejax.optimal_scale` around the objective of a "learned" one.
    """

    net: Net
    scale: float | Literal["learned", "per-dimension"]
    support = REAL

    def __post_init__(self):
        if self.scale == "optimal":
            raise ValueError(
                "Gaussian.scale = 'optimal': the best scale is one of a batch, not of one example; "
                "use scale='learned' and vaejax.optimal_scale(objective)"
            )
        positive = Reals(0, is_open=True)
        if self.scale not in ("learned", "per-dimension") and self.scale not in positive:
            raise ValueError(
                f'Gaussian.scale = {self.scale!r}; it must be {positive}, "learned" or'
                ' "per-dimension"'
            )

    def init(self, key: Key, given) -> PyTree:
        params = {"net": init_net(self.net, key, given)}
        if self.scale == "learned":
            params["log_scale"] = jnp.zeros(())
        elif self.scale == "per-dimension":
            params["log_scale"] = jnp.zeros_like(self._loc(params["net"], given))
        return params

    def __call__(self, params: PyTree, given) -> Distribution:
        loc = self._loc(params["net"], given)
        log_scale = (
            jnp.log(jnp.asarray(self.scale, loc.dtype))
            if isinstance(self.scale, int | float)
            else params["log_scale"]
        )
        return DiagNormalDensity(loc, jnp.broadcast_to(log_scale, loc.shape))

    def _loc(self, params: PyTree, given) -> jax.Array:
        return take_one_head(self, apply_net(self.net, params, given), "the mean")


@component
class Laplace(OfNet):
    """prod_i exp(-|x_i - loc_i| / b_i) / (2 b_i), b = exp(log_scale). The net gives two heads,
    (loc, raw log_scale), of x's shape.
    """

    net: Net
    support = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        loc, log_scale = take_heads(self, apply_net(self.net, params, given), "loc, log_scale")
        return from_numpyro(npd.Laplace(loc, jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))))


@component
class VonMisesFisher(OfNet):
    """vMF(x; loc, kappa) on the unit sphere. The net gives the natural parameter h = kappa loc, one
    head of shape [d], d >= 2.

    kappa is |h|, bounded at 10,000. Reference: Davidson et al. 2018.
    """

    net: Net
    support = SPHERE

    def __call__(self, params: PyTree, given) -> Distribution:
        natural = take_one_head(
            self, apply_net(self.net, params, given), "kappa times the mean direction"
        )
        if natural.ndim != 1 or natural.size < 2:
            raise TypeError(
                "VonMisesFisher needs a vector of 2 or more from its net, such as vaejax.MLP(dim),"
                f" not shape {natural.shape}"
            )
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(natural)))
        unit = jnp.maximum(largest, NO_DIRECTION)  # so that the squares neither overflow nor vanish
        natural = natural.at[0].add(
            jnp.where(largest < NO_DIRECTION, NO_DIRECTION, 0)
        )  # at 0 any direction will do, but one is needed
        length = unit * jnp.linalg.norm(natural / unit)
        return VonMisesFisherDensity(natural / length, soft_bound(length, MAX_CONCENTRATION))

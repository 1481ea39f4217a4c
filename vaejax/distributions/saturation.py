"""Samples of NumPyro's families that lie closer to the end of their support than a float can.

Of Beta(.05, .05) every fifth sample is nearer to 1 than the last float before it, and of Gamma(.01)
two in five are smaller than the smallest float. Three rules keep a bound below log p(x) there:

- the density of a family's own sample is taken from the logarithm of the sample, before it is
  rounded: exact;
- the sample itself is the nearest float inside the support;
- elsewhere the density at the last float is the mean density of all that is rounded to it, so that
  the masses of what floats can tell apart still sum to one. So the density of the other factor
  is that of its own rounding, and the bound is one of the model with rounded latents.

Where samples overflow, their own density is that of the last float too. A distribution that is not
in the table but is made by NumPyro's transforms, also of a family of the table, has the same rules,
where the transforms keep the coordinates apart and the distribution under them has a distribution
function: see `tails`. Of others the density at the last float is not known: NaN, of a sample that
was handed over. A latent that is to be exact everywhere lives in other coordinates: see `relaxed`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from jax.scipy.special import gammaln
from jax.scipy.stats import norm

from vaejax.base.devices import on_automatic_axes
from vaejax.base.floats import log_sum_exp
from vaejax.base.types import Key
from vaejax.distributions.quantiles import innermost
from vaejax.distributions.support_masks import support_of
from vaejax.distributions.tails import cells_of, highest, lowest, with_tails


class Draw(NamedTuple):
    """log z of each coordinate of a sample, and its log-density, nats, of each number or vector."""

    log_z: jax.Array
    log_q: jax.Array


class SaturatingFamily(NamedTuple):
    """A family of NumPyro's, as functions of its `parameters`, which have the event's shape.

    `draw(key, *parameters)` is a `Draw`. The others are of log z and the parameters, for each
    coordinate: `log_prob`, where NumPyro's loses digits; and log(mass / (width density)) of what
    lies below z, above it up to 1, or above it without end (of width z), where z is the last float.
    """

    parameters: tuple[str, ...]
    draw: Callable[..., Draw]
    below: Callable[..., jax.Array] | None = None
    above: Callable[..., jax.Array] | None = None
    beyond: Callable[..., jax.Array] | None = None
    log_prob: Callable[..., jax.Array] | None = None


def _last(log_z: jax.Array) -> jax.Array:
    """The logarithm of the last float before infinity."""
    return jnp.full_like(log_z, jnp.log(jnp.finfo(log_z.dtype).max))


# Between 0 and z lies the mass z f / c, where the density is f = z^(c - 1).


def _log_gamma(key: Key, a: jax.Array) -> jax.Array:
    """Of which JAX knows no derivative on explicit axes."""
    return on_automatic_axes(jax.random.loggamma, key, a)


def _draw_gamma(key: Key, a: jax.Array, rate: jax.Array) -> Draw:
    noise = _log_gamma(key, a)
    log_z = noise - jnp.log(rate)
    return Draw(log_z, a * noise - jnp.exp(noise) - gammaln(a) - log_z)


def _draw_beta(key: Key, a: jax.Array, b: jax.Array) -> Draw:
    keys = jax.random.split(key)
    first, second = (_log_gamma(key, shape) for key, shape in zip(keys, (a, b), strict=True))
    log_sum = jnp.logaddexp(first, second)
    log_z, log_rest = first - log_sum, second - log_sum
    log_constant = gammaln(a + b) - gammaln(a) - gammaln(b)
    return Draw(log_z, log_constant + (a - 1) * log_z + (b - 1) * log_rest)


def _draw_dirichlet(key: Key, a: jax.Array) -> Draw:
    log_z = jax.nn.log_softmax(_log_gamma(key, a))
    constant = gammaln(jnp.sum(a, axis=-1)) - jnp.sum(gammaln(a), axis=-1)
    return Draw(log_z, jnp.sum((a - 1) * log_z, axis=-1) + constant)


def _draw_inverse_gamma(key: Key, a: jax.Array, rate: jax.Array) -> Draw:
    log_z = jnp.log(rate) - _log_gamma(key, a)
    log_q = _inverse_gamma_log_prob(log_z, a, rate)
    at_last = _inverse_gamma_log_prob(_last(log_z), a, rate) - jnp.log(a)
    return Draw(log_z, jnp.where(log_z < _last(log_z), log_q, at_last))


def _inverse_gamma_log_prob(log_z: jax.Array, a: jax.Array, rate: jax.Array) -> jax.Array:
    log_ratio = jnp.log(rate) - log_z
    return a * log_ratio - jnp.exp(log_ratio) - gammaln(a) - log_z


def _draw_log_normal(key: Key, loc: jax.Array, scale: jax.Array) -> Draw:
    log_z = loc + scale * jax.random.normal(key, loc.shape, loc.dtype)
    log_q = norm.logpdf(log_z, loc, scale) - log_z
    at_last = norm.logcdf(-_last(log_z), -loc, scale) - _last(log_z)
    return Draw(log_z, jnp.where(log_z < _last(log_z), log_q, at_last))


def _log_normal_below(log_z: jax.Array, loc: jax.Array, scale: jax.Array) -> jax.Array:
    noise = (log_z - loc) / scale
    return norm.logcdf(noise) - norm.logpdf(noise) + jnp.log(scale)


def _log_normal_beyond(log_z: jax.Array, loc: jax.Array, scale: jax.Array) -> jax.Array:
    return _log_normal_below(-log_z, -loc, scale)


def _draw_weibull(key: Key, scale: jax.Array, k: jax.Array) -> Draw:
    noise = _log_gamma(key, jnp.ones_like(k))  # the logarithm of an exponential
    log_z = jnp.log(scale) + noise / k
    log_q = _weibull_log_prob(log_z, scale, k)
    last = _last(log_z)
    is_last = log_z >= last
    # Elsewhere (last / scale)^k overflows, and the derivative of a branch not taken would be NaN.
    scale, k = jnp.where(is_last, scale, 1), jnp.where(is_last, k, 0.01)
    at_last = _weibull_log_prob(last, scale, k) + _weibull_beyond(last, scale, k)
    return Draw(log_z, jnp.where(is_last, at_last, log_q))


def _weibull_log_prob(log_z: jax.Array, scale: jax.Array, k: jax.Array) -> jax.Array:
    log_t = k * (log_z - jnp.log(scale))
    return jnp.log(k) + log_t - jnp.exp(log_t) - log_z


def _weibull_below(log_z: jax.Array, scale: jax.Array, k: jax.Array) -> jax.Array:
    # F = 1 - exp(-t), and z f = k t exp(-t), t = (z / scale)^k
    t = jnp.exp(k * (log_z - jnp.log(scale)))
    return jnp.log(_slope(t)) - jnp.log(k) + t


def _weibull_beyond(log_z: jax.Array, scale: jax.Array, k: jax.Array) -> jax.Array:
    return -jnp.log(k) - k * (log_z - jnp.log(scale))


def _slope(t: jax.Array) -> jax.Array:
    """(1 - exp(-t)) / t, 1 at 0."""
    small = t < 1e-30
    return jnp.where(small, 1, -jnp.expm1(-t) / jnp.where(small, 1, t))


def _draw_kumaraswamy(key: Key, a: jax.Array, b: jax.Array) -> Draw:
    # 1 - z^a = (1 - u)^(1/b), and -log(1 - u) is exponential
    log_rest = -jnp.exp(_log_gamma(key, jnp.ones_like(b))) / b
    log_z = jnp.log(-jnp.expm1(log_rest)) / a
    return Draw(log_z, jnp.log(a) + jnp.log(b) + (a - 1) * log_z + (b - 1) * log_rest)


def _kumaraswamy_log_prob(log_z: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    log_rest = jnp.log(-jnp.expm1(a * log_z))  # log(1 - z^a)
    return jnp.log(a) + jnp.log(b) + (a - 1) * log_z + (b - 1) * log_rest


def _kumaraswamy_below(log_z: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    # F = 1 - (1 - s)^b, and z f = a b s (1 - s)^(b - 1), s = z^a = 1 - exp(-t)
    t = -jnp.log1p(-jnp.exp(a * log_z))
    return jnp.log(_slope(b * t)) - jnp.log(_slope(t)) - jnp.log(a) + (b - 1) * t


def _first(log_z: jax.Array, a: jax.Array, *others: jax.Array) -> jax.Array:
    return -jnp.log(a)


def _second(log_z: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return -jnp.log(b)


_GAMMA = SaturatingFamily(("concentration", "rate"), _draw_gamma, below=_first)
_TWO = ("concentration1", "concentration0")
_BETA = SaturatingFamily(_TWO, _draw_beta, below=_first, above=_second)
FAMILIES: dict[type, SaturatingFamily] = {
    npd.Gamma: _GAMMA,
    npd.Chi2: _GAMMA,
    npd.Beta: _BETA,
    npd.BetaProportion: _BETA,
    npd.Dirichlet: SaturatingFamily(("concentration",), _draw_dirichlet, below=_first),
    npd.InverseGamma: SaturatingFamily(
        ("concentration", "rate"),
        _draw_inverse_gamma,
        beyond=_first,
        log_prob=_inverse_gamma_log_prob,
    ),
    npd.LogNormal: SaturatingFamily(
        ("loc", "scale"), _draw_log_normal, below=_log_normal_below, beyond=_log_normal_beyond
    ),
    npd.Weibull: SaturatingFamily(
        ("scale", "concentration"),
        _draw_weibull,
        below=_weibull_below,
        beyond=_weibull_beyond,
        log_prob=_weibull_log_prob,
    ),
    npd.Kumaraswamy: SaturatingFamily(
        _TWO, _draw_kumaraswamy, _kumaraswamy_below, _second, log_prob=_kumaraswamy_log_prob
    ),
}


def log_probs_of_rounded(
    p: npd.Distribution, coordinate: npd.Distribution, value: jax.Array
) -> jax.Array:
    """log p(value), nats, as p has it; at the last float before an end of the support it is the log
    of the mean density of all that is rounded to it.
    """
    if isinstance(coordinate, npd.MixtureSameFamily | npd.MixtureGeneral):
        return _of_mixture(innermost(p), coordinate, value)
    family = FAMILIES.get(type(coordinate))
    if family is None:
        return with_tails(jnp.asarray(p.log_prob(value)), coordinate, value)
    parameters = parameters_of(family, p, coordinate)
    wide = value.astype(parameters[0].dtype)
    log_ratios = _log_ratios(family, parameters, wide)
    axes = tuple(range(-coordinate.event_dim, 0))
    total = _exact(family, p, parameters, value, wide)
    return sum((jnp.sum(log_ratio, axis=axes) for log_ratio in log_ratios), total)


def _exact(
    family: SaturatingFamily, p: Any, parameters: list[jax.Array], value: jax.Array, z: jax.Array
) -> jax.Array:
    """log p(value), nats; by the family's own formula where NumPyro's loses digits. `z` is the
    value in the dtype of the parameters.
    """
    if family.log_prob is None:
        return jnp.asarray(p.log_prob(value))
    # NumPyro's at the ends and beyond, and neither derivative where the other counts.
    inside = (z > 0) & (z < (1 if family.above else jnp.inf))
    own = family.log_prob(jnp.log(jnp.where(inside, z, 0.5)), *parameters)
    return jnp.where(inside, own, p.log_prob(jnp.where(inside, 0.5, z)))


def _log_ratios(
    family: SaturatingFamily, parameters: list[jax.Array], z: jax.Array
) -> Iterator[jax.Array]:
    """log(mean density / density) of all that is rounded to z, for each of the last floats that the
    family has; 0 where z is none of them.
    """
    low, high, largest = lowest(z.dtype), highest(z.dtype), jnp.finfo(z.dtype).max
    for ratio, end, is_there in (
        (family.below, low, (z > 0) & (z <= low)),
        (family.above, high, (z >= high) & (z < 1)),
        (family.beyond, largest, (z >= largest) & (z < jnp.inf)),
    ):
        if ratio is not None:
            log_ratio = ratio(jnp.log(jnp.asarray(end, z.dtype)), *parameters)
            yield jnp.where(is_there, log_ratio, 0)


def _of_mixture(p: Any, coordinate: Any, value: jax.Array) -> jax.Array:
    """log sum_c w_c p_c(value), each p_c that of its own rounding; p is held to its support, and
    `coordinate` is as it was given.
    """
    if isinstance(p, npd.MixtureSameFamily):
        shared = jnp.expand_dims(value, -1 - p.event_dim)
        parts = p.component_distribution, coordinate.component_distribution
        log_probs = _of_component(*parts, shared)
    else:
        pairs = zip(p.component_distributions, coordinate.component_distributions, strict=True)
        log_probs = jnp.stack([_of_component(*pair, value) for pair in pairs], axis=-1)
    log_weights = jax.nn.log_softmax(coordinate.mixing_distribution.logits)
    return log_sum_exp(log_weights + log_probs, axis=-1)


def _of_component(p: Any, given: npd.Distribution, value: jax.Array) -> jax.Array:
    num_events = 0
    while isinstance(p, npd.Independent):
        num_events += p.reinterpreted_batch_ndims
        p = p.base_dist
    log_probs = log_probs_of_rounded(p, innermost(given), value)
    return jnp.sum(log_probs, axis=tuple(range(-num_events, 0)))


def parameters_of(
    family: SaturatingFamily, p: npd.Distribution, coordinate: npd.Distribution
) -> list[jax.Array]:
    """In float, of the event's shape."""
    values = [jnp.asarray(vars(coordinate)[name]) for name in family.parameters]
    dtype = jnp.result_type(float, *values)
    return [jnp.broadcast_to(value, p.shape()).astype(dtype) for value in values]


def rounded_inside(coordinate: npd.Distribution, value: jax.Array) -> jax.Array:
    """The nearest float that is inside the support, and not at an end where densities are 0 or
    infinite.
    """
    support = support_of(coordinate)
    if support is npd.constraints.simplex:
        return jnp.maximum(value, lowest(value.dtype))
    for cell in cells_of(support, value.dtype):
        value = jnp.minimum(value, cell.end) if cell.above else jnp.maximum(value, cell.end)
    return value

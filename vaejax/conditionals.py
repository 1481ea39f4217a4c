"""Conditionals p(. | given), whose parameters a net gives: likelihoods, encoders, classifiers, nodes of a graph.

`conditional.init(key, given)` gives its parameters, `conditional(params, given)` a Distribution. `support` says which values
the density is for, so that data, or a prior, on another set are refused before anything runs. Log-scales, log-rates and the
like are bounded by `soft_bound`, so that no output of a net, however large, makes a density overflow.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from flax.errors import ScopeParamShapeError

from vaejax import distributions, sphere
from vaejax._values import value
from vaejax.flows import Autoregressive, Coupling, Flow, init_layers
from vaejax.networks import soft_bound
from vaejax.supports import BINARY, COUNTS, ONE_HOT, REAL, SIMPLEX, SPHERE, UNIT_INTERVAL, Support, levels
from vaejax.types import Distribution, Key, Net, PyTree

MAX_LOG_SCALE = 7.0  # in float32 exp(2 s) overflows at s = 44
MAX_LOG_RATE = 15.0  # three million counts


def apply(net: Net, params: PyTree, given):
    """`net.apply(params, given)`, or a ValueError that says what to type where `given` is not one example."""
    try:
        return net.apply(params, given)
    except ScopeParamShapeError:
        shapes = ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(given))
        raise ValueError(
            f"{type(net).__name__} got an input of shape {shapes}, which its parameters do not fit; "
            "these functions take one example: use jax.vmap or vaejax.minibatch"
        ) from None


def heads(owner: Any, output: Any, names: str, at_least: int | None = None, at_most: int | None = None) -> tuple[jax.Array, ...]:
    """The outputs of a net, as many as its owner has names for, or a TypeError that says what to write."""
    count = len(names.split(", "))
    if not isinstance(output, tuple) or not (at_least or count) <= len(output) <= (at_most or count):
        raise TypeError(f"{type(owner).__name__} wants a net that returns ({names}), such as vaejax.MLP(dim, heads={at_least or count})")
    return output


class OfNet:
    """What a conditional has whose only parameters are its net's."""

    net: Net

    def init(self, key: Key, given) -> PyTree:
        return self.net.init(key, given)


# Of real vectors.


@value
class DiagNormal(OfNet):
    """N(x; loc, diag exp(2 log_scale)). The net gives two heads, (loc, raw log_scale), of x's shape.

    log_scale = soft_bound(raw, max_log_scale); `None` leaves the raw head as it is.
    """

    net: Net
    max_log_scale: float | None = MAX_LOG_SCALE
    support: ClassVar[Support] = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        loc, log_scale = heads(self, apply(self.net, params, given), "loc, log_scale")
        return distributions.DiagNormal(loc, log_scale if self.max_log_scale is None else soft_bound(log_scale, self.max_log_scale))


@value
class FullNormal(OfNet):
    """N(x; loc, L L'), L = diag(exp log_scale) (I + lower). The net gives d + 2 heads of shape [d]: loc, raw log_scale, and d rows.

    Of the rows only what lies below the diagonal is used: `vaejax.MLP(d, heads=d + 2)`.
    """

    net: Net
    support: ClassVar[Support] = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        output = apply(self.net, params, given)
        dim = jax.tree.leaves(output)[0].size
        loc, log_scale, *rows = heads(self, output, "loc, log_scale, row 1, ..., row d", at_least=dim + 2, at_most=dim + 2)
        unit = jnp.eye(dim, dtype=loc.dtype) + jnp.tril(soft_bound(jnp.stack(rows), MAX_LOG_SCALE), -1)
        scale_tril = jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))[:, None] * unit
        return distributions.Event(npd.MultivariateNormal(loc, scale_tril=scale_tril))


@value
class LowRankNormal(OfNet):
    """N(x; loc, diag exp(2 log_scale) + F F'). The net gives 2 + r heads of shape [d]: loc, raw log_scale, and the r columns of F.

    The number of heads is the rank: `vaejax.MLP(d, heads=2 + r)`.
    """

    net: Net
    support: ClassVar[Support] = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        output = apply(self.net, params, given)
        loc, log_scale, *columns = heads(self, output, "loc, log_scale, column 1, ..., column r", at_least=3, at_most=1_000)
        factor = soft_bound(jnp.stack(columns, axis=1), 100.0)
        variances = jnp.exp(2 * soft_bound(log_scale, MAX_LOG_SCALE))
        return distributions.Event(npd.LowRankMultivariateNormal(loc, factor, variances))


@value
class Gaussian:
    """N(x; net(z), diag scale^2). The net gives a mean of x's shape.

    `scale` is a number, "learned" (one for all dimensions) or "per-dimension" (learned, one for each). It decides the balance
    between reconstruction and KL, so it is never silently 1. The best shared scale for a batch, in closed form (sigma-VAE,
    Rybkin et al. 2021, eq. 5), is `vaejax.optimal_scale` around the objective of a "learned" one.
    """

    net: Net
    scale: float | Literal["learned", "per-dimension"]
    support: ClassVar[Support] = REAL

    def __post_init__(self):
        if self.scale == "optimal":
            raise ValueError(
                "Gaussian.scale = 'optimal': the best scale is one of a batch, not of one example; "
                "use scale='learned' and vaejax.optimal_scale(objective)"
            )
        if self.scale not in ("learned", "per-dimension") and not (isinstance(self.scale, int | float) and self.scale > 0):
            raise ValueError(f'Gaussian.scale = {self.scale!r}; give a positive number, "learned" or "per-dimension"')

    def init(self, key: Key, given) -> PyTree:
        params = {"net": self.net.init(key, given)}
        if self.scale == "learned":
            params["log_scale"] = jnp.zeros(())
        elif self.scale == "per-dimension":
            params["log_scale"] = jnp.zeros_like(apply(self.net, params["net"], given))
        return params

    def __call__(self, params: PyTree, given) -> Distribution:
        loc = apply(self.net, params["net"], given)
        log_scale = jnp.log(jnp.asarray(self.scale, loc.dtype)) if isinstance(self.scale, int | float) else params["log_scale"]
        return distributions.DiagNormal(loc, jnp.broadcast_to(soft_bound(log_scale, MAX_LOG_SCALE), loc.shape))


@value
class Laplace(OfNet):
    """prod_i exp(-|x_i - loc_i| / b_i) / (2 b_i), b = exp(log_scale). The net gives two heads, (loc, raw log_scale), of x's shape."""

    net: Net
    support: ClassVar[Support] = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        loc, log_scale = heads(self, apply(self.net, params, given), "loc, log_scale")
        return event(npd.Laplace(loc, jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))))


class OfFlow:
    """A flow on a diagonal normal base. The net gives (loc, raw log_scale) of the base and, with a third head, a context for the layers."""

    net: Net
    layers: tuple[Any, ...]
    support: ClassVar[Support] = REAL

    def init(self, key: Key, given) -> PyTree:
        net_key, flow_key = jax.random.split(key)
        params = self.net.init(net_key, given)
        loc, _, *context = self._heads(params, given)
        return {"net": params, "flow": init_layers(self.layers, flow_key, loc, context[0] if context else None)}

    def __call__(self, params: PyTree, given) -> Distribution:
        loc, log_scale, *context = self._heads(params["net"], given)
        base = distributions.DiagNormal(loc, soft_bound(log_scale, MAX_LOG_SCALE))
        return Flow(base, params["flow"], context[0] if context else None, self.layers)

    def _heads(self, params: PyTree, given) -> tuple[jax.Array, ...]:
        return heads(self, apply(self.net, params, given), "loc, log_scale, context", at_least=2, at_most=3)


@value
class RealNVP(OfFlow):
    """Affine couplings on a diagonal normal: samples and log-densities anywhere, at one pass of each layer. See `flows.Coupling`.

    The net gives two heads, or three: `vaejax.MLP(dim, heads=3)` adds a context for the layers.
    """

    net: Net
    num_layers: int = 4
    hidden: tuple[int, ...] = (64,)

    @property
    def layers(self):
        return (Coupling(self.hidden),) * self.num_layers


@value
class InverseAutoregressive(OfFlow):
    """An inverse autoregressive flow on a diagonal normal: the density of its own samples is cheap, elsewhere it is refused.

    The net gives two heads, or three: `vaejax.MLP(dim, heads=3)` adds a context for the layers. Reference: Kingma et al. 2016.
    """

    net: Net
    num_layers: int = 2
    hidden: tuple[int, ...] = (64,)

    @property
    def layers(self):
        return (Autoregressive("forward", self.hidden),) * self.num_layers


@value
class VonMisesFisher(OfNet):
    """vMF(x; loc, kappa) on the unit sphere. The net gives the natural parameter h = kappa loc, one head of shape [d].

    kappa = |h|, bounded at 10,000. Reference: Davidson et al. 2018.
    """

    net: Net
    support: ClassVar[Support] = SPHERE

    def __call__(self, params: PyTree, given) -> Distribution:
        natural = apply(self.net, params, given)
        if not isinstance(natural, jax.Array) or natural.ndim != 1:
            raise TypeError("VonMisesFisher wants a net that returns one vector, kappa times the mean direction, such as vaejax.MLP(dim)")
        largest = jnp.maximum(jnp.max(jnp.abs(natural)), 1e-3)  # so that the squares neither overflow nor vanish
        length = largest * jnp.sqrt(jnp.sum((natural / largest) ** 2) + 1e-12)
        return sphere.VonMisesFisher(natural / length, soft_bound(length, 1e4))


# Of pixels.


@value
class Bernoulli(OfNet):
    """prod_i Bernoulli(x_i; logits = net(z)_i). The net gives logits of x's shape."""

    net: Net
    support: ClassVar[Support] = BINARY

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.Bernoulli(apply(self.net, params, given))


@value
class ContinuousBernoulli(OfNet):
    """prod_i C(l_i) exp(l_i x_i), l = net(z), on [0, 1]: grey pixels as they are. The net gives logits of x's shape."""

    net: Net
    support: ClassVar[Support] = UNIT_INTERVAL

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.ContinuousBernoulli(apply(self.net, params, given))


@value
class Categorical(OfNet):
    """prod_i softmax(net(z)_i)_k, k = x_i (n-1): n free probabilities for each pixel x_i = k/(n-1). The net's logits have shape [*x, n]."""

    net: Net
    num_levels: int = 256

    @property
    def support(self) -> Support:
        return levels(self.num_levels)

    def __call__(self, params: PyTree, given) -> Distribution:
        logits = apply(self.net, params, given)
        if not isinstance(logits, jax.Array) or logits.shape[-1] != self.num_levels:
            shapes = [leaf.shape for leaf in jax.tree.leaves(logits)]
            raise TypeError(f"Categorical wants a net that returns logits [*x.shape, {self.num_levels}], not {shapes}")
        return distributions.Levels(logits)


@value
class DiscretizedLogistic(OfNet):
    """Per pixel x_i = k/(n-1) the mass that a mixture of C logistics puts on the level. The net gives heads of x's shape.

    2 heads (loc, raw log_scale) for one logistic, 3 C heads for a mixture of C: the logits, then the locations, then the log-scales.
    """

    net: Net
    num_levels: int = 256

    @property
    def support(self) -> Support:
        return levels(self.num_levels)

    def __call__(self, params: PyTree, given) -> Distribution:
        outputs = heads(self, apply(self.net, params, given), "loc, log_scale", at_most=3_000)
        if len(outputs) == 2:
            outputs = jnp.zeros_like(outputs[0]), *outputs
        if len(outputs) % 3:
            raise TypeError(f"DiscretizedLogistic wants 2 heads, or 3 for each component of a mixture, not {len(outputs)}")
        logits, loc, log_scale = jnp.split(jnp.stack(outputs, axis=-1), 3, axis=-1)
        # Locations start in the middle of the pixels' range, scales at a tenth of it.
        return distributions.DiscretizedLogistic(logits, loc + 0.5, soft_bound(log_scale - 2.0, MAX_LOG_SCALE), self.num_levels)


# Of counts.


@value
class Poisson(OfNet):
    """prod_i Poisson(x_i; rate = exp(r_i)). The net gives raw log-rates of x's shape."""

    net: Net
    support: ClassVar[Support] = COUNTS

    def __call__(self, params: PyTree, given) -> Distribution:
        return event(npd.Poisson(jnp.exp(soft_bound(apply(self.net, params, given), MAX_LOG_RATE))))


@value
class NegativeBinomial(OfNet):
    """prod_i NB(x_i; mean m_i, variance m_i + m_i^2 / c_i). The net gives two heads of x's shape, raw log m and raw log c."""

    net: Net
    support: ClassVar[Support] = COUNTS

    def __call__(self, params: PyTree, given) -> Distribution:
        log_mean, log_concentration = heads(self, apply(self.net, params, given), "log_mean, log_concentration")
        mean, concentration = jnp.exp(soft_bound(log_mean, MAX_LOG_RATE)), jnp.exp(soft_bound(log_concentration, MAX_LOG_SCALE))
        return event(npd.NegativeBinomial2(mean, concentration))


# Of discrete latents; for binary ones `Bernoulli` serves.


@value
class OneHotCategorical(OfNet):
    """prod_i prod_c softmax(net(x)_i)_c^z_ic: categorical variables as one-hot vectors. The net gives logits [..., c]."""

    net: Net
    support: ClassVar[Support] = ONE_HOT

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.OneHotCategorical(apply(self.net, params, given))


@value
class RelaxedBernoulli(OfNet):
    """prod_i BinConcrete(z_i; net(x)_i, temperature) on (0, 1). The net gives logits. Reference: Maddison et al. 2017, appendix B."""

    net: Net
    temperature: float = 0.5
    support: ClassVar[Support] = UNIT_INTERVAL

    def __call__(self, params: PyTree, given) -> Distribution:
        return relaxed_bernoulli(self.temperature, apply(self.net, params, given))


@value
class RelaxedCategorical(OfNet):
    """prod_i Concrete(z_i; net(x)_i, temperature) on the simplex. The net gives logits [..., c]. Reference: Maddison et al. 2017."""

    net: Net
    temperature: float = 0.5
    support: ClassVar[Support] = SIMPLEX

    def __call__(self, params: PyTree, given) -> Distribution:
        logits = apply(self.net, params, given)
        return distributions.RelaxedOneHotCategorical(jnp.asarray(self.temperature, logits.dtype), logits)


def relaxed_bernoulli(temperature: float, logits: jax.Array) -> Distribution:
    return event(npd.RelaxedBernoulliLogits(jnp.asarray(temperature, logits.dtype), logits))


# Of anything else.


@value
class NumPyroConditional(OfNet):
    """family(net(given)), any NumPyro distribution of the net's output: `NumPyroConditional(net, lambda loc: npd.StudentT(3, loc, 1))`.

    All its batch axes are made one event. `support`, such as `vaejax.supports.REAL`, lets data and priors be checked.
    """

    net: Net
    family: Callable[..., npd.Distribution]
    support: Support = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        output = apply(self.net, params, given)
        return event(self.family(*output) if isinstance(output, tuple) else self.family(output))


def event(p: npd.Distribution) -> distributions.Event:
    """A NumPyro distribution with all its batch axes in one event."""
    return distributions.Event(p.to_event(len(p.batch_shape)) if p.batch_shape else p)

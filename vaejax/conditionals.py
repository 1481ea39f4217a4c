"""Conditionals p(. | given), whose parameters a net gives: likelihoods, encoders, classifiers, nodes of a graph.

`conditional.init(key, given)` gives its parameters, `conditional(params, given)` a Distribution. `support` says which values
the density is for, so that data, or a prior, on another set are refused before anything runs. What a docstring calls raw passes
through `soft_bound`, so that no output of a net, however large, makes a density overflow: log-scales to +-7, log-rates to +-15.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from flax.errors import ScopeParamShapeError

from vaejax import distributions, events, sphere
from vaejax._values import value
from vaejax.flows import Autoregressive, Coupling, Flow, init_layers
from vaejax.networks import soft_bound
from vaejax.supports import BINARY, COUNTS, ONE_HOT, REAL, SIMPLEX, SPHERE, UNIT_INTERVAL, Support, levels
from vaejax.types import Distribution, Key, Net, PyTree

MAX_LOG_SCALE = 7.0  # in float32 exp(2 s) overflows at s = 44
MAX_LOADING = 30.0  # in units of the scale: two coordinates correlate by up to 0.999, and float32 can still invert that
MAX_LOG_SCALE_OF_LEVELS = 10.0  # 1/255 is exp(-5.5)
MAX_LOG_RATE = 15.0  # three million counts
MAX_CONCENTRATION = 1e4  # of a direction: 0.01 wide
NO_DIRECTION = 1e-6  # a concentration that is uniform to as many digits


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
    """The outputs of a net, as many as its owner has names for and the first two of one shape, or a TypeError that says what to write."""
    count = len(names.split(", "))
    if not isinstance(output, tuple) or not (at_least or count) <= len(output) <= (at_most or count):
        raise TypeError(f"{type(owner).__name__} wants a net that returns ({names}), such as vaejax.MLP(dim, heads={at_least or count})")
    if output[0].shape != output[1].shape:
        raise TypeError(f"{type(owner).__name__} wants ({names}) of one shape; its net's have {[head.shape for head in output]}")
    return output


def vectors(owner: Any, output: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """These heads, or a TypeError where they are no vectors: for densities that mix the coordinates of one."""
    if any(head.ndim != 1 for head in output):
        raise TypeError(
            f"{type(owner).__name__} is a density of vectors, so its net's heads have shape [d], not {[head.shape for head in output]}; "
            "write vaejax.MLP(d, ...) with a number d"
        )
    return output


def one_head(owner: Any, output: Any, name: str) -> jax.Array:
    """The one output of a net, or a TypeError that says what to write."""
    if isinstance(output, tuple):
        raise TypeError(f"{type(owner).__name__} wants a net that returns {name} alone, such as vaejax.MLP(dim), not {len(output)} heads")
    return output


class OfNet:
    """What a conditional has whose only parameters are its net's."""

    net: Net

    def init(self, key: Key, given) -> PyTree:
        return self.net.init(key, given)

    def logits(self, params: PyTree, given) -> jax.Array:
        """The net's one head, where it is logits."""
        return one_head(self, apply(self.net, params, given), "logits")


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
    """N(x; loc, S L L' S), S = diag exp(log_scale), L = I + strictly lower. The net gives d + 2 heads of shape [d].

    They are loc, raw log_scale, and d raw rows of which only what lies below the diagonal is used: `vaejax.MLP(d, heads=d + 2)`. The
    entries of L are in units of the scale, bounded at 30, so that a pair correlates by up to 0.9994. From ten dimensions on, rows
    that are all at that bound have an inverse beyond float32: of its own samples the density stays finite, of others it may not.
    """

    net: Net
    support: ClassVar[Support] = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        output = apply(self.net, params, given)
        dim = jax.tree.leaves(output)[0].size
        outputs = heads(self, output, "loc, log_scale, row 1, ..., row d", at_least=dim + 2, at_most=dim + 2)
        loc, log_scale, *rows = vectors(self, outputs)
        unit = jnp.eye(dim, dtype=loc.dtype) + jnp.tril(soft_bound(jnp.stack(rows), MAX_LOADING), -1)
        scale_tril = jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))[:, None] * unit
        return events.CholeskyNormal(npd.MultivariateNormal(loc, scale_tril=scale_tril))


@value
class LowRankNormal(OfNet):
    """N(x; loc, S (I + F F') S), S = diag exp(log_scale), F [d, r]. The net gives 2 + r heads of shape [d].

    They are loc, raw log_scale, and the r raw columns of F: the number of heads is the rank, `vaejax.MLP(d, heads=2 + r)`. The entries of
    F are in units of the scale, bounded at 30, so that a pair correlates by up to 0.9989.
    """

    net: Net
    support: ClassVar[Support] = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        outputs = heads(self, apply(self.net, params, given), "loc, log_scale, column 1, ..., column r", at_least=3, at_most=1_000)
        loc, log_scale, *columns = vectors(self, outputs)
        scale = jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))
        factor = scale[:, None] * soft_bound(jnp.stack(columns, axis=1), MAX_LOADING)
        return events.Event(npd.LowRankMultivariateNormal(loc, factor, scale**2))


@value
class Gaussian:
    """N(x; net(z), diag scale^2). The net gives a mean of x's shape.

    `scale` is a number, "learned" (one for all dimensions) or "per-dimension" (learned, one for each). It decides the balance
    between reconstruction and KL, so it is never silently 1. The best shared scale for a batch, in closed form (sigma-VAE,
    Rybkin et al. 2021), is `vaejax.optimal_scale` around the objective of a "learned" one.
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
            params["log_scale"] = jnp.zeros_like(self._loc(params["net"], given))
        return params

    def __call__(self, params: PyTree, given) -> Distribution:
        loc = self._loc(params["net"], given)
        log_scale = jnp.log(jnp.asarray(self.scale, loc.dtype)) if isinstance(self.scale, int | float) else params["log_scale"]
        return distributions.DiagNormal(loc, jnp.broadcast_to(log_scale, loc.shape))

    def _loc(self, params: PyTree, given) -> jax.Array:
        return one_head(self, apply(self.net, params, given), "the mean")


@value
class Laplace(OfNet):
    """prod_i exp(-|x_i - loc_i| / b_i) / (2 b_i), b = exp(log_scale). The net gives two heads, (loc, raw log_scale), of x's shape."""

    net: Net
    support: ClassVar[Support] = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        loc, log_scale = heads(self, apply(self.net, params, given), "loc, log_scale")
        return events.one_event_of(npd.Laplace(loc, jnp.exp(soft_bound(log_scale, MAX_LOG_SCALE))))


class OfFlow:
    """A flow on a diagonal normal base. The net gives (loc, raw log_scale) of the base and, with a third head, a context for the layers."""

    net: Net
    support: ClassVar[Support] = REAL

    @property
    def layers(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def init(self, key: Key, given) -> PyTree:
        net_key, flow_key = jax.random.split(key)
        params = self.net.init(net_key, given)
        loc, _, *context = self._heads(params, given)
        return {"net": params, "flow": init_layers(self.layers, flow_key, loc, context[0] if context else None)}

    def __call__(self, params: PyTree, given) -> Flow:
        loc, log_scale, *context = self._heads(params["net"], given)
        base = distributions.DiagNormal(loc, soft_bound(log_scale, MAX_LOG_SCALE))
        return Flow(base, params["flow"], context[0] if context else None, self.layers)

    def _heads(self, params: PyTree, given) -> tuple[jax.Array, ...]:
        return vectors(self, heads(self, apply(self.net, params, given), "loc, log_scale, context", at_least=2, at_most=3))


@value
class RealNVP(OfFlow):
    """Affine couplings on a diagonal normal: samples and log-densities anywhere, at one pass of each layer. See `flows.Coupling`.

    The net gives two heads, or three: `vaejax.MLP(dim, heads=3)` adds a context for the layers.
    """

    net: Net
    num_layers: int = 4
    hidden: tuple[int, ...] = (64,)

    @property
    def layers(self) -> tuple[Any, ...]:
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
    def layers(self) -> tuple[Any, ...]:
        return (Autoregressive("forward", self.hidden),) * self.num_layers


@value
class VonMisesFisher(OfNet):
    """vMF(x; loc, kappa) on the unit sphere. The net gives the natural parameter h = kappa loc, one head of shape [d], d >= 2.

    kappa is |h|, bounded at 10,000. Reference: Davidson et al. 2018.
    """

    net: Net
    support: ClassVar[Support] = SPHERE

    def __call__(self, params: PyTree, given) -> Distribution:
        natural = one_head(self, apply(self.net, params, given), "kappa times the mean direction")
        if natural.ndim != 1 or natural.size < 2:
            raise TypeError(f"VonMisesFisher wants a vector of 2 or more from its net, such as vaejax.MLP(dim), not shape {natural.shape}")
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(natural)))
        unit = jnp.maximum(largest, NO_DIRECTION)  # so that the squares neither overflow nor vanish
        natural = natural.at[0].add(jnp.where(largest < NO_DIRECTION, NO_DIRECTION, 0))  # at 0 any direction will do, but one is needed
        length = unit * jnp.linalg.norm(natural / unit)
        return sphere.VonMisesFisher(natural / length, soft_bound(length, MAX_CONCENTRATION))


# Of pixels.


@value
class Bernoulli(OfNet):
    """prod_i Bernoulli(x_i; logits = net(z)_i). The net gives logits of x's shape."""

    net: Net
    support: ClassVar[Support] = BINARY

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.Bernoulli(self.logits(params, given))


@value
class ContinuousBernoulli(OfNet):
    """prod_i C(l_i) exp(l_i x_i), l = net(z), on [0, 1]: grey pixels as they are. The net gives logits of x's shape."""

    net: Net
    support: ClassVar[Support] = UNIT_INTERVAL

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.ContinuousBernoulli(self.logits(params, given))


@value
class Categorical(OfNet):
    """prod_i softmax(net(z)_i)_k, k = x_i (n-1): n free probabilities for each pixel x_i = k/(n-1). The net's logits have shape [*x, n]."""

    net: Net
    num_levels: int = 256

    @property
    def support(self) -> Support:
        return levels(self.num_levels)

    def __call__(self, params: PyTree, given) -> Distribution:
        logits = self.logits(params, given)
        if logits.shape[-1] != self.num_levels:
            raise TypeError(
                f"Categorical wants a net that returns logits of shape [*x.shape, {self.num_levels}], such as "
                f"vaejax.MLP((*x.shape, {self.num_levels})), not {logits.shape}"
            )
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
        # Locations start in the middle of the pixels' range, scales at a seventh of it; the least puts all the mass on one level.
        return distributions.DiscretizedLogistic(logits, loc + 0.5, soft_bound(log_scale - 2.0, MAX_LOG_SCALE_OF_LEVELS), self.num_levels)


# Of counts.


@value
class Poisson(OfNet):
    """prod_i Poisson(x_i; rate = exp(r_i)). The net gives raw log-rates of x's shape."""

    net: Net
    support: ClassVar[Support] = COUNTS

    def __call__(self, params: PyTree, given) -> Distribution:
        log_rate = one_head(self, apply(self.net, params, given), "log-rates")
        return events.one_event_of(npd.Poisson(jnp.exp(soft_bound(log_rate, MAX_LOG_RATE))))


@value
class NegativeBinomial(OfNet):
    """prod_i NB(x_i; mean m_i, variance m_i + m_i^2 / c_i). The net gives two heads of x's shape, raw log m and raw log c."""

    net: Net
    support: ClassVar[Support] = COUNTS

    def __call__(self, params: PyTree, given) -> Distribution:
        log_mean, log_concentration = heads(self, apply(self.net, params, given), "log_mean, log_concentration")
        mean, concentration = jnp.exp(soft_bound(log_mean, MAX_LOG_RATE)), jnp.exp(soft_bound(log_concentration, MAX_LOG_SCALE))
        return events.one_event_of(events.NegativeBinomial(mean, concentration))


# Of discrete latents; for binary ones `Bernoulli` serves.


@value
class OneHotCategorical(OfNet):
    """prod_i prod_c softmax(net(x)_i)_c^z_ic: categorical variables as one-hot vectors. The net gives logits [..., c]."""

    net: Net
    support: ClassVar[Support] = ONE_HOT

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.OneHotCategorical(self.logits(params, given))


@value
class RelaxedBernoulli(OfNet):
    """prod_i BinConcrete(z_i; net(x)_i, temperature) on (0, 1). The net gives logits. Reference: Maddison et al. 2017."""

    net: Net
    temperature: float = 0.5
    support: ClassVar[Support] = UNIT_INTERVAL

    def __call__(self, params: PyTree, given) -> Distribution:
        return events.relaxed_bernoulli(self.temperature, self.logits(params, given))


@value
class RelaxedCategorical(OfNet):
    """prod_i Concrete(z_i; net(x)_i, temperature) on the simplex. The net gives logits [..., c]. Reference: Maddison et al. 2017."""

    net: Net
    temperature: float = 0.5
    support: ClassVar[Support] = SIMPLEX

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.relaxed_categorical(self.temperature, self.logits(params, given))


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
        return events.one_event_of(self.family(*output) if isinstance(output, tuple) else self.family(output))

"""The adapter of NumPyro's distributions, with what two of them need beside."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from jax.scipy.special import ndtri
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base import supports
from vaejax.base.checks import shortened
from vaejax.base.devices import on_automatic_axes
from vaejax.base.floats import full_dtype, widened, without_half
from vaejax.base.supports import Support
from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.atoms import require_density
from vaejax.distributions.base import Distribution, several, wrong_shape
from vaejax.distributions.draws import exact_draw, is_by_transforms
from vaejax.distributions.normal import standard_normal
from vaejax.distributions.quantiles import innermost, quantile
from vaejax.distributions.rewritten import rewritten
from vaejax.distributions.saturation import log_probs_of_rounded, rounded_inside
from vaejax.distributions.support_masks import coordinate_constraint, held_to_support, interval_of


@pytree
class NumPyroDensity(Distribution):
    """A NumPyro distribution as one event: its own density, but a value of another shape is
    refused, not broadcast, and the density is -inf off the family's support, also after
    `jax.vmap` and `jax.lax.stop_gradient`, where NumPyro forgets to ask.
    """

    base: npd.Distribution

    def __post_init__(self):
        object.__setattr__(self, "base", rewritten(with_full_parameters(self.base)))

    @property
    def name(self) -> str:
        return type(innermost(self.base)).__name__

    @property
    def reparameterised(self) -> bool:
        return self.base.has_rsample

    def mean(self) -> jax.Array:
        try:
            return self.base.mean
        except NotImplementedError:  # NumPyro's word for a mean that it has not
            return super().mean()

    def variance(self) -> jax.Array:
        """Of each coordinate, in the shape of the event."""
        return self.base.variance

    def entropy(self) -> Scalar:
        """-E log p, nats; NotImplementedError where NumPyro does not know it."""
        coordinate: Any = innermost(self.base)
        family = type(coordinate)
        if family is npd.StudentT:
            entropy = student_t_entropy(coordinate.df, coordinate.scale)
            return jnp.sum(jnp.broadcast_to(entropy, self.base.event_shape))
        return self.base.entropy()

    def states(self) -> Float[Array, "n ..."]:
        if not self.base.has_enumerate_support or self.base.event_shape:
            return super().states()
        return jnp.asarray(self.base.enumerate_support())

    def sample(self, key: Key) -> jax.Array:
        draw = exact_draw(without_events(self.base), key)
        return self._inside(jnp.asarray(self.base.sample(key)) if draw is None else draw[0])

    def sample_and_log_prob(self, key: Key) -> tuple[jax.Array, Scalar]:
        """Of its own sample the density is exact, however close that is to an end of the support;
        the sample is the nearest float inside. See `saturation`.
        """
        parts = without_events(self.base)
        draw = exact_draw(parts, key)
        if draw is None:
            return self._sample_and_log_prob(parts, key)
        value, log_q = draw
        return self._inside(value), jnp.sum(log_q)

    def _sample_and_log_prob(self, parts: Any, key: Key) -> tuple[jax.Array, Scalar]:
        raw, intermediates = parts.sample_with_intermediates(key)
        value = self._inside(jnp.asarray(raw))
        if not is_by_transforms(innermost(parts)):
            return value, self.log_prob(value)
        # What a transformed distribution knows from before its transforms. Any pytree operation
        # takes off NumPyro's mask, which refuses a sample that underflowed.
        unmasked = jax.tree.map(lambda leaf: leaf, parts)
        return value, jnp.sum(jnp.asarray(unmasked.log_prob(raw, intermediates)))

    def _inside(self, value: jax.Array) -> jax.Array:
        self._require_shape(value, self.base.event_shape)
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        return rounded_inside(innermost(self.base), value)

    def from_uniform(self, u: jax.Array) -> jax.Array:
        """By the inverse distribution function, where the coordinates are independent."""
        try:
            return self._inside(quantile(self.base, u))
        except (NotImplementedError, ImportError):  # NumPyro has none, or takes it from elsewhere
            return super().from_uniform(u)

    def log_prob(self, value: ArrayLike) -> Scalar:
        log_probs = self._log_probs(value)
        return jnp.sum(log_probs) if log_probs.ndim else log_probs

    def coordinate_log_probs(self, value: ArrayLike) -> Float[Array, " d"]:
        """Of a family of numbers under `to_event`."""
        if innermost(self.base).event_shape:
            return super().coordinate_log_probs(value)
        return jnp.ravel(self._log_probs(value))

    def _log_probs(self, value: ArrayLike) -> jax.Array:
        """log p of each number or vector that stands under `to_event`."""
        parts = without_events(self.base)
        value = jnp.asarray(value)
        held = held_to_support(parts, value.dtype)
        full = jnp.asarray(value, full_dtype(value))
        arguments = (held, innermost(self.base), full)
        if isinstance(parts, npd.LowRankMultivariateNormal | npd.MultivariateNormal):
            log_probs = on_automatic_axes(log_probs_of_rounded, *arguments)
            log_probs = _zero_at_infinity(log_probs, full)
        else:
            log_probs = log_probs_of_rounded(*arguments)
        self._require_shape(log_probs, parts.batch_shape)
        return log_probs

    def _require_shape(self, result: jax.Array, shape: tuple[int, ...]) -> None:
        """Raises ValueError for what a batch gives that `jax.vmap` made: NumPyro keeps the shapes
        of one.
        """
        if result.shape != shape:
            raise ValueError(several(self.name, result.shape[: result.ndim - len(shape)]))

    def require_event(self, value: ArrayLike) -> None:
        if jnp.shape(value) != self.base.event_shape:
            raise ValueError(wrong_shape(self.name, jnp.shape(value), self.base.event_shape))

    def require_one(self) -> None:
        """Raises ValueError where the distribution is a batch of several."""
        super().require_one()
        batch_shape = self.base.batch_shape
        if batch_shape:
            raise ValueError(
                f"{self.name} has batch_shape {batch_shape}, so its log_prob is not one number; add"
                f" .to_event({len(batch_shape)})"
            )


def _zero_at_infinity(log_probs: jax.Array, value: jax.Array) -> jax.Array:
    """-inf of each vector with an infinite entry, where its solve makes inf - inf of it."""
    axes = tuple(range(log_probs.ndim, value.ndim))
    infinite = jnp.any(jnp.isinf(value), axes) & ~jnp.any(jnp.isnan(value), axes)
    return jnp.where(infinite, -jnp.inf, log_probs)


def without_events(p: npd.Distribution) -> Any:
    """p without the wrappers of `to_event`."""
    while isinstance(p, npd.Independent):
        p = p.base_dist
    return p


# log Gamma(a + 1/2) - log Gamma(a) = log(a)/2 + sum_k c_k / a^(2k-1), up to 4e-13 from a = 8 on
HALF_STEP = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432)
SHIFT = 8


def student_t_entropy(df: ArrayLike, scale: ArrayLike) -> jax.Array:
    """(df + 1)/2 [psi(a + 1/2) - psi(a)] + log(df)/2 + log B(a, 1/2) + log scale, a = df/2, nats.

    NumPyro takes it as it stands: in float32 it is off by .02 at df = 1e5, and by .5 at 1e7. Here
    the functions of a + 1/2 and of a are never subtracted.
    """
    a = jnp.asarray(df, float) / 2
    steps = [a + k for k in range(SHIFT)]
    far = a + SHIFT
    orders = [(2 * k + 1, c) for k, c in enumerate(HALF_STEP)]
    # psi(a + 1/2) - psi(a), and log Gamma(a + 1/2) - log Gamma(a) - log(a + SHIFT)/2
    digammas = 1 / (2 * far) - sum(n * c * far ** -(n + 1) for n, c in orders)
    digammas += sum(0.5 / (b * (b + 0.5)) for b in steps)
    gammas = sum(c * far**-n for n, c in orders) - sum(jnp.log1p(0.5 / b) for b in steps)
    constant = math.log(2 * math.pi) / 2 - jnp.log1p(SHIFT / a) / 2
    return constant + (a + 0.5) * digammas - gammas + jnp.log(scale)


def with_full_parameters(p: Any) -> Any:
    """p with parameters of float32 at least, for NumPyro's families compute in the dtype of theirs.
    Whole numbers stay in a family that counts by them, such as a binomial of so many trials.
    """
    if not isinstance(p, npd.Distribution):  # JAX builds densities of other things than arrays
        return p
    counts = any(map(_is_of_counts, innermost(p).arg_constraints.values()))
    as_float = without_half if counts else widened
    leaves, structure = jax.tree.flatten(p)
    full = [as_float(leaf) for leaf in leaves]
    changed = any(new is not old for new, old in zip(full, leaves, strict=True))
    return jax.tree.unflatten(structure, full) if changed else p


def _is_of_counts(constraint: Any) -> bool:
    try:
        return constraint.is_discrete
    except NotImplementedError:  # NumPyro's word for a constraint that depends on others
        return False


def from_numpyro(p: npd.Distribution) -> NumPyroDensity:
    """A NumPyro distribution with all its batch axes in one event."""
    require_density(p)
    return NumPyroDensity(p.to_event(len(p.batch_shape)) if p.batch_shape else p)


def as_distribution(density: Any, source: str) -> Distribution:
    """What `source` gave, as a `Distribution`: the one door through which a user's density comes.

    NumPyro's are taken through the adapter; TypeError for anything else.
    """
    if isinstance(density, npd.Distribution):
        require_density(density)
        density = NumPyroDensity(density)
    if isinstance(density, Distribution):
        density.require_one()
        return density
    raise TypeError(
        f"{source} gave {shortened(density)}, which is not a density; give a vaejax.Distribution,"
        " or one of NumPyro's"
    )


KNOWN_SUPPORTS = {
    type(npd.constraints.real): supports.REAL,
    type(npd.constraints.boolean): supports.BINARY,
    type(npd.constraints.positive): supports.POSITIVE,
    type(npd.constraints.unit_interval): supports.UNIT_INTERVAL,
    type(npd.constraints.nonnegative_integer): supports.COUNTS,
    type(npd.constraints.simplex): supports.SIMPLEX,
    type(npd.constraints.sphere): supports.SPHERE,
    type(npd.constraints.softplus_positive): supports.POSITIVE,
    type(npd.constraints.nonnegative): supports.NON_NEGATIVE,
}
KNOWN_INTERVALS = {
    (type(npd.constraints.interval(0.0, 1.0)), (0.0, 1.0)): supports.UNIT_INTERVAL,
    (type(npd.constraints.greater_than(0.0)), (0.0, math.inf)): supports.POSITIVE,
    (type(npd.constraints.greater_than_eq(0.0)), (0.0, math.inf)): supports.NON_NEGATIVE,
}


def support_of_numpyro(p: npd.Distribution) -> Support:
    """The values that a NumPyro distribution is for. With an atom at 0 beside its density they are
    another set: of a sample that is 0, log q - log p would have a mass above and a density below.
    """
    support = _support_of_constraint(p.support)
    if isinstance(innermost(p), npd.HurdleProbs | npd.HurdleLogits) and support.steps is None:
        name, description = f"{support.name} with an atom at 0", f"{support.description}, often 0"
        return dataclasses.replace(support, name=name, description=description)
    return support


def _support_of_constraint(constraint: Any) -> Support:
    """The values that a NumPyro constraint allows, under this library's name where it has one."""
    constraint = coordinate_constraint(constraint)
    if type(constraint) in KNOWN_SUPPORTS:
        return KNOWN_SUPPORTS[type(constraint)]
    ends = interval_of(constraint)
    if (type(constraint), ends) in KNOWN_INTERVALS:
        return KNOWN_INTERVALS[type(constraint), ends]
    kind = type(constraint).__name__.strip("_").lower()
    steps = 1 if constraint.is_discrete else None
    return Support(kind, f"NumPyro's {constraint}", *ends, steps)


@pytree
class CholeskyNormal(NumPyroDensity):
    """NumPyro's multivariate normal N(loc, A A'), with the exact density of its own samples.

    log p(loc + A noise) = log N(noise; 0, I) - log det A needs no A^-1, so it is finite however
    close to singular A is.
    """

    base: npd.MultivariateNormal

    def sample_and_log_prob(self, key: Key) -> tuple[jax.Array, Scalar]:
        loc, scale_tril = jnp.asarray(self.base.loc), jnp.asarray(self.base.scale_tril)
        standard = standard_normal(loc)
        noise = standard.sample(key)
        log_det = on_automatic_axes(lambda a: jnp.sum(jnp.log(jnp.diagonal(a))), scale_tril)
        return loc + scale_tril @ noise, standard.log_prob(noise) - log_det

    def from_uniform(self, u: jax.Array) -> jax.Array:
        return jnp.asarray(self.base.loc) + jnp.asarray(self.base.scale_tril) @ ndtri(u)

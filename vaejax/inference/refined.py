"""Amortised, semi-amortised and per-datapoint inference as one switch: where q(z | x) starts, and
how many gradient steps refine it.

An encoder gives q in one evaluation and is shared by all examples; gradient ascent on one example's
ELBO finds the best q of the family for it, at the price of many evaluations. What lies between the
two is the amortisation gap.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from vaejax.base.checks import require_count, require_kind, require_positive, unknown_name
from vaejax.base.supports import support_parts
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import stopped
from vaejax.distributions.base import Distribution
from vaejax.distributions.normal import DiagNormalDensity, standard_normal
from vaejax.estimators.base import posterior_in
from vaejax.estimators.pathwise import StickTheLanding
from vaejax.models.around import AroundModel
from vaejax.models.base import Conditional, Model, Supports, density_of, require_factor

Start = Literal["encoder", "standard"]


@component
class Refined(AroundModel):
    """The same model, with q(z | x) = what `num_steps` of Adam on this example's ELBO make of the
    `start`.

    start "encoder", no steps         amortised inference, the model itself
    start "encoder", some steps       semi-amortised
    start "standard", many steps      per-datapoint: N(0, I) is the start, and the encoder's
                                      parameters take no part

    With a `family`, a conditional around a `Free` net such as `FullNormal(Free(dim, ("loc",
    "log_scale", "row 1", ...)))`, q is of that family, from what its `init` gives; without, it is a
    `DiagNormal`, and so is the encoder's q.

    The steps follow `StickTheLanding` of `num_samples`, whose noise vanishes at an exact posterior,
    with a rate that falls to zero along a cosine. Their noise is the same for every call, so q is a
    function of (params, x). Theta's gradient is that at the refined q, held fixed; with
    `through_steps` phi's goes through the steps. References: Hoffman et al. 2013 (per datapoint);
    Kim et al. 2018 (semi-amortised).
    """

    model: Model
    num_steps: int
    start: Start = "encoder"
    family: Conditional | None = None
    learning_rate: float = 0.05
    num_samples: int = 8
    through_steps: bool = False

    def __post_init__(self):
        require_kind(self.model, Model, "Refined.model")
        if self.start not in get_args(Start):
            raise ValueError(unknown_name("Refined.start", self.start, list(get_args(Start))))
        require_count(self.num_steps, "Refined.num_steps", least=0)
        require_count(self.num_samples, "Refined.num_samples")
        if self.family is not None and (self.start == "encoder" or self.through_steps):
            raise ValueError(
                "a Refined.family starts from its own init, the same for all examples; give"
                ' start="standard"'
            )
        require_positive(self.learning_rate, "Refined.learning_rate")
        if self.family is not None:
            require_factor(self.family, Conditional, "Refined.family")
            _require_latents_of(self.model, self.family)

    def posterior(self, params: Params, x: PyTree) -> Distribution:
        """q(z | x), refined."""
        if self.family is not None:
            return self._refined_family(self.family, params, x)
        remedy = "refine an encoder vaejax.DiagNormal, or give a `family` of the latents"
        q: Any = posterior_in(self.model, params, x, (DiagNormalDensity,), self, remedy)
        if self.start == "standard":
            q = standard_normal(q.loc)
        if self.num_steps == 0:
            return q
        if self.through_steps:
            return refine(self, params, x, q, lambda q: q)
        return stopped(refine(self, stopped(params), x, q, lambda q: q))

    def _refined_family(self, family: Conditional, params: Params, x: PyTree) -> Distribution:
        def posterior(phi):
            return density_of(family, phi, x)

        start = family.init(jax.random.key(0), x)
        return stopped(posterior(refine(self, stopped(params), x, start, posterior)))


def _require_latents_of(model: Model, family: Conditional) -> None:
    """Raises ValueError for a family whose values are no latents of the model."""
    latents, values = model.latent_support, family.support
    if None not in (latents, values) and latents != values:
        raise ValueError(
            f"Refined.family {type(family).__name__} is for {_described(values)}, and the latents"
            f" of the model are {_described(latents)}; give a family of the latents"
        )


def _described(support: Supports) -> str:
    parts = support_parts(support)
    return ", ".join(f"{name} {part.name if part else 'any'}" for name, part in parts)


def refine(
    settings: Refined,
    params: Params,
    x: ArrayLike,
    phi: PyTree,
    posterior: Callable[[PyTree], Distribution],
) -> PyTree:
    """phi after gradient ascent on E_q [log p(x, z) - log q(z)], q = posterior(phi)."""
    estimator = StickTheLanding(settings.num_samples)
    rate = optax.cosine_decay_schedule(settings.learning_rate, max(1, settings.num_steps))
    optimizer: Any = optax.adam(rate)

    def bound(phi: PyTree, key: Key) -> Scalar:
        return estimator(WithPosterior(settings.model, posterior(phi)), params, x, key)

    def step(carry, t):
        phi, state = carry
        # phi += Adam's step along grad_phi E_q [log p(x, z) - log q(z)].
        gradient: Any = jax.grad(bound)(phi, jax.random.fold_in(jax.random.key(0), t))
        updates, state = optimizer.update(jax.tree.map(jnp.negative, gradient), state)
        return (jax.tree.map(jnp.add, phi, updates), state), None

    (phi, _), _ = jax.lax.scan(step, (phi, optimizer.init(phi)), jnp.arange(settings.num_steps))
    return phi


class WithPosterior(AroundModel):
    """A model with this q, whatever its encoder says."""

    def __init__(self, model: Model, q: Distribution):
        self.model, self.q = model, q

    def posterior(self, params: Params, x: PyTree) -> Distribution:
        return self.q

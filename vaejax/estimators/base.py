"""The contract of a gradient estimator, and what estimators share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.checks import Integers, require_key, require_no_class, require_scalar, shortened
from vaejax.base.contracts import Declared, hold
from vaejax.base.mapping import map_samples
from vaejax.base.types import Bound, Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import component
from vaejax.bounds import elbo_bound, sample_posterior, stopped
from vaejax.distributions.base import Distribution
from vaejax.models.base import Model, posterior_of


class Estimator(Declared):
    """A function of one example whose VALUE is a bound, nats, and whose GRADIENT is the estimator.

    `jax.grad` of it is all there is: each one is a visible placement of `stop_gradient`. Your own
    is a value that is called with the model, its parameters, one example and a key:

        @vaejax.component
        class PlainELBO(vaejax.Estimator):
            def __call__(self, model, params, x, key):
                # q(z | x), refused where its samples do not move smoothly
                q = vaejax.reparameterised_posterior(self, model, params, x)
                z = q.sample(key)
                return model.log_joint(params, x, z) - q.log_prob(z)

    One with parameters of its own gives them by `init`, and finds them in `params.psi`. One that
    maximises something else than it reports overrides `terms`; where a weight of that moves with
    the step, its `schedules` are ((name, schedule), ...), so that `fit` can hold them against the
    run.
    """

    schedules: tuple = ()

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        hold(cls, {"__call__": _bound_of_one})

    def init(self, model: Model, params: Params, x: PyTree, key: Key) -> PyTree:
        """psi, the estimator's own parameters: none, unless it says so."""
        return ()

    def __call__(self, model: Model, params: Params, x: PyTree, key: Key) -> Scalar:
        """The bound of one example, nats."""
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def terms(self, model: Model, params: Params, x: PyTree, key: Key, step: ArrayLike) -> Terms:
        """What is reported and what is maximised, of one example at a step of training."""
        bound = self(model, params, x, key)
        return Terms(bound, bound)


def _bound_of_one(
    estimator: Estimator, method: Callable, model: Model, params: Params, x: PyTree, key: Key
) -> Scalar:
    if key is not None:  # as of an estimator that draws nothing
        require_key(key)
    return _require_bound(estimator, method(model, params, x, key))


def _parts_of_one(
    estimator: Estimator, method: Callable, model: Model, params: Params, x: PyTree, key: Key
) -> tuple[Scalar, Scalar | None]:
    if key is not None:
        require_key(key)
    bound, reconstruction = method(model, params, x, key)
    return _require_bound(estimator, bound), reconstruction


def _require_bound(estimator: Estimator, bound: Scalar) -> Scalar:
    name = f"the bound of {type(estimator).__name__}"
    return require_scalar(bound, name, "it is of one example, over which it is summed")


class ELBOInParts(Estimator):
    """An estimator that knows apart what its ELBO is made of: E_q log p(x | z), the reconstruction,
    less a rate. Derive from it, and give `parts` in place of `__call__`.
    """

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        if "__call__" in vars(cls) and "parts" not in vars(cls):  # a bound of another kind
            cls.terms = Estimator.terms
        hold(cls, {"parts": _parts_of_one})

    def parts(
        self, model: Model, params: Params, x: PyTree, key: Key
    ) -> tuple[Scalar, Scalar | None]:
        """(the bound, its reconstruction) of one example, nats; None of a bound that is no
        difference of the two, or where the model does not tell them apart.
        """
        raise NotImplementedError(f"{type(self).__name__}.parts")

    def __call__(self, model: Model, params: Params, x: PyTree, key: Key) -> Scalar:
        return self.parts(model, params, x, key)[0]

    def terms(self, model: Model, params: Params, x: PyTree, key: Key, step: ArrayLike) -> Terms:
        bound, reconstruction = self.parts(model, params, x, key)
        return Terms(bound, bound, reconstruction)


def mean_reconstruction(bound: Bound, log_p_x: Float[Array, " k"] | None) -> Scalar | None:
    """mean_k log p(x | z_k) where the bound of the log-weights is their mean."""
    return jnp.mean(log_p_x) if bound is elbo_bound and log_p_x is not None else None


@component
class FunctionEstimator(Estimator):
    """A plain function (model, params, x, key) -> bound, such as `vaejax.elbo`."""

    function: Callable

    def __call__(self, model: Model, params: Params, x: PyTree, key: Key) -> Scalar:
        return self.function(model, params, x, key)


def as_estimator(function: Any) -> Estimator:
    """An estimator as it is, and a function of (model, params, x, key) as one."""
    if isinstance(function, Estimator):
        return function
    require_no_class(function, "the estimator")
    if callable(function):
        return FunctionEstimator(function)
    raise TypeError(f"{shortened(function)} is not an estimator; derive it from vaejax.Estimator")


@jax.custom_jvp
def with_gradient_of(value: Scalar, surrogate: Scalar) -> Scalar:
    """A number with this value, and the gradient of `surrogate`.

    As stopped(value) + surrogate - stopped(surrogate), which is NaN where a surrogate is infinite,
    as of samples whose weight is 0, and has its rounding.
    """
    return value


@with_gradient_of.defjvp
def _(primals, tangents):
    value, surrogate = primals
    return with_gradient_of(value, surrogate), tangents[1].astype(value.dtype)


def mean_under(log_q: Float[Array, "... n"], f: Float[Array, "... n"]) -> Float[Array, "..."]:
    """sum_z q(z) f(z) over states: one of probability 0 adds 0, whatever f is there."""
    return jnp.sum(jnp.exp(log_q) * jnp.where(log_q == -jnp.inf, 0, f), axis=-1)


def log_weight_at(
    model: Model, params: Params, x: PyTree, q: Distribution
) -> Callable[[PyTree], Scalar]:
    """z -> log p(x, z) - log q(z), all parameters held fixed."""
    fixed_params, fixed_q = stopped((params, q))
    return lambda z: model.log_joint(fixed_params, x, z) - fixed_q.log_prob(z)


def score_of(unravel: Callable, flat: jax.Array, z: PyTree) -> jax.Array:
    """d log q(z) / d (q's own parameters), flat, of `ravel_pytree(q)`; z held fixed."""
    return jax.grad(lambda flat: unravel(flat).log_prob(stopped(z)))(flat)


def posterior_in(
    model: Model, params: Params, x: PyTree, families: tuple[type, ...], owner: object, remedy: str
) -> Any:
    """q(z | x), or a TypeError where it is of none of the families."""
    q = posterior_of(model, params, x)
    require_family(q, families, owner, remedy)
    return q


def require_family(
    q: Any, families: tuple[type, ...], owner: object, remedy: str, role: str = "a q that"
) -> None:
    """Raises TypeError for a density of none of the families."""
    if not isinstance(q, families):
        known = " or ".join(family.__name__.removesuffix("Density") for family in families)
        raise TypeError(
            f"{type(owner).__name__} is for {role} is {known}, and this one is {q.name}; {remedy}"
        )


def reparameterised_posterior(
    estimator: Any, model: Model, params: Params, x: ArrayLike
) -> Distribution:
    """q(z | x), or a TypeError where its samples are no smooth function of its parameters."""
    q = posterior_of(model, params, x)
    require_reparameterised(type(estimator).__name__, q)
    return q


def require_reparameterised(owner: str, q: Distribution) -> None:
    """Raises TypeError for a q whose samples are no smooth function of its parameters."""
    if not q.reparameterised:
        raise TypeError(
            f"{owner} differentiates through samples of q, and those of"
            f" {q.name} do not move smoothly with its parameters; use ScoreFunction,"
            " OptimalConstant, VIMCO, OVIS or RWS, for a Bernoulli q also Enumerate, DisARM,"
            " REBAR, RELAX, DoubleControlVariate, Relaxed or StraightThrough, or the relaxed"
            " families RelaxedBernoulli and RelaxedCategorical; for a graph, ByNode, which takes"
            " each node its own way"
        )
    for leaf in jax.tree.leaves(q.event):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"{q.name} says reparameterised = True, but its samples are of dtype {leaf.dtype},"
                " through which no gradient flows: say False, or sample floats"
            )


def require_samples(owner, fewest: int, why: str) -> None:
    """Raises ValueError for a number of samples that is none, too small or too large."""
    number, known = owner.num_samples, Integers(fewest)
    if number not in known:
        name = f"{type(owner).__name__}.num_samples"
        raise ValueError(f"{name} = {number!r}; it must be {known}" + (f", {why}" if why else ""))


def fixed_samples(
    model: Model, params: Params, x: ArrayLike, q: Distribution, key: Key, num_samples: int
):
    """log p(x, z_k), log q(z_k | x) and, where the model knows it apart, log p(x | z_k), of K
    samples that are held fixed.
    """
    zs = stopped(sample_posterior(q, key, num_samples))
    log_joint, log_p_x = map_samples(lambda z: model.log_densities(params, x, z), zs)
    return log_joint, map_samples(q.log_prob, zs), log_p_x

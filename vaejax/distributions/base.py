"""The contract of a density, and the checks that every density makes.

All densities are in the parametrisation that the library uses: normalised, in nats, summed over one
event. Whatever is not here comes from NumPyro, through the adapter in `numpyro`.
"""

import dataclasses
from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import AbstractArray, Array, Float

from vaejax.base.checks import require_key, require_said, require_scalar, shape_of
from vaejax.base.contracts import Declared, hold
from vaejax.base.floats import full_dtype, widened, without_half
from vaejax.base.types import Key, PyTree, Scalar
from vaejax.base.values import batch_shape, pytree


class NotKnownError(TypeError):
    """A distribution was asked for what it does not know, such as a mean in closed form."""


class Distribution(Declared):
    """One event, without a batch shape: a pytree, so that `jax.vmap` makes batches of it and
    `jax.lax.stop_gradient` stops its parameters.

    Your own is a pytree with a sampler and a log-density, which says whether its samples move
    smoothly with its parameters:

        @vaejax.pytree
        class Gumbel(vaejax.Distribution):
            loc: jax.Array
            reparameterised = True

            def sample(self, key):
                return self.loc + jax.random.gumbel(key, self.loc.shape)

            def log_prob(self, value):
                noise = vaejax.distributions.as_event("Gumbel", value, self.loc) - self.loc
                return -jnp.sum(noise + jnp.exp(-noise))

    The rest has a default. What is not known is refused by a `NotKnownError`, and what needs it
    says so.

    One event, whoever asks: a value that has not the shape of a draw, a log-density that is no one
    number, and a batch of densities, as `jax.vmap(model.posterior, (None, 0))` gives it, are a
    ValueError. Inside of a `jax.vmap` each is one. All by shapes, while a program is traced.

    One rule for dtypes: a density is computed in the widest float among its value and parameters,
    and in float32 at least. A field of bfloat16 or float16 becomes float32 when the density is
    made, and so does one of whole numbers that is declared as `Float[Array, "..."]`; `as_event`
    and `one_event` do the same for a value.
    """

    decorator = "@vaejax.pytree"
    reparameterised: ClassVar[Any]  # a bool, or a property where it depends on the fields

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        question = "True if its samples move smoothly with its parameters, else False"
        require_said(cls, Distribution, "reparameterised", question)
        hold(cls, _CONTRACTS)

    def __post_init__(self):
        fields: Any = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        for field in fields:
            number = vars(self)[field.name]
            as_float = widened if _is_declared_float(field.type) else without_half
            object.__setattr__(self, field.name, as_float(number))

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__.removesuffix("Density")

    @cached_property
    def event(self) -> Any:
        """The shape and dtype of one draw, as `jax.eval_shape` gives them."""
        finds_shapes = _finds_shapes.set(True)
        try:
            return jax.eval_shape(self.sample, jax.random.key(0))
        finally:
            _finds_shapes.reset(finds_shapes)

    def require_one(self) -> None:
        """Raises ValueError where this is a batch of densities."""
        shape = batch_shape(self)
        if shape:
            raise ValueError(several(self.name, shape))

    def require_event(self, value: PyTree) -> None:
        """Raises ValueError for a value that has not the shape of a draw. One that cannot be drawn
        has no shape to hold it against.
        """
        try:
            event = self.event
        except (NotImplementedError, NotKnownError):
            return
        one_array = isinstance(event, jax.ShapeDtypeStruct)  # of which a list is a value too
        got = shape_of(value) if one_array else jax.tree.map(jnp.shape, value)
        shape = jax.tree.map(jnp.shape, event)
        if got != shape:
            raise ValueError(wrong_shape(self.name, got, shape))

    def sample(self, key: Key) -> PyTree:
        """One draw."""
        raise NotImplementedError(f"{self.name}.sample")

    def log_prob(self, value: PyTree, /) -> Scalar:
        """log p(value), nats: one number, summed over the event."""
        raise NotImplementedError(f"{self.name}.log_prob")

    def sample_and_log_prob(self, key: Key) -> tuple[PyTree, Scalar]:
        """(z, log q(z)), z ~ q: of its own sample a density may be cheaper, or known only there."""
        z = self.sample(key)
        return z, self.log_prob(z)

    def mean(self) -> PyTree:
        """E z, where it is known in closed form."""
        raise NotKnownError(f"{self.name} has no closed form for its mean; average samples")

    def states(self) -> PyTree:
        """Every value [n, *event], where there are finitely many."""
        raise NotKnownError(f"{self.name} has no finite list of values")

    def coordinate_log_probs(self, value: PyTree, /) -> Float[Array, " d"]:
        """log p(value_j) of each coordinate, where they are independent: `log_prob` is their sum.

        A coordinate is a number, or a vector of the last axis where the event is made of such; they
        stand in a row, by the leaves of the event.
        """
        raise NotKnownError(f"{self.name} is not a product of densities of its coordinates")

    def from_uniform(self, u: jax.Array) -> PyTree:
        """The sample that uniform numbers u of the event's shape stand for."""
        raise NotKnownError(
            f"{self.name} does not say which sample a uniform number stands for; use"
            " vaejax.Independent()"
        )

    def at_uniform(self, u: jax.Array) -> "Distribution":
        """The same density, with the one sample that u stands for."""
        return AtUniform(self, u)


# What each density is held to, whoever wrote it and whoever asks. A sampler may ask for densities
# itself, so while the shape of a draw is looked for, no value is held against it.

_finds_shapes: ContextVar[bool] = ContextVar("_finds_shapes", default=False)


def _of_one(p: Distribution, method: Callable, *arguments: Any, **keywords: Any) -> Any:
    p.require_one()
    return method(*arguments, **keywords)


def _of_a_draw(p: Distribution, method: Callable, value: PyTree, **keywords: Any) -> Any:
    p.require_one()
    if not _finds_shapes.get():
        p.require_event(value)
    return method(value, **keywords)


def _log_prob(p: Distribution, method: Callable, value: PyTree, **keywords: Any) -> Scalar:
    log_prob = _of_a_draw(p, method, value, **keywords)
    return require_scalar(log_prob, f"{p.name}.log_prob", SUM_OVER_EVENT)


def _sample(p: Distribution, method: Callable, key: Any, **keywords: Any) -> Any:
    if key is not None:
        require_key(key)
    try:  # None is enough where the sample is given, as by `AtUniform`
        return _of_one(p, method, key, **keywords)
    except NotKnownError:
        raise
    except TypeError:
        require_key(key)
        raise


def _sample_and_log_prob(
    p: Distribution, method: Callable, key: Key, **keywords: Any
) -> tuple[PyTree, Scalar]:
    z, log_prob = _sample(p, method, key, **keywords)
    name = f"the log-density of {p.name}.sample_and_log_prob"
    return z, require_scalar(log_prob, name, SUM_OVER_EVENT)


def _entropy(p: Distribution, method: Callable, *arguments: Any, **keywords: Any) -> Scalar:
    entropy = _of_one(p, method, *arguments, **keywords)
    return require_scalar(entropy, f"{p.name}.entropy", SUM_OVER_EVENT)


SUM_OVER_EVENT = "sum it over the event, by jnp.sum(...), or .to_event(...) in NumPyro"
_CONTRACTS = {
    "log_prob": _log_prob,
    "coordinate_log_probs": _of_a_draw,
    "sample_and_log_prob": _sample_and_log_prob,
    "sample": _sample,
    "mean": _of_one,
    "variance": _of_one,
    "entropy": _entropy,
    "states": _of_one,
    "from_uniform": _of_one,
}
hold(Distribution, _CONTRACTS)


@pytree
class AtUniform(Distribution):
    """q, with the one sample that its uniform numbers u stand for."""

    q: Distribution
    u: Float[Array, "..."]

    @property
    def name(self) -> str:
        return self.q.name

    @property
    def reparameterised(self) -> bool:
        return self.q.reparameterised

    @property
    def event(self) -> Any:
        return self.q.event

    def mean(self) -> PyTree:
        return self.q.mean()

    def sample(self, key: Any) -> PyTree:
        return self.q.from_uniform(self.u)

    def log_prob(self, value: PyTree) -> Scalar:
        return self.q.log_prob(value)

    def coordinate_log_probs(self, value: PyTree) -> Float[Array, " d"]:
        return self.q.coordinate_log_probs(value)


def _is_declared_float(annotation: Any) -> bool:
    """Whether a field is declared as `Float[Array, ...]`."""
    is_declared = isinstance(annotation, type) and issubclass(annotation, AbstractArray)
    return is_declared and annotation.dtype is Float


def one_event(name: str, value: ArrayLike, *parameters: jax.Array) -> list[jax.Array]:
    """`value` and the parameters as vectors of one dtype, the widest float among them, or a
    ValueError if value is not one event.

    Without the check, broadcasting would turn a batch into one wrong number in silence. As vectors,
    because on a CPU a whole training step with 50 samples took a third longer where this sum ran
    over [28, 28] than over 784.
    """
    require_event(name, value, parameters[0])
    dtype = full_dtype(value, *parameters)
    return [jnp.ravel(jnp.asarray(array, dtype)) for array in (value, *parameters)]


def as_event(name: str, value: ArrayLike, like: jax.Array) -> jax.Array:
    """`value` in the widest float of itself and `like`, float32 at least, or a ValueError if it has
    not the shape of `like`.
    """
    require_event(name, value, like)
    return jnp.asarray(value, full_dtype(value, like))


def require_event(name: str, value: ArrayLike, like: jax.Array) -> None:
    """Raises ValueError for a value that has not the shape of `like`."""
    if jnp.shape(value) != like.shape:
        raise ValueError(wrong_shape(name, jnp.shape(value), like.shape))


def event_of(
    p: Distribution, *parameters: jax.Array, without_last: bool = False
) -> jax.ShapeDtypeStruct:
    """The `event` of a density whose parameters have its shape, or one axis more; ValueError where
    they have several.
    """
    first, *others = parameters
    for other in others:
        if other.shape != first.shape:
            raise ValueError(
                f"{p.name} has parameters of the shapes {first.shape} and {other.shape}, and each"
                " has the shape of the event; use jnp.broadcast_to"
            )
    return jax.ShapeDtypeStruct(first.shape[:-1] if without_last else first.shape, first.dtype)


def several(name: str, shape: tuple[int, ...]) -> str:
    return (
        f"{name} is a batch of densities, {shape} of them, and only one can be asked; ask each by"
        " jax.vmap(lambda q, z: q.log_prob(z))(qs, zs)"
    )


def wrong_shape(name: str, got: PyTree, shape: PyTree) -> str:
    remedy = "its latents, or what its net gives, must have the shape of the value"
    if type(got) is type(shape) is tuple and got[len(got) - len(shape) :] == shape:
        remedy = "these functions take one example: use jax.vmap or vaejax.minibatch"
    return f"{name}.log_prob got a value of shape {got}, but one event has shape {shape}; {remedy}"

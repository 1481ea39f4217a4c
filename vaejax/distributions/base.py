"""Densities in the parametrisation that the library uses: normalised, in nats, summed over one
event.

Each is a pytree with `sample(key)` and `log_prob(value)`. NumPyro's distributions have the same two
methods, so whatever is not here comes from there: see `events`. A distribution with
`reparameterised = False` has samples that do not depend smoothly on its parameters. One with
`from_uniform(u)` says which sample u, uniform numbers of its event's shape, stand for: see `noise`.
One with finitely many values has all of them, [n, *event], in `states`.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vaejax.base.types import Distribution, Key, PyTree, Scalar

MAX_STATES = 2**16  # of one event that is to be enumerated


def one_event(name: str, value: ArrayLike, *parameters: jax.Array) -> list[jax.Array]:
    """`value` and the parameters as vectors, or a ValueError if value is not one event.

    Without the check, broadcasting would turn a batch into one wrong number in silence. As vectors,
    because on a CPU a whole training step with 50 samples took a third longer where this sum ran
    over [28, 28] than over 784.
    """
    value = as_event(name, value, parameters[0])
    return [jnp.ravel(array) for array in (value, *parameters)]


def as_event(name: str, value: ArrayLike, like: jax.Array) -> jax.Array:
    """`value` in the dtype of `like`, or a ValueError if it has not its shape."""
    if jnp.shape(value) != like.shape:
        raise ValueError(wrong_shape(name, jnp.shape(value), like.shape))
    return jnp.asarray(value, like.dtype)


def wrong_shape(name: str, got: tuple[int, ...], shape: tuple[int, ...]) -> str:
    return (
        f"{name}.log_prob got a value of shape {got}, but one event has shape {shape}; "
        "these functions take one example: use jax.vmap or vaejax.minibatch"
    )


def sample_and_log_prob(q: Distribution, key: Key) -> tuple[PyTree, Scalar]:
    """(z, log q(z)), z ~ q. A distribution with a cheaper way than one after the other, or no other
    way, has this method.
    """
    both = getattr(q, "sample_and_log_prob", None)
    if both is not None:
        return both(key)
    z = q.sample(key)
    return z, q.log_prob(z)


def is_reparameterised(q: Distribution) -> bool:
    """Whether samples of q are smooth functions of its parameters; a NumPyro distribution says so
    in `has_rsample`.
    """
    return getattr(q, "reparameterised", getattr(q, "has_rsample", True))


def combinations(num_values: int, num_variables: int) -> np.ndarray:
    """All values of so many variables of so many values each, [n, variables]; ValueError if they
    are too many.
    """
    if num_values**num_variables > MAX_STATES:
        raise ValueError(
            f"{num_variables} latents of {num_values} values have {num_values**num_variables}"
            f" states, more than {MAX_STATES}; use vaejax.ScoreFunction, or fewer latents"
        )
    return np.array(list(itertools.product(range(num_values), repeat=num_variables)))

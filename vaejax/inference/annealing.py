"""Temperatures, moves and chains of annealed importance sampling."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.base.checks import require_count
from vaejax.base.types import Key, Scalar
from vaejax.base.values import component

LogDensity = Callable[[jax.Array], Scalar]


FIRST_MOVES = 50  # of the pilot at the first temperature, to find a step size at all


GAIN = 0.5  # of the pilot: by how much the log of the step size follows the acceptance


class Temperatures(Protocol):
    """b_0 = 0 < b_1 < ... < b_T = 1."""

    def betas(self) -> np.ndarray: ...


@component
class Linear:
    """b_t = t / T."""

    num_steps: int

    def __post_init__(self):
        require_count(self.num_steps, "Linear.num_steps")

    def betas(self) -> np.ndarray:
        return np.linspace(0, 1, self.num_steps + 1)


@component
class Sigmoid:
    """b_t = sigmoid(width (2 t/T - 1)), moved and scaled to 0 at t = 0 and 1 at T: most
    temperatures near the ends.
    """

    num_steps: int
    width: float = 4.0

    def __post_init__(self):
        require_count(self.num_steps, "Sigmoid.num_steps")
        if not self.width > 0:
            raise ValueError(f"Sigmoid.width = {self.width}; it must be positive")

    def betas(self) -> np.ndarray:
        raw = 1 / (1 + np.exp(-self.width * np.linspace(-1, 1, self.num_steps + 1)))
        return (raw - raw[0]) / (raw[-1] - raw[0])


class Transition(Protocol):
    """A reversible move that leaves exp(log_density) invariant: (z', the probability with which it
    was accepted).
    """

    def __call__(
        self, log_density: LogDensity, z: jax.Array, step_size: Scalar, key: Key
    ) -> tuple[jax.Array, Scalar]: ...


@component
class HMC:
    """Hamiltonian Monte Carlo with a unit mass and `num_leapfrog` steps, by BlackJAX. The pilot
    aims at `target` acceptance.
    """

    num_leapfrog: int = 10
    target: float = 0.65

    def __post_init__(self):
        require_count(self.num_leapfrog, "HMC.num_leapfrog")
        if not 0 < self.target < 1:
            raise ValueError(f"HMC.target = {self.target}; an acceptance lies between 0 and 1")

    def __call__(
        self, log_density: LogDensity, z: jax.Array, step_size: Scalar, key: Key
    ) -> tuple[jax.Array, Scalar]:
        try:
            from blackjax.mcmc import hmc
        except ImportError:
            raise ImportError("HMC needs BlackJAX: pip install 'vaejax[experiments]'") from None
        kernel: Any = hmc.build_kernel()
        state, info = kernel(
            key,
            hmc.init(z, log_density),
            log_density,
            step_size,
            jnp.ones_like(z),
            self.num_leapfrog,
        )
        return state.position, info.acceptance_rate


def annealed_log_weight(
    log_start: LogDensity,
    log_end: LogDensity,
    betas: Float[Array, " t"],
    step_sizes: Float[Array, " t"],
    transition: Transition,
    z: jax.Array,
    key: Key,
) -> tuple[Scalar, Scalar]:
    """(log w, the mean acceptance) of one chain from z ~ p_(betas[0]) along `betas`, in either
    direction.
    """

    def step(carry, at):
        z, log_w = carry
        beta, change, step_size, i = at
        log_w += change * (log_end(z) - log_start(z))
        z, acceptance = transition(
            _tempered(log_start, log_end, beta), z, step_size, jax.random.fold_in(key, i)
        )
        return (z, log_w), acceptance

    ats = betas[1:], jnp.diff(betas), step_sizes[1:], jnp.arange(len(betas) - 1)
    (_, log_w), acceptance = jax.lax.scan(step, (z, jnp.zeros((), z.dtype)), ats)
    return log_w, jnp.mean(acceptance)


def _tempered(log_start: LogDensity, log_end: LogDensity, beta: Scalar) -> LogDensity:
    return lambda z: (1 - beta) * log_start(z) + beta * log_end(z)


def pilot_step_sizes(
    log_start: LogDensity,
    log_end: LogDensity,
    betas: Float[Array, " t"],
    transition: Transition,
    zs: Float[Array, "c d"],
    key: Key,
) -> Float[Array, " t"]:
    """A step size for each temperature, from chains that move upwards from zs ~ p_0 and follow the
    target acceptance on the way.

    They depend on no chain that is weighted, so those see a fixed move at each temperature, as the
    bounds need.
    """
    target = getattr(transition, "target", None)
    if target is None:
        return jnp.ones_like(betas)

    def step(carry, at):
        zs, log_step = carry
        beta, i = at
        keys = jax.random.split(jax.random.fold_in(key, i), len(zs))
        density = _tempered(log_start, log_end, beta)
        zs, acceptance = jax.vmap(lambda z, key: transition(density, z, jnp.exp(log_step), key))(
            zs, keys
        )
        used = log_step
        log_step += GAIN * (jnp.mean(jnp.where(jnp.isfinite(acceptance), acceptance, 0)) - target)
        return (zs, log_step), used

    first = jnp.concatenate([jnp.full(FIRST_MOVES, betas[0]), betas])
    start = jnp.log(jnp.asarray(0.5, zs.dtype)) - 0.25 * jnp.log(zs.shape[1])  # what suits N(0, I)
    _, log_steps = jax.lax.scan(step, (zs, start), (first, jnp.arange(len(first))))
    return jnp.exp(log_steps[FIRST_MOVES:])

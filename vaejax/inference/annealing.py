"""Temperatures, moves and chains of annealed importance sampling."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vaejax.base.asserts import assert_equal_shape, assert_rank
from vaejax.base.checks import Reals, require_count, require_positive, require_said
from vaejax.base.contracts import Declared
from vaejax.base.types import Key, PyTree, Scalar
from vaejax.base.values import component

LogDensity = Callable[[jax.Array], Scalar]

FIRST_MOVES = 50  # of the pilot at the first temperature, to find a step size at all
FIRST_STEP = 0.5  # the pilot's first step size in one dimension
GAIN = 0.5  # of the pilot: by how much the log of the step size follows the acceptance


class Temperatures(Declared):
    """0 = b_0 <= b_1 <= ... <= b_T = 1.

    Your own is a value with `betas`, [T + 1]:

        @vaejax.component
        class Quadratic(vaejax.ais.Temperatures):
            num_steps: int

            def betas(self):
                return np.linspace(0, 1, self.num_steps + 1) ** 2
    """

    def betas(self) -> np.ndarray:
        """b_0, ..., b_T as numbers of the host, [T + 1]."""
        raise NotImplementedError(f"{type(self).__name__}.betas")


def require_betas(temperatures: Temperatures) -> None:
    """Raises ValueError for temperatures that do not rise from 0 to 1: the weights would be of
    another integral.
    """
    betas = np.asarray(temperatures.betas())
    from_0_to_1 = betas.ndim == 1 and len(betas) > 1 and betas[0] == 0 and betas[-1] == 1
    if not (from_0_to_1 and np.all(np.diff(betas) >= 0)):
        raise ValueError(
            f"{type(temperatures).__name__}.betas() gave {betas}; temperatures rise from 0 to 1,"
            " [T + 1], as those of vaejax.ais.Linear do"
        )


@component
class Linear(Temperatures):
    """b_t = t / T."""

    num_steps: int

    def __post_init__(self):
        require_count(self.num_steps, "Linear.num_steps")

    def betas(self) -> np.ndarray:
        return np.linspace(0, 1, self.num_steps + 1)


@component
class Sigmoid(Temperatures):
    """b_t = sigmoid(width (2 t/T - 1)), moved and scaled to 0 at t = 0 and 1 at T: most
    temperatures near the ends.
    """

    num_steps: int
    width: float = 4.0

    def __post_init__(self):
        require_count(self.num_steps, "Sigmoid.num_steps")
        require_positive(self.width, "Sigmoid.width")

    def betas(self) -> np.ndarray:
        raw = 1 / (1 + np.exp(-self.width * np.linspace(-1, 1, self.num_steps + 1)))
        return (raw - raw[0]) / (raw[-1] - raw[0])


class Transition(Declared):
    """A reversible move that leaves exp(log_density) invariant: (z', the probability with which it
    was accepted).

    `target` is the acceptance that the pilot run aims at by its choice of step sizes, or None for a
    move without a step size: all are 1 then. Your own, here a random walk:

        @vaejax.component
        class RandomWalk(vaejax.ais.Transition):
            target = 0.234

            def __call__(self, log_density, z, step_size, key):
                move_key, accept_key = jax.random.split(key)
                proposal = z + step_size * jax.random.normal(move_key, z.shape)
                ratio = jnp.exp(log_density(proposal) - log_density(z))
                accepted = jax.random.uniform(accept_key) < ratio
                return jnp.where(accepted, proposal, z), jnp.minimum(ratio, 1)
    """

    target: Any  # a number between 0 and 1, or None

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        question = "the acceptance that a pilot run aims at, or None for moves without a step size"
        require_said(cls, Transition, "target", question)

    def __call__(
        self, log_density: LogDensity, z: Float[Array, " d"], step_size: Scalar, key: Key
    ) -> tuple[Float[Array, " d"], Scalar]:
        raise NotImplementedError(f"{type(self).__name__}.__call__")


@component
class HMC(Transition):
    """Hamiltonian Monte Carlo with a unit mass and `num_leapfrog` steps, by BlackJAX. The pilot
    aims at `target` acceptance.
    """

    num_leapfrog: int = 10
    target: float = 0.65

    def __post_init__(self):
        require_count(self.num_leapfrog, "HMC.num_leapfrog")
        if self.target not in Reals(0, 1, is_open=True):
            raise ValueError(f"HMC.target = {self.target!r}; an acceptance lies between 0 and 1")

    def __call__(
        self, log_density: LogDensity, z: Float[Array, " d"], step_size: Scalar, key: Key
    ) -> tuple[Float[Array, " d"], Scalar]:
        try:
            from blackjax.mcmc import hmc
        except ImportError:
            raise ImportError("HMC needs BlackJAX: pip install 'vaejax[experiments]'") from None
        kernel: Any = hmc.build_kernel()
        state = hmc.init(z, log_density)
        unit_mass = jnp.ones_like(z)
        state, info = kernel(key, state, log_density, step_size, unit_mass, self.num_leapfrog)
        return state.position, info.acceptance_rate


class AnnealedPath(NamedTuple):
    """log p_0, normalised, and log p_1 = log p(x, .), as functions of flat z [d]."""

    log_start: LogDensity
    log_end: LogDensity

    def density(self, beta: Scalar) -> LogDensity:
        """log p_b(z) = (1 - b) log p_0(z) + b log p_1(z), but for a constant."""
        return lambda z: (1 - beta) * self.log_start(z) + beta * self.log_end(z)


class Chains(NamedTuple):
    """`num_chains` chains along a path, at the temperatures `betas` by the moves of `transition`;
    `sample_start(key)` draws from p_0, flat.
    """

    path: AnnealedPath
    sample_start: Callable[[Key], Float[Array, " d"]]
    betas: Float[Array, " t"]
    transition: Transition
    num_chains: int

    def step_sizes(self, key: Key) -> Float[Array, " t"]:
        """Of the moves at each temperature, by a pilot run."""
        starts_key, moves_key = jax.random.split(key)
        zs = self._starts(starts_key)
        return pilot_step_sizes(self.path, self.betas, self.transition, zs, moves_key)

    def upwards(
        self, step_sizes: Float[Array, " t"], key: Key
    ) -> tuple[Float[Array, " c"], Scalar]:
        """(log w of each chain from the start to p(x, z), the mean acceptance): E w = p(x)."""
        starts_key, moves_key = jax.random.split(key)
        return self._log_weights(self._starts(starts_key), self.betas, step_sizes, moves_key)

    def downwards(
        self, z: PyTree, step_sizes: Float[Array, " t"], key: Key
    ) -> tuple[Float[Array, " c"], Scalar]:
        """(log w of each chain from z to the start, the mean acceptance): E w = 1/p(x), where z is
        an exact sample of p(z | x).
        """
        zs = jnp.tile(ravel_pytree(z)[0], (self.num_chains, 1))
        return self._log_weights(zs, self.betas[::-1], step_sizes[::-1], key)

    def _starts(self, key: Key) -> Float[Array, "c d"]:
        return jax.vmap(self.sample_start)(jax.random.split(key, self.num_chains))

    def _log_weights(
        self,
        zs: Float[Array, "c d"],
        betas: Float[Array, " t"],
        step_sizes: Float[Array, " t"],
        key: Key,
    ) -> tuple[Float[Array, " c"], Scalar]:
        def chain(z, key):
            return annealed_log_weight(self.path, betas, step_sizes, self.transition, z, key)

        log_w, acceptance = jax.vmap(chain)(zs, jax.random.split(key, self.num_chains))
        return log_w, jnp.mean(acceptance)


def annealed_log_weight(
    path: AnnealedPath,
    betas: Float[Array, " t"],
    step_sizes: Float[Array, " t"],
    transition: Transition,
    z: Float[Array, " d"],
    key: Key,
) -> tuple[Scalar, Scalar]:
    """(log w, the mean acceptance) of one chain from z ~ p_(betas[0]) along `betas`, in either
    direction.
    """
    assert_rank(z, 1)
    assert_equal_shape([betas, step_sizes])

    def step(carry, setting):
        z, log_w = carry
        beta, change, step_size, t = setting
        # log w += (b_t - b_(t-1)) [log p(x, z) - log p_0(z)], z before the move.
        log_w += change * (path.log_end(z) - path.log_start(z))
        # z moves, p_(b_t) invariant.
        density = path.density(beta)
        z, acceptance = transition(density, z, step_size, jax.random.fold_in(key, t))
        return (z, log_w), acceptance

    settings = betas[1:], jnp.diff(betas), step_sizes[1:], jnp.arange(len(betas) - 1)
    (_, log_w), acceptance = jax.lax.scan(step, (z, jnp.zeros((), z.dtype)), settings)
    return log_w, jnp.mean(acceptance)


def pilot_step_sizes(
    path: AnnealedPath,
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
    if transition.target is None:
        return jnp.ones_like(betas)

    def step(carry, setting):
        zs, log_step = carry
        beta, t = setting
        keys = jax.random.split(jax.random.fold_in(key, t), len(zs))
        density = path.density(beta)
        move = lambda z, key: transition(density, z, jnp.exp(log_step), key)  # noqa: E731
        zs, acceptance = jax.vmap(move)(zs, keys)
        # log step += GAIN (the mean acceptance - target); a chain that diverged accepted nothing.
        acceptance = jnp.mean(jnp.where(jnp.isfinite(acceptance), acceptance, 0))
        return (zs, log_step + GAIN * (acceptance - transition.target)), log_step

    # d^(-1/4): what suits N(0, I).
    log_step = jnp.log(jnp.asarray(FIRST_STEP, zs.dtype)) - 0.25 * jnp.log(zs.shape[1])
    warmed_up = jnp.concatenate([jnp.full(FIRST_MOVES, betas[0]), betas])
    _, log_steps = jax.lax.scan(step, (zs, log_step), (warmed_up, jnp.arange(len(warmed_up))))
    return jnp.exp(log_steps[FIRST_MOVES:])

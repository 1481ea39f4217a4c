"""Annealed importance sampling: log p(x) from below and, for simulated data, from above.

Between the start p_0(z), which is normalised, and p_1(z) = p(x, z) lie p_b(z), proportional to p_0(z)^(1-b) p(x, z)^b. With temperatures
b_0, ..., b_T and moves that leave each p_b invariant, a chain has the weight

    log w = sum_t (b_t - b_(t-1)) [log p(x, z_(t-1)) - log p_0(z_(t-1))],    z_0 ~ p_(b_0),  z_t moved from z_(t-1) at b_t

Upwards, from b_0 = 0 to b_T = 1, E w = p(x), so log mean w is a lower bound on log p(x) in expectation. Downwards, from an exact sample of
p(z | x) at b_0 = 1 to b_T = 0, E w = 1/p(x), and -log mean w is an upper one; the exact sample is what simulated data come with. By
Markov's inequality either is on the wrong side by b nats with a probability of at most exp(-b). All in nats.

References: Neal 2001; Grosse, Ghahramani & Adams 2015 (both sides); Wu, Burda, Salakhutdinov & Grosse 2017 (for decoders).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vaejax._values import value
from vaejax.data import unknown
from vaejax.elbo import iwae_bound, prior_of, require_count
from vaejax.models import simulate
from vaejax.supports import REAL
from vaejax.types import Key, LatentVariableModel, Params, PyTree, Scalar

Start = Literal["prior", "encoder"]
LogDensity = Callable[[jax.Array], Scalar]
FIRST_MOVES = 50  # of the pilot at the first temperature, to find a step size at all
GAIN = 0.5  # of the pilot: by how much the log of the step size follows the acceptance


# Temperatures.


class Temperatures(Protocol):
    """b_0 = 0 < b_1 < ... < b_T = 1."""

    def betas(self) -> np.ndarray: ...


@value
class Linear:
    """b_t = t / T."""

    num_steps: int

    def __post_init__(self):
        require_count(self.num_steps, "Linear.num_steps")

    def betas(self) -> np.ndarray:
        return np.linspace(0, 1, self.num_steps + 1)


@value
class Sigmoid:
    """b_t = sigmoid(width (2 t/T - 1)), moved and scaled to 0 at t = 0 and 1 at T: most temperatures near the ends."""

    num_steps: int
    width: float = 4.0

    def __post_init__(self):
        require_count(self.num_steps, "Sigmoid.num_steps")
        if not self.width > 0:
            raise ValueError(f"Sigmoid.width = {self.width}; it must be positive")

    def betas(self) -> np.ndarray:
        raw = 1 / (1 + np.exp(-self.width * np.linspace(-1, 1, self.num_steps + 1)))
        return (raw - raw[0]) / (raw[-1] - raw[0])


# Moves.


class Transition(Protocol):
    """A reversible move that leaves exp(log_density) invariant: (z', the probability with which it was accepted)."""

    def __call__(self, log_density: LogDensity, z: jax.Array, step_size: Scalar, key: Key) -> tuple[jax.Array, Scalar]: ...


@value
class HMC:
    """Hamiltonian Monte Carlo with a unit mass and `num_leapfrog` steps, by BlackJAX. The pilot aims at `target` acceptance."""

    num_leapfrog: int = 10
    target: float = 0.65

    def __post_init__(self):
        require_count(self.num_leapfrog, "HMC.num_leapfrog")
        if not 0 < self.target < 1:
            raise ValueError(f"HMC.target = {self.target}; an acceptance lies between 0 and 1")

    def __call__(self, log_density: LogDensity, z: jax.Array, step_size: Scalar, key: Key) -> tuple[jax.Array, Scalar]:
        try:
            from blackjax.mcmc import hmc
        except ImportError:
            raise ImportError("HMC needs BlackJAX: pip install 'vaejax[experiments]'") from None
        kernel: Any = hmc.build_kernel()
        state, info = kernel(key, hmc.init(z, log_density), log_density, step_size, jnp.ones_like(z), self.num_leapfrog)
        return state.position, info.acceptance_rate


# Chains.


def annealed_log_weight(
    log_start: LogDensity,
    log_end: LogDensity,
    betas: Float[Array, " t"],
    step_sizes: Float[Array, " t"],
    transition: Transition,
    z: jax.Array,
    key: Key,
) -> tuple[Scalar, Scalar]:
    """(log w, the mean acceptance) of one chain from z ~ p_(betas[0]) along `betas`, in either direction."""

    def step(carry, at):
        z, log_w = carry
        beta, change, step_size, i = at
        log_w += change * (log_end(z) - log_start(z))
        z, acceptance = transition(_tempered(log_start, log_end, beta), z, step_size, jax.random.fold_in(key, i))
        return (z, log_w), acceptance

    ats = betas[1:], jnp.diff(betas), step_sizes[1:], jnp.arange(len(betas) - 1)
    (_, log_w), acceptance = jax.lax.scan(step, (z, jnp.zeros((), z.dtype)), ats)
    return log_w, jnp.mean(acceptance)


def _tempered(log_start: LogDensity, log_end: LogDensity, beta: Scalar) -> LogDensity:
    return lambda z: (1 - beta) * log_start(z) + beta * log_end(z)


def pilot_step_sizes(
    log_start: LogDensity, log_end: LogDensity, betas: Float[Array, " t"], transition: Transition, zs: Float[Array, "c d"], key: Key
) -> Float[Array, " t"]:
    """A step size for each temperature, from chains that move upwards from zs ~ p_0 and follow the target acceptance on the way.

    They depend on no chain that is weighted, so those see a fixed move at each temperature, as the bounds need.
    """
    target = getattr(transition, "target", None)
    if target is None:
        return jnp.ones_like(betas)

    def step(carry, at):
        zs, log_step = carry
        beta, i = at
        keys = jax.random.split(jax.random.fold_in(key, i), len(zs))
        density = _tempered(log_start, log_end, beta)
        zs, acceptance = jax.vmap(lambda z, key: transition(density, z, jnp.exp(log_step), key))(zs, keys)
        used = log_step
        log_step += GAIN * (jnp.mean(jnp.where(jnp.isfinite(acceptance), acceptance, 0)) - target)
        return (zs, log_step), used

    first = jnp.concatenate([jnp.full(FIRST_MOVES, betas[0]), betas])
    start = jnp.log(jnp.asarray(0.5, zs.dtype)) - 0.25 * jnp.log(zs.shape[1])  # what suits N(0, I)
    _, log_steps = jax.lax.scan(step, (zs, start), (first, jnp.arange(len(first))))
    return jnp.exp(log_steps[FIRST_MOVES:])


# Bounds.


class Sandwich(NamedTuple):
    """Of one simulated example x: bounds on its log p(x), nats, and the mean acceptance of the chains up and down."""

    x: PyTree
    lower: Scalar
    upper: Scalar
    acceptance: Scalar


@value
class AIS:
    """log mean_c w_c over `num_chains` chains: in expectation a lower bound on log p(x) of one example, nats.

    `vaejax.map_dataset(vaejax.AIS(model, vaejax.ais.Sigmoid(500)), params, xs, key)`. The chains start at the prior, or at the encoder's q;
    their step sizes come from a pilot run of as many others. Needs latents in R^d. `bdmc` is the sandwich on simulated data.
    """

    model: LatentVariableModel
    temperatures: Any = Sigmoid(500)
    num_chains: int = 16
    start: Start = "prior"
    transition: Any = HMC()

    def __post_init__(self):
        require_count(self.num_chains, "AIS.num_chains")
        if self.start not in get_args(Start):
            raise ValueError(unknown("AIS.start", self.start, list(get_args(Start))))
        supports = (getattr(getattr(self.model, name, None), "support", None) for name in ("prior", "encoder"))
        support = next((of for of in supports if of not in (None, REAL)), None)
        if support is not None:
            raise ValueError(f"AIS moves through R^d, but the latents of this model are {support.name} ({support.description})")

    def __call__(self, params: Params, x: PyTree, key: Key) -> Scalar:
        pilot_key, chains_key = jax.random.split(key)
        log_w, _ = self.upwards(params, x, self.step_sizes(params, x, pilot_key), chains_key)
        return iwae_bound(log_w)

    def bdmc(self, params: Params, key: Key) -> Sandwich:
        """Both bounds on log p(x) of an x drawn from the model itself: bidirectional Monte Carlo."""
        z_key, x_key, pilot_key, up_key, down_key = jax.random.split(key, 5)
        x, z = simulate(self.model, params, z_key, x_key)
        steps = self.step_sizes(params, x, pilot_key)
        up, accepted_up = self.upwards(params, x, steps, up_key)
        down, accepted_down = self.downwards(params, x, z, steps, down_key)
        return Sandwich(x, iwae_bound(up), -iwae_bound(down), (accepted_up + accepted_down) / 2)

    def step_sizes(self, params: Params, x: PyTree, key: Key) -> Float[Array, " t"]:
        """Of the moves at each temperature, by a pilot run."""
        starts_key, moves_key = jax.random.split(key)
        log_start, log_end, sample = self._path(params, x)
        return pilot_step_sizes(log_start, log_end, self._betas(), self.transition, self._starts(sample, starts_key), moves_key)

    def upwards(self, params: Params, x: PyTree, step_sizes: Float[Array, " t"], key: Key) -> tuple[Float[Array, " c"], Scalar]:
        """(log w of each chain from the start to p(x, z), the mean acceptance): E w = p(x)."""
        starts_key, moves_key = jax.random.split(key)
        _, _, sample = self._path(params, x)
        return self._chains(params, x, self._starts(sample, starts_key), self._betas(), step_sizes, moves_key)

    def downwards(
        self, params: Params, x: PyTree, z: PyTree, step_sizes: Float[Array, " t"], key: Key
    ) -> tuple[Float[Array, " c"], Scalar]:
        """(log w of each chain from z to the start, the mean acceptance): E w = 1/p(x), where z is an exact sample of p(z | x)."""
        zs = jnp.tile(ravel_pytree(z)[0], (self.num_chains, 1))
        return self._chains(params, x, zs, self._betas()[::-1], step_sizes[::-1], key)

    def _betas(self) -> jax.Array:
        return jnp.asarray(self.temperatures.betas(), jnp.result_type(float))

    def _chains(self, params, x, zs, betas, step_sizes, key) -> tuple[Float[Array, " c"], Scalar]:
        log_start, log_end, _ = self._path(params, x)
        keys = jax.random.split(key, self.num_chains)
        chain = lambda z, key: annealed_log_weight(log_start, log_end, betas, step_sizes, self.transition, z, key)  # noqa: E731
        log_w, acceptance = jax.vmap(chain)(zs, keys)
        return log_w, jnp.mean(acceptance)

    def _starts(self, sample: Callable[[Key], PyTree], key: Key) -> Float[Array, "c d"]:
        return jax.vmap(lambda key: ravel_pytree(sample(key))[0])(jax.random.split(key, self.num_chains))

    def _path(self, params: Params, x: PyTree):
        """(log p_0, log p(x, .), a sampler of p_0), the densities of flat z."""
        of_prior = self.start == "prior"
        p_0 = prior_of(self.model, params, x) if of_prior else self.model.posterior(params, x)
        shapes = jax.eval_shape(p_0.sample, jax.random.key(0))
        unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))[1]
        return lambda z: p_0.log_prob(unravel(z)), lambda z: self.model.log_joint(params, x, unravel(z)), p_0.sample

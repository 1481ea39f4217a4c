"""Annealed importance sampling: log p(x) from below and, for simulated data, from above.

Between the start p_0(z), which is normalised, and p_1(z) = p(x, z) lie p_b(z), proportional to
p_0(z)^(1-b) p(x, z)^b. With temperatures b_0, ..., b_T and moves that leave each p_b invariant, a
chain has the weight

    log w = sum_t (b_t - b_(t-1)) [log p(x, z_(t-1)) - log p_0(z_(t-1))],

z_0 ~ p_(b_0), z_t moved from z_(t-1) at b_t.

Upwards, from b_0 = 0 to b_T = 1, E w = p(x), so log mean w is a lower bound on log p(x) in
expectation. Downwards, from an exact sample of p(z | x) at b_0 = 1 to b_T = 0, E w = 1/p(x), and
-log mean w is an upper one; the exact sample is what simulated data come with. By Markov's
inequality either is on the wrong side by b nats with a probability of at most exp(-b). All in nats.

References: Neal 2001; Grosse, Ghahramani & Adams 2015 (both sides); Wu, Burda, Salakhutdinov &
Grosse 2017 (for decoders).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from vaejax.base.checks import require_count, require_key, require_kind, unknown_name
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.bounds import iwae_bound
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.inference.annealing import HMC as HMC
from vaejax.inference.annealing import AnnealedPath, Chains, require_betas
from vaejax.inference.annealing import Linear as Linear
from vaejax.inference.annealing import Sigmoid as Sigmoid
from vaejax.inference.annealing import Temperatures as Temperatures
from vaejax.inference.annealing import Transition as Transition
from vaejax.models.base import Model, check_example, posterior_of, prior_of
from vaejax.models.latents import require_real_latents

Start = Literal["prior", "encoder"]


def _known_prior(model: Model, params: Params, x: PyTree) -> Distribution:
    """p(z), or p(z | u)."""
    try:
        return prior_of(model, params, x)
    except NotKnownError as error:
        raise NotKnownError(f'{error}; AIS(..., start="encoder") needs none') from None


# p_0, by the name of the start.
STARTS: dict[Start, Callable[[Model, Params, PyTree], Distribution]] = {
    "prior": _known_prior,
    "encoder": posterior_of,
}


class Sandwich(NamedTuple):
    """Of one simulated example x: bounds on its log p(x), nats, and the mean acceptance of the
    chains up and down.
    """

    x: PyTree
    lower: Scalar
    upper: Scalar
    acceptance: Scalar


@component
class AIS:
    """log mean_c w_c over `num_chains` chains: in expectation a lower bound on log p(x) of one
    example, nats.

    `vaejax.map_dataset(vaejax.AIS(model, vaejax.ais.Sigmoid(500)), params, xs, key)`. The chains
    start at the prior, or at the encoder's q; their step sizes come from a pilot run of as many
    others. Needs latents in R^d. `bdmc` is the sandwich on simulated data.
    """

    model: Model
    temperatures: Temperatures = Sigmoid(500)
    num_chains: int = 16
    start: Start = "prior"
    transition: Transition = HMC()

    def __post_init__(self):
        require_kind(self.model, Model, "AIS.model")
        require_kind(self.temperatures, Temperatures, "AIS.temperatures", "vaejax.ais")
        require_kind(self.transition, Transition, "AIS.transition", "vaejax.ais")
        require_count(self.num_chains, "AIS.num_chains")
        if self.start not in STARTS:
            raise ValueError(unknown_name("AIS.start", self.start, list(STARTS)))
        require_betas(self.temperatures)
        require_real_latents(self.model.latent_support, "AIS")

    def __call__(self, params: Params, x: PyTree, key: Key) -> Scalar:
        require_key(key)
        pilot_key, chains_key = jax.random.split(key)
        chains = self.chains(params, x)
        step_sizes = chains.step_sizes(pilot_key)
        log_w, _ = chains.upwards(step_sizes, chains_key)
        return iwae_bound(log_w)

    def bdmc(self, params: Params, key: Key, x: PyTree = None) -> Sandwich:
        """Both bounds on log p(x) of an x drawn from the model itself: bidirectional Monte Carlo. A
        conditional model takes its inputs from the example `x`.
        """
        require_key(key)
        z_key, x_key, pilot_key, up_key, down_key = jax.random.split(key, 5)
        x, z = self.model.simulate(params, z_key, x_key, x)
        chains = self.chains(params, x)
        step_sizes = chains.step_sizes(pilot_key)
        up, accepted_up = chains.upwards(step_sizes, up_key)
        down, accepted_down = chains.downwards(z, step_sizes, down_key)
        return Sandwich(x, iwae_bound(up), -iwae_bound(down), (accepted_up + accepted_down) / 2)

    def chains(self, params: Params, x: PyTree) -> Chains:
        """Those of one example, from the start to p(x, .) or back: their weights one by one."""
        check_example(self.model, x)
        p_0 = STARTS[self.start](self.model, params, x)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), p_0.event)
        unravel = ravel_pytree(zeros)[1]
        path = AnnealedPath(
            log_start=lambda z: p_0.log_prob(unravel(z)),
            log_end=lambda z: self.model.log_joint(params, x, unravel(z)),
        )
        return Chains(
            path,
            sample_start=lambda key: ravel_pytree(p_0.sample(key))[0],
            betas=jnp.asarray(self.temperatures.betas(), jnp.result_type(float)),
            transition=self.transition,
            num_chains=self.num_chains,
        )

"""A posterior over two latents, and each q beside it, exactly: on a grid."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from experiments.lib.encoders import Entries

NEGLIGIBLE = -25.0  # log density below the highest: what lies outside has a mass of about exp(-25)
REACH, COARSE = 6.0, 121  # the first grid is over [-6, 6]^2, at a spacing of 0.1


class OnGrid(NamedTuple):
    """The posterior and each q as probabilities of the cells of a grid over z, in logarithms that
    sum to one.

    `mass` is what the density of each q adds up to on the grid, 1 where the grid is wide and fine
    enough.
    """

    points: np.ndarray
    log_p: np.ndarray
    log_q: dict[str, np.ndarray]
    log_marginal: float
    mass: dict[str, float]

    def kl(self, name: str) -> float:
        """KL(q || p), nats."""
        log_q = self.log_q[name]
        return float(np.sum(np.exp(log_q) * (log_q - self.log_p)))

    def deviation_ratio(self, name: str) -> np.ndarray:
        """The standard deviations of q over those of p."""
        return moments(self.points, self.log_q[name])[1] / moments(self.points, self.log_p)[1]


def square(low, high, size: int) -> jax.Array:
    """[size^2, 2] points of a grid between two corners."""
    axes = [jnp.linspace(low[i], high[i], size) for i in range(2)]
    return jnp.stack(jnp.meshgrid(*axes), axis=-1).reshape(-1, 2)


def on_grid(entries: Entries, xs, size: int) -> list[OnGrid]:
    """For each example, on a grid over where p(z|x) or a q(z|x) is not negligible: found on a
    coarse one, the same for all.
    """
    models = {name: model for name, (model, _) in entries.items()}
    params = {name: values for name, (_, values) in entries.items()}
    first = next(iter(models))  # the decoder is the same in all

    def log_joint(params, x, z):
        return models[first].log_joint(params[first], x, z)

    @jax.jit
    def coarse(params, xs):
        points = square((-REACH, -REACH), (REACH, REACH), COARSE)
        # one decoding for all x
        log_joints = lambda z: jax.vmap(lambda x: log_joint(params, x, z))(xs)  # noqa: E731
        return points, jax.lax.map(log_joints, points, batch_size=1_000).T

    @jax.jit
    def log_q(params, x, points):
        return {
            name: jax.vmap(model.posterior(params[name], x).log_prob)(points)
            for name, model in models.items()
        }

    @jax.jit
    def fine(params, x, low, high):
        points = square(low, high, size)
        log_joints = jax.lax.map(partial(log_joint, params, x), points, batch_size=1_000)
        return points, log_joints, log_q(params, x, points)

    points, coarse_joints = coarse(params, xs)
    grids = []
    for x, coarse_joint in zip(xs, coarse_joints, strict=True):
        densities = [coarse_joint, *log_q(params, x, points).values()]
        low, high = box(np.asarray(points), densities)
        values = fine(params, x, low, high)
        grids.append(normalised(*jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), values)))
    return grids


def box(points: np.ndarray, log_densities: list) -> tuple[np.ndarray, np.ndarray]:
    """The corners around all points where one of the densities is not negligible, with a margin of
    two cells.
    """
    densities = np.asarray(log_densities)
    inside = points[np.any(densities > densities.max(axis=1, keepdims=True) + NEGLIGIBLE, axis=0)]
    margin = 2 * 2 * REACH / (COARSE - 1)
    return inside.min(axis=0) - margin, inside.max(axis=0) + margin


def normalised(points: np.ndarray, log_joint: np.ndarray, log_q: dict[str, np.ndarray]) -> OnGrid:
    side = int(np.sqrt(len(points))) - 1
    log_area = np.log(np.ptp(points, axis=0) / side).sum()
    totals = {name: logsumexp(values) for name, values in log_q.items()}
    log_q = {name: values - totals[name] for name, values in log_q.items()}
    mass = {name: float(np.exp(total + log_area)) for name, total in totals.items()}
    total = logsumexp(log_joint)
    return OnGrid(points, log_joint - total, log_q, float(total + log_area), mass)


def moments(points: np.ndarray, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviations."""
    weights = np.exp(log_weights)
    mean = weights @ points
    return mean, np.sqrt(weights @ (points - mean) ** 2)

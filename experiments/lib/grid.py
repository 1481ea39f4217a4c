"""A posterior over two latents, and each q beside it, on a grid that is as wide as they are."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from experiments.lib.encoders import Entries
from vaejax.inference.grids import GridDensity, grid_points, on_grid

NEGLIGIBLE = -25.0  # log density below the highest: what lies outside has a mass of about exp(-25)
REACH, COARSE = 6.0, 121  # the first grid is over [-6, 6]^2, at a spacing of 0.1


class OnGrid(NamedTuple):
    """p(z|x) of one example, and {name: q(z|x)}, on one grid."""

    p: GridDensity
    q: dict[str, GridDensity]


def on_grids(entries: Entries, xs, size: int) -> list[OnGrid]:
    """For each example, on a grid over where p(z|x) or a q(z|x) is not negligible."""
    models = {name: model for name, (model, _) in entries.items()}
    params = {name: values for name, (_, values) in entries.items()}
    first = next(iter(models))  # the decoder is the same in all

    def log_joint(params, x, z):
        return models[first].log_joint(params[first], x, z)

    @jax.jit
    def coarse(params, xs):
        points = grid_points((-REACH, -REACH), (REACH, REACH), COARSE)
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
        points = grid_points(low, high, size)
        log_joints = jax.lax.map(partial(log_joint, params, x), points, batch_size=1_000)
        return points, log_joints, log_q(params, x, points)

    points, coarse_joints = coarse(params, xs)
    grids = []
    for x, coarse_joint in zip(xs, coarse_joints, strict=True):
        low, high = box(np.asarray(points), [coarse_joint, *log_q(params, x, points).values()])
        fine_points, log_joints, log_qs = fine(params, x, low, high)
        q = {name: on_grid(fine_points, values) for name, values in log_qs.items()}
        grids.append(OnGrid(on_grid(fine_points, log_joints), q))
    return grids


def box(points: np.ndarray, log_densities: list) -> tuple[np.ndarray, np.ndarray]:
    """The corners around all points where a density is not negligible, and two cells more."""
    densities = np.asarray(log_densities)
    inside = points[np.any(densities > densities.max(axis=1, keepdims=True) + NEGLIGIBLE, axis=0)]
    margin = 2 * 2 * REACH / (COARSE - 1)
    return inside.min(axis=0) - margin, inside.max(axis=0) + margin

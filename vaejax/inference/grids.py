"""A density over one latent or two, on a grid: its integral, moments, regions and KL, as exact as
the grid is wide and fine. What every method of inference can be held against.

    points = vaejax.grids.grid_points((-6, -6), (6, 6), 201)
    log_joint = jax.vmap(lambda z: model.log_joint(params, x, z))(points)
    p = vaejax.grids.on_grid(points, log_joint)      # p(z | x), and p.log_total = log p(x)
    q = vaejax.grids.on_grid(points, jax.vmap(model.posterior(params, x).log_prob)(points))
    q.kl(p)                                          # log p(x) - ELBO, nats
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from scipy.special import logsumexp

from vaejax.base.checks import require_count

CUT_OFF = 1e-3  # the mass in the outermost cells from which a grid is too narrow
TOO_COARSE = 0.5  # the mass of one cell from which a grid is too coarse


def grid_points(
    low: Sequence[float] | ArrayLike, high: Sequence[float] | ArrayLike, size: int
) -> Float[Array, "n d"]:
    """The points of a grid between two corners [d], `size` in each direction: [size^d, d], the
    first coordinate the fastest.
    """
    require_count(size, "size", 2)
    low, high = jnp.asarray(low), jnp.asarray(high)
    axes = [jnp.linspace(low[i], high[i], size) for i in range(len(low))]
    return jnp.stack(jnp.meshgrid(*axes), axis=-1).reshape(-1, len(axes))


class GridDensity(NamedTuple):
    """A density as the probabilities of the cells of a grid, in float64.

    `points` [n, d] are the middles of the cells; `log_prob` [n] are the logarithms of their
    probabilities, which sum to one; `log_total`, nats, is the logarithm of the integral of what was
    given: log p(x) of log p(x, z), and 0 of a normalised density on a grid that is wide and fine
    enough.
    """

    points: np.ndarray
    log_prob: np.ndarray
    log_total: float

    @property
    def prob(self) -> np.ndarray:
        return np.exp(self.log_prob)

    def mean(self) -> np.ndarray:
        """[d]"""
        return self.prob @ self.points

    def deviation(self) -> np.ndarray:
        """The standard deviation of each coordinate [d]."""
        return np.sqrt(self.prob @ (self.points - self.mean()) ** 2)

    def kl(self, other: "GridDensity") -> float:
        """KL(self || other), nats, of a density on the same grid."""
        if not np.array_equal(self.points, other.points):
            raise ValueError("the two densities are on different grids; put both on one")
        with np.errstate(invalid="ignore"):  # 0 log 0 = 0
            terms = self.prob * (self.log_prob - other.log_prob)
        return float(np.sum(np.where(self.prob > 0, terms, 0.0)))

    def regions(self) -> np.ndarray:
        """[n], for each cell the mass of all that are at least as probable: its contour at 0.9
        bounds the region of 90 % of the mass.
        """
        order = np.argsort(self.log_prob)[::-1]
        mass = np.empty_like(self.log_prob)
        mass[order] = np.cumsum(self.prob[order])
        return mass

    def picture(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(first axis [s], second axis [s], values [s, s]) of values [s^2] on a grid of two
        coordinates, as `axes.contour` takes them.
        """
        side = round(len(self.points) ** 0.5)
        table = np.reshape(values, (side, side))
        return self.points[:side, 0], self.points[::side, 1], table


def on_grid(points: ArrayLike, log_density: ArrayLike) -> GridDensity:
    """The density whose logarithms at `points` [n, d], of `grid_points`, are `log_density` [n], up
    to one constant.

    Warns where the grid cuts a part of it off, or is so coarse that one cell has most of it.
    Raises ValueError for values that are no densities.
    """
    points, values = np.asarray(points, np.float64), np.asarray(log_density, np.float64)
    if points.ndim != 2 or values.shape != points.shape[:1]:
        raise ValueError(
            f"log_density has shape {values.shape} and points {points.shape}; one number for each"
            " of the points [n, d]"
        )
    if np.isnan(values).any() or not np.isfinite(values.max()):
        raise ValueError(
            f"the largest of log_density is {values.max()}, so it is the logarithm of no density"
            " that this grid could hold"
        )
    side = round(len(points) ** (1 / points.shape[1])) - 1
    log_cell = np.log(np.ptp(points, axis=0) / side).sum()
    # log sum_i exp(values_i)
    total = float(logsumexp(values))
    density = GridDensity(points, values - total, float(total + log_cell))
    outermost = np.any((points == points.min(axis=0)) | (points == points.max(axis=0)), axis=1)
    cut_off, largest = density.prob[outermost].sum(), density.prob.max()
    if cut_off > CUT_OFF:
        warnings.warn(
            f"{cut_off:.1%} of the mass lies in the outermost cells of the grid, so there is more"
            " beyond; make it wider",
            stacklevel=2,
        )
    if largest > TOO_COARSE:
        warnings.warn(
            f"one cell of the grid has {largest:.0%} of the mass, so the sum is not the"
            " integral; make the grid finer",
            stacklevel=2,
        )
    return density

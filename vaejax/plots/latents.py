"""Pictures of a latent space."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaejax.base.checks import require_count, require_counts, require_key
from vaejax.base.supports import REAL, support_parts
from vaejax.base.types import Key, Params, PyTree
from vaejax.distributions.base import NotKnownError
from vaejax.models.base import Model, likelihood_of, prior_of
from vaejax.plots.images import (
    cut_values,
    is_image,
    mean_image,
    prior_draws,
    prior_means,
    require_inputs,
    show_image,
    tile,
)
from vaejax.plots.look import BLUE, GREY, TITLE, figure_of, shared_legend, without_ticks
from vaejax.plots.paths import nearest
from vaejax.plots.points import (
    by_class,
    principal_components,
    principal_directions,
    require_labels,
    rows_of,
    scatter,
    shared_colours,
)

QUANTILE_DRAWS = 10_000  # of the prior, for its quantiles


def latent(
    model: Model, params: Params, means: Any, labels: np.ndarray | None, size: int = 16
) -> Figure:
    """The posterior means coloured by class: themselves in two dimensions, else their first two
    principal components.

    means [n, d] are those of `vaejax.posterior_means`; of a mapping all latents stand in a row.
    labels [n], or one-hot rows [n, classes], name the classes. Where the model explains images, and
    has no inputs, a second panel shows E[x | z]: with two real numbers for latents, of one node or
    of two, at quantiles of each number under the prior; with any others at one of the means in each
    part of the first panel, or the point of the latents' support next to it. Where there is no such
    panel, the title says why.
    """
    require_count(size, "size")
    z_means, means = jax.tree.map(jnp.asarray, means), rows_of(means)
    of_one = jax.tree.map(lambda leaf: leaf[0], z_means)
    labels = require_labels(labels, len(means))
    missing = _not_decoded(model, params, of_one)
    decoded = not missing
    figure, [panels] = figure_of(columns=1 + decoded, size=(11.5 if decoded else 6.2, 5.4))
    points, names = means, ("$z_1$", "$z_2$")
    if means.shape[1] > 2:
        points, names = principal_components(means)
    scatter(panels[0], points, labels)
    title = f"posterior means of {len(means):,} examples{shared_colours(labels)}"
    panels[0].set(xlabel=names[0], ylabel=names[1])
    panels[0].set_title(f"{title}\n{missing}" if missing else title)
    real = all(support == REAL for _, support in support_parts(model.latent_support))
    if decoded and means.shape[1] == 2 and real and _draws_images(model, params):
        _show_manifold(panels[1], model, params, of_one, size)
    elif decoded:
        _show_places(panels[1], model, params, z_means, points, size)
        panels[1].set(xlabel=f"{names[0]} →", ylabel=f"{names[1]} →")
    return figure


def _draws_images(model: Model, params: Params) -> bool:
    """Whether the model draws images: not where a latent depends on observed nodes, nor where what
    it draws is a vector, or several arrays.
    """
    try:
        prior_of(model, params)
    except NotKnownError:
        return False
    x, _ = jax.eval_shape(lambda key: model.sample(params, key), jax.random.key(0))
    return is_image(x)


def _show_manifold(axes: Axes, model: Model, params: Params, of_one: PyTree, size: int) -> None:
    """E[x | z] at a grid of size x size quantiles of the prior's draws, z made like `of_one`."""
    draws = rows_of(prior_draws(model, params, jax.random.split(jax.random.key(0), QUANTILE_DRAWS)))
    first, second = np.quantile(draws, (np.arange(size) + 0.5) / size, axis=0).T
    zs = jnp.stack(jnp.meshgrid(first, second[::-1]), axis=-1).reshape(-1, 2)
    unravel = ravel_pytree(of_one)[1]
    images = jax.jit(jax.vmap(lambda z: mean_image(model, params, unravel(z))))(zs)
    show_image(axes, tile(images, size))
    title = f"decoded manifold, at quantiles of p(z){cut_values(images)}"
    axes.set(xlabel="$z_1$ →", ylabel="$z_2$ →", title=title)


def _not_decoded(model: Model, params: Params, z: PyTree) -> str:
    """Why there is no picture of E[x | z], or no text where there is one."""
    if model.inputs:
        return f"not decoded: x depends on the inputs {', '.join(model.inputs)}"
    try:
        mean = jax.eval_shape(lambda z: likelihood_of(model, params, z).mean(), z)
    except NotKnownError as error:
        return f"not decoded: {error}"
    if not is_image(mean):
        return "not decoded: the model explains no image"
    return "" if sum(leaf.size for leaf in jax.tree.leaves(z)) > 1 else "not decoded: one latent"


def _show_places(
    axes: Axes, model: Model, params: Params, means: PyTree, points: np.ndarray, size: int
) -> None:
    """E[x | z] at the mean whose point is next to the middle of each cell of a grid, size x size;
    white where a cell has none.
    """
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    places = (points - low) / np.where(high > low, high - low, 1) * size  # in cells
    cells = np.floor(np.clip(places, 0, size - 1e-6)).astype(int)
    far = np.linalg.norm(places - cells - 0.5, axis=1)
    order = np.argsort(far)
    column, row = cells[order, 0], size - 1 - cells[order, 1]  # the first row is the topmost
    taken, first = np.unique(row * size + column, return_index=True)
    zs = nearest(model.latent_support, jax.tree.map(lambda leaf: leaf[order[first]], means))
    images = np.asarray(jax.jit(jax.vmap(lambda z: mean_image(model, params, z)))(zs))
    shape = images.shape[1:]
    canvas = np.full((size * size, *shape), 1.0 if shape[2:] == (3,) else 0.0)
    canvas[taken] = images
    show_image(axes, tile(canvas, size))
    axes.set_title(f"decoded means, each in its place{cut_values(images)}")


def priors(
    entries: dict[str, tuple[Model, Params, PyTree]],
    labels: np.ndarray | None,
    key: Key,
    grid: tuple[int, int] = (5, 5),
    xs: PyTree = None,
) -> Figure:
    """For each named (model, params, zs): above, the prior and draws zs of the aggregated
    posterior; below, the prior's draws decoded.

    zs has one draw of q(z | x_i) for each of n examples, [n, d] or {name: [n, ...]}, whose numbers
    then stand in a row, coloured by class. With two continuous numbers the prior is drawn by its
    density, with more by draws of its own, in grey, on the first two principal components of zs;
    so is that of a conditional model, whose draw i has the inputs of example i (mod n) of `xs`.
    """
    require_key(key)
    if not entries:
        raise ValueError("plots.priors shows named entries; there are none")
    require_counts(grid, "grid")
    for model, params, zs in entries.values():
        _require_like_the_prior(model, params, zs, xs)
        labels = require_labels(labels, len(jax.tree.leaves(zs)[0]))
    figure, panels = figure_of(2, len(entries), size=(2.9 * len(entries), 6.1))
    keys = jax.random.split(key, grid[0] * grid[1])
    for (name, (model, params, zs)), above, below in zip(entries.items(), *panels, strict=True):
        _prior_and_posterior(above, model, params, rows_of(zs), labels, key, xs)
        means = prior_means(mean_image, model, params, keys, xs)
        show_image(below, tile(means, grid[1]))
        below.set_title(cut_values(means).strip(), fontsize=TITLE)
        above.set_title(name, fontsize=TITLE)
    panels[0, 0].set_ylabel(f"p(z), and draws of q(z | x){shared_colours(labels)}")
    panels[1, 0].set_ylabel("means of p(x | z), z from p(z)")
    if labels is not None and not shared_colours(labels):
        sizes = {"markerscale": 3, "handletextpad": 0.1}
        shared_legend(figure, panels[0, :1], "outside right upper", **sizes)
    return figure


def _require_like_the_prior(model: Model, params: Params, zs: PyTree, xs: PyTree) -> None:
    """Raises ValueError unless zs are draws of what the prior is a density of, at least two numbers
    each.
    """
    require_inputs(model, xs)
    example = None if xs is None else jax.tree.map(lambda leaf: leaf[0], xs)
    event = jax.eval_shape(prior_of(model, params, example).sample, jax.random.key(0))
    of_prior = jax.tree.map(lambda leaf: leaf.shape, event)
    given = jax.tree.map(lambda leaf: np.shape(leaf)[1:], zs)
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(event))
    if given != of_prior or numbers < 2:
        raise ValueError(
            f"plots.priors shows draws of all latents, of the shape {of_prior} in each example and"
            f" at least two numbers; zs have {given}"
        )


def _prior_and_posterior(
    axes: Axes,
    model: Model,
    params: Params,
    zs: np.ndarray,
    labels: np.ndarray | None,
    key: Key,
    xs: PyTree,
) -> None:
    """Draws of the aggregated posterior over the density of the prior, or over its draws."""
    draws = rows_of(prior_draws(model, params, jax.random.split(key, 1_000), xs))
    supports = [support for _, support in support_parts(model.latent_support)]
    continuous = all(support is None or support.steps is None for support in supports)
    if zs.shape[1] == 2 and continuous and not model.inputs:
        _show_density(axes, prior_of(model, params), np.concatenate([zs, draws]))
    else:
        zs, draws = _in_the_plane(zs, draws)
        if not continuous:  # points that coincide are spread a little
            zs, draws = (_spread(points) for points in (zs, draws))
        axes.scatter(*draws.T, s=6, color=GREY, linewidths=0, alpha=0.6)
    look = {"s": 4, "linewidths": 0, "alpha": 0.8}
    if labels is None:
        axes.scatter(*zs.T, color=BLUE, **look)
    else:
        for i, name, points in by_class(zs, labels):
            axes.scatter(*points.T, label=name, color=f"C{i % 10}", **look)
    without_ticks(axes)


def _in_the_plane(zs: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both along the first two principal directions of zs, if they have more coordinates."""
    if zs.shape[1] <= 2:
        return zs, draws
    directions, _ = principal_directions(zs)
    return tuple((points - zs.mean(0)) @ directions for points in (zs, draws))


def _spread(points: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=points.shape)
    return points + 0.02 * np.ptp(points, axis=0) * noise


def _show_density(axes: Axes, p_z: Any, points: np.ndarray) -> None:
    """p(z) in grey, where the points are."""
    event = jax.eval_shape(p_z.sample, jax.random.key(0))
    unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), event))[1]
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    margin = 0.15 * (high - low)
    first, second = (np.linspace(low[i] - margin[i], high[i] + margin[i], 160) for i in range(2))
    grid = jnp.asarray(np.stack(np.meshgrid(first, second), axis=-1), jnp.float32)
    log_density = jax.vmap(jax.vmap(lambda z: p_z.log_prob(unravel(z))))
    density = np.exp(np.asarray(jax.jit(log_density)(grid)))
    axes.contourf(first, second, density, levels=12, cmap="Greys", alpha=0.8)
    axes.set(xlim=first[[0, -1]], ylim=second[[0, -1]])

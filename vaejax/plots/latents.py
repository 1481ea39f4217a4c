"""Pictures of a latent space."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vaejax.base.types import Key, Params
from vaejax.models.vae import VAE
from vaejax.plots.images import BLUE, GREY, prior_image, show_image, tile


def latent(
    model: VAE, params: Params, means: np.ndarray, labels: np.ndarray | None, size: int = 16
) -> Figure:
    """The posterior means coloured by class: themselves in two dimensions, else their first two
    principal components.

    With two latents a second panel shows the decoded manifold: E[x | z] at the quantiles of a
    standard normal.
    """
    planar = means.shape[1] == 2
    figure = Figure(figsize=(11.5 if planar else 6.2, 5.4), layout="constrained")
    panels = figure.subplots(1, 2 if planar else 1, squeeze=False)[0]
    points, names = (
        (means, ("$z_1$", "$z_2$")) if means.shape[1] <= 2 else _principal_components(means)
    )
    _scatter(figure, panels[0], points, labels)
    panels[0].set(xlabel=names[0], ylabel=names[1], title="posterior means")
    if planar:
        quantiles = np.asarray(jax.scipy.stats.norm.ppf((jnp.arange(size) + 0.5) / size))
        zs = jnp.stack(jnp.meshgrid(quantiles, quantiles[::-1]), axis=-1).reshape(-1, 2)
        images = jax.jit(jax.vmap(lambda z: model.p_x_given_z(params, z).mean()))(zs)
        show_image(panels[1], tile(np.asarray(images), size))
        panels[1].set(
            xlabel="$z_1$ →", ylabel="$z_2$ →", title="decoded manifold, at normal quantiles"
        )
    return figure


def priors(
    entries: dict[str, tuple[VAE, Params, np.ndarray]],
    labels: np.ndarray | None,
    key: Key,
    grid: tuple[int, int] = (5, 5),
) -> Figure:
    """For each named (model, params, zs): above, the prior and draws zs of the aggregated
    posterior; below, the prior's draws decoded.

    zs [n, d] has one draw of q(z | x_i) for each of n examples, coloured by class. With two latents
    the prior is drawn by its density, with more by draws of its own, in grey, on the first two
    principal components of zs.
    """
    figure = Figure(figsize=(2.9 * len(entries), 6.1), layout="constrained")
    panels = figure.subplots(2, len(entries), squeeze=False)
    for (name, (model, params, zs)), above, below in zip(entries.items(), *panels, strict=True):
        keys = jax.random.split(key, grid[0] * grid[1])
        _prior_and_posterior(above, model, params, np.asarray(zs), labels, key)
        images = jax.jit(
            jax.vmap(lambda key, model=model, params=params: prior_image(model, params, key))
        )(keys)
        show_image(below, tile(np.asarray(images), grid[1]))
        above.set_title(name, fontsize=11)
    panels[0, 0].set_ylabel("p(z), and draws of q(z | x)")
    panels[1, 0].set_ylabel("means of p(x | z), z from p(z)")
    if labels is not None and len(np.unique(labels)) <= 10:
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="outside right upper",
            frameon=False,
            markerscale=3,
            handletextpad=0.1,
        )
    return figure


def _prior_and_posterior(
    axes, model: VAE, params: Params, zs: np.ndarray, labels: np.ndarray | None, key: Key
) -> None:
    """Draws of the aggregated posterior over the density of the prior, or over its draws."""
    p_z = model.p_z(params)
    draws = np.asarray(jax.jit(jax.vmap(p_z.sample))(jax.random.split(key, 1_000)))
    if zs.shape[1] == 2:
        low, high = np.quantile(np.concatenate([zs, draws]), [0.005, 0.995], axis=0)
        margin = 0.15 * (high - low)
        first, second = (
            np.linspace(low[i] - margin[i], high[i] + margin[i], 160) for i in range(2)
        )
        points = np.stack(np.meshgrid(first, second), axis=-1)
        density = np.exp(
            np.asarray(jax.jit(jax.vmap(jax.vmap(p_z.log_prob)))(jnp.asarray(points, jnp.float32)))
        )
        axes.contourf(first, second, density, levels=12, cmap="Greys", alpha=0.8)
        axes.set(xlim=first[[0, -1]], ylim=second[[0, -1]])
    else:
        directions, _ = _principal_directions(zs)
        zs, draws = (zs - zs.mean(0)) @ directions, (draws - zs.mean(0)) @ directions
        axes.scatter(*draws.T, s=6, color=GREY, linewidths=0, alpha=0.6)
    if labels is None:
        axes.scatter(*zs.T, s=4, color=BLUE, linewidths=0, alpha=0.8)
    else:
        for i, name in enumerate(np.unique(labels)):
            axes.scatter(
                *zs[labels == name].T,
                s=4,
                color=f"C{i % 10}",
                linewidths=0,
                alpha=0.8,
                label=str(name),
            )
    axes.set_xticks([])
    axes.set_yticks([])


def _principal_components(means: np.ndarray) -> tuple[np.ndarray, Sequence[str]]:
    directions, share = _principal_directions(means)
    return (means - means.mean(0)) @ directions, [
        f"component {i + 1} ({100 * share[i]:.0f} % of the variance)" for i in range(2)
    ]


def _principal_directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal directions [d, 2], and the share of the variance along each
    direction.
    """
    _, singular, directions = np.linalg.svd(points - points.mean(0), full_matrices=False)
    return directions[:2].T, singular**2 / (singular**2).sum()


def _scatter(figure, axes, points: np.ndarray, labels: np.ndarray | None) -> None:
    size = 14 if len(points) <= 1_000 else 5
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    if labels is None:
        axes.scatter(*points.T, s=size, color=BLUE, linewidths=0, alpha=0.5)
    else:
        classes = np.unique(labels)
        for i, name in enumerate(classes):
            chosen = labels == name
            axes.scatter(
                *points[chosen].T,
                s=size,
                color=f"C{i}" if len(classes) <= 10 else None,
                linewidths=0,
                alpha=0.75,
                label=str(name),
            )
        if len(classes) <= 10:
            axes.legend(
                frameon=False,
                markerscale=20 / size,
                handletextpad=0.1,
                loc="center left",
                bbox_to_anchor=(1, 0.5),
            )
    axes.set_aspect("equal", "datalim")
    axes.spines[["top", "right"]].set_visible(False)

"""Pictures of a run and of its model. Every function returns a matplotlib Figure and touches no global state."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from vaejax.graphs import DirectedGraph
from vaejax.models import VAE
from vaejax.types import Key, Params

INK, GREY = "#22313f", "#95a5a6"
BLUE, ORANGE = "#2c6fbb", "#d9730d"


def curves(history: dict[str, np.ndarray], title: str = "") -> Figure:
    """The minibatch bound, smoothed, and the validation bound against the step, nats per example.

    The axis starts where the first twentieth of the run ends, for the first steps would flatten the rest.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    bound, steps, validation = history["bound"], history["validation_step"], history["validation_bound"]
    window = max(1, len(bound) // 100)
    smooth = bound[: len(bound) // window * window].reshape(-1, window).mean(1)
    centres = (np.arange(len(smooth)) + 0.5) * window
    axes.plot(centres, smooth, color=BLUE, lw=1.5, label=f"training, mean of {window} steps" if window > 1 else "training")
    if len(steps):
        axes.plot(steps, validation, color=ORANGE, lw=1.5, marker="o", ms=3, label="validation")
        best = int(validation.argmax())
        axes.axhline(validation[best], color=ORANGE, lw=0.6, ls=":")
        axes.annotate(
            f"{validation[best]:.2f}", (steps[best], validation[best]), (0, 5), textcoords="offset points", ha="right", color=ORANGE
        )
    shown = np.concatenate([smooth[len(smooth) // 20 :], validation])
    margin = 0.05 * (np.ptp(shown) or 1.0)
    axes.set_ylim(shown.min() - margin, shown.max() + 2 * margin)
    axes.set(xlabel="step", ylabel="bound (nats per example)", title=title)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def image_grid(images, columns: int, title: str = "", rows_together: int = 1) -> Figure:
    """Images [n, h, w] or [n, h, w, 3], values in [0, 1], row by row; every `rows_together` rows stand close together."""
    canvas = tile(np.asarray(images), columns, rows_together)
    width = 0.62 * columns
    figure = Figure(figsize=(width, width * canvas.shape[0] / canvas.shape[1] + (0.4 if title else 0)), layout="constrained")
    axes = figure.add_subplot()
    _show(axes, canvas)
    axes.set_title(title, fontsize=11)
    return figure


def tile(images: np.ndarray, columns: int, rows_together: int = 1, gap: int | None = None) -> np.ndarray:
    """Many images on one canvas, with white between them."""
    images = np.clip(images, 0, 1)
    count, height, width, *colour = images.shape
    gap = max(1, height // 8) if gap is None else gap
    tops = [row * (height + gap) + row // rows_together * (gap if rows_together > 1 else 0) for row in range(-(-count // columns))]
    white = 1.0 if colour else 0.0  # grey images are shown as ink on paper, so that their 0 is white
    canvas = np.full((tops[-1] + height, columns * (width + gap) - gap, *colour), white)
    for i, image in enumerate(images):
        top, left = tops[i // columns], i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def _show(axes, image, **where) -> None:
    axes.imshow(image, cmap="gray_r" if image.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest", **where)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def samples(model: VAE, params: Params, key: Key, rows: int = 8, columns: int = 16) -> Figure:
    """E[x | z] at rows x columns draws z from the prior."""
    images = jax.jit(jax.vmap(lambda key: prior_image(model, params, key)))(jax.random.split(key, rows * columns))
    return image_grid(images, columns, "means of p(x | z), z from the prior")


def prior_image(model: VAE, params: Params, key: Key) -> jax.Array:
    """E[x | z], z ~ p(z)."""
    return model.p_x_given_z(params, model.p_z(params).sample(key)).mean


def reconstructions(model: VAE, params: Params, xs, key: Key, columns: int = 16) -> Figure:
    """Pairs of rows: x, as the model saw it, above E[x' | z], z from q(z | x)."""
    xs = jnp.asarray(xs)
    decoded = jax.jit(jax.vmap(model.reconstruct, (None, 0, 0)))(params, xs, jax.random.split(key, len(xs)))
    blocks = [block for start in range(0, len(xs), columns) for block in (xs[start : start + columns], decoded[start : start + columns])]
    return image_grid(np.concatenate(blocks), columns, "x, and below it the mean of p(x | z) at one z from q(z | x)", rows_together=2)


def latent(model: VAE, params: Params, means: np.ndarray, labels: np.ndarray | None, size: int = 16) -> Figure:
    """The posterior means coloured by class: themselves in two dimensions, else their first two principal components.

    With two latents a second panel shows the decoded manifold: E[x | z] at the quantiles of a standard normal.
    """
    planar = means.shape[1] == 2
    figure = Figure(figsize=(11.5 if planar else 6.2, 5.4), layout="constrained")
    panels = figure.subplots(1, 2 if planar else 1, squeeze=False)[0]
    points, names = (means, ("$z_1$", "$z_2$")) if means.shape[1] <= 2 else _principal_components(means)
    _scatter(figure, panels[0], points, labels)
    panels[0].set(xlabel=names[0], ylabel=names[1], title="posterior means")
    if planar:
        quantiles = np.asarray(jax.scipy.stats.norm.ppf((jnp.arange(size) + 0.5) / size))
        zs = jnp.stack(jnp.meshgrid(quantiles, quantiles[::-1]), axis=-1).reshape(-1, 2)
        images = jax.jit(jax.vmap(lambda z: model.p_x_given_z(params, z).mean))(zs)
        _show(panels[1], tile(np.asarray(images), size))
        panels[1].set(xlabel="$z_1$ →", ylabel="$z_2$ →", title="decoded manifold, at normal quantiles")
    return figure


def priors(
    entries: dict[str, tuple[VAE, Params, np.ndarray]], labels: np.ndarray | None, key: Key, grid: tuple[int, int] = (5, 5)
) -> Figure:
    """For each named (model, params, zs): above, the prior and draws zs of the aggregated posterior; below, the prior's draws decoded.

    zs [n, d] has one draw of q(z | x_i) for each of n examples, coloured by class. With two latents the prior is drawn by its density, with
    more by draws of its own, in grey, on the first two principal components of zs.
    """
    figure = Figure(figsize=(2.9 * len(entries), 6.1), layout="constrained")
    panels = figure.subplots(2, len(entries), squeeze=False)
    for (name, (model, params, zs)), above, below in zip(entries.items(), *panels, strict=True):
        keys = jax.random.split(key, grid[0] * grid[1])
        _prior_and_posterior(above, model, params, np.asarray(zs), labels, key)
        images = jax.jit(jax.vmap(lambda key, model=model, params=params: prior_image(model, params, key)))(keys)
        _show(below, tile(np.asarray(images), grid[1]))
        above.set_title(name, fontsize=11)
    panels[0, 0].set_ylabel("p(z), and draws of q(z | x)")
    panels[1, 0].set_ylabel("means of p(x | z), z from p(z)")
    if labels is not None and len(np.unique(labels)) <= 10:
        handles, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False, markerscale=3, handletextpad=0.1)
    return figure


def _prior_and_posterior(axes, model: VAE, params: Params, zs: np.ndarray, labels: np.ndarray | None, key: Key) -> None:
    """Draws of the aggregated posterior over the density of the prior, or over its draws."""
    p_z = model.p_z(params)
    draws = np.asarray(jax.jit(jax.vmap(p_z.sample))(jax.random.split(key, 1_000)))
    if zs.shape[1] == 2:
        low, high = np.quantile(np.concatenate([zs, draws]), [0.005, 0.995], axis=0)
        margin = 0.15 * (high - low)
        first, second = (np.linspace(low[i] - margin[i], high[i] + margin[i], 160) for i in range(2))
        points = np.stack(np.meshgrid(first, second), axis=-1)
        density = np.exp(np.asarray(jax.jit(jax.vmap(jax.vmap(p_z.log_prob)))(jnp.asarray(points, jnp.float32))))
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
            axes.scatter(*zs[labels == name].T, s=4, color=f"C{i % 10}", linewidths=0, alpha=0.8, label=str(name))
    axes.set_xticks([])
    axes.set_yticks([])


def _principal_components(means: np.ndarray) -> tuple[np.ndarray, Sequence[str]]:
    directions, share = _principal_directions(means)
    return (means - means.mean(0)) @ directions, [f"component {i + 1} ({100 * share[i]:.0f} % of the variance)" for i in range(2)]


def _principal_directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal directions [d, 2], and the share of the variance along each direction."""
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
                *points[chosen].T, s=size, color=f"C{i}" if len(classes) <= 10 else None, linewidths=0, alpha=0.75, label=str(name)
            )
        if len(classes) <= 10:
            axes.legend(frameon=False, markerscale=20 / size, handletextpad=0.1, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_aspect("equal", "datalim")
    axes.spines[["top", "right"]].set_visible(False)


def graph(graph: DirectedGraph, observed: tuple[str, ...] = ()) -> Figure:
    """The nodes in rows, parents above children: observed ones filled, inputs without a circle. `graph.dot()` is the same as text."""
    places = _places(graph)
    widest = max(x for x, _ in places.values()) - min(x for x, _ in places.values())
    deepest = -min(y for _, y in places.values())
    figure = Figure(figsize=(1.3 * widest + 1.6, 1.3 * deepest + 1.6), layout="constrained")
    axes = figure.subplots()
    circles = {}
    for name, place in places.items():
        fill = "lightgrey" if name in observed else "white"
        circles[name] = axes.add_patch(Circle(place, 0.3, facecolor=fill, edgecolor=INK, lw=1 if name not in graph.inputs else 0))
        axes.text(*place, name, ha="center", va="center", fontsize=12)
    for name in graph.order:
        for parent in graph[name].parents:
            others = [place for other, place in places.items() if other not in (name, parent)]
            bend = 0.35 if any(_distance(place, places[parent], places[name]) < 0.35 for place in others) else 0.0
            style = {"arrowstyle": "-|>", "color": INK, "shrinkA": 1, "shrinkB": 1, "connectionstyle": f"arc3,rad={bend}"}
            style |= {"patchA": circles[parent], "patchB": circles[name], "mutation_scale": 14}
            axes.annotate("", xy=places[name], xytext=places[parent], arrowprops=style)
    axes.set(xlim=_with_margin([x for x, _ in places.values()]), ylim=_with_margin([y for _, y in places.values()]))
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def _distance(point, start, end) -> float:
    """Of a point from the line between two others."""
    point, start, end = map(np.asarray, (point, start, end))
    along = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    return float(np.linalg.norm(point - start - along * (end - start)))


def _with_margin(values: list[float]) -> tuple[float, float]:
    return min(values) - 0.6, max(values) + 0.6


def _places(graph: DirectedGraph) -> dict[str, tuple[float, float]]:
    """(x, y) of each node and input: the row is the length of the longest way to it, and in a row each stands near its parents."""
    rows: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    for name in graph.order:
        rows[name] = 1 + max((rows[parent] for parent in graph[name].parents), default=-1)
    xs: dict[str, float] = {}
    for row in range(1 + max(rows.values())):
        names = [name for name in rows if rows[name] == row]
        wanted = {name: float(np.mean([xs[parent] for parent in graph[name].parents])) if row else 0.0 for name in names}
        names.sort(key=lambda name: wanted[name])
        centre = sum(wanted.values()) / len(names)
        xs |= {name: float(centre + i - (len(names) - 1) / 2) for i, name in enumerate(names)}
    return {name: (xs[name], -float(row)) for name, row in rows.items()}

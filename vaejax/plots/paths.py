"""Pictures of what the decoder does along paths through the latent space."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vaejax.base.checks import require_count, require_key, unknown_name
from vaejax.base.supports import Support
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.check import check_data
from vaejax.distributions.averages import mean_or_average
from vaejax.models.base import Model, posterior_of, prior_of
from vaejax.plots.images import CELL, cut_values, mean_image, show_image, tile
from vaejax.plots.look import TITLE, figure_of

DRAWS = 2_000  # of the prior, for its quantiles
TAIL = 0.05  # of the prior, that a path leaves out on each side


def traverse(
    model: Model,
    params: Params,
    x: PyTree,
    key: Key,
    *,
    node: str | None = None,
    columns: int = 9,
    most: int = 10,
) -> Figure:
    """E[x' | z], one number of z at a time, from its 5 % to its 95 % quantile under the prior, with
    the rest at the posterior mean of the example x. The rows are the `most` numbers that change the
    image most, the strongest first.

    `node` names one latent of several; without it all are moved, each in its turn. Of a latent on
    the sphere the other numbers shrink or grow with the one that moves; of a one-hot latent a row
    shows its states. A conditional model keeps the inputs of x.
    """
    require_key(key)
    require_count(columns, "columns", least=2)
    require_count(most, "most")
    x = _one_example(model, x)
    mean_key, draw_key = jax.random.split(key)
    z = _mean_latent(model, params, x, mean_key)
    draws = jax.vmap(prior_of(model, params, x).sample)(jax.random.split(draw_key, DRAWS))
    decode = jax.jit(jax.vmap(lambda z: mean_image(model, params, z, x)))

    moved = _moved(model, z, draws, node, columns)
    rows = [(label, np.asarray(decode(zs))) for label, zs in moved]
    rows.sort(key=lambda row: -float(row[1].std(axis=0).mean()))
    moved_numbers, rows = len(rows), rows[:most]
    width = max(len(images) for _, images in rows)
    blank = np.ones_like(rows[0][1][:1]) * (rows[0][1].ndim == 4)
    images = [np.concatenate([images, *[blank] * (width - len(images))]) for _, images in rows]
    title = "means of p(x | z), one latent at a time, over 90 % of p(z)"
    if len(rows) < moved_numbers:
        title += f"; those {most} of {moved_numbers} that change x most"
    return _labelled_grid(np.concatenate(images), width, [label for label, _ in rows], title)


def _moved(
    model: Model, z: PyTree, draws: PyTree, node: str | None, columns: int
) -> Iterator[tuple[str, PyTree]]:
    """(its name, latents [columns, ...]) of each number that moves, with the others as in z."""
    for name in _names(z, node):
        support, label = _part(model.latent_support, name), name or "z"
        moves = _moves(_part(z, name), support, np.asarray(_part(draws, name)), columns)
        for index, values in moves:
            place = label if index is None else f"{label}[{index}]"
            yield place, _replaced(z, name, values)


def interpolate(
    model: Model,
    params: Params,
    firsts: PyTree,
    seconds: PyTree,
    key: Key,
    *,
    node: str | None = None,
    columns: int = 9,
) -> Figure:
    """E[x | z] from the posterior mean of one example to that of another, in equal steps; the
    examples stand at the ends. A row for each pair of `firsts` and `seconds`, [n, ...].

    The path is straight for real latents and a great circle on the sphere. `node` names the one
    latent of several that moves, the others stay where the first example has them. A conditional
    model keeps the inputs of the first. Raises ValueError for latents between which nothing lies.
    """
    require_key(key)
    require_count(columns, "columns", least=2)
    firsts, seconds = _pairs(model, firsts, seconds)
    size = len(jax.tree.leaves(firsts)[0])
    times = jnp.linspace(0, 1, columns)

    def row(first: PyTree, second: PyTree, key: Key) -> jax.Array:
        start, end = (_mean_latent(model, params, x, key) for x in (first, second))
        zs = _between(model, start, end, node, times)
        return jax.vmap(lambda z: mean_image(model, params, z, first))(zs)

    means = np.asarray(jax.jit(jax.vmap(row))(firsts, seconds, jax.random.split(key, size)))
    start, end = (np.asarray(jax.vmap(model.observation)(xs)) for xs in (firsts, seconds))
    images = np.concatenate([start[:, None], means, end[:, None]], axis=1)
    title = "from one example to another: means of p(x | z) along a path of z"
    flat = images.reshape(-1, *images.shape[2:])
    return _labelled_grid(flat, columns + 2, [""] * size, title)


def _pairs(model: Model, firsts: PyTree, seconds: PyTree) -> tuple[PyTree, PyTree]:
    """Both as arrays; ValueError unless they are data of the model, and as many of each."""
    pairs = [jax.tree.map(jnp.asarray, xs) for xs in (firsts, seconds)]
    for xs in pairs:
        check_data(xs, model.support)
    size, other = (len(jax.tree.leaves(xs)[0]) for xs in pairs)
    if size != other:
        raise ValueError(f"{size} examples to {other} others are not pairs; give as many of each")
    return pairs[0], pairs[1]


def _between(
    model: Model, start: PyTree, end: PyTree, node: str | None, times: jax.Array
) -> PyTree:
    """Latents [t, ...] at times from 0, the start, to 1, the end; those that stay are repeated."""
    zs = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], len(times), axis=0), start)
    for name in _names(start, node):
        path = _path(_part(model.latent_support, name), name)
        values = jax.vmap(path, (None, None, 0))(_part(start, name), _part(end, name), times)
        zs = values if name is None else {**zs, name: values}
    return zs


def nearest(support: Any, value: PyTree) -> PyTree:
    """The point of a support, or of {name: support}, that a value such as a mean stands for."""
    if isinstance(support, Mapping):
        return {name: nearest(support[name], value[name]) for name in value}
    if support is None:
        return value
    if support.unit == "length":
        return value / jnp.linalg.norm(value, axis=-1, keepdims=True)
    if support.unit == "sum" and support.steps is not None:
        return jax.nn.one_hot(jnp.argmax(value, axis=-1), value.shape[-1], dtype=value.dtype)
    if support.steps is not None:
        value = jnp.round(value * support.steps) / support.steps
    return jnp.clip(value, support.low, support.high)


def _one_example(model: Model, x: PyTree) -> PyTree:
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], x)
    check_data(batch, model.support)
    return jax.tree.map(lambda leaf: leaf[0], batch)


def _mean_latent(model: Model, params: Params, x: PyTree, key: Key) -> PyTree:
    """E_q[z | x], or the point of the latents' support next to it."""
    return nearest(model.latent_support, mean_or_average(posterior_of(model, params, x), key))


def _names(z: PyTree, node: str | None) -> list[str | None]:
    """Of the latents that are moved; None of the one that has no name."""
    known = list(z) if isinstance(z, Mapping) else []
    if node is None:
        return [*known] or [None]
    if node not in known:
        raise ValueError(unknown_name("latent node", node, known or ["(z has no names)"]))
    return [node]


def _part(whole: Any, name: str | None) -> Any:
    return whole if name is None else whole[name]


def _replaced(z: PyTree, name: str | None, values: jax.Array) -> PyTree:
    """z once for each of some values of one of its latents."""
    if name is None:
        return values
    same = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], len(values), axis=0), dict(z))
    return {**same, name: values}


def _moves(
    z: jax.Array, support: Support | None, draws: np.ndarray, columns: int
) -> Iterator[tuple[int | None, jax.Array]]:
    """(number, z with this number moved, [columns, *shape]); of a one-hot latent its states."""
    if support is not None and support.unit == "sum":
        yield from _states(z)
        return
    rows, shares = draws.reshape(len(draws), -1), np.linspace(TAIL, 1 - TAIL, columns)
    quantiles = np.quantile(rows, shares, axis=0)
    on_sphere = support is not None and support.unit == "length"
    for j in range(quantiles.shape[1]):
        moved = jnp.repeat(z.reshape(1, -1), columns, axis=0)
        if on_sphere:
            moved = _with_room_for(j, quantiles[:, j : j + 1], moved)
        moved = moved.at[:, j].set(jnp.asarray(quantiles[:, j], z.dtype))
        values = moved.reshape(columns, *z.shape)
        yield (j if z.ndim else None), nearest(support, values)


def _with_room_for(j: int, values: np.ndarray, zs: jax.Array) -> jax.Array:
    """Points of the sphere [n, d] whose coordinates but j keep their direction, and have the length
    sqrt(1 - v^2) that the values v [n, 1] of coordinate j leave them.
    """
    rest = zs.at[:, j].set(0)
    direction = rest / jnp.linalg.norm(rest, axis=1, keepdims=True)
    return direction * jnp.sqrt(jnp.maximum(1 - values**2, 0))


def _states(z: jax.Array) -> Iterator[tuple[int | None, jax.Array]]:
    """(vector, z with this one-hot vector, of those along the last axis, in each state)."""
    number = z.shape[-1]
    vectors = z.reshape(-1, number)
    for i in range(len(vectors)):
        values = jnp.repeat(vectors[None], number, axis=0).at[:, i].set(jnp.eye(number))
        yield (i if len(vectors) > 1 else None), values.reshape(number, *z.shape)


def _path(support: Support | None, name: str | None) -> Callable:
    """(start, end, t) -> the point between the two at t."""
    if support is None or (support.steps is None and support.unit is None):
        return lambda start, end, t: start + t * (end - start)
    if support.unit == "length":
        return great_circle
    raise ValueError(
        f"the latent {name or 'z'} is {support.name}, and nothing lies between two such values;"
        " name another `node`, or look at plots.traverse"
    )


def great_circle(start: jax.Array, end: jax.Array, t: jax.Array) -> jax.Array:
    """The point at t of the shortest way on the sphere, in equal angles."""
    angle = jnp.arccos(jnp.clip(jnp.sum(start * end, axis=-1, keepdims=True), -1, 1))
    sine = jnp.sin(angle)
    straight = start + t * (end - start)
    along = (jnp.sin((1 - t) * angle) * start + jnp.sin(t * angle) * end) / jnp.where(
        sine > 1e-6, sine, 1
    )
    return jnp.where(sine > 1e-6, along, straight)


def _labelled_grid(images: np.ndarray, columns: int, labels: list[str], title: str) -> Figure:
    """Rows of images with a name beside each."""
    canvas, title = tile(images, columns), title + cut_values(images)
    width = CELL * columns + (0.6 if any(labels) else 0)
    figure, [[axes]] = figure_of(size=(width, width * len(canvas) / canvas.shape[1] + 0.4))
    show_image(axes, canvas)
    height = len(canvas) / len(labels)
    axes.set_yticks([(row + 0.5) * height for row in range(len(labels))], labels)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=TITLE)
    return figure

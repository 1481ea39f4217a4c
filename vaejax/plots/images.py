"""Pictures made of images, and of signals where a model explains a vector."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vaejax.base.checks import require_count, require_key
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.check import check_data
from vaejax.evaluation.features import finite_rows
from vaejax.models.base import Model, likelihood_of, posterior_of, prior_of
from vaejax.plots.look import TITLE, bare, figure_of
from vaejax.plots.signals import is_signal, signal_grid

COLOURS = ((), (1,), (3,))  # the axes of an image after its height and width
CELL = 0.62  # inches: the width of one image of a grid
VISIBLE = 0.1  # beyond 0 and 1: what is cut there shows


def example_grid(examples: np.ndarray, columns: int, title: str = "") -> Figure:
    """Examples [n, ...] row by row: signals where each is a vector, else images."""
    if is_signal(np.shape(examples)[1:]):
        return signal_grid([examples], columns, title)
    return image_grid(examples, columns, title)


def image_grid(images, columns: int, title: str = "", rows_together: int = 1) -> Figure:
    """Images [n, h, w], [n, h, w, 1] or [n, h, w, 3], values in [0, 1], row by row; every
    `rows_together` rows stand close together. The title says so where values are cut to [0, 1].
    """
    canvas = tile(images, columns, rows_together)
    title = (title + cut_values(images)).strip()
    width = CELL * columns
    height = width * canvas.shape[0] / canvas.shape[1] + (0.4 if title else 0)
    figure, [[axes]] = figure_of(size=(width, height))
    show_image(axes, canvas)
    axes.set_title(title, fontsize=TITLE)
    return figure


def tile(
    images: ArrayLike, columns: int, rows_together: int = 1, gap: int | None = None
) -> np.ndarray:
    """Many images on one canvas, with white between them; values are cut to [0, 1]."""
    for number, name in ((columns, "columns"), (rows_together, "rows_together")):
        require_count(number, name)
    if gap is not None:
        require_count(gap, "gap", least=0)
    images = np.clip(as_images(images), 0, 1)
    count, height, width, *colour = images.shape
    gap = max(1, height // 8) if gap is None else gap
    wider = gap if rows_together > 1 else 0  # between the groups of rows
    tops = [
        row * (height + gap) + row // rows_together * wider for row in range(-(-count // columns))
    ]
    white = 1.0 if colour else 0.0  # grey images are shown as ink on paper: their 0 is white
    canvas = np.full((tops[-1] + height, columns * (width + gap) - gap, *colour), white)
    for i, image in enumerate(images):
        top, left = tops[i // columns], i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def as_images(images: ArrayLike) -> np.ndarray:
    """[n, h, w] or [n, h, w, 3], n at least 1. Raises ValueError for none, for stored bytes, and
    for numbers that are not finite, which a picture would leave out.
    """
    images = np.asarray(images)
    if images.ndim < 3 or not len(images):
        raise ValueError(f"images have the shape {images.shape}; give at least one, [n, h, w]")
    require_image(jax.ShapeDtypeStruct(images.shape[1:], np.float32))
    if np.issubdtype(images.dtype, np.integer) and images.max() > 1:
        raise ValueError(
            f"images hold whole numbers up to {images.max()}, and are shown from 0 to 1: divide"
            " them by their largest value"
        )
    images = finite_rows(images, "images")
    return images[..., 0] if images.shape[3:] == (1,) else images


def cut_values(images: ArrayLike) -> str:
    """What a title adds where images leave [0, 1] so far that it shows: they are cut there."""
    low, high = np.min(images), np.max(images)
    if low >= -VISIBLE and high <= 1 + VISIBLE:
        return ""
    return f" (values from {low:.3g} to {high:.3g}, cut to 0 and 1)"


def show_image(axes: Axes, image: np.ndarray, **settings: Any) -> None:
    """An image [h, w], as ink on paper, or [h, w, 3], without axes."""
    colours = "gray_r" if image.ndim == 2 else None
    axes.imshow(image, cmap=colours, vmin=0, vmax=1, interpolation="nearest", **settings)
    bare(axes)


def samples(
    model: Model, params: Params, key: Key, rows: int = 8, columns: int = 16, xs: PyTree = None
) -> Figure:
    """E[x | z] at rows x columns draws z from the prior: images, or lines where x is a vector. Draw
    i of a conditional model has the inputs of example i (mod n) of `xs`.
    """
    require_key(key)
    require_count(rows, "rows")
    require_count(columns, "columns")
    keys = jax.random.split(key, rows * columns)
    means = prior_means(mean_shown, model, params, keys, xs)
    return example_grid(means, columns, "means of p(x | z), z from the prior")


def prior_means(
    mean: Callable, model: Model, params: Params, keys: Key, xs: PyTree = None
) -> np.ndarray:
    """E[x | z], z ~ p(z), for each of n keys, stacked: `mean` is `mean_image` or `mean_shown`."""

    def decoded(model: Model, params: Params, key: Key, x: PyTree = None) -> jax.Array:
        return mean(model, params, prior_draw(model, params, key, x), x)

    return np.asarray(_of_keys(decoded, model, params, keys, xs))


def prior_draws(model: Model, params: Params, keys: Key, xs: PyTree = None) -> PyTree:
    """z ~ p(z) for each of n keys, stacked."""
    return _of_keys(prior_draw, model, params, keys, xs)


def _of_keys(draw: Callable, model: Model, params: Params, keys: Key, xs: PyTree) -> PyTree:
    """[draw(model, params, key)], of a conditional model at the inputs of examples of xs in
    turn.
    """
    require_inputs(model, xs)
    if not model.inputs:
        return jax.jit(jax.vmap(lambda key: draw(model, params, key)))(keys)
    check_data(xs, model.support)
    rows = np.arange(len(keys)) % len(jax.tree.leaves(xs)[0])
    examples = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], xs)
    return jax.jit(jax.vmap(lambda key, x: draw(model, params, key, x)))(keys, examples)


def require_inputs(model: Model, xs: PyTree) -> None:
    """Raises ValueError for a conditional model without examples."""
    if model.inputs and xs is None:
        raise ValueError(
            f"the model has the inputs {', '.join(model.inputs)}, which no density draws: give xs,"
            " examples that hold them"
        )


def prior_draw(model: Model, params: Params, key: Key, x: PyTree = None) -> PyTree:
    """z ~ p(z)."""
    return prior_of(model, params, x).sample(key)


def mean_image(model: Model, params: Params, z: PyTree, x: PyTree = None) -> jax.Array:
    """E[x | z], or a ValueError where that is no image."""
    return require_image(likelihood_of(model, params, z, x).mean())


def mean_shown(model: Model, params: Params, z: PyTree, x: PyTree = None) -> jax.Array:
    """E[x | z], an image or a signal."""
    mean = likelihood_of(model, params, z, x).mean()
    is_line = isinstance(mean, jax.Array) and is_signal(mean.shape)
    return mean if is_line else require_image(mean)


def require_image(image: PyTree) -> Any:
    """Raises ValueError unless it is one array [h, w], [h, w, 1] or [h, w, 3]."""
    if not is_image(image):
        shapes = [tuple(np.shape(leaf)) for leaf in jax.tree.leaves(image)]
        channels_first = len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][:1] in COLOURS
        remedy = "move the channels to the end" if channels_first else "give the decoder that shape"
        raise ValueError(
            f"what the model explains has the shape {', '.join(map(str, shapes))}; pictures are of"
            " images, one array (h, w), (h, w, 1) or (h, w, 3) of each example: where the data are"
            f" images, {remedy}"
        )
    return image


def is_image(value: PyTree) -> bool:
    """Whether it can be shown: one array [h, w], [h, w, 1] or [h, w, 3], or the shape of one."""
    leaves = jax.tree.leaves(value)
    shape = np.shape(value) if len(leaves) == 1 and leaves[0] is value else ()
    return len(shape) in (2, 3) and shape[2:] in COLOURS


def reconstructions(
    model: Model,
    params: Params,
    xs: PyTree,
    key: Key,
    columns: int = 16,
    originals: np.ndarray | None = None,
) -> Figure:
    """Pairs of rows: x, as the model saw it, above E[x' | z], z from q(z | x). Where x is a vector,
    both are lines of one cell.

    `originals` are the images of which the xs were made, such as those that were binarised, [n, h,
    w] or [n, h, w, 1 or 3] with values in [0, 1]: a row above each pair.
    """
    require_key(key)
    require_count(columns, "columns")
    check_data(xs, model.support)
    xs = jax.tree.map(jnp.asarray, xs)
    size = len(jax.tree.leaves(xs)[0])

    def decoded(params, x, key):
        z = posterior_of(model, params, x).sample(key)
        return mean_shown(model, params, z, x)

    keys = jax.random.split(key, size)
    means = np.asarray(jax.jit(jax.vmap(decoded, (None, 0, 0)))(params, xs, keys))
    images = np.asarray(jax.vmap(model.observation)(xs))
    kinds = [images, means]
    if originals is not None:
        kinds = [_like(np.asarray(originals), images), *kinds]
    columns = min(columns, size)
    if is_signal(means.shape[1:]):
        title = "x, and in blue the mean of p(x | z) at one z from q(z | x)"
        return signal_grid(kinds, columns, title)
    kinds = [as_images(kind) for kind in kinds]
    starts = range(0, size, columns)
    blocks = [
        whole_row(kind[start : start + columns], columns) for start in starts for kind in kinds
    ]
    title = "x, and below it the mean of p(x | z) at one z from q(z | x)"
    if originals is not None:
        title = "the image, x as the model saw it, and the mean of p(x | z)"
    return image_grid(np.concatenate(blocks), columns, title, rows_together=len(kinds))


def _like(originals: np.ndarray, images: np.ndarray) -> np.ndarray:
    if originals.shape != images.shape:
        raise ValueError(
            f"originals have the shape {originals.shape}, and the examples {images.shape}; give one"
            " of each, alike"
        )
    return originals


def whole_row(images: np.ndarray, columns: int) -> np.ndarray:
    """So many images: those given, and white ones after them."""
    white = 1.0 if images.shape[3:] == (3,) else 0.0  # as `tile` has it
    shape = (columns - len(images), *images.shape[1:])
    return np.concatenate([images, np.full(shape, white, images.dtype)])

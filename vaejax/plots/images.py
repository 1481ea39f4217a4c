"""Pictures made of images."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vaejax.base.types import Key, Params
from vaejax.models.vae import VAE

INK, GREY = "#22313f", "#95a5a6"


BLUE, ORANGE = "#2c6fbb", "#d9730d"


def image_grid(images, columns: int, title: str = "", rows_together: int = 1) -> Figure:
    """Images [n, h, w] or [n, h, w, 3], values in [0, 1], row by row; every `rows_together` rows
    stand close together.
    """
    canvas = tile(np.asarray(images), columns, rows_together)
    width = 0.62 * columns
    figure = Figure(
        figsize=(width, width * canvas.shape[0] / canvas.shape[1] + (0.4 if title else 0)),
        layout="constrained",
    )
    axes = figure.add_subplot()
    show_image(axes, canvas)
    axes.set_title(title, fontsize=11)
    return figure


def tile(
    images: np.ndarray, columns: int, rows_together: int = 1, gap: int | None = None
) -> np.ndarray:
    """Many images on one canvas, with white between them."""
    images = np.clip(images, 0, 1)
    count, height, width, *colour = images.shape
    gap = max(1, height // 8) if gap is None else gap
    tops = [
        row * (height + gap) + row // rows_together * (gap if rows_together > 1 else 0)
        for row in range(-(-count // columns))
    ]
    white = (
        1.0 if colour else 0.0
    )  # grey images are shown as ink on paper, so that their 0 is white
    canvas = np.full((tops[-1] + height, columns * (width + gap) - gap, *colour), white)
    for i, image in enumerate(images):
        top, left = tops[i // columns], i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def show_image(axes, image, **where) -> None:
    axes.imshow(
        image,
        cmap="gray_r" if image.ndim == 2 else None,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        **where,
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def samples(model: VAE, params: Params, key: Key, rows: int = 8, columns: int = 16) -> Figure:
    """E[x | z] at rows x columns draws z from the prior."""
    images = jax.jit(jax.vmap(lambda key: prior_image(model, params, key)))(
        jax.random.split(key, rows * columns)
    )
    return image_grid(images, columns, "means of p(x | z), z from the prior")


def prior_image(model: VAE, params: Params, key: Key) -> jax.Array:
    """E[x | z], z ~ p(z)."""
    return model.p_x_given_z(params, model.p_z(params).sample(key)).mean()


def reconstructions(model: VAE, params: Params, xs, key: Key, columns: int = 16) -> Figure:
    """Pairs of rows: x, as the model saw it, above E[x' | z], z from q(z | x)."""
    xs = jnp.asarray(xs)
    decoded = jax.jit(jax.vmap(model.reconstruct, (None, 0, 0)))(
        params, xs, jax.random.split(key, len(xs))
    )
    blocks = [
        block
        for start in range(0, len(xs), columns)
        for block in (xs[start : start + columns], decoded[start : start + columns])
    ]
    return image_grid(
        np.concatenate(blocks),
        columns,
        "x, and below it the mean of p(x | z) at one z from q(z | x)",
        rows_together=2,
    )

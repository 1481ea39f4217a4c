"""Nets of images: the first leaf of the example is the image, the others join the features it
became.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.networks.layers import (
    Conv,
    ConvTranspose,
    Dense,
    Norm,
    ResidualBlock,
    Shape,
    Sized,
    flat,
    normalise,
    num_entries,
    split_heads,
)


class ConvEncoder(Sized):
    """An image [h, w] or [h, w, c] -> 3x3 convolutions of stride 2, one Dense layer, `heads` arrays
    of shape `out`.
    """

    out: Shape
    channels: tuple[int, ...] = (32, 64)
    hidden: int = 256
    heads: int = 1
    activation: Callable = nn.relu
    norm: Norm = "none"

    @nn.compact
    def __call__(self, x):
        h, context = image_and_context(x)
        for width in self.channels:
            h = self.activation(normalise(self.norm, Conv(width)(h)))
        return read_out(self, h, context)


class ResidualEncoder(Sized):
    """An image [h, w] or [h, w, c] -> for each width a 3x3 convolution of stride 2 and `blocks`
    residual blocks; then as `ConvEncoder`.
    """

    out: Shape
    channels: tuple[int, ...] = (32, 64)
    hidden: int = 256
    heads: int = 1
    activation: Callable = nn.relu
    norm: Norm = "group"
    blocks: int = 1

    @nn.compact
    def __call__(self, x):
        h, context = image_and_context(x)
        for width in self.channels:
            h = Conv(width)(h)
            for _ in range(self.blocks):
                h = ResidualBlock(self.activation, self.norm)(h)
        return read_out(self, self.activation(normalise(self.norm, h)), context)


class OfImages(Sized):
    """A net whose outputs are images."""

    out: tuple[int, ...]

    def __post_init__(self):
        if not isinstance(self.out, tuple) or len(self.out) < 2:
            raise ValueError(
                f"{type(self).__name__}.out = {self.out!r}; give the shape of an image, (h, w) or"
                " (h, w, c)"
            )
        super().__post_init__()


class ConvDecoder(OfImages):
    """A vector -> Dense layers, transposed 3x3 convolutions of stride 2, `heads` images of shape
    `out`.

    `out` is [h, w] or [h, w, c], or [*x.shape, n] for the logits of `vaejax.Categorical` over n
    levels of each value of an image x. `channels` are those before each upsampling: the mirror of
    `ConvEncoder`'s. Sizes that are no multiple of 2^len(channels) are made a little larger and
    cropped.
    """

    out: tuple[int, ...]
    channels: tuple[int, ...] = (64, 32)
    hidden: int = 256
    heads: int = 1
    activation: Callable = nn.relu
    norm: Norm = "none"

    @nn.compact
    def __call__(self, z):
        h = self.activation(normalise(self.norm, small_image(self, z)))
        for next_width in self.channels[1:]:
            h = self.activation(normalise(self.norm, ConvTranspose(next_width)(h)))
        return last_images(self, h)


class ResidualDecoder(OfImages):
    """A vector -> Dense layers; for each width `blocks` residual blocks and a transposed 3x3
    convolution of stride 2; `heads` images.

    `out` and `channels` are as in `ConvDecoder`.
    """

    out: tuple[int, ...]
    channels: tuple[int, ...] = (64, 32)
    hidden: int = 256
    heads: int = 1
    activation: Callable = nn.relu
    norm: Norm = "group"
    blocks: int = 1

    @nn.compact
    def __call__(self, z):
        h = small_image(self, z)
        for i in range(len(self.channels)):
            h = ConvTranspose(self.channels[i])(h) if i else h
            for _ in range(self.blocks):
                h = ResidualBlock(self.activation, self.norm)(h)
        return last_images(self, self.activation(normalise(self.norm, h)))


def image_and_context(example: Any) -> tuple[Float[Array, "h w c"], list]:
    """The first leaf of the example as an image of real numbers, and the other leaves."""
    image, *context = jax.tree.leaves(example)
    if image.ndim not in (2, 3):
        raise ValueError(
            f"an image is [h, w] or [h, w, c], not {image.shape}; these functions take one example:"
            " use jax.vmap or vaejax.minibatch"
        )
    if not jnp.issubdtype(image.dtype, jnp.floating):
        image = image.astype(jnp.float32)
    return image if image.ndim == 3 else image[..., None], context


def read_out(net: ConvEncoder | ResidualEncoder, image: Float[Array, "h w c"], context: list):
    h = net.activation(normalise(net.norm, Dense(net.hidden)(flat((image, *context)))))
    return split_heads(Dense(net.heads * num_entries(net.out))(h), net.out, net.heads)


def small_image(net: ConvDecoder | ResidualDecoder, z: Any) -> Float[Array, "rows columns c"]:
    """The image that, once doubled for each of the channels, covers `out`."""
    rows, columns = (-(-length // 2 ** len(net.channels)) for length in net.out[:2])
    h = net.activation(normalise(net.norm, Dense(net.hidden)(flat(z))))
    return Dense(rows * columns * net.channels[0])(h).reshape(rows, columns, net.channels[0])


def last_images(net: ConvDecoder | ResidualDecoder, h: Float[Array, "h w c"]):
    """The last doubling, cropped. A head is a run of channels, so that each pixel of it is of its
    place.
    """
    height, width, *rest = net.out
    h = ConvTranspose(net.heads * math.prod(rest))(h)[:height, :width]
    return split_heads(
        jnp.moveaxis(h.reshape(height, width, net.heads, -1), 2, 0), net.out, net.heads
    )

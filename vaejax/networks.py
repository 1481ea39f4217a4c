"""Flax Linen nets for one example: no batch axis, any input shape, `heads` outputs of shape `out`.

With one head a net returns an array, with more a tuple of arrays. Layers share nothing between examples: BatchNorm would,
so that one example's bound would depend on its neighbours, and there is none here.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax._gemm import conv, conv_transpose, dot_general

Shape = int | tuple[int, ...]
Dense = partial(nn.Dense, dot_general=dot_general)


def split_heads(flat: Float[Array, " n"], out: Shape, heads: int):
    """One array of shape `out`, or a tuple of `heads` of them, from the features of one last layer."""
    shape = (out,) if isinstance(out, int) else out
    arrays = tuple(flat.reshape(heads, *shape))
    return arrays if heads > 1 else arrays[0]


def size(out: Shape) -> int:
    return out if isinstance(out, int) else math.prod(out)


def soft_bound(raw: jax.Array, limit: float) -> jax.Array:
    """b tanh(raw / b): raw itself near 0, smooth, and never beyond b."""
    return limit * jnp.tanh(raw / limit)


class MLP(nn.Module):
    """x -> Dense, activation, ..., Dense. `out` is a size or a shape; `hidden` the widths between."""

    out: Shape
    hidden: tuple[int, ...] = (200, 200)
    heads: int = 1
    activation: Callable = nn.tanh

    @nn.compact
    def __call__(self, x):
        h = jnp.ravel(x)
        for width in self.hidden:
            h = self.activation(Dense(width)(h))
        return split_heads(Dense(self.heads * size(self.out))(h), self.out, self.heads)


class GatedMLP(nn.Module):
    """x -> h = Dense(x) * sigmoid(Dense(x)), ..., Dense. Reference: Dauphin et al. 2017; the nets of Tomczak & Welling 2018."""

    out: Shape
    hidden: tuple[int, ...] = (300, 300)
    heads: int = 1

    @nn.compact
    def __call__(self, x):
        h = jnp.ravel(x)
        for width in self.hidden:
            linear, gate = jnp.split(Dense(2 * width)(h), 2)
            h = linear * nn.sigmoid(gate)
        return split_heads(Dense(self.heads * size(self.out))(h), self.out, self.heads)


class ConvEncoder(nn.Module):
    """An image [h, w] or [h, w, c] -> 3x3 convolutions of stride 2, one Dense layer, `heads` vectors of size `out`."""

    out: int
    channels: tuple[int, ...] = (32, 64)
    hidden: int = 256
    heads: int = 1
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x):
        h = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        h = h if h.ndim == 3 else h[..., None]
        for width in self.channels:
            h = self.activation(Conv(width)(h))
        h = self.activation(Dense(self.hidden)(jnp.ravel(h)))
        return split_heads(Dense(self.heads * self.out)(h), self.out, self.heads)


class ConvDecoder(nn.Module):
    """A vector -> Dense layers, transposed 3x3 convolutions of stride 2, an image of shape `out` ([h, w] or [h, w, c]).

    `channels` are those before each upsampling: the mirror of `ConvEncoder`'s. Sizes that are no multiple of
    2^len(channels) are made a little larger and cropped.
    """

    out: tuple[int, ...]
    channels: tuple[int, ...] = (64, 32)
    hidden: int = 256
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, z):
        height, width, depth = self.out if len(self.out) == 3 else (*self.out, 1)
        scale = 2 ** len(self.channels)
        rows, columns = -(-height // scale), -(-width // scale)
        h = self.activation(Dense(self.hidden)(jnp.ravel(z)))
        h = self.activation(Dense(rows * columns * self.channels[0])(h))
        h = h.reshape(rows, columns, self.channels[0])
        for next_width in self.channels[1:]:
            h = self.activation(ConvTranspose(next_width)(h))
        return ConvTranspose(depth)(h)[:height, :width].reshape(self.out)


class Conv(nn.Module):
    """A 3x3 convolution of stride 2 with SAME padding, on one image [h, w, c]."""

    features: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv(x, kernel) + bias[None, None]


class ConvTranspose(nn.Module):
    """A transposed 3x3 convolution of stride 2 with SAME padding, on one image [h, w, c]: twice the height and width."""

    features: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=0), (x.shape[-1], 3, 3, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_transpose(x, kernel) + bias[None, None]

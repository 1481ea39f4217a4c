"""Flax Linen nets for one example: no batch axis, any input shape, `heads` outputs of shape `out`.

With one head a net returns an array, with more a tuple of arrays. Layers share nothing between examples: BatchNorm would,
so that one example's bound would depend on its neighbours, and there is none here.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Shape = int | tuple[int, ...]


def split_heads(flat: Float[Array, " n"], out: Shape, heads: int):
    """One array of shape `out`, or a tuple of `heads` of them, from the features of one last layer."""
    shape = (out,) if isinstance(out, int) else out
    arrays = tuple(flat.reshape(heads, *shape))
    return arrays if heads > 1 else arrays[0]


def size(out: Shape) -> int:
    return out if isinstance(out, int) else math.prod(out)


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
            h = self.activation(nn.Dense(width)(h))
        return split_heads(nn.Dense(self.heads * size(self.out))(h), self.out, self.heads)


class GatedMLP(nn.Module):
    """x -> h = Dense(x) * sigmoid(Dense(x)), ..., Dense. Reference: Dauphin et al. 2017; the nets of Tomczak & Welling 2018."""

    out: Shape
    hidden: tuple[int, ...] = (300, 300)
    heads: int = 1

    @nn.compact
    def __call__(self, x):
        h = jnp.ravel(x)
        for width in self.hidden:
            linear, gate = jnp.split(nn.Dense(2 * width)(h), 2)
            h = linear * nn.sigmoid(gate)
        return split_heads(nn.Dense(self.heads * size(self.out))(h), self.out, self.heads)


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
        h = self.activation(nn.Dense(self.hidden)(jnp.ravel(h)))
        return split_heads(nn.Dense(self.heads * self.out)(h), self.out, self.heads)


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
        h = self.activation(nn.Dense(self.hidden)(jnp.ravel(z)))
        h = self.activation(nn.Dense(rows * columns * self.channels[0])(h))
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


# The one place that chooses by platform. On a CPU a convolution inside lax.scan runs on a slow path (jax issue 12868), and a
# matrix product of strided slices takes its place; on accelerators lax.conv is the fast one.
def conv(x: Float[Array, "h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "h/2 w/2 d"]:
    """A convolution of stride 2 with SAME padding, no bias."""
    return jax.lax.platform_dependent(x, kernel, cpu=conv_gemm, default=conv_lax)


def conv_transpose(x: Float[Array, "h w c"], kernel: Float[Array, "c 3 3 d"]) -> Float[Array, "2h 2w d"]:
    """A transposed convolution of stride 2 with SAME padding, no bias."""
    return jax.lax.platform_dependent(x, kernel, cpu=conv_transpose_gemm, default=conv_transpose_lax)


def conv_lax(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], kernel, (2, 2), "SAME", dimension_numbers=dimensions)[0]


def conv_transpose_lax(x, kernel):
    # Flipped, so that kernel[:, i, j] is what input pixel (p, q) adds to output pixel (2p + i, 2q + j).
    flipped = jnp.moveaxis(kernel, 0, 2)[::-1, ::-1]
    return jax.lax.conv_transpose(x[None], flipped, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def conv_gemm(x, kernel):
    x = jnp.pad(x, ((x.shape[0] % 2, 0), (x.shape[1] % 2, 0), (0, 0)))
    return patches(x) @ kernel.reshape(-1, kernel.shape[-1])


def conv_transpose_gemm(x, kernel):
    return overlap_add(x @ kernel.reshape(x.shape[-1], -1))


def patches(x: Float[Array, "2h 2w c"]) -> Float[Array, "h w 9*c"]:
    """For each output pixel the 3x3 input pixels that it sees, side by side."""
    rows, columns = x.shape[0], x.shape[1]
    x = jnp.pad(x, ((0, 1), (0, 1), (0, 0)))
    return jnp.concatenate([x[i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)], axis=-1)


def overlap_add(taps: Float[Array, "h w 9*d"]) -> Float[Array, "2h 2w d"]:
    """The transpose of `patches`: each pixel's 3x3 contributions, added where they fall.

    Written by the parity of the output pixel, and with one split, so that its own transpose is one concatenation.
    """
    height, width, _ = taps.shape
    tap = jnp.split(taps, 9, axis=-1)
    even_even = tap[0] + _right(tap[2]) + _down(tap[6]) + _down(_right(tap[8]))
    even_odd, odd_even, odd_odd = tap[1] + _down(tap[7]), tap[3] + _right(tap[5]), tap[4]
    rows = jnp.stack([even_even, even_odd], axis=2), jnp.stack([odd_even, odd_odd], axis=2)
    return jnp.stack(rows, axis=1).reshape(2 * height, 2 * width, -1)


def _down(x):
    return jnp.pad(x, ((1, 0), (0, 0), (0, 0)))[:-1]


def _right(x):
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]

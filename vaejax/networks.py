"""Flax Linen nets for one example: no batch axis, any input shape, `heads` outputs of shape `out`.

The one example is an array, or a tuple (or other pytree) of arrays such as (x, context): a net of vectors takes all leaves, one after
another; a net of images takes its first leaf for the image and joins the others to the features that the image became. A class
label is given one-hot. With one head a net returns an array, with more a tuple of arrays.

Layers share nothing between examples. BatchNorm would: q(z|x_i) would change with the other examples of the batch, so that the bound
of one example were no function of it, a sum over examples no bound, and the value at test time another than the one trained.
There is none here; `norm="layer"` and `norm="group"` normalise one example by itself.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax._gemm import conv, conv_transpose, dot_general
from vaejax._values import value

Shape = int | tuple[int, ...]
Norm = Literal["none", "layer", "group"]
Dense = partial(nn.Dense, dot_general=dot_general)


def size(out: Shape) -> int:
    return out if isinstance(out, int) else math.prod(out)


def flat(example: Any) -> Float[Array, " n"]:
    """All leaves of one example, one after another."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(example)]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)


def split_heads(features: Float[Array, "..."], out: Shape, heads: int):
    """One array of shape `out`, or a tuple of `heads` of them, from the features of one last layer."""
    shape = (out,) if isinstance(out, int) else out
    arrays = tuple(features.reshape(heads, *shape))
    return arrays if heads > 1 else arrays[0]


def soft_bound(raw: jax.Array, limit: float) -> jax.Array:
    """b tanh(raw / b): raw itself near 0, smooth, and never beyond b."""
    return limit * jnp.tanh(raw / limit)


class MLP(nn.Module):
    """x -> Dense, norm, activation, ..., Dense. `out` is a size or a shape; `hidden` the widths between."""

    out: Shape
    hidden: tuple[int, ...] = (200, 200)
    heads: int = 1
    activation: Callable = nn.tanh
    norm: Norm = "none"

    @nn.compact
    def __call__(self, x):
        h = flat(x)
        for width in self.hidden:
            h = self.activation(normalise(self.norm, Dense(width)(h)))
        return split_heads(Dense(self.heads * size(self.out))(h), self.out, self.heads)


@value
class Free:
    """One learned array for each name, of shape `out`, whatever the example: q of one data point, with no amortisation."""

    out: Shape
    names: tuple[str, ...] = ("loc", "log_scale")

    def init(self, key, example):
        return {name: jnp.zeros(self.out) for name in self.names}

    def apply(self, params, example):
        arrays = [params[name] for name in self.names]
        return tuple(arrays) if len(arrays) > 1 else arrays[0]


class GatedMLP(nn.Module):
    """x -> h = a * sigmoid(g), (a, g) = norm(Dense(x)), ..., Dense.

    References: Dauphin et al. 2017; the nets of Tomczak & Welling 2018. The layer norm is of (a, g) together, as in Ba et al. 2016.
    """

    out: Shape
    hidden: tuple[int, ...] = (300, 300)
    heads: int = 1
    norm: Literal["none", "layer"] = "none"

    @nn.compact
    def __call__(self, x):
        if self.norm not in ("none", "layer"):
            raise ValueError(f'GatedMLP.norm = {self.norm!r}; give "none" or "layer"')
        h = flat(x)
        for width in self.hidden:
            linear, gate = jnp.split(normalise(self.norm, Dense(2 * width)(h)), 2)
            h = linear * nn.sigmoid(gate)
        return split_heads(Dense(self.heads * size(self.out))(h), self.out, self.heads)


class ConvEncoder(nn.Module):
    """An image [h, w] or [h, w, c] -> 3x3 convolutions of stride 2, one Dense layer, `heads` arrays of shape `out`."""

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


class ResidualEncoder(nn.Module):
    """An image [h, w] or [h, w, c] -> for each width a 3x3 convolution of stride 2 and `blocks` residual blocks; then as `ConvEncoder`."""

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


class ConvDecoder(nn.Module):
    """A vector -> Dense layers, transposed 3x3 convolutions of stride 2, `heads` images of shape `out`.

    `out` is [h, w] or [h, w, c], or [*x.shape, n] for the logits of `vaejax.Categorical` over n levels of each value of an image x.
    `channels` are those before each upsampling: the mirror of `ConvEncoder`'s. Sizes that are no multiple of
    2^len(channels) are made a little larger and cropped.
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


class ResidualDecoder(nn.Module):
    """A vector -> Dense layers; for each width `blocks` residual blocks and a transposed 3x3 convolution of stride 2; `heads` images.

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


# What the nets of images share. Each is called inside a net, and its layers are that net's own.


def image_and_context(example: Any) -> tuple[Float[Array, "h w c"], list]:
    """The first leaf of the example as an image of real numbers, and the other leaves."""
    image, *context = jax.tree.leaves(example)
    if image.ndim not in (2, 3):
        raise ValueError(
            f"an image is [h, w] or [h, w, c], not {image.shape}; these functions take one example: use jax.vmap or vaejax.minibatch"
        )
    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    return image if image.ndim == 3 else image[..., None], context


def read_out(net: ConvEncoder | ResidualEncoder, image: Float[Array, "h w c"], context: list):
    h = net.activation(normalise(net.norm, Dense(net.hidden)(flat((image, *context)))))
    return split_heads(Dense(net.heads * size(net.out))(h), net.out, net.heads)


def small_image(net: ConvDecoder | ResidualDecoder, z: Any) -> Float[Array, "rows columns c"]:
    """The image that, once doubled for each of the channels, covers `out`."""
    if not isinstance(net.out, tuple) or len(net.out) < 2:
        raise ValueError(f"{type(net).__name__}.out = {net.out!r}; give the shape of an image, (h, w) or (h, w, c)")
    rows, columns = (-(-length // 2 ** len(net.channels)) for length in net.out[:2])
    h = net.activation(normalise(net.norm, Dense(net.hidden)(flat(z))))
    return Dense(rows * columns * net.channels[0])(h).reshape(rows, columns, net.channels[0])


def last_images(net: ConvDecoder | ResidualDecoder, h: Float[Array, "h w c"]):
    """The last doubling, cropped. A head is a run of channels, so that each pixel of it is of its place."""
    height, width, *rest = net.out
    h = ConvTranspose(net.heads * math.prod(rest))(h)[:height, :width]
    return split_heads(jnp.moveaxis(h.reshape(height, width, net.heads, -1), 2, 0), net.out, net.heads)


# Layers.


class ResidualBlock(nn.Module):
    """h + conv(act(norm(conv(act(norm(h)))))), 3x3 convolutions of stride 1. Reference: He et al. 2016 (pre-activation)."""

    activation: Callable
    norm: Norm

    @nn.compact
    def __call__(self, h):
        inner = h
        for _ in range(2):
            inner = Conv(h.shape[-1], stride=1)(self.activation(normalise(self.norm, inner)))
        return h + inner


class Conv(nn.Module):
    """A 3x3 convolution of stride 1 or 2 with SAME padding, on one image [h, w, c]."""

    features: int
    stride: Literal[1, 2] = 2

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv(x, kernel, self.stride) + bias[None, None]


class ConvTranspose(nn.Module):
    """A transposed 3x3 convolution of stride 2 with SAME padding, on one image [h, w, c]: twice the height and width."""

    features: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=0), (x.shape[-1], 3, 3, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_transpose(x, kernel) + bias[None, None]


def normalise(norm: Norm, h: Float[Array, "*pixels c"]) -> Float[Array, "*pixels c"]:
    """h as it is, or through a `GroupNorm` of the calling net: of one group ("layer"), or of several ("group").

    Several are the most of up to 8 that divide the channels and leave 4 or more to each.
    """
    channels = h.shape[-1]
    if norm == "none":
        return h
    if norm == "layer":
        return GroupNorm(1)(h)
    if norm == "group":
        return GroupNorm(max((n for n in range(2, 9) if channels % n == 0 and channels // n >= 4), default=1))(h)
    raise ValueError(f'norm = {norm!r}; give "none", "layer" or "group" (BatchNorm would make an example depend on its neighbours)')


class GroupNorm(nn.Module):
    """scale_c (h - mean) / sqrt(variance + 1e-6) + bias_c, the moments over all pixels and the channels of c's group, of one example.

    References: Wu & He 2018; with one group, Ba et al. 2016. Flax's own take the first axis, here the height, for a batch.
    """

    num_groups: int

    @nn.compact
    def __call__(self, h):
        if h.size == self.num_groups:
            raise ValueError(f'an array of shape {h.shape} has one number to a group, and a norm would make it 0: use norm="none"')
        channels = h.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        grouped = h.reshape(-1, self.num_groups, channels // self.num_groups)
        centred = grouped - jnp.mean(grouped, (0, 2), keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred**2, (0, 2), keepdims=True) + 1e-6)
        return (normal.reshape(-1, channels) * scale[None] + bias[None]).reshape(h.shape)

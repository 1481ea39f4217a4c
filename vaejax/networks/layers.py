"""Layers of one example, and the shapes that nets give.

Layers share nothing between examples. BatchNorm would: q(z|x_i) would change with the other
examples of the batch, so that the bound of one example were no function of it, a sum over examples
no bound, and the value at test time another than the one trained. There is none here;
`norm="layer"` and `norm="group"` normalise one example by itself.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.base.checks import require_count, require_counts, require_shape
from vaejax.base.values import by_value, require_hashable
from vaejax.networks.gemm import conv, conv_transpose, dot_general

Shape = int | tuple[int, ...]


Norm = Literal["none", "layer", "group"]


# What the sizes of a net may be, by the names of its fields.
SIZES: dict[str, Callable[[Any, str], None]] = {
    "out": require_shape,
    "hidden": require_shape,
    "channels": require_counts,
    "heads": require_count,
    "blocks": partial(require_count, least=0),
}


class Sized(nn.Module):
    """A net that refuses a size that is none when it is made; NumPy's numbers become Python's."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.name in SIZES:
                size = by_value(getattr(self, field.name))
                require_hashable(size, f"{type(self).__name__}.{field.name}")
                check = require_counts if isinstance(field.default, tuple) else SIZES[field.name]
                check(size, f"{type(self).__name__}.{field.name}")
                object.__setattr__(self, field.name, size)
        super().__post_init__()

    def __repr__(self) -> str:
        """In one line, without the defaults."""
        own = [field for field in dataclasses.fields(self) if field.name not in ("parent", "name")]
        values = {field: getattr(self, field.name) for field in own}
        said = [f"{f.name}={value!r}" for f, value in values.items() if value != f.default]
        return f"{type(self).__name__}({', '.join(said)})"


Dense = partial(nn.Dense, dot_general=dot_general)


def num_entries(out: Shape) -> int:
    return out if isinstance(out, int) else math.prod(out)


def flat(example: Any) -> Float[Array, " n"]:
    """All leaves of one example, one after another; ValueError for one whole number, most often a
    label, whose order means nothing.
    """
    for leaf in jax.tree.leaves(example):
        if jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.integer):
            raise ValueError(
                "a net would take a single whole number for a real one: of a label give"
                " jax.nn.one_hot(label, num_classes), of a quantity x.astype(np.float32)"
            )
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(example)]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)


def split_heads(features: Float[Array, "..."], out: Shape, heads: int):
    """One array of shape `out`, or a tuple of `heads` of them, from a last layer's features."""
    shape = (out,) if isinstance(out, int) else out
    arrays = tuple(features.reshape(heads, *shape))
    return arrays if heads > 1 else arrays[0]


def soft_bound(raw: jax.Array, limit: float) -> jax.Array:
    """b tanh(raw / b): raw itself near 0, smooth, and never beyond b."""
    return limit * jnp.tanh(raw / limit)


class Conv(nn.Module):
    """A 3x3 convolution of stride 1 or 2 with SAME padding, on one image [h, w, c]."""

    features: int
    stride: Literal[1, 2] = 2

    @nn.compact
    def __call__(self, x):
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv(x, kernel, self.stride) + bias[None, None]


class ConvTranspose(nn.Module):
    """A transposed 3x3 convolution of stride 2 with SAME padding, on one image [h, w, c]: twice the
    height and width.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(in_axis=0), (x.shape[-1], 3, 3, self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_transpose(x, kernel) + bias[None, None]


def normalise(norm: Norm, h: Float[Array, "*pixels c"]) -> Float[Array, "*pixels c"]:
    """h as it is, or through a `GroupNorm` of the calling net: of one group ("layer"), or of
    several ("group").

    Several are the most of up to 8 that divide the channels and leave 4 or more to each.
    """
    channels = h.shape[-1]
    if norm == "none":
        return h
    if norm == "layer":
        return GroupNorm(1)(h)
    if norm == "group":
        return GroupNorm(
            max((n for n in range(2, 9) if channels % n == 0 and channels // n >= 4), default=1)
        )(h)
    raise ValueError(
        f'norm = {norm!r}; give "none", "layer" or "group" (BatchNorm would make an example depend'
        " on its neighbours)"
    )


class GroupNorm(nn.Module):
    """scale_c (h - mean) / sqrt(variance + 1e-6) + bias_c, the moments over all pixels and the
    channels of c's group, of one example.

    References: Wu & He 2018; with one group, Ba et al. 2016. Flax's own take the first axis, here
    the height, for a batch.
    """

    num_groups: int

    @nn.compact
    def __call__(self, h):
        if h.size == self.num_groups:
            raise ValueError(
                f"an array of shape {h.shape} has one number to a group, and a norm would make it"
                ' 0: use norm="none"'
            )
        channels = h.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        group = self.num_groups, channels // self.num_groups
        grouped = h.reshape(*h.shape[:-1], *group).reshape(-1, *group)
        centred = grouped - jnp.mean(grouped, (0, 2), keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(centred**2, (0, 2), keepdims=True) + 1e-6)
        return (normal.reshape(-1, channels) * scale[None] + bias[None]).reshape(h.shape)


class ResidualBlock(nn.Module):
    """h + conv(act(norm(conv(act(norm(h)))))), 3x3 convolutions of stride 1. Reference: He et al.
    2016 (pre-activation).
    """

    activation: Callable
    norm: Norm

    @nn.compact
    def __call__(self, h):
        inner = h
        for _ in range(2):
            inner = Conv(h.shape[-1], stride=1)(self.activation(normalise(self.norm, inner)))
        return h + inner

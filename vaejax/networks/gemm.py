"""Dense layers and convolutions as matrix products [rows, c] @ [c, d], written once for every
platform.

Linear maps of one example become, under `vmap` over a batch and over importance samples, products
with several row axes, and their weight gradients contract several axes, for which XLA first makes a
transposed copy. `matmul` merges the axes of `vmap` into its rows, so that every product and every
gradient is of two plain matrices, as a hand-written batch would be.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from vaejax.base.devices import is_explicit, is_placed

_matmul_p = Primitive("matmul")


def matmul(x: Float[Array, "*rows c"], kernel: Float[Array, "c d"]) -> Float[Array, "*rows d"]:
    """x @ kernel; all leading axes of x, those of `vmap` included, are rows of one matrix.

    Where the type of an operand says on which devices it lies, this is the plain `jnp.dot`: rows
    that lie on several devices are not merged with rows that do not.
    """
    x, kernel = _of_one_dtype(x, kernel)
    if is_placed(x) or is_placed(kernel):
        return jnp.dot(x, kernel)
    rows = x.reshape(-1, x.shape[-1])
    return _matmul_p.bind(rows, kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _of_one_dtype(x, kernel):
    """As JAX promotes them: a primitive takes no two dtypes, such as float32 and bfloat16."""
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return x.astype(dtype), kernel.astype(dtype)


def dot_general(x, kernel, dimensions, precision=None, preferred_element_type=None):
    """`matmul` in the form that `flax.linen.Dense` asks for: the last axis of x with the first of
    the kernel.
    """
    return matmul(x, kernel)


def _matmul_batched(operands, axes):
    (x, kernel), (x_axis, kernel_axis) = operands, axes
    if kernel_axis is None:
        return matmul(jnp.moveaxis(x, x_axis, 0), kernel), 0
    return (
        jax.vmap(jnp.dot, axes)(x, kernel),
        0,
    )  # a kernel for each, as when seeds are mapped: a batch of products


def _contract(x, y, x_axis, y_axis):
    return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((), ())))


_matmul_p.def_impl(jax.jit(jnp.dot))
_matmul_p.def_abstract_eval(
    lambda x, kernel: ShapedArray((x.shape[0], kernel.shape[1]), jnp.result_type(x, kernel))
)
mlir.register_lowering(_matmul_p, mlir.lower_fun(jnp.dot, multiple_results=False))
ad.defbilinear(
    _matmul_p,
    lambda g, x, kernel: _contract(g, kernel, 1, 1),
    lambda g, x, kernel: _contract(x, g, 0, 0),
)
batching.primitive_batchers[_matmul_p] = _matmul_batched


# The one place that chooses by platform. On a CPU a convolution inside a compiled loop runs on a
# slow path (jax issue 12868), and a matrix product of strided slices takes its place; on
# accelerators lax.conv is the fast one. On a mesh with explicit axes it is the product everywhere:
# of lax.conv JAX knows no gradient for each example there.
def conv(
    x: Float[Array, "h w c"], kernel: Float[Array, "3 3 c d"], stride: Literal[1, 2] = 2
) -> Float[Array, "h/stride w/stride d"]:
    """A convolution of stride 1 or 2 with SAME padding, no bias; odd sizes are rounded up."""
    x, kernel = _of_one_dtype(x, kernel)
    if is_explicit(x) or is_explicit(kernel):
        return conv_gemm(x, kernel, stride)
    return jax.lax.platform_dependent(
        x, kernel, cpu=partial(conv_gemm, stride=stride), default=partial(conv_lax, stride=stride)
    )


def conv_transpose(
    x: Float[Array, "h w c"], kernel: Float[Array, "c 3 3 d"]
) -> Float[Array, "2h 2w d"]:
    """A transposed convolution of stride 2 with SAME padding, no bias."""
    x, kernel = _of_one_dtype(x, kernel)
    if is_explicit(x) or is_explicit(kernel):
        return conv_transpose_gemm(x, kernel)
    return jax.lax.platform_dependent(
        x, kernel, cpu=conv_transpose_gemm, default=conv_transpose_lax
    )


def conv_lax(x, kernel, stride=2):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride, stride), "SAME", dimension_numbers=dimensions
    )[0]


def conv_transpose_lax(x, kernel):
    # Flipped, so that kernel[:, i, j] is what input pixel (p, q) adds to output pixel (2p + i, 2q +
    # j).
    flipped = jnp.moveaxis(kernel, 0, 2)[::-1, ::-1]
    return jax.lax.conv_transpose(
        x[None], flipped, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def conv_gemm(x, kernel, stride=2):
    above, left = (1, 1) if stride == 1 else (x.shape[0] % 2, x.shape[1] % 2)
    x = jnp.pad(x, ((above, 0), (left, 0), (0, 0)))
    return matmul(patches(x, stride), kernel.reshape(-1, kernel.shape[-1]))


def conv_transpose_gemm(x, kernel):
    return overlap_add(matmul(x, kernel.reshape(x.shape[-1], -1)))


def patches(x: Float[Array, "rows columns c"], stride: int = 2) -> Float[Array, "h w 9*c"]:
    """For each output pixel the 3x3 input pixels that it sees, side by side; x is padded above and
    on the left already.
    """
    rows, columns = x.shape[0] - 1, x.shape[1] - 1  # what one tap spans
    x = jnp.pad(x, ((0, 1), (0, 1), (0, 0)))
    return jnp.concatenate(
        [x[i : i + rows : stride, j : j + columns : stride] for i in range(3) for j in range(3)],
        axis=-1,
    )


def overlap_add(taps: Float[Array, "h w 9*d"]) -> Float[Array, "2h 2w d"]:
    """The transpose of `patches` of stride 2: each pixel's 3x3 contributions, added where they
    fall.

    Written by the parity of the output pixel, and with one split, so that its own transpose is one
    concatenation.
    """
    height, width, _ = taps.shape
    tap = jnp.split(taps, 9, axis=-1)
    even_even = tap[0] + _right(tap[2]) + _down(tap[6]) + _down(_right(tap[8]))
    even_odd, odd_even, odd_odd = tap[1] + _down(tap[7]), tap[3] + _right(tap[5]), tap[4]
    even = jnp.stack([even_even, even_odd], axis=2).reshape(height, 2 * width, -1)
    odd = jnp.stack([odd_even, odd_odd], axis=2).reshape(height, 2 * width, -1)
    return jnp.stack([even, odd], axis=1).reshape(2 * height, 2 * width, -1)


def _down(x):
    return jnp.pad(x, ((1, 0), (0, 0), (0, 0)))[:-1]


def _right(x):
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]

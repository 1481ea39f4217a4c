"""Nets that compute in fewer bits."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.networks.base import Net, init_net

HALF = ("bfloat16", "float16")
Precision = Literal["float32", "bfloat16", "float16"]


@component
class HalfPrecision:
    """net.apply with parameters and example rounded to `dtype`: its products and activations are in
    16 bits, `HalfPrecision(vaejax.MLP((28, 28)))`.

    The parameters stay in float32, and so do their gradients and the optimiser's state. What is
    made of the outputs is in float32: every conditional takes them as float32, and a density is
    never computed in less. So a bound differs from that of the float32 net by the rounding of the
    net alone, about 2^-9 of each activation in bfloat16. Whole numbers of an example, such as a
    label for an embedding, stay whole. "float16" has finer steps, 2^-12, but ends at 65,504, and
    gradients below 6e-8 vanish in it; nothing here scales a loss against that.
    """

    net: Net
    dtype: str = "bfloat16"

    def __post_init__(self):
        if self.dtype not in HALF:
            raise ValueError(f"HalfPrecision.dtype = {self.dtype!r}; give one of {HALF}")

    def init(self, key: Key, example: Any) -> PyTree:
        return init_net(self.net, key, example)

    def apply(self, params: PyTree, example: Any) -> Any:
        return self.net.apply(*jax.tree.map(self._rounded, (params, example)))

    def _rounded(self, leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return leaf.astype(self.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def in_precision(net: Net, precision: Precision) -> Net:
    """The net that computes in this precision: itself in float32, else `HalfPrecision` of it."""
    return net if precision == "float32" else HalfPrecision(net, precision)

"""Invertible layers of a flow. Each ends by reversing the order of the coordinates, so that the
next one sees them from the other end.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.base.checks import require_counts, require_said
from vaejax.base.contracts import Declared
from vaejax.base.types import Key, PyTree, Scalar
from vaejax.base.values import component
from vaejax.networks.base import Net
from vaejax.networks.gemm import matmul
from vaejax.networks.layers import Dense, flat, soft_bound

MAX_LAYER_LOG_SCALE = 3.0  # of one layer


Vector = Float[Array, " d"]


class FlowLayer(Declared):
    """An invertible map of vectors. With a context (a vector, or None) it is conditional.

    `forward(params, z, context)` is (y, log |det dy/dz|), and `inverse(params, y, context)` is z
    with the same log-determinant, that of the forward map. `fast_inverse`: the inverse is one pass
    of the layer's net.
    """

    fast_inverse: ClassVar[Any]

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        question = "True if the inverse is one pass of its net, else False"
        require_said(cls, FlowLayer, "fast_inverse", question)

    def init(self, key: Key, z: Vector, context: jax.Array | None) -> PyTree:
        raise NotImplementedError

    def forward(
        self, params: PyTree, z: Vector, context: jax.Array | None
    ) -> tuple[Vector, Scalar]:
        raise NotImplementedError

    def inverse(
        self, params: PyTree, y: Vector, context: jax.Array | None
    ) -> tuple[Vector, Scalar]:
        raise NotImplementedError


@component
class Coupling(FlowLayer):
    """y_a = z_a, y_b = z_b exp(s(z_a)) + m(z_a), for the two halves a, b of the coordinates.
    Reference: Dinh et al. 2017.
    """

    hidden: tuple[int, ...] = (64,)
    fast_inverse = True

    def __post_init__(self):
        require_counts(self.hidden, "Coupling.hidden")

    def init(self, key: Key, z: Vector, context: jax.Array | None) -> PyTree:
        if z.size < 2:
            raise ValueError(
                "a coupling layer moves half of the coordinates by the other half: it needs 2 or"
                f" more, not {z.size}"
            )
        return self._net(z).init(key, (self._halves(z)[0], context))

    def forward(
        self, params: PyTree, z: Vector, context: jax.Array | None
    ) -> tuple[Vector, Scalar]:
        kept, moved = self._halves(z)
        shift, log_scale = self._net(z).apply(params, (kept, context))
        return jnp.concatenate([kept, _move(moved, shift, log_scale)])[::-1], jnp.sum(log_scale)

    def inverse(
        self, params: PyTree, y: Vector, context: jax.Array | None
    ) -> tuple[Vector, Scalar]:
        kept, moved = self._halves(y[::-1])
        shift, log_scale = self._net(y).apply(params, (kept, context))
        return jnp.concatenate([kept, _move_back(moved, shift, log_scale)]), jnp.sum(log_scale)

    def _halves(self, z: Vector) -> tuple[Vector, Vector]:
        return z[: z.size // 2], z[z.size // 2 :]

    def _net(self, z: Vector) -> Net:
        return Conditioner(z.size - z.size // 2, self.hidden)


@component
class Autoregressive(FlowLayer):
    """y_i = z_i exp(s_i) + m_i, where s_i and m_i are functions of the coordinates before i:
    triangular, so det is the diagonal.

    direction "inverse" (a masked autoregressive flow): they are functions of y, so a density at any
    y is one pass of the net, and a sample takes d of them. "forward" (an inverse autoregressive
    flow): functions of z, so a sample with its density is one pass; a density elsewhere would take
    d, and is refused by `Flow`. References: Papamakarios et al. 2017; Kingma et al. 2016.
    """

    direction: Literal["forward", "inverse"]
    hidden: tuple[int, ...] = (64,)

    def __post_init__(self):
        if self.direction not in ("forward", "inverse"):
            raise ValueError(
                f'Autoregressive.direction = {self.direction!r}; choose "forward" or "inverse"'
            )
        require_counts(self.hidden, "Autoregressive.hidden")

    @property
    def fast_inverse(self) -> bool:
        return self.direction == "inverse"

    def init(self, key: Key, z: Vector, context: jax.Array | None) -> PyTree:
        return self._net.init(key, (z, context))

    def forward(
        self, params: PyTree, z: Vector, context: jax.Array | None
    ) -> tuple[Vector, Scalar]:
        source = z if self.direction == "forward" else self._solve(params, z, context, _move)
        shift, log_scale = self._net.apply(params, (source, context))
        return _move(z, shift, log_scale)[::-1], jnp.sum(log_scale)

    def inverse(
        self, params: PyTree, y: Vector, context: jax.Array | None
    ) -> tuple[Vector, Scalar]:
        y = y[::-1]
        source = y if self.direction == "inverse" else self._solve(params, y, context, _move_back)
        shift, log_scale = self._net.apply(params, (source, context))
        return _move_back(y, shift, log_scale), jnp.sum(log_scale)

    @property
    def _net(self) -> Net:
        return MaskedConditioner(self.hidden)

    def _solve(
        self, params: PyTree, given: Vector, context: jax.Array | None, move: Callable
    ) -> Vector:
        """The other side's coordinates, one after another: after i rounds the first i are right."""

        def next_coordinate(_, solved):
            return move(given, *self._net.apply(params, (solved, context)))

        return jax.lax.fori_loop(0, given.size - 1, next_coordinate, jnp.zeros_like(given))


def _move(z: Vector, shift: Vector, log_scale: Vector) -> Vector:
    return z * jnp.exp(log_scale) + shift


def _move_back(y: Vector, shift: Vector, log_scale: Vector) -> Vector:
    return (y - shift) * jnp.exp(-log_scale)


class Conditioner(nn.Module):
    """(h, context) -> shift and log_scale, each of size `out`."""

    out: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, given):
        h = flat(given)
        for width in self.hidden:
            h = nn.tanh(Dense(width)(h))
        shift, log_scale = jnp.split(
            Dense(2 * self.out, kernel_init=nn.initializers.normal(0.01))(h), 2
        )
        return shift, soft_bound(log_scale, MAX_LAYER_LOG_SCALE)


class MaskedConditioner(nn.Module):
    """(z, context) -> shift and log_scale of z's shape, entry i of both a function of z_1 ..
    z_(i-1) and of the context alone.

    Each hidden unit sees the first few coordinates, its degree, and feeds those after them. The
    degrees are spread evenly, so that a layer narrower than z loses none of them. Reference:
    Germain et al. 2015 (MADE).
    """

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, given):
        z, context = given
        fewest = (
            0 if context is not None or z.size == 1 else 1
        )  # without a context a unit that sees nothing is a constant
        h, seen = z, np.arange(1, z.size + 1)
        for i, width in enumerate(self.hidden):
            degrees = np.linspace(fewest, z.size - 1, width).round().astype(int)
            mask = seen[:, None] <= degrees[None]
            h = nn.tanh(
                self._masked(f"hidden_{i}", h, context, mask, nn.initializers.lecun_normal())
            )
            seen = degrees
        mask = np.tile(seen[:, None] < np.arange(1, z.size + 1)[None], 2)
        shift, log_scale = jnp.split(
            self._masked("out", h, context, mask, nn.initializers.normal(0.01)), 2
        )
        return shift, soft_bound(log_scale, MAX_LAYER_LOG_SCALE)

    def _masked(self, name: str, h, context, mask: np.ndarray, init) -> jax.Array:
        kernel = self.param(f"{name}_kernel", init, mask.shape)
        h = matmul(h, kernel * jnp.asarray(mask, kernel.dtype)) + self.param(
            f"{name}_bias", nn.initializers.zeros, mask.shape[1:]
        )
        return (
            h
            if context is None
            else h
            + Dense(mask.shape[1], use_bias=False, kernel_init=init, name=f"{name}_context")(
                context
            )
        )

"""Nets and their parameters for tests."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.networks.images import ResidualDecoder, ResidualEncoder

quick_jit = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # half the time to compile


def drawn(net, example, key=0):
    """Parameters of the net drawn by NumPy: to compile a net's `init` takes longer than all that is
    tested here.
    """
    generator = np.random.default_rng(key)
    shapes = jax.eval_shape(net.init, jax.random.key(0), example)
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            generator.normal(size=leaf.shape) / max(leaf.size, 1) ** 0.25, leaf.dtype
        ),
        shapes,
    )


CONTEXT = ((5,), (2, 3), ())


SMOOTH = {"activation": nn.silu}  # relu units of so small a net may all be dead


NETS = {  # the net, the shapes of what it takes, the shape of a head
    "mlp": (vaejax.MLP(5, (7,)), (4,), (5,)),
    "mlp with layer norm": (vaejax.MLP((8, 6), (7,), norm="layer"), CONTEXT, (8, 6)),
    "gated": (vaejax.GatedMLP((8, 6), (7, 5)), (8, 6), (8, 6)),
    "gated with layer norm": (vaejax.GatedMLP((4,), (7,), norm="layer"), CONTEXT, (4,)),
    "conv encoder": (vaejax.ConvEncoder(5, (3, 4), 6, **SMOOTH), (9, 7), (5,)),
    "conv encoder of colour": (
        vaejax.ConvEncoder((2, 3), (8,), 6, norm="group", **SMOOTH),
        ((9, 7, 3), (2,)),
        (2, 3),
    ),
    "conv decoder": (vaejax.ConvDecoder((9, 7), (4, 3), 6, **SMOOTH), (5,), (9, 7)),
    "conv decoder of colour": (
        vaejax.ConvDecoder((12, 8, 3), (8,), 6, norm="group", **SMOOTH),
        CONTEXT,
        (12, 8, 3),
    ),
    "residual encoder": (ResidualEncoder(5, (4,), 6, **SMOOTH), ((9, 7, 3), (2, 3)), (5,)),
    "residual decoder": (ResidualDecoder((5, 7), (8, 3), 6, **SMOOTH), CONTEXT, (5, 7)),
}

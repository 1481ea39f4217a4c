"""Norms of one example, and where they stand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.networks import drawn, quick_jit
from vaejax.networks import gemm
from vaejax.networks.layers import ResidualBlock, normalise, soft_bound, split_heads

GENERATOR = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    GENERATOR.bit_generator.state = np.random.default_rng(0).bit_generator.state


def by_hand(params, name, h, num_groups=1):
    """The norm of an image or a vector, group after group, in NumPy."""
    h = np.array(h)
    for group in np.split(np.arange(h.shape[-1]), num_groups):
        h[..., group] = (h[..., group] - h[..., group].mean()) / np.sqrt(h[..., group].var() + 1e-6)
    return h * np.asarray(params[name]["scale"]) + np.asarray(params[name]["bias"])


def test_a_norm_is_of_one_example(x64):
    """scale (h - mean) / sqrt(var + eps) + bias over pixels and a group's channels, at a large
    offset too; groups of 4 or more channels.
    """
    cases = [
        ((5, 4, 12), 3),
        ((1, 1, 16), 4),
        ((3, 2, 40), 8),
        ((2, 3, 6), 1),
        ((11,), 1),
        ((20,), 5),
    ]
    hs = [100.0 + GENERATOR.normal(size=shape) for shape, _ in cases]
    nets = Normalised("group"), Normalised("layer")
    params = [[drawn(net, h) for h in hs] for net in nets]

    @quick_jit
    def results(params, hs):
        return [
            [net.apply(p, h) for p, h in zip(ps, hs, strict=True)]
            for net, ps in zip(nets, params, strict=True)
        ]

    for ps, ys, groups in zip(
        params,
        results(params, hs),
        ([groups for _, groups in cases], [1] * len(cases)),
        strict=True,
    ):
        for p, y, h, num_groups in zip(ps, ys, hs, groups, strict=True):
            np.testing.assert_allclose(
                y, by_hand(p["params"], "GroupNorm_0", h, num_groups), rtol=1e-9, atol=1e-9
            )


def test_a_soft_bound_is_the_identity_near_0_and_never_beyond(x64):
    for limit in (0.5, 7.0):
        value, slope = jax.value_and_grad(soft_bound)(0.0, limit)
        assert value == 0 and slope == 1
        np.testing.assert_allclose(soft_bound(0.3 * limit, limit), limit * np.tanh(0.3))
        assert soft_bound(1e6, limit) == limit == -soft_bound(-1e6, limit)


def test_heads_are_one_after_another():
    """Of the features 0, 1, 2, ... the first head has the first ones."""
    first, second = split_heads(jnp.arange(12.0), (2, 3), 2)
    np.testing.assert_array_equal(first, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(second, [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(split_heads(jnp.arange(6.0), 6, 1), np.arange(6))


class Normalised(nn.Module):
    norm: str

    @nn.compact
    def __call__(self, h):
        return normalise(self.norm, h)


def test_the_norm_stands_before_the_activation(x64):
    """Nets of one hidden layer, or block, against the formula by hand."""
    x, image = GENERATOR.normal(size=3), GENERATOR.normal(size=(5, 4, 8))

    def dense(params, name, h):
        return h @ params[name]["kernel"] + params[name]["bias"]

    net = vaejax.MLP(2, (7,), norm="layer")
    p = drawn(net, x)["params"]
    hidden = np.tanh(by_hand(p, "GroupNorm_0", dense(p, "Dense_0", x)))
    np.testing.assert_allclose(
        quick_jit(net.apply)({"params": p}, x), dense(p, "Dense_1", hidden), rtol=1e-10
    )

    net = vaejax.GatedMLP(2, (7,), norm="layer")
    p = drawn(net, x)["params"]
    linear, gate = np.split(by_hand(p, "GroupNorm_0", dense(p, "Dense_0", x)), 2)
    np.testing.assert_allclose(
        quick_jit(net.apply)({"params": p}, x),
        dense(p, "Dense_1", linear / (1 + np.exp(-gate))),
        rtol=1e-10,
    )

    block = ResidualBlock(nn.relu, "group")
    p = drawn(block, image)["params"]
    h = image
    for i in range(2):
        h = np.maximum(by_hand(p, f"GroupNorm_{i}", h, 2), 0)
        h = (
            gemm.conv_lax(h, jnp.asarray(p[f"Conv_{i}"]["kernel"], float), 1)
            + p[f"Conv_{i}"]["bias"][None, None]
        )
    np.testing.assert_allclose(
        quick_jit(block.apply)({"params": p}, image), image + h, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    "net",
    [vaejax.ConvEncoder(2, (4, 4), 6), vaejax.ConvDecoder((6, 5), (4, 4), 6)],
    ids=["encoder", "decoder"],
)
def test_normalised_convolutions_forget_their_scale(net):
    """Every layer but the last is followed by a norm, then by an activation that is not
    homogeneous.
    """
    net, example = (
        net.clone(norm="group", activation=jnp.tanh),
        jnp.asarray(GENERATOR.normal(size=(7, 5)), jnp.float32),
    )
    params = drawn(net, example)["params"]
    last = {"Dense_1"} if isinstance(net, vaejax.ConvEncoder) else {"Dense_1", "ConvTranspose_1"}
    apply = quick_jit(net.apply)
    before = apply({"params": params}, example)
    for name in params.keys() - last:
        scaled = params | {name: jax.tree.map(lambda leaf: 3 * leaf, params[name])}
        same = not name.startswith("GroupNorm")
        assert (
            np.allclose(apply({"params": scaled}, example), before, rtol=1e-3, atol=1e-3) == same
        ), name

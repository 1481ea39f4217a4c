"""Nets in 16 bits: what is made of their outputs is in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.conditionals import CASES, stacked
from tests.lib.networks import NETS, drawn

GENERATOR = np.random.default_rng(0)
DTYPES = [jnp.bfloat16, jnp.float16]


@pytest.mark.parametrize("case", cases(CASES))
def test_a_half_net_gives_the_density_of_the_same_numbers(case):
    """Of every conditional, exactly; with samples and gradients in the dtypes that they are of."""
    outputs = GENERATOR.normal(size=(case.heads, *case.shape))
    x = jnp.asarray(case.data[0], jnp.float32)
    for dtype in DTYPES if case is CASES["Gaussian"] else DTYPES[:1]:
        half = case.params(stacked(jnp.asarray(outputs).astype(dtype)))
        full = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
        q, expected = (case.component(params, jnp.zeros(1)) for params in (half, full))
        assert q.log_prob(x) == expected.log_prob(x) and q.log_prob(x).dtype == jnp.float32
        key = jax.random.key(0)
        np.testing.assert_array_equal(q.sample(key), expected.sample(key))
        assert q.sample(key).dtype == expected.sample(key).dtype


def test_levels_in_half_precision_have_a_mass_of_one():
    """1.04 where they were computed in bfloat16."""
    raw = jnp.asarray([[0.1], [-1.0]], jnp.bfloat16)
    q = vaejax.DiscretizedLogistic(_Outputs())(raw, None)
    masses = jnp.exp(jax.vmap(q.log_prob)(jnp.arange(256.0)[:, None] / 255))
    np.testing.assert_allclose(masses.sum(), 1, rtol=1e-5)


@vaejax.component
class _Outputs:
    def init(self, key, given):
        return jnp.zeros((2, 1))

    def apply(self, params, given):
        return tuple(params)


@pytest.mark.parametrize("name", ["mlp with layer norm", "conv encoder"])
def test_every_layer_computes_in_half(name):
    """The net's own outputs are in 16 bits, its gradients in the parameters' 32, and both close to
    those of float32: 2^-9 of each activation in bfloat16.
    """
    net, shapes, _ = NETS[name]
    example = jax.tree.map(jnp.ones, shapes, is_leaf=lambda s: isinstance(s[:1], tuple) and all(
        isinstance(length, int) for length in s))  # fmt: skip
    params = drawn(net, example)

    def outputs(net):
        def total(params):
            output = net.apply(params, example)
            return jnp.sum(jnp.sin(output.astype(jnp.float32))), output

        return jax.jit(jax.grad(total, has_aux=True))(params)

    full, (gradient, output) = outputs(net), outputs(vaejax.HalfPrecision(net))
    assert output.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
    scale = np.abs(full[1]).max()
    np.testing.assert_allclose(output.astype(jnp.float32), full[1], atol=0.03 * scale)


@pytest.mark.parametrize("dtype, error", [("bfloat16", 0.3), ("float16", 0.03)])
def test_the_bound_of_a_half_net(dtype, error):
    """Within so many nats of float32's for each example, at -44 nats; their mean within a tenth of
    that. Parameters, gradients and the bound are in float32.
    """

    def model(wrap):
        likelihood = vaejax.Bernoulli(wrap(vaejax.MLP((8, 8), (50,))))
        encoder = vaejax.DiagNormal(wrap(vaejax.MLP(5, (50,), heads=2)))
        return vaejax.VAE(vaejax.StandardNormal(5), likelihood, encoder)

    full, half = model(lambda net: net), model(lambda net: vaejax.HalfPrecision(net, dtype))
    params = full.init(jax.random.key(0), jnp.zeros((8, 8)))
    xs = jnp.asarray(GENERATOR.integers(2, size=(40, 8, 8)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 40)

    def bounds(model):
        def bound(params, x, key):
            return vaejax.elbo(model, params, x, key)

        return jax.jit(jax.vmap(jax.value_and_grad(bound), (None, 0, 0)))(params, xs, keys)

    (exact, _), (rounded, gradient) = bounds(full), bounds(half)
    assert rounded.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
    assert 0 < np.abs(rounded - exact).max() < error
    assert abs(np.mean(rounded - exact)) < error / 10


def test_what_stays_as_it_is():
    net = vaejax.HalfPrecision(vaejax.MLP(2, (3,)))
    assert net == vaejax.HalfPrecision(vaejax.MLP(2, (3,)), "bfloat16")
    seen = {}

    class Look:
        def init(self, key, example):
            return {}

        def apply(self, params, example):
            seen.update(example)
            return params

    vaejax.HalfPrecision(Look()).apply(jnp.ones(2), {"label": jnp.arange(2), "x": np.ones(2)})  # type: ignore
    assert seen["label"].dtype == jnp.int32 and seen["x"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"HalfPrecision.dtype = 'float8'; give one of"):
        vaejax.HalfPrecision(vaejax.MLP(2), "float8")

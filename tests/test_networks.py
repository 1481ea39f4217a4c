"""Nets of one example, and the one place where a convolution is chosen by platform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax import _gemm

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (5, 4), (1, 3), (28, 28)])
@pytest.mark.parametrize("form", ["conv", "conv_transpose"])
def test_matrix_product_form_equals_lax(x64, shape, form):
    gemm, lax = getattr(_gemm, f"{form}_gemm"), getattr(_gemm, f"{form}_lax")
    kernel = GENERATOR.normal(size=(3, 3, 3, 5))  # three channels in: [3 3 c d] and [c 3 3 d] are one shape
    x = GENERATOR.normal(size=(*shape, 3))
    np.testing.assert_allclose(gemm(x, kernel), lax(x, kernel), rtol=1e-11, atol=1e-11)
    weights = GENERATOR.normal(size=gemm(x, kernel).shape)
    gradients = [jax.grad(lambda *args, f=f: jnp.vdot(f(*args), weights), (0, 1))(x, kernel) for f in (gemm, lax)]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_conv_transpose_is_the_transpose_of_a_convolution(x64):
    """<conv(x), y> = <x, conv_transpose(y)> for one kernel, its two channel axes exchanged."""
    kernel, x, y = (jnp.asarray(GENERATOR.normal(size=shape)) for shape in ((3, 3, 2, 4), (6, 8, 2), (3, 4, 4)))
    transposed = _gemm.conv_transpose(y, jnp.transpose(kernel, (3, 0, 1, 2)))
    np.testing.assert_allclose(jnp.vdot(_gemm.conv(x, kernel), y), jnp.vdot(x, transposed), rtol=1e-12)


def test_the_cpu_runs_no_convolution():
    x, kernel = jnp.zeros((8, 8, 1)), jnp.zeros((3, 3, 1, 2))
    assert " convolution(" not in jax.jit(_gemm.conv).lower(x, kernel).compile().as_text()
    assert " convolution(" in jax.jit(_gemm.conv_lax).lower(x, kernel).compile().as_text()


def test_matmul_is_matmul_under_every_transformation(x64):
    xs, kernels = jnp.asarray(GENERATOR.normal(size=(4, 5, 3))), jnp.asarray(GENERATOR.normal(size=(4, 3, 2)))

    def results(product):
        def loss(kernel, x):
            return jnp.sum(jnp.sin(product(x, kernel)))

        def batch_loss(kernel, xs):
            return jnp.mean(jax.vmap(jax.vmap(loss, (None, 0)), (None, 0))(kernel, xs))

        yield jax.value_and_grad(batch_loss, (0, 1))(kernels[0], xs)
        yield jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(kernels[0], xs)  # a gradient for each example
        yield jax.vmap(jax.grad(loss, (0, 1)))(kernels, xs)  # a kernel for each, as for seeds
        yield jax.vmap(product, (1, 0))(jnp.moveaxis(xs, 0, 1), kernels)
        yield jax.vmap(product, (None, 0))(xs[0], kernels)
        yield jax.hessian(loss)(kernels[0], xs[0])
        yield jax.jvp(lambda x: product(x, kernels[0]), (xs[0],), (xs[1],))
        yield jax.jit(product)(xs, kernels[0])

    for ours, theirs in zip(results(_gemm.matmul), results(jnp.matmul), strict=True):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), ours, theirs)


def test_products_of_a_batch_are_of_two_matrices():
    """What `matmul` is for: under two vmaps no product, forward or backward, has more than two axes."""

    def loss(kernel, xs):
        return jnp.sum(jax.vmap(jax.vmap(lambda x: _gemm.matmul(x[None], kernel)[0]))(xs) ** 2)

    text = jax.jit(jax.grad(loss)).lower(jnp.zeros((3, 2)), jnp.zeros((5, 4, 3))).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 2
    assert all("tensor<20x" in line and "x5x" not in line for line in products)


NETS = {
    "mlp": (vaejax.MLP(5, (7,)), (4,), (5,)),
    "mlp of images": (vaejax.MLP((8, 6), (7,)), (3,), (8, 6)),
    "gated": (vaejax.GatedMLP((8, 6), (7, 5)), (8, 6), (8, 6)),
    "conv encoder": (vaejax.ConvEncoder(5, (3, 4), 6), (9, 7), (5,)),
    "conv encoder of colour": (vaejax.ConvEncoder(5, (3, 4), 6), (9, 7, 3), (5,)),
    "conv decoder": (vaejax.ConvDecoder((9, 7), (4, 3), 6), (5,), (9, 7)),
    "conv decoder of colour": (vaejax.ConvDecoder((12, 8, 3), (4, 3), 6), (5,), (12, 8, 3)),
}


@pytest.mark.parametrize("net, given, out", NETS.values(), ids=NETS)
def test_nets_take_one_example(net, given, out):
    xs = jnp.asarray(GENERATOR.normal(size=(3, *given)), jnp.float32)
    params = jax.jit(net.init)(jax.random.key(0), xs[0])
    batched = jax.jit(jax.vmap(net.apply, (None, 0)))(params, xs)
    assert batched.shape == (3, *out)
    one = jax.jit(net.apply)
    for x, y in zip(xs, batched, strict=True):
        np.testing.assert_allclose(one(params, x), y, rtol=1e-5, atol=1e-5)
    heads = net.clone(heads=2) if hasattr(net, "heads") else None
    if heads is not None:
        loc, log_scale = jax.jit(heads.init_with_output)(jax.random.key(0), xs[0])[0]
        assert loc.shape == log_scale.shape == out


def test_stored_pixels_are_taken_as_numbers():
    net = vaejax.ConvEncoder(2, (3,), 4)
    image = GENERATOR.integers(0, 2, (4, 4)).astype(np.uint8)
    params = net.init(jax.random.key(0), image)
    np.testing.assert_array_equal(net.apply(params, image), net.apply(params, image.astype(np.float32)))


def test_equal_nets_are_one_static():
    assert vaejax.MLP((8, 8), (3,)) == vaejax.MLP((8, 8), (3,))
    assert hash(vaejax.MLP((8, 8), (3,))) == hash(vaejax.MLP((8, 8), (3,)))

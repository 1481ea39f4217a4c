"""Convolutions as matrix products: the one place where they are chosen by platform."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.lib.networks import quick_jit
from vaejax.networks import gemm

GENERATOR = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    GENERATOR.bit_generator.state = np.random.default_rng(0).bit_generator.state


SHAPES = [(8, 8), (7, 7), (5, 4), (1, 3), (1, 1), (28, 28)]


FORMS = {
    "stride 1": (partial(gemm.conv_gemm, stride=1), partial(gemm.conv_lax, stride=1)),
    "stride 2": (gemm.conv_gemm, gemm.conv_lax),
    "transposed": (gemm.conv_transpose_gemm, gemm.conv_transpose_lax),
}


@pytest.mark.parametrize("gemm, lax", FORMS.values(), ids=FORMS)
def test_matrix_product_form_equals_lax(x64, gemm, lax):
    """Values and both gradients, in float64, at even and odd sizes."""
    kernel = GENERATOR.normal(
        size=(3, 3, 3, 5)
    )  # three channels in: [3 3 c d] and [c 3 3 d] are one shape
    xs = [GENERATOR.normal(size=(*shape, 3)) for shape in SHAPES]
    weights = [GENERATOR.normal(size=jax.eval_shape(gemm, x, kernel).shape) for x in xs]

    @partial(quick_jit, static_argnums=0)
    def results(conv, kernel, xs):
        def weighted(kernel, x, w):
            y = conv(x, kernel)
            return jnp.vdot(y, w), y

        return [
            jax.value_and_grad(weighted, (0, 1), has_aux=True)(kernel, x, w)
            for x, w in zip(xs, weights, strict=True)
        ]

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10),
        results(gemm, kernel, xs),
        results(lax, kernel, xs),
    )


def test_conv_transpose_is_the_transpose_of_a_convolution(x64):
    """<conv(x), y> = <x, conv_transpose(y)> for one kernel, its two channel axes exchanged."""
    kernel, x, y = (
        jnp.asarray(GENERATOR.normal(size=shape)) for shape in ((3, 3, 2, 4), (6, 8, 2), (3, 4, 4))
    )

    @quick_jit
    def both(kernel, x, y):
        return jnp.vdot(gemm.conv(x, kernel), y), jnp.vdot(
            x, gemm.conv_transpose(y, jnp.transpose(kernel, (3, 0, 1, 2)))
        )

    np.testing.assert_allclose(*both(kernel, x, y), rtol=1e-12)


def test_the_cpu_runs_no_convolution():
    x, kernel = jnp.zeros((8, 8, 1)), jnp.zeros((3, 3, 1, 2))
    for stride in (1, 2):
        assert (
            " convolution("
            not in jax.jit(partial(gemm.conv, stride=stride)).lower(x, kernel).compile().as_text()
        )
    assert " convolution(" in jax.jit(gemm.conv_lax).lower(x, kernel).compile().as_text()


def test_matmul_is_matmul_under_every_transformation(x64):
    xs, kernels = (
        jnp.asarray(GENERATOR.normal(size=(4, 5, 3))),
        jnp.asarray(GENERATOR.normal(size=(4, 3, 2))),
    )

    @partial(quick_jit, static_argnums=0)
    def results(product, xs, kernels):
        def loss(kernel, x):
            return jnp.sum(jnp.sin(product(x, kernel)))

        def batch_loss(kernel, xs):
            return jnp.mean(jax.vmap(jax.vmap(loss, (None, 0)), (None, 0))(kernel, xs))

        return [
            jax.value_and_grad(batch_loss, (0, 1))(kernels[0], xs),
            jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(
                kernels[0], xs
            ),  # a gradient for each example
            jax.vmap(jax.grad(loss, (0, 1)))(kernels, xs),  # a kernel for each, as for seeds
            jax.vmap(product, (1, 0))(jnp.moveaxis(xs, 0, 1), kernels),
            jax.vmap(product, (None, 0))(xs[0], kernels),
            jax.hessian(loss)(kernels[0], xs[0]),
            jax.jvp(lambda x: product(x, kernels[0]), (xs[0],), (xs[1],)),
            jax.jit(product)(xs, kernels[0]),
        ]

    ours, theirs = results(gemm.matmul, xs, kernels), results(jnp.matmul, xs, kernels)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), ours, theirs)


def test_products_of_a_batch_are_of_two_matrices():
    """What `matmul` is for: under two vmaps no product, forward or backward, has more than two
    axes.
    """

    def loss(kernel, xs):
        return jnp.sum(jax.vmap(jax.vmap(lambda x: gemm.matmul(x[None], kernel)[0]))(xs) ** 2)

    text = jax.jit(jax.grad(loss)).lower(jnp.zeros((3, 2)), jnp.zeros((5, 4, 3))).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 2
    assert all("tensor<20x" in line and "x5x" not in line for line in products)


@pytest.mark.parametrize("convolution", [gemm.conv, gemm.conv_transpose])
def test_the_gradient_of_each_example_on_explicit_axes(convolution):
    """Where JAX knows none of its own convolution."""
    shape = (3, 3, 2, 2) if convolution is gemm.conv else (2, 3, 3, 2)
    kernel = jax.random.normal(jax.random.key(0), shape)
    xs = jax.random.normal(jax.random.key(1), (4, 4, 4, 2))

    def loss(kernel, x):
        return jnp.sum(jnp.sin(convolution(x, kernel)))

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
    mesh = Mesh(np.array(jax.devices()[:2]), "data", axis_types=(AxisType.Explicit,))
    split = jax.device_put(xs, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    shared = gradients(everywhere, split)
    np.testing.assert_allclose(shared, gradients(kernel, xs), rtol=1e-5, atol=1e-5)

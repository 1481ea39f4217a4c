"""Nets and objectives on several devices: under `jax.shard_map` with its default check, and on a
mesh with explicit axes, they give what one device gives.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compatibility import ENCODERS, LIKELIHOODS, PRIORS
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import vaejax
from tests.lib.cases import cases
from tests.lib.kinds import IMAGES, KINDS
from tests.lib.networks import NETS, drawn, quick_jit
from tests.test_product import data_for
from vaejax.base.devices import example_keys
from vaejax.networks import gemm
from vaejax.objectives.base import Maximised

BATCH = 4
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec("data")


def mesh_of(kind: AxisType) -> Mesh:
    return Mesh(np.array(jax.devices()[:2]), "data", axis_types=(kind,))


def on_explicit_axes(params, batch):
    """The same arrays on a mesh with explicit axes, the batch split over it."""
    mesh = mesh_of(AxisType.Explicit)
    return (
        jax.device_put(params, NamedSharding(mesh, EVERYWHERE)),
        jax.device_put(batch, NamedSharding(mesh, SPLIT)),
    )


def check_devices(mean, params, batch, rtol, in_every_way=False):
    """`mean(params, batch)` is a mean over the batch. Its value and gradient are the same on one
    device, within `shard_map` and on explicit axes; in every way: with `shard_map` within the
    derivative, and with a mesh that is set, too.
    """
    value_and_gradient = quick_jit(jax.value_and_grad(mean))
    expected = value_and_gradient(params, batch)
    assert any(leaf.any() for leaf in jax.tree.leaves(expected[1]))

    split = partial(
        jax.shard_map,
        mesh=mesh_of(AxisType.Auto),
        in_specs=(EVERYWHERE, SPLIT),
        out_specs=EVERYWHERE,
    )

    def of_all(params, batch):
        return jax.lax.pmean(mean(params, batch), "data")

    within, without = split(jax.value_and_grad(of_all)), jax.value_and_grad(split(of_all))
    on_axes = on_explicit_axes(params, batch)
    results = [quick_jit(within)(params, batch), value_and_gradient(*on_axes)]
    if in_every_way:
        results.append(quick_jit(without)(params, batch))
        with jax.set_mesh(mesh_of(AxisType.Explicit)):
            results.append(value_and_gradient(*on_axes))
    for result in results:
        # An entry that is small beside the others is no more exact than they are.
        jax.tree.map(
            lambda leaf, right: np.testing.assert_allclose(
                leaf, right, rtol, rtol * (1e-6 + float(np.abs(right).max(initial=0)))
            ),
            result,
            expected,
        )


# The product itself.


def losses(product):
    """Means over a batch in which `product` is under every transformation that the library uses."""

    def loss(kernel, x):
        return jnp.sum(jnp.sin(product(x, kernel)))

    def nested(kernels, xs):
        return jnp.mean(jax.vmap(jax.vmap(loss, (None, 0)), (None, 0))(kernels[0], xs))

    def of_seeds(kernels, xs):
        return jnp.mean(jax.vmap(lambda x: jax.vmap(loss, (0, None))(kernels, x))(xs))

    def seeds_first(kernels, xs):
        return jnp.mean(jax.vmap(lambda kernel: jax.vmap(partial(loss, kernel))(xs))(kernels))

    def of_gradients(kernels, xs):
        # Of x alone: within shard_map the gradient in what all devices share is a sum over them.
        return jnp.mean(jax.vmap(jax.grad(loss, 1), (None, 0))(kernels[0], xs) ** 2)

    def of_slopes(kernels, xs):
        def slope(x):
            return jax.jvp(partial(loss, kernels[0]), (x,), (jnp.cos(x),))[1]

        return jnp.mean(jax.vmap(slope)(xs))

    def looped(kernels, xs):
        def step(_, h):
            return jnp.sin(product(h, kernels[0]))

        return jnp.mean(jax.vmap(lambda x: jax.lax.fori_loop(0, 3, step, x))(xs))

    return [nested, of_seeds, seeds_first, of_gradients, of_slopes, looped]


@pytest.mark.parametrize("number", range(6))
def test_the_product_keeps_the_devices_of_its_operands(x64, number):
    generator = np.random.default_rng(0)
    xs = jnp.asarray(generator.normal(size=(BATCH, 5, 3)))
    kernels = jnp.asarray(generator.normal(size=(2, 3, 3)))
    ours, plain = losses(gemm.matmul)[number], losses(jnp.matmul)[number]
    check_devices(ours, kernels, xs, 1e-10, in_every_way=True)
    np.testing.assert_allclose(ours(kernels, xs), plain(kernels, xs), rtol=1e-12)


def test_rows_are_merged_where_the_compiler_places_the_batch():
    """As in `fit` with a mesh and in `fit_seeds`: there the products stay of two matrices."""

    def products(function, *args):
        text = quick_jit(jax.grad(function)).lower(*args).as_text()
        lines = [line for line in text.splitlines() if "dot_general" in line]
        assert lines
        return [line for line in lines if "batching" in line or "x5x" in line]

    def loss(kernel, xs):
        return jnp.sum(jax.vmap(jax.vmap(lambda x: gemm.matmul(x[None], kernel)[0]))(xs) ** 2)

    kernel, xs = jnp.ones((3, 2)), jnp.ones((BATCH, 5, 3))
    mesh = mesh_of(AxisType.Auto)
    on_mesh = jax.device_put(xs, NamedSharding(mesh, SPLIT))
    assert not products(loss, kernel, on_mesh)
    with jax.set_mesh(mesh):
        assert not products(loss, kernel, on_mesh)
    unchecked = jax.shard_map(
        loss, mesh=mesh, in_specs=(EVERYWHERE, SPLIT), out_specs=EVERYWHERE, check_vma=False
    )
    assert not products(unchecked, kernel, xs)


# Nets.

SLOW_NETS = set(NETS) - {"mlp", "conv encoder", "conv decoder"}


@pytest.mark.parametrize("case", cases(NETS, SLOW_NETS))
def test_nets_on_several_devices(case):
    net, given, out = case
    generator = np.random.default_rng(0)
    shapes = given if isinstance(given[0], tuple) else (given,)
    xs = tuple(jnp.asarray(generator.normal(size=(BATCH, *s)), jnp.float32) for s in shapes)
    xs = xs if len(xs) > 1 else xs[0]
    params = drawn(net, jax.tree.map(lambda leaf: leaf[0], xs))
    weights = jnp.cos(jnp.arange(np.prod(out)).reshape(out))

    def mean(params, xs):
        return jnp.mean(jax.vmap(lambda x: jnp.vdot(weights, net.apply(params, x)))(xs))

    check_devices(mean, params, xs, 1e-4)


# Objectives: the keys of the examples lie where the examples do.


def objective_means(objective):
    def mean(params, batch):
        xs, keys = batch
        return Maximised(objective)(params, xs, keys[0])

    return mean


def model_of(prior="StandardNormal", likelihood="Bernoulli", encoder="DiagNormal"):
    return vaejax.VAE(PRIORS[prior](), LIKELIHOODS[likelihood](), ENCODERS[encoder]())


PATHWISE = vaejax.Pathwise(2, vaejax.iwae_bound)
OBJECTIVES = {
    "IWAE": vaejax.minibatch(PATHWISE, model_of()),
    "flow": vaejax.minibatch(PATHWISE, model_of(encoder="InverseAutoregressive")),
    "coupling": vaejax.minibatch(vaejax.DReG(2), model_of(encoder="RealNVP")),
    "sphere": vaejax.minibatch(PATHWISE, model_of("UniformOnSphere", encoder="VonMisesFisher")),
    "full": vaejax.minibatch(PATHWISE, model_of(encoder="FullNormal")),
    "full likelihood": vaejax.minibatch(PATHWISE, model_of(likelihood="FullNormal")),
    "low rank": vaejax.minibatch(
        PATHWISE, model_of("StandardNormal", "LowRankNormal", "LowRankNormal")
    ),
    "levels": vaejax.minibatch(PATHWISE, model_of(likelihood="DiscretizedLogistic")),
    "vamp": vaejax.minibatch(vaejax.StickTheLanding(), model_of("VampPrior")),
    "graph": vaejax.minibatch(vaejax.Pathwise(2), KINDS["layers"]),
    "free bits": vaejax.FreeBits(model_of(), 0.1),
    "TCVAE": vaejax.TCVAE(model_of(), 100, beta=2.0),
    "optimal scale": vaejax.optimal_scale(
        vaejax.minibatch(PATHWISE, model_of(likelihood="Gaussian, learned"))
    ),
}


def examples_of(model) -> jax.Array:
    if model is KINDS["layers"]:
        return jnp.asarray(IMAGES[:BATCH])
    return jnp.asarray(data_for(model.likelihood.support)[:BATCH])


@pytest.mark.parametrize(
    "objective", cases(OBJECTIVES, set(OBJECTIVES) - {"IWAE", "low rank", "TCVAE", "optimal scale"})
)
def test_objectives_on_explicit_axes(objective):
    model = objective.model
    xs = examples_of(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), xs[0])
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), leaf.dtype), shapes
    )
    key = jax.random.key(1)
    value_and_gradient = quick_jit(jax.value_and_grad(Maximised(objective)))
    expected = value_and_gradient(params, xs, key)
    results = value_and_gradient(*on_explicit_axes(params, xs), key)
    jax.tree.map(
        lambda leaf, right: np.testing.assert_allclose(
            leaf, right, 1e-4, 1e-4 * float(np.abs(right).max(initial=1e-3))
        ),
        results,
        expected,
    )


def trace(objective, params, xs, explicit: bool):
    """Traces the gradient of an objective; nothing compiles."""
    key = jax.random.key(0)
    if explicit:
        mesh = mesh_of(AxisType.Explicit)

        def placed(tree, spec):
            sharding = NamedSharding(mesh, spec)
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
            )

        gradient = jax.grad(Maximised(objective))
        with jax.set_mesh(mesh):  # which `jax.random.gamma` needs
            return jax.eval_shape(gradient, placed(params, EVERYWHERE), placed(xs, SPLIT), key)

    def of_all(params, xs, key):
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        return jax.lax.pmean(Maximised(objective)(params, xs, key), "data")

    split = jax.shard_map(
        jax.grad(of_all),
        mesh=mesh_of(AxisType.Auto),
        in_specs=(EVERYWHERE, SPLIT, EVERYWHERE),
        out_specs=EVERYWHERE,
    )
    return jax.eval_shape(split, params, xs, key)


PARTS = {
    **{f"prior {name}": {"prior": name} for name in PRIORS},
    **{f"likelihood {name}": {"likelihood": name} for name in LIKELIHOODS},
    **{f"encoder {name}": {"encoder": name} for name in ENCODERS},
}
QUICK = (
    "encoder FullNormal",
    "encoder LowRankNormal",
    "likelihood FullNormal",
    "likelihood LowRankNormal",
    "encoder VonMisesFisher",
    "likelihood DiscretizedLogistic, 2 components",
    "prior VampPrior",
)


def with_partner(part: dict) -> vaejax.VAE:
    """A model with this part, and a prior and an encoder of one support."""
    if "encoder" in part:
        support = ENCODERS[part["encoder"]]().support
        prior = next(name for name in PRIORS if PRIORS[name]().support == support)
        return model_of(**{"prior": prior, **part})
    if "prior" in part and part["prior"] != "VampPrior":
        support = PRIORS[part["prior"]]().support
        encoder = next(name for name in ENCODERS if ENCODERS[name]().support == support)
        return model_of(**{"encoder": encoder, **part})
    return model_of(**part)


@pytest.mark.parametrize("explicit", [False, True], ids=["shard_map", "explicit"])
@pytest.mark.parametrize("name", cases(list(PARTS), set(PARTS) - set(QUICK)))
def test_every_part_can_be_split_over_devices(name, explicit):
    model = with_partner(PARTS[name])
    xs = jnp.asarray(data_for(model.likelihood.support)[:BATCH])
    params = jax.eval_shape(model.init, jax.random.key(0), xs[0])
    moves = model.encoder.support.name in ("real", "sphere", "relaxed")
    objective = vaejax.minibatch(vaejax.Pathwise(2) if moves else vaejax.RWS(2), model)
    trace(objective, params, xs, explicit)


def test_a_key_for_each_example_lies_with_it():
    xs = on_explicit_axes((), jnp.zeros((BATCH, 3)))[1]
    keys = example_keys(jax.random.key(0), xs)
    assert keys.sharding.spec == SPLIT
    plain = example_keys(jax.random.key(0), np.zeros((BATCH, 3)))
    np.testing.assert_array_equal(jax.random.key_data(keys), jax.random.key_data(plain))

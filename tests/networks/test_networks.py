"""Nets of one example, and the one place where a convolution is chosen by platform."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from vaejax import _gemm
from vaejax.models.conditionals.pixels import Bernoulli, Categorical, DiscretizedLogistic
from vaejax.networks.images import ResidualDecoder, ResidualEncoder
from vaejax.networks.layers import ResidualBlock, normalise

GENERATOR = np.random.default_rng(0)
quick_jit = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # half the time to compile


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    GENERATOR.bit_generator.state = np.random.default_rng(0).bit_generator.state


SHAPES = [(8, 8), (7, 7), (5, 4), (1, 3), (1, 1), (28, 28)]
FORMS = {
    "stride 1": (partial(_gemm.conv_gemm, stride=1), partial(_gemm.conv_lax, stride=1)),
    "stride 2": (_gemm.conv_gemm, _gemm.conv_lax),
    "transposed": (_gemm.conv_transpose_gemm, _gemm.conv_transpose_lax),
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
        return jnp.vdot(_gemm.conv(x, kernel), y), jnp.vdot(
            x, _gemm.conv_transpose(y, jnp.transpose(kernel, (3, 0, 1, 2)))
        )

    np.testing.assert_allclose(*both(kernel, x, y), rtol=1e-12)


def test_the_cpu_runs_no_convolution():
    x, kernel = jnp.zeros((8, 8, 1)), jnp.zeros((3, 3, 1, 2))
    for stride in (1, 2):
        assert (
            " convolution("
            not in jax.jit(partial(_gemm.conv, stride=stride)).lower(x, kernel).compile().as_text()
        )
    assert " convolution(" in jax.jit(_gemm.conv_lax).lower(x, kernel).compile().as_text()


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

    ours, theirs = results(_gemm.matmul, xs, kernels), results(jnp.matmul, xs, kernels)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), ours, theirs)


def test_products_of_a_batch_are_of_two_matrices():
    """What `matmul` is for: under two vmaps no product, forward or backward, has more than two
    axes.
    """

    def loss(kernel, xs):
        return jnp.sum(jax.vmap(jax.vmap(lambda x: _gemm.matmul(x[None], kernel)[0]))(xs) ** 2)

    text = jax.jit(jax.grad(loss)).lower(jnp.zeros((3, 2)), jnp.zeros((5, 4, 3))).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 2
    assert all("tensor<20x" in line and "x5x" not in line for line in products)


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


@pytest.mark.parametrize("net, given, out", NETS.values(), ids=NETS)
def test_nets_take_one_example(net, given, out):
    """A batch is vmap: one by one gives the same, an output moves with every leaf of its own
    example and with nothing of another's.
    """
    shapes = given if isinstance(given[0], tuple) else (given,)
    xs = tuple(jnp.asarray(GENERATOR.normal(size=(3, *shape)), jnp.float32) for shape in shapes)
    xs = xs if len(xs) > 1 else xs[0]
    first = jax.tree.map(lambda leaf: leaf[0], xs)
    params = drawn(net, first)

    @quick_jit
    def results(params, xs):
        batched, pullback = jax.vjp(lambda xs: jax.vmap(net.apply, (None, 0))(params, xs), xs)
        of_second = (
            jnp.zeros_like(batched).at[1].set(jnp.cos(jnp.arange(batched[1].size)).reshape(out))
        )
        return batched, jax.lax.map(partial(net.apply, params), xs), pullback(of_second)[0]

    batched, one_by_one, gradient = results(params, xs)
    assert batched.shape == (3, *out)
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-5, atol=1e-5)
    for leaf in jax.tree.leaves(gradient):
        assert np.any(leaf[1] != 0) and np.all(np.isfinite(leaf))
        np.testing.assert_array_equal(leaf[np.array([0, 2])], 0)
    heads = jax.eval_shape(net.clone(heads=2).init_with_output, jax.random.key(0), first)[0]
    assert [head.shape for head in heads] == [out, out]


def test_without_a_norm_the_parameters_are_as_they_were():
    """Names and shapes of the parameters are a checkpoint's."""
    x = jnp.zeros((9, 7))
    for net, example, names in (
        (vaejax.MLP(5, (7,)), x, "Dense_0 Dense_1"),
        (vaejax.GatedMLP(5, (7,)), x, "Dense_0 Dense_1"),
        (vaejax.ConvEncoder(5, (3, 4), 6), x, "Conv_0 Conv_1 Dense_0 Dense_1"),
        (
            vaejax.ConvDecoder((9, 7), (4, 3), 6),
            jnp.zeros(5),
            "Dense_0 Dense_1 ConvTranspose_0 ConvTranspose_1",
        ),
    ):
        assert set(jax.eval_shape(net.init, jax.random.key(0), example)["params"]) == set(
            names.split()
        )


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
            _gemm.conv_lax(h, jnp.asarray(p[f"Conv_{i}"]["kernel"], float), 1)
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


@pytest.mark.parametrize(
    "net, example, message",
    [
        (
            vaejax.MLP(2, norm="batch"),
            (3,),
            "BatchNorm would make an example depend on its neighbours",
        ),
        (
            vaejax.GatedMLP(2, norm="group"),
            (3,),
            'GatedMLP.norm = \'group\'; give "none" or "layer"',
        ),
        (vaejax.MLP(2, (1,), norm="layer"), (3,), "one number to a group"),
        (
            vaejax.ConvEncoder(2),
            (2, 9, 7, 3),
            (
                r"an image is \[h, w\] or \[h, w, c\], not \(2, 9, 7, 3\); these functions take one"
                r" example"
            ),
        ),
        (
            vaejax.ConvDecoder(784),
            (3,),
            r"ConvDecoder.out = 784; give the shape of an image, \(h, w\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(net, example, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(example))


def test_a_context_is_joined_to_the_example():
    """A net of vectors takes the leaves one after another, whatever the tree."""
    x, label = jnp.asarray(GENERATOR.normal(size=(2, 3))), jnp.asarray([0, 1], jnp.int32)
    net = vaejax.MLP(2, (7,))
    params = drawn(net, (x, label))
    expected = net.apply(params, jnp.concatenate([x.ravel(), label]))
    for example in ((x, label), {"image": x, "label": label}, (x, (label[0], label[1:]))):
        np.testing.assert_array_equal(net.apply(params, example), expected)
    assert np.any(net.apply(params, (x, 1 - label)) != expected)


@pytest.mark.parametrize("kind", [vaejax.ConvDecoder, ResidualDecoder])
def test_a_head_of_a_decoder_keeps_each_pixel_in_its_place(kind):
    """With a last kernel of zero every pixel is the bias of its head and channel: no reshape mixes
    places.
    """
    net = kind((5, 7, 3), (4,), 6, heads=2)
    params = drawn(net, jnp.zeros(2))["params"]
    bias = jnp.arange(6.0)
    params["ConvTranspose_0"] = {
        "kernel": jnp.zeros_like(params["ConvTranspose_0"]["kernel"]),
        "bias": bias,
    }
    for head, expected in zip(
        quick_jit(net.apply)({"params": params}, jnp.ones(2)), bias.reshape(2, 3), strict=True
    ):
        np.testing.assert_array_equal(head, np.broadcast_to(expected, (5, 7, 3)))


@pytest.mark.parametrize("kind", [vaejax.ConvDecoder, ResidualDecoder])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7, 3)])
def test_decoders_serve_every_likelihood_of_pixels(kind, shape):
    """Logits over levels are one more axis of `out`; locations and scales are heads."""
    z, x = jnp.zeros(2), jnp.zeros(shape)
    for likelihood in (
        Bernoulli(kind(shape, (4, 3))),
        Categorical(kind((*shape, 4), (4, 3)), num_levels=4),
        DiscretizedLogistic(kind(shape, (4, 3), heads=2)),
        DiscretizedLogistic(kind(shape, (4, 3), heads=6)),
    ):

        def log_prob(key, likelihood=likelihood):
            return likelihood(likelihood.init(key, z), z).log_prob(x)

        assert jax.eval_shape(log_prob, jax.random.key(0)).shape == ()


@pytest.mark.slow
def test_a_residual_pair_learns_what_it_is_shown():
    """Eight random images, a context that names each: 200 steps of Adam leave less than a quarter
    of the error of their mean.
    """
    encoder, decoder = (
        ResidualEncoder(3, (8,), 16),
        ResidualDecoder((6, 5), (8,), 16),
    )
    xs, names = jnp.asarray(GENERATOR.normal(size=(8, 6, 5)), jnp.float32), jnp.eye(8)
    params = (drawn(encoder, (xs[0], names[0])), drawn(decoder, (jnp.zeros(3), names[0])))
    optimizer = optax.adam(1e-2)

    def loss(params):
        def error(x, name):
            return jnp.mean(
                (decoder.apply(params[1], (encoder.apply(params[0], (x, name)), name)) - x) ** 2
            )

        return jnp.mean(jax.vmap(error)(xs, names))

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    _, losses = quick_jit(
        lambda params: jax.lax.scan(step, (params, optimizer.init(params)), length=200)
    )(params)
    assert np.all(np.isfinite(losses)) and losses[-1] < np.mean(np.var(xs, axis=0)) / 4 < losses[0]


def test_stored_pixels_are_taken_as_numbers():
    net = vaejax.ConvEncoder(2, (3,), 4)
    image = GENERATOR.integers(0, 2, (4, 4)).astype(np.uint8)
    params = drawn(net, image)
    apply = quick_jit(net.apply)
    np.testing.assert_array_equal(apply(params, image), apply(params, image.astype(np.float32)))


def test_a_stage_has_as_many_blocks_as_asked():
    x = jnp.zeros((9, 7))
    for net, example in (
        (ResidualEncoder(2, (4, 8), blocks=2), x),
        (ResidualDecoder((9, 7), (8, 4), blocks=2), x),
    ):
        names = jax.eval_shape(net.init, jax.random.key(0), example)["params"]
        assert [name for name in names if name.startswith("ResidualBlock")] == [
            f"ResidualBlock_{i}" for i in range(4)
        ]


@pytest.mark.parametrize("net", [net for net, _, _ in NETS.values()], ids=NETS)
def test_equal_nets_are_one_static(net):
    assert net.clone() is not net and net.clone() == net and hash(net.clone()) == hash(net)
    assert net.clone(heads=2) != net

"""Nets of one example: vectors and images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import optax
import pytest

import vaejax
from tests.lib.networks import NETS, drawn, quick_jit
from vaejax.models.conditionals.pixels import Bernoulli, Categorical, DiscretizedLogistic
from vaejax.networks.images import ResidualDecoder, ResidualEncoder

GENERATOR = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    GENERATOR.bit_generator.state = np.random.default_rng(0).bit_generator.state


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
    ],
)
def test_what_cannot_be_is_refused(net, example, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(example))


def test_a_decoder_wants_the_shape_of_an_image():
    message = r"ConvDecoder.out = 784; give the shape of an image, \(h, w\)"
    with pytest.raises(ValueError, match=message):
        vaejax.ConvDecoder(784)


def test_a_single_whole_number_is_most_often_a_label():
    """Its order means nothing; one-hot, or as a float, it is taken."""
    net, x = vaejax.MLP(2, (7,)), jnp.zeros(3)
    for example in (jnp.int32(4), {"x": x, "y": np.int64(4)}, (x, 4)):
        with pytest.raises(ValueError, match=r"single whole number .* jax.nn.one_hot\(label"):
            net.init(jax.random.key(0), example)
    for example in (jnp.float32(4), (x, jnp.bool_(1)), (x, jnp.arange(3))):
        net.init(jax.random.key(0), example)


def test_a_single_count_that_is_a_latent_is_a_quantity():
    """Of which the support is known."""
    encoder = vaejax.NumPyroConditional(vaejax.MLP((), (5,)), lambda r: npd.Poisson(jnp.exp(r)))
    prior = vaejax.NumPyroPrior(lambda: npd.Poisson(3.0))
    model = vaejax.VAE(prior, vaejax.Bernoulli(vaejax.MLP((4,), (5,))), encoder)
    x = jnp.zeros(4)
    params = model.init(jax.random.key(0), x)
    for z in (0, 2):
        as_float = model.p_x_given_z(params, jnp.float32(z)).log_prob(x)
        assert model.p_x_given_z(params, jnp.int32(z)).log_prob(x) == as_float


def test_a_context_is_joined_to_the_example():
    """A net of vectors takes the leaves one after another, whatever the tree."""
    x, label = jnp.asarray(GENERATOR.normal(size=(2, 3))), jnp.asarray([0, 1], jnp.int32)
    net = vaejax.MLP(2, (7,))
    params = drawn(net, (x, label))
    expected = net.apply(params, jnp.concatenate([x.ravel(), label]))
    for example in ((x, label), {"image": x, "label": label}, (x, (label[:1], label[1:]))):
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
def test_an_odd_image_is_the_even_one_without_its_last_rows(kind):
    """The same parameters serve both, for both are made from 3 x 3."""
    odd, even = (kind((size, size), (4,), 6) for size in (5, 6))
    z = jnp.asarray([0.4, -1.0])
    params = drawn(odd, z)
    of_odd, of_even = quick_jit(odd.apply)(params, z), quick_jit(even.apply)(params, z)
    np.testing.assert_allclose(of_odd, of_even[:5, :5], rtol=1e-5, atol=1e-6)
    assert np.abs(of_odd - of_even[1:, 1:]).max() > 1e-3


def test_heads_of_an_image_are_runs_of_channels():
    """Head k of a decoder of two heads is the decoder of one with the k-th half of the last
    kernel.
    """
    both, single = (vaejax.ConvDecoder((4, 4, 2), (4,), 6, heads=heads) for heads in (2, 1))
    z = jnp.asarray([0.4, -1.0])
    params = drawn(both, z)["params"]
    last = params["ConvTranspose_0"]
    for k, head in enumerate(quick_jit(both.apply)({"params": params}, z)):
        half = jax.tree.map(lambda leaf, k=k: jnp.split(leaf, 2, axis=-1)[k], last)
        expected = quick_jit(single.apply)({"params": {**params, "ConvTranspose_0": half}}, z)
        np.testing.assert_allclose(head, expected, rtol=1e-5, atol=1e-6)


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


def test_a_net_is_shown_in_one_line_without_its_defaults():
    assert repr(vaejax.MLP(2, heads=2)) == "MLP(out=2, heads=2)"
    assert repr(vaejax.ConvDecoder((8, 8), norm="group")) == "ConvDecoder(out=(8, 8), norm='group')"

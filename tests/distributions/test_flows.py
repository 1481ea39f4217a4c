"""Flows: determinants against `slogdet`, inverses, densities that integrate to one and that samples
follow.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib.oracles import assert_distributed, assert_mean
from vaejax.distributions.coupling import Autoregressive, Coupling
from vaejax.distributions.flows import Flow, init_layers
from vaejax.distributions.normal import DiagNormalDensity

COUPLING, FORWARD, INVERSE = (
    Coupling((5,)),
    Autoregressive("forward", (7, 5)),
    Autoregressive("inverse", (7, 5)),
)
LAYERS = pytest.mark.parametrize(
    "layer", [COUPLING, FORWARD, INVERSE], ids=["coupling", "forward", "inverse"]
)


def a_flow(*layers, dim, context_size=0, scale=0.7):
    """A flow with random parameters, far from where they start."""
    generator = np.random.default_rng(dim)
    context = jnp.asarray(generator.normal(size=context_size)) if context_size else None
    shapes = jax.eval_shape(lambda: init_layers(layers, jax.random.key(0), jnp.zeros(dim), context))
    params = jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape) * scale), shapes
    )
    return Flow(
        DiagNormalDensity(*jnp.asarray(generator.normal(size=(2, dim)) * 0.4)),
        params,
        context,
        layers,
    )


def there_and_back(flow, zs):
    """What one layer does at zs: y, log_det, its Jacobian, and the way back."""
    (layer,), (params,) = flow.layers, flow.params

    def at(z):
        y, log_det = layer.forward(params, z, flow.context)
        return (
            y,
            log_det,
            jax.jacfwd(lambda z: layer.forward(params, z, flow.context)[0])(z),
            layer.inverse(params, y, flow.context),
        )

    return jax.jit(jax.vmap(at))(zs)


@LAYERS
@pytest.mark.parametrize("dim, context_size", [(1, 2), (3, 0), (4, 2)])
def test_determinant_inverse_and_triangle(x64, layer, dim, context_size):
    if dim == 1 and layer == COUPLING:
        return  # refused: see below
    zs = jnp.asarray(np.random.default_rng(1).normal(size=(20, dim)) * 1.5)
    _, log_dets, jacobians, (back, log_dets_back) = there_and_back(
        a_flow(layer, dim=dim, context_size=context_size), zs
    )
    sign, expected = np.linalg.slogdet(np.asarray(jacobians)[:, ::-1])  # the reversal undone
    np.testing.assert_allclose(log_dets, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(log_dets_back, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(back, zs, rtol=0, atol=1e-10)
    assert (sign == 1).all() and (expected != 0).all()
    above = np.triu(np.asarray(jacobians)[:, ::-1], 1)
    assert (above == 0).all()
    if layer != COUPLING:
        assert (np.abs(np.tril(jacobians[:, ::-1], -1)).max(0) > 0).sum() == dim * (
            dim - 1
        ) / 2  # each sees all before it


@LAYERS
def test_inverse_in_single_precision(layer):
    zs = jax.random.normal(jax.random.key(0), (1_000, 4))
    *_, (back, _) = there_and_back(a_flow(layer, dim=4, context_size=2, scale=0.4), zs)
    np.testing.assert_allclose(back, zs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layers", [(COUPLING, INVERSE, COUPLING), (FORWARD, COUPLING)], ids=["both ways", "one way"]
)
def test_log_density_of_samples(x64, layers):
    """sample_and_log_prob against the base and slogdet; the derivative in base.loc is the Jacobian
    of all layers.
    """
    flow = a_flow(*layers, dim=3, context_size=2)

    def at(key):
        y, log_prob = flow.sample_and_log_prob(key)
        jacobian = jax.jacfwd(
            lambda loc: Flow(
                DiagNormalDensity(loc, flow.base.log_scale), flow.params, flow.context, flow.layers
            ).sample(key)
        )
        base = flow.base.log_prob(flow.base.sample(key))
        return (
            y,
            log_prob,
            base,
            jacobian(flow.base.loc),
            log_prob if FORWARD in layers else flow.log_prob(y),
            flow.sample(key),
        )

    ys, log_probs, base, jacobians, at_ys, samples = jax.jit(jax.vmap(at))(
        jax.random.split(jax.random.key(0), 20)
    )
    np.testing.assert_allclose(log_probs, base - np.linalg.slogdet(jacobians)[1], rtol=1e-10)
    np.testing.assert_allclose(at_ys, log_probs, rtol=1e-10)
    np.testing.assert_array_equal(ys, samples)


def test_no_layers_is_the_base():
    base = DiagNormalDensity(jnp.asarray([0.3, -2.0]), jnp.asarray([0.1, -1.0]))
    flow, key = (
        Flow(base, init_layers((), jax.random.key(0), base.loc, None), None, ()),
        jax.random.key(1),
    )
    y, log_prob = flow.sample_and_log_prob(key)
    np.testing.assert_array_equal(y, base.sample(key))
    assert log_prob == base.log_prob(y) == flow.log_prob(y)


@pytest.mark.parametrize("layer", [COUPLING, INVERSE], ids=["coupling", "inverse"])
def test_density_integrates_to_one_and_samples_follow_it(layer):
    flow = a_flow(layer, layer, dim=2, scale=0.4)
    axis = np.linspace(-20, 20, 801)
    step = axis[1] - axis[0]
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    mass = np.exp(jax.jit(jax.vmap(jax.vmap(flow.log_prob)))(points), dtype=np.float64) * step**2
    np.testing.assert_allclose(mass.sum(), 1, atol=1e-5)
    samples = np.asarray(
        jax.jit(jax.vmap(flow.sample))(jax.random.split(jax.random.key(0), 40_000))
    )
    for i in range(2):
        assert_distributed(
            samples[:, i], lambda y: np.interp(y, axis + step / 2, np.cumsum(mass.sum(1 - i)))
        )
    means = np.array([mass.sum(1 - i) @ axis for i in range(2)])
    covariance = np.sum(mass * np.prod(points - means, axis=-1))
    assert_mean(
        np.prod(samples - means, axis=1), covariance, detectable=0.4 * abs(covariance)
    )  # nor would 0 pass


def test_forward_autoregressive_refuses_a_density_elsewhere():
    flow = a_flow(FORWARD, dim=2)
    with pytest.raises(
        TypeError,
        match=(
            r"Autoregressive\(direction='forward'.*no cheap log-density at a point that it did"
            r" not.*RealNVP"
        ),
    ):
        flow.log_prob(jnp.zeros(2))


@pytest.mark.slow
@LAYERS
def test_every_parameter_has_a_gradient(layer):
    flow = a_flow(layer, dim=3, context_size=2, scale=0.3)

    def total(params, keys):
        def one(key):
            y, log_prob = Flow(flow.base, params, flow.context, flow.layers).sample_and_log_prob(
                key
            )
            return log_prob + y @ jnp.arange(1.0, 4.0)

        return jnp.mean(jax.vmap(one)(keys))

    gradient = jax.jit(jax.grad(total))(flow.params, jax.random.split(jax.random.key(0), 8))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)
        if "kernel" not in jax.tree_util.keystr(path):
            assert (leaf != 0).all(), jax.tree_util.keystr(path)


def test_without_a_context_no_hidden_unit_is_a_constant():
    flow = a_flow(Autoregressive("forward", (4,)), dim=2)
    gradient = jax.jit(
        jax.grad(lambda params: jnp.sum(flow.layers[0].forward(params, jnp.ones(2), None)[0]))
    )(flow.params[0])
    assert (gradient["params"]["hidden_0_kernel"][0] != 0).all()


def test_a_narrow_layer_loses_no_coordinate():
    flow = a_flow(Autoregressive("forward", (3,)), dim=6)
    jacobian = jax.jit(jax.jacfwd(lambda z: flow.layers[0].forward(flow.params[0], z, None)[0]))(
        jnp.ones(6)
    )
    assert (
        jacobian[0] != 0
    ).all()  # the last coordinate, which the reversal puts first, moves with every one


@LAYERS
def test_the_context_is_seen_without_hidden_layers(layer):
    bare = replace(layer, hidden=())
    flow = a_flow(bare, dim=2, context_size=2)
    sensitivity = jax.jit(
        jax.jacfwd(lambda context: bare.forward(flow.params[0], jnp.ones(2), context)[0])
    )(flow.context)
    assert (sensitivity[0] != 0).all()


@pytest.mark.parametrize(
    "layer", [Coupling((8,)), Autoregressive("forward", (8,))], ids=["coupling", "autoregressive"]
)
def test_layers_start_close_to_the_identity(layer):
    z = jnp.asarray([0.5, -1.0, 2.0])
    y, log_det = jax.jit(lambda key: layer.forward(layer.init(key, z, None), z, None))(
        jax.random.key(0)
    )
    np.testing.assert_allclose(y, z[::-1], atol=0.2)
    assert 0 < abs(log_det) < 0.2


def test_what_is_refused():
    with pytest.raises(
        ValueError,
        match=r"a coupling layer moves half of the coordinates .* it needs 2 or more, not 1",
    ):
        COUPLING.init(jax.random.key(0), jnp.zeros(1), None)
    with pytest.raises(ValueError, match=r"direction = 'backward'; choose"):
        Autoregressive("backward")
    with pytest.raises(
        ValueError,
        match=(
            r"Flow.log_prob got a value of shape \(5, 2\), but one event has shape \(2,\).*jax.vmap"
        ),
    ):
        a_flow(COUPLING, dim=2).log_prob(jnp.zeros((5, 2)))


def test_layers_are_values():
    assert Autoregressive("inverse", (7, 5)) == INVERSE and hash(
        Autoregressive("inverse", (7, 5))
    ) == hash(INVERSE)
    assert INVERSE != FORWARD and Coupling((5,)) == COUPLING

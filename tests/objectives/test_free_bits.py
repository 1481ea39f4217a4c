"""Free bits, by latent and by node: exact against closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vaejax
from tests.lib.hierarchies import TOP_DOWN, X
from tests.lib.lines import (
    KEY,
    LINES,
    assert_close,
    params_of,
    terms_and_gradient,
    value_and_gradient,
)
from tests.lib.oracles import LinearGaussian
from vaejax import FreeBits

# With w = 0 the decoder does not read z, and only the KL moves phi.


def test_free_bits(x64):
    """The floor holds for the mean over the batch: one of the examples tells more than it of latent
    0, whose gradient is zero.
    """
    xs, a, log_scale = (
        np.random.default_rng(0).normal(size=(6, 2)),
        np.array([0.4, 2.0]),
        np.array([-0.05, -1.0]),
    )
    kl = 0.5 * (np.exp(2 * log_scale) + (a * xs) ** 2 - 1) - log_scale
    floor = 0.05
    assert kl.mean(0)[0] < floor < kl.mean(0)[1] and (kl[:, 0] > floor).sum() == 1
    params = params_of(0.0, a, log_scale)
    terms, gradient = jax.jit(terms_and_gradient(FreeBits(LINES, floor)))(params, xs, KEY)
    log_p_x = stats.norm.logpdf(xs, 0.2, 0.8).sum(1).mean()
    np.testing.assert_allclose(
        terms[:2], [log_p_x - kl.mean(0).sum(), log_p_x - floor - kl.mean(0)[1]], rtol=1e-12
    )
    np.testing.assert_allclose(gradient.phi["a"], [0, -a[1] * (xs[:, 1] ** 2).mean()], rtol=1e-12)
    np.testing.assert_allclose(
        gradient.phi["log_scale"], [0, 1 - np.exp(2 * log_scale[1])], rtol=1e-12
    )


def test_no_free_bits_are_the_bound(x64):
    """At 0 nats: `AnalyticKL`, in value and gradient; and it is what is validated."""
    xs, params = np.random.default_rng(0).normal(size=(6, 2)), params_of()
    analytic, floor = (
        vaejax.minibatch(vaejax.AnalyticKL(2), LINES),
        FreeBits(LINES, 5.0, 2),
    )

    @jax.jit
    def all_of_them(params):
        free = terms_and_gradient(FreeBits(LINES, 0.0, 2))(params, xs, KEY)
        return value_and_gradient(analytic)(params, xs, KEY), free, floor(params, xs, KEY, 0)

    expected, (terms, gradient), floored = all_of_them(params)
    assert_close((terms.objective, gradient), expected)
    np.testing.assert_allclose(floored.bound, expected[0], rtol=1e-12)
    assert floored.objective < floored.bound - 3
    x = jnp.asarray(xs[0])
    np.testing.assert_allclose(
        FreeBits(LINES, 0.1, 2).bound(params, x, KEY),
        vaejax.AnalyticKL(2)(LINES, params, x, KEY),
        rtol=1e-12,
    )


def test_the_objective_is_its_formula():
    model, params = TOP_DOWN
    xs, key = jnp.stack([X, 1 - X, X]), jax.random.key(3)
    keys = [jax.random.split(example_key, 1)[0] for example_key in jax.random.split(key, 3)]
    by_node = jax.jit(partial(vaejax.kl_by_node, model, params))
    kls = [by_node(x, key) for x, key in zip(xs, keys, strict=True)]
    log_p_x = np.mean([log_p for log_p, _ in kls])
    kl = {name: np.mean([parts[name] for _, parts in kls]) for name in ("z1", "z2")}
    nats = float(kl["z1"] + kl["z2"]) / 2  # one layer is above, the other below
    terms = jax.jit(vaejax.FreeBitsByNode(model, nats, vaejax.WarmUp(10)))(params, xs, key, 4)
    np.testing.assert_allclose(terms.bound, log_p_x - kl["z1"] - kl["z2"], rtol=1e-5)
    np.testing.assert_allclose(
        terms.objective, log_p_x - 0.4 * (max(kl["z1"], nats) + max(kl["z2"], nats)), rtol=1e-5
    )
    falling = vaejax.FreeBitsByNode(model, vaejax.WarmUp(10, start=2.0, end=0.0), 0.4)
    assert [name for name, _ in falling.schedules] == ["nats"]
    for step, free in ((0, 2.0), (5, 1.0), (10, 0.0), (99, 0.0)):
        paid = 0.4 * (max(kl["z1"], free) + max(kl["z2"], free))
        objective = jax.jit(falling)(params, xs, key, step).objective
        np.testing.assert_allclose(objective, log_p_x - paid, rtol=1e-5)


def test_free_bits_take_the_pressure_off_a_layer_below_them():
    """Its gradient is then that of the likelihood alone."""
    model, params = TOP_DOWN
    xs, key = X[None], jax.random.key(3)

    def objective(nats):
        return jax.jit(
            jax.grad(lambda p: vaejax.FreeBitsByNode(model, nats)(p, xs, key, 0).objective)
        )(params)

    assert float(jnp.abs(objective(0.0).theta["z1"]["params"]["Dense_0"]["kernel"]).max()) > 0
    assert float(jnp.abs(objective(1e3).theta["z1"]["params"]["Dense_0"]["kernel"]).max()) == 0


def test_mistakes_are_named():
    with pytest.raises(
        TypeError,
        match="a KL by node is of a GraphModel whose encoder is a DirectedGraph; this is a VAE",
    ):
        vaejax.FreeBitsByNode(LinearGaussian().model, 1.0)

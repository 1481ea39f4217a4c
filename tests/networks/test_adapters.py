"""Nets of Flax NNX, Equinox, Haiku and Linen, written as a user writes them: they give what the
module itself gives, and every part of the library takes them.
"""

import sys
from functools import partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.cases import cases
from tests.lib.houses import (
    DROPOUT,
    PLAIN,
    InEquinox,
    InHaiku,
    InHaikuWithDropout,
    InLinen,
    InLinenWithDropout,
    InNNX,
    model_of,
)
from vaejax.base.describe import description
from vaejax.networks.base import Net
from vaejax.objectives.base import Maximised
from vaejax.variance.program import gradient_program

KEY = jax.random.key(3)
X = jnp.asarray([0.3, -1.2, 0.7])
BITS = (np.random.default_rng(0).normal(size=(40, 3)) > 0).astype(np.float32)


def of_haiku(x):
    return hk.nets.MLP((4, 2), activation=jnp.tanh)(x)


HAIKU = hk.without_apply_rng(hk.transform(of_haiku))


def nnx_loss(module):
    return jnp.sum(jnp.sin(module(X)))


def slope_of(net, params):
    return jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(net.apply(p, X)))))(params)


# {house: (the net, the module's value at X and the gradient of sum sin of it, by the library)}
def by_nnx():
    module = InNNX(3, 2, rngs=nnx.Rngs(KEY))
    return module(X), nnx.grad(nnx_loss)(module)


def by_equinox():
    module = InEquinox(3, 2, key=KEY)
    return module(X), eqx.filter_grad(nnx_loss)(module)


def by_haiku():
    params = HAIKU.init(KEY, X)
    return HAIKU.apply(params, X), slope_of(HAIKU, params)


def by_linen():
    net = InLinen(2)
    params = net.init(KEY, X)
    return net.apply(params, X), slope_of(net, params)


NUMBERS = {
    "NNX": (vaejax.from_nnx(InNNX, 3, 2), by_nnx),
    "NNX function": (vaejax.from_nnx(lambda rngs: InNNX(3, 2, rngs=rngs)), by_nnx),
    "Equinox": (vaejax.from_equinox(InEquinox, 3, 2), by_equinox),
    "Equinox function": (vaejax.from_equinox(lambda key: InEquinox(3, 2, key=key)), by_equinox),
    "Haiku": (vaejax.from_haiku(of_haiku), by_haiku),
    "Linen": (InLinen(2), by_linen),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_the_module_itself(name):
    """With the same key, the value and the gradient in every parameter."""
    net, by_the_library = NUMBERS[name]
    value, gradient = by_the_library()
    params = net.init(KEY, X)
    np.testing.assert_allclose(net.apply(params, X), value, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(net.apply)(params, X), value, rtol=1e-5)
    slope = slope_of(net, params)
    slope, expected = (jax.tree.leaves(tree) for tree in (slope, gradient))
    assert len(slope) == len(expected) >= 4
    for leaf, other in zip(slope, expected, strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-7)


def test_constants_are_no_parameters():
    """Arrays that no gradient moves keep their values, whatever is traced."""

    class Scaled(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 2, rngs=rngs)
            self.scales, self.shift = np.arange(1.0, 3.0, dtype=np.float32), jnp.ones(2)

        def __call__(self, x):
            return self.scales * self.linear(x) + self.shift

    class Permuted(eqx.Module):
        linear: eqx.nn.Linear
        order: jax.Array

        def __init__(self, *, key):
            self.linear, self.order = eqx.nn.Linear(3, 2, key=key), jnp.asarray([1, 0])

        def __call__(self, x):
            return self.linear(x)[self.order]

    for net, module in (
        (vaejax.from_nnx(Scaled), Scaled(nnx.Rngs(KEY))),
        (vaejax.from_equinox(Permuted), Permuted(key=KEY)),
    ):
        params = jax.jit(net.init)(KEY, X)
        assert len(jax.tree.leaves(params)) == 2
        np.testing.assert_allclose(jax.jit(net.apply)(params, X), module(X), rtol=1e-5)


@pytest.mark.parametrize("house", PLAIN)
def test_equal_nets_are_one_value(house):
    """Made twice, they are equal, hash equal, trace once, and have one description."""
    for nets in (PLAIN, DROPOUT):
        first, second, other = nets[house](3, 2), nets[house](3, 2), nets[house](3, 5)
        assert first == second and hash(first) == hash(second) and first != other
        assert isinstance(first, Net) and description(first) == description(second)
        assert description(first) != description(other)
    models = [model_of(DROPOUT, house) for _ in range(2)]
    params = models[0].init(KEY, BITS[0])
    traces = []

    @partial(jax.jit, static_argnums=0)
    def bound(model, params):
        traces.append(model)
        return vaejax.elbo(model, params, BITS[0], KEY)

    assert bound(models[0], params) == bound(models[1], params)
    assert len(traces) == 1


KINDS = {"plain": PLAIN, "dropout": DROPOUT}
EVERY = {f"{house}, {kind}": (house, KINDS[kind]) for kind in KINDS for house in PLAIN}


@pytest.mark.parametrize("case", cases(EVERY, EVERY))
def test_every_part_of_the_library_takes_them(case, tmp_path):
    """`fit` and its checkpoints to the same bits, validation, seeds, `evaluate`, the variance of a
    gradient by examples and by draws, decoder counts, sixteen bits.
    """
    house, nets = case
    model = model_of(nets, house)
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    params = model.init(KEY, BITS[0])

    def fit(num_steps, **settings):
        optimizer, validation = optax.adam(1e-2), vaejax.Validation(BITS[:8], every=4)
        return vaejax.fit(
            vaejax.minibatch(vaejax.Pathwise(), model_of(nets, house)), params, optimizer, BITS,
            KEY, num_steps=num_steps, batch_size=10, validation=validation, progress=False,
            **settings,
        )  # fmt: skip

    whole = fit(12)
    first = vaejax.Checkpoints(tmp_path / "run", every=4)
    fit(8, checkpoints=first)
    resumed = fit(12, checkpoints=vaejax.Checkpoints(tmp_path / "run", every=4, resume=True))
    for part in ("params", "opt_state", "best_params"):
        pairs = zip(*(jax.tree.leaves(getattr(run, part)) for run in (whole, resumed)), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    assert ravel_pytree(whole.params)[0].shape == ravel_pytree(params)[0].shape
    assert (ravel_pytree(whole.params)[0] != ravel_pytree(params)[0]).any()
    with pytest.raises(ValueError, match="was saved"):
        model = model_of(PLAIN if nets is DROPOUT else DROPOUT, house)
        vaejax.fit(
            vaejax.minibatch(vaejax.Pathwise(), model), model.init(KEY, BITS[0]), optax.adam(1e-2),
            BITS, KEY, num_steps=12, batch_size=10, progress=False,
            checkpoints=vaejax.Checkpoints(tmp_path / "run", every=4, resume=True),
        )  # fmt: skip

    model = objective.model
    score = vaejax.evaluate(model, whole.params, BITS[:6], KEY, num_samples=4)
    again = vaejax.evaluate(model, whole.params, BITS[:6], KEY, num_samples=4)
    assert np.isfinite(score.elbo.mean) and score.elbo == again.elbo

    keys = jax.random.split(KEY, 2)
    seeds = vaejax.fit_seeds(
        objective, jax.vmap(model.init, (0, None))(keys, BITS[0]), optax.adam(1e-2), BITS, keys,
        num_steps=3, batch_size=10, progress=False,
    )  # fmt: skip
    assert np.isfinite(seeds.history["bound"]).all()

    counts = vaejax.decoder_evaluations(vaejax.Pathwise(3), model, params, BITS[0], KEY)
    assert counts == (3, 3)
    by_examples, by_draws = (
        vaejax.gradient_moments(objective, params, BITS[:6], KEY, 4_000, order=2, by=by)
        for by in ("examples", "draws")
    )
    ratio = vaejax.tree_sum(by_examples.variance) / vaejax.tree_sum(by_draws.variance)
    assert abs(ratio - 1) < 0.15  # of 4,000 draws some 2 % is noise

    halved = vaejax.Bernoulli(vaejax.HalfPrecision(model.likelihood.net))
    z = jnp.asarray([0.2, -0.5])
    theta = params.theta["likelihood"]
    exact, rounded = (p(theta, z).log_prob(BITS[0]) for p in (model.likelihood, halved))
    assert exact != rounded and abs(exact - rounded) < 0.05


@pytest.mark.parametrize("house", ["NNX", "Equinox", "Haiku"])
def test_a_dense_layer_of_any_library_is_a_product(house):
    """Of one sample: a kernel's gradient is h^T d of two vectors, and none is kept whole."""
    model = model_of(PLAIN, house)
    example = Maximised(vaejax.per_example(vaejax.Pathwise(), model))
    leaves = gradient_program(example, model.init(KEY, BITS[0]), BITS[0], KEY).leaves
    kernels = [leaf for leaf in leaves if len(leaf.variable.aval.shape) == 2]
    assert len(kernels) == 4 and all(leaf.product.rows == 1 for leaf in kernels)


# What is refused.


class WithStatistics(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


class Averaged(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self, *, key):
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")

    def __call__(self, x):
        return x


class SpectralInEquinox(eqx.Module):
    norm: eqx.nn.SpectralNorm

    def __init__(self, *, key):
        self.norm = eqx.nn.SpectralNorm(eqx.nn.Linear(3, 3, key=key), "weight", key=key)

    def __call__(self, x):
        return x


def averaged_in_haiku(x):
    return hk.BatchNorm(True, True, 0.9)(hk.Linear(3)(x), is_training=True)


class AveragedInLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(nn.Dense(3)(x))


class SpectralInLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.SpectralNorm(nn.Dense(3))(x, update_stats=False)


WITH_STATE = {
    "NNX BatchNorm": lambda: vaejax.from_nnx(WithStatistics),
    "Equinox BatchNorm": lambda: vaejax.from_equinox(Averaged),
    "Equinox BatchNorm with its state": lambda: vaejax.from_equinox(
        eqx.nn.make_with_state(Averaged)
    ),
    "Equinox SpectralNorm": lambda: vaejax.from_equinox(SpectralInEquinox),
    "Haiku BatchNorm": lambda: vaejax.from_haiku(averaged_in_haiku),
    "Linen BatchNorm": AveragedInLinen,
    "Linen BatchNorm in 16 bits": lambda: vaejax.HalfPrecision(AveragedInLinen()),
    "Linen SpectralNorm": SpectralInLinen,
}


@pytest.mark.parametrize("name", WITH_STATE)
def test_a_state_is_refused_with_the_reason(name):
    likelihood = vaejax.Bernoulli(WITH_STATE[name]())
    with pytest.raises(ValueError, match="keeps a state .* BatchNorm, would make .* by itself"):
        likelihood.init(KEY, jnp.ones(3))
    baseline = vaejax.LearnedBaseline(WITH_STATE[name]())
    with pytest.raises(ValueError, match="keeps a state"):
        baseline.init(KEY, jnp.ones(3))


class DrawsInLinen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


def draws_in_haiku(x):
    return hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(3)(x))


def test_noise_without_a_key_is_refused():
    for net, remedy in (
        (DrawsInLinen(), "let its __call__ take `deterministic`"),
        (vaejax.from_haiku(draws_in_haiku), "let it take `is_training`"),
    ):
        likelihood = vaejax.Bernoulli(net)
        params = likelihood.init(KEY, jnp.ones(3))
        with pytest.raises(ValueError, match=f"draws random numbers, and has no key: {remedy}"):
            likelihood(params, jnp.ones(3))


MODULE = InNNX(3, 2, rngs=nnx.Rngs(0))
BUILDS = "takes what builds a module"
NO_BUILDERS = {
    "a module of NNX": (lambda: vaejax.from_nnx(MODULE), BUILDS),
    "a module of Equinox": (lambda: vaejax.from_equinox(InEquinox(3, 2, key=KEY)), BUILDS),
    "what hk.transform gives": (lambda: vaejax.from_haiku(hk.transform(of_haiku)), BUILDS),
    "a number": (lambda: vaejax.from_nnx(3), BUILDS),
    "too few arguments": (
        lambda: vaejax.from_nnx(InNNX, 3),
        "from_nnx calls InNNX with its arguments and rngs=rngs: missing .* 'd_out'",
    ),
    "no rngs": (lambda: vaejax.from_nnx(lambda: MODULE), "unexpected keyword argument 'rngs'"),
    "no key": (lambda: vaejax.from_equinox(lambda: 3), "unexpected keyword argument 'key'"),
    "a list": (lambda: vaejax.from_haiku(hk.nets.MLP, [4, 2]), r"write a tuple, \(4, 2\)"),
    "no argument of Haiku": (lambda: vaejax.from_haiku(InHaiku), "missing .* 'd_out'"),
    "no module of NNX": (
        lambda: vaejax.from_nnx(lambda rngs: 3).init(KEY, X),
        "from_nnx built 3, which is not an nnx.Module",
    ),
    "no module of Equinox": (
        lambda: vaejax.from_equinox(lambda key: 3).init(KEY, X),
        "from_equinox built 3, which is not an eqx.Module",
    ),
    "Linen without noise": (
        lambda: vaejax.from_linen(InLinen(2)),
        "InLinen takes no `deterministic`, so it is a net as it stands",
    ),
    "a class of Linen": (lambda: vaejax.from_linen(InLinenWithDropout), "a class is called first"),
    "Linen with noise as it stands": (
        lambda: vaejax.Bernoulli(InLinenWithDropout(2)),
        "asks whether it is `deterministic`; write vaejax.from_linen",
    ),
    "Haiku's pair with noise": (
        lambda: vaejax.Bernoulli(hk.transform(lambda x: InHaikuWithDropout(2)(x, True))),
        r"write vaejax.from_haiku\(f\)",
    ),
}


@pytest.mark.parametrize("name", NO_BUILDERS)
def test_what_builds_no_module_is_refused(name):
    make, message = NO_BUILDERS[name]
    with pytest.raises(TypeError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("house", PLAIN)
def test_parameters_of_another_net_are_refused(house):
    for nets in (PLAIN, DROPOUT):
        net = nets[house](3, 2)
        encoder = vaejax.NumPyroConditional(net, lambda loc: loc, vaejax.supports.REAL)
        others = [PLAIN[name](3, 2).init(KEY, X) for name in PLAIN if name != house]
        others += [
            {"a": 1.0, "b": 2.0, "c": 3.0},
            DROPOUT["Linen" if house == "Haiku" else "Haiku"](3, 2).init(KEY, X),
        ]
        if house == "Linen":  # which asks its parameters for their names
            others = [params for params in others if isinstance(params, dict)]
        for params in others:
            with pytest.raises(ValueError, match="got the parameters of another net"):
                encoder(params, X)


def test_a_missing_library_is_named(monkeypatch):
    for package, call in (("equinox", vaejax.from_equinox), ("haiku", vaejax.from_haiku)):
        for name in [name for name in sys.modules if "networks." + package in name]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ModuleNotFoundError, match=rf"pip install vaejax\[{package}\]"):
            call(InNNX)

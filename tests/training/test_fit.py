"""`fit`: it learns, compiles once, shards, and refuses what does not fit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.oracles import Line
from tests.lib.programs import compilations
from tests.lib.recipes import recipe
from tests.lib.training import KEY, MODEL, NAMES, OBJECTIVE, PARAMS, PIXELS, XS, Counted, fit, state
from tests.lib.trees import assert_same_bits
from vaejax.data.base import batch_rows

Halved = recipe("Objective")


def test_it_reaches_the_maximum_likelihood_of_probabilistic_pca():
    """One latent, linear decoder, learned noise: the ELBO's maximum is log N(x; mean, C) at C's
    closed-form estimate.
    """
    generator = np.random.default_rng(0)
    xs = (
        generator.normal(size=(1000, 1)) @ np.array([[2.0, 1.0]])
        + 0.5 * generator.normal(size=(1000, 2))
    ).astype(np.float32)
    model = vaejax.VAE(
        vaejax.StandardNormal(1),
        vaejax.Gaussian(vaejax.MLP(2, ()), "learned"),
        vaejax.DiagNormal(vaejax.MLP(1, (), heads=2)),
    )
    run = fit(
        3000,
        200,
        objective=vaejax.minibatch(vaejax.AnalyticKL(), model),
        params=model.init(KEY, xs[0]),
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-2, 3000)),
        data=xs,
        transform=None,
    )
    # One eigenvalue is retained, one is the noise: both are reached.
    eigenvalues = np.linalg.eigvalsh(np.cov(xs.T, bias=True))[::-1]
    maximum = -0.5 * np.sum(np.log(2 * np.pi) + np.log(eigenvalues) + 1)
    bound = vaejax.evaluate(model, run.params, xs, KEY, num_samples=200)
    np.testing.assert_allclose([bound.elbo.mean, bound.log_marginal.mean], maximum, atol=0.03)
    np.testing.assert_allclose(
        np.exp(2 * run.params.theta["likelihood"]["log_scale"]), eigenvalues[1], rtol=0.05
    )


def test_history_and_the_callers_arrays():
    """The caller's parameters outlive the donation of the buffers, and the history has a row a
    step.
    """
    run = fit(30)
    assert run.step == 30 and run.best_params is None
    assert sorted(run.history) == sorted(NAMES)
    assert run.history["bound"].shape == (30,) and run.history["bound"].dtype == np.float32
    np.testing.assert_array_equal(run.history["objective"], run.history["bound"])
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(PARAMS))
    assert run.history["bound"][-5:].mean() > run.history["bound"][:5].mean()


def test_steps_equal_a_plain_loop():
    """The same numbers as a Python loop around value_and_grad and Optax that shares no code with
    fit.
    """
    order_key, noise_key, _ = jax.random.split(KEY, 3)
    rows = batch_rows(order_key, len(XS), 32, 0, 5)
    optimizer = optax.adam(1e-3)
    params, opt_state, bounds = PARAMS, optimizer.init(PARAMS), []

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradient(params, xs, key):
        keys = jax.random.split(key, 32)
        return -jnp.mean(jax.vmap(partial(vaejax.elbo, MODEL, params))(xs, keys))

    for step in range(5):
        transform_key, objective_key = jax.random.split(jax.random.fold_in(noise_key, step))
        xs = jax.vmap(PIXELS)(XS[rows[step]], jax.random.split(transform_key, 32))
        loss, gradient = loss_and_gradient(params, xs, objective_key)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params, bounds = optax.apply_updates(params, updates), [*bounds, -loss]
    run = fit(5)
    np.testing.assert_allclose(run.history["bound"], bounds, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), run.params, params
    )


def test_every_cut_into_calls_gives_the_same_bits(tmp_path):
    """A validation and a checkpoint each end a call, here after 3, 5, 6, 9, 10, ... steps."""
    steps = []
    cut = fit(
        20,
        validation=vaejax.Validation(XS[:10], every=5),
        checkpoints=vaejax.Checkpoints(tmp_path, every=3),
        callbacks=(lambda run: steps.append(run.step),),
    )
    assert {3, 5, 6, 9, 10, 12, 15, 18, 20} <= set(steps)
    assert_same_bits(state(cut), state(fit(20)))


def test_a_second_fit_compiles_nothing():
    """Also with the optimiser, the model and the objective typed anew, another key, and another
    number of steps.
    """
    fit(12, validation=vaejax.Validation(XS[:50], every=5))
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Bernoulli(vaejax.MLP((8, 8), (16,))),
        vaejax.DiagNormal(vaejax.MLP(2, (16,), heads=2)),
    )
    other_key = jax.random.key(5)
    with compilations() as names:
        fit(
            17,
            objective=vaejax.minibatch(vaejax.Pathwise(num_samples=1), model),
            optimizer=optax.adam(1e-3),
            key=other_key,
            validation=vaejax.Validation(XS[:50], every=5),
        )
    assert names == []
    with compilations() as names:
        fit(2, optimizer=optax.adam(2e-3))
    assert len(names) >= 1


def test_stored_pixels_stay_bytes_on_the_device():
    seen = []
    fit(3, transform=partial(lambda x, key: seen.append(x.dtype) or PIXELS(x, key)))
    assert seen and all(dtype == jnp.uint8 for dtype in seen)


def test_optimisers_of_each_part_schedules_and_clipping():
    parts = {
        "theta": optax.adam(optax.linear_schedule(1e-3, 0.0, 20)),
        "phi": optax.set_to_zero(),
        "psi": optax.sgd(1e-2),
    }
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.multi_transform(parts, vaejax.Params("theta", "phi", "psi")),
    )
    run = fit(10, optimizer=optimizer)
    assert_same_bits(run.params.phi, PARAMS.phi)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), run.params.theta, PARAMS.theta)
    assert min(jax.tree.leaves(moved)) > 0


def test_eight_devices_change_the_bound_by_rounding_only():
    mesh = jax.make_mesh((8,), ("data",))
    single, eight = fit(20), fit(20, mesh=mesh)
    assert len(jax.tree.leaves(eight.params)[0].sharding.device_set) == 8
    np.testing.assert_allclose(eight.history["bound"], single.history["bound"], rtol=5e-6)
    streamed = fit(20, mesh=mesh, data=Counted(XS))
    np.testing.assert_allclose(streamed.history["bound"], single.history["bound"], rtol=5e-6)


def test_line_fits():
    """Any net with init and apply serves, and any Gaussian data."""
    model = vaejax.VAE(
        vaejax.StandardNormal(1),
        vaejax.Gaussian(Line(), 1.0),
        vaejax.DiagNormal(vaejax.MLP(1, (), heads=2)),
    )
    xs = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    run = fit(
        5,
        10,
        objective=vaejax.minibatch(vaejax.StickTheLanding(), model),
        params=model.init(KEY, xs[0]),
        data=xs,
        transform=None,
    )
    assert run.step == 5


# A user's own objective around another: the schedule inside is seen, run and checked.


def test_a_schedule_inside_a_users_objective_is_run():
    """With parameters that stand still, row t is the objective at step t: that of the objective
    inside, halved.
    """
    warmed = vaejax.minibatch(vaejax.Beta(vaejax.WarmUp(10)), MODEL)
    settings = {"optimizer": optax.sgd(0.0)}
    outer, inner = (
        fit(15, objective=Halved(warmed), **settings),
        fit(15, objective=warmed, **settings),
    )
    np.testing.assert_allclose(
        outer.history["objective"], inner.history["objective"] / 2, rtol=1e-6
    )
    np.testing.assert_allclose(outer.history["bound"], inner.history["bound"], rtol=1e-6)
    raised = inner.history["objective"] - inner.history["bound"]
    assert (raised[:10] > 0).all() and (raised[10:] == 0).all()


def test_a_schedule_inside_a_users_objective_is_checked():
    warmed = Halved(vaejax.minibatch(vaejax.Beta(vaejax.WarmUp(30)), MODEL))
    message = "beta is warmed up over 30 steps, but num_steps = 20: .* at least 30"
    with compilations() as names, pytest.raises(ValueError, match=message):
        fit(20, objective=warmed)
    assert names == []


# Bad input: refused in one line, before anything compiles, and without a file.

MISTAKES = {
    "0..255 into a Bernoulli": (
        {"transform": None},
        r"data has values in \[0, 16\], and this likelihood is for 0 and 1",
    ),
    "grey": (
        {"transform": vaejax.Pixels(16, "none")},
        "choose a binarisation, one of dynamic, static or threshold",
    ),
    "grey, and a user's objective": (
        {"transform": None, "objective": Halved(OBJECTIVE)},
        r"data has values in \[0, 16\], and this likelihood is for 0 and 1",
    ),
    "grey, and a plain function": (
        {
            "transform": None,
            "objective": vaejax.minibatch(partial(vaejax.elbo, MODEL), support=MODEL.support),
        },
        r"data has values in \[0, 16\], and this likelihood is for 0 and 1",
    ),
    "grey, and a source": (
        {"transform": None, "data": Counted(XS)},
        r"data has values in \[0, 16\], and this likelihood is for 0 and 1",
    ),
    "NaN": (
        {"data": np.full((50, 8, 8), np.nan), "transform": None},
        "data has a NaN or infinity, first in row 0",
    ),
    "empty": ({"data": XS[:0]}, "data is empty"),
    "an empty source": ({"data": Counted(XS[:0])}, "data is empty: Counted has length 0"),
    "batch larger than the set": (
        {"batch_size": 2000},
        "batch_size = 2000, but the data have 1297 examples; choose at most 1297",
    ),
    "batch larger than the source": (
        {"batch_size": 2000, "data": Counted(XS)},
        "batch_size = 2000, but the data have 1297 examples; choose at most 1297",
    ),
    "no steps": ({"num_steps": 0}, "num_steps = 0; it must be a whole number, at least 1"),
    "no batch": ({"batch_size": -1}, "batch_size = -1"),
    "several keys": ({"key": jax.random.split(KEY, 2)}, r"keys of shape \(2,\); give one of them"),
    "raw keys": ({"key": np.zeros((2, 2), np.uint32)}, r"keys of shape \(2,\); give one of them"),
    "bad validation": (
        {"validation": vaejax.Validation(np.full((5, 8, 8), 99.0))},
        r"validation has values in \[99.0, 99.0\], outside 0..16",
    ),
    "bad validation of a source": (
        {"validation": vaejax.Validation(Counted(np.full((5, 8, 8), 99.0)))},
        r"validation has values in \[99.0, 99.0\], outside 0..16",
    ),
    "mesh without data": (
        {"mesh": jax.make_mesh((2,), ("model",))},
        r"axes \('model',\); name the one .* \"data\"",
    ),
    "batch over devices": (
        {"batch_size": 30, "mesh": jax.make_mesh((8,), ("data",))},
        "batch_size = 30 does not divide over 8 devices",
    ),
}


@pytest.mark.parametrize("change, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused(tmp_path, change, message):
    settings = {"checkpoints": vaejax.Checkpoints(tmp_path / "run")} | change
    with compilations() as names, pytest.raises(ValueError, match=message) as error:
        fit(**settings)
    assert "\n" not in str(error.value) and names == [] and list(tmp_path.iterdir()) == []


def test_a_transform_that_returns_nothing_is_refused():
    with pytest.raises(ValueError, match="the transform of data gives None, no array: is there"):
        fit(transform=lambda x, key: None)


NO_NOUNS = {
    "held-out arrays": (
        {"validation": XS},
        r"validation is of type ndarray; write validation=vaejax.Validation\(data",
    ),
    "a number as a key": ({"key": 0}, r"key = 0; give a random key, such as jax.random.key\(0\)"),
    "no callback": (
        {"callbacks": (3,)},
        "callbacks has 3, which cannot be called",
    ),
    "no transform": ({"transform": "dynamic"}, "transform = 'dynamic' cannot be called"),
    "no mesh": ({"mesh": "data"}, "mesh = 'data'; give one, such as jax.make_mesh"),
    "a count among the parameters": (
        {"params": {"w": np.ones(2), "n": 3}},
        r"params\['n'\] is of dtype int32, and training changes real floats only",
    ),
    "complex parameters": ({"params": np.ones(2) * 1j}, "params is of dtype complex64"),
    "a folder": (
        {"checkpoints": "runs/one"},
        r"checkpoints is of type str; write checkpoints=vaejax.Checkpoints\(folder",
    ),
    "a function of a batch": ({"objective": lambda p, xs, key: 0.0}, "vaejax.minibatch"),
    "a function of an example": ({"objective": partial(vaejax.elbo, MODEL)}, "vaejax.minibatch"),
    "items by number": (
        {"data": type("Items", (), {"__len__": lambda self: 3})()},
        r"value of type Items, which is not an array: give arrays, .* vaejax.RandomAccess\(items\)",
    ),
}


@pytest.mark.parametrize("change, message", NO_NOUNS.values(), ids=NO_NOUNS)
def test_what_is_not_of_its_kind_is_refused(change, message):
    with compilations() as names, pytest.raises(TypeError, match=message):
        fit(**change)
    assert names == []


def test_a_plain_function_is_asked_for_its_support():
    with pytest.raises(ValueError, match="add support=..., such as vaejax.supports.BINARY"):
        vaejax.minibatch(lambda p, x, key: vaejax.Pathwise()(MODEL, p, x, key))


def test_an_objective_of_one_example_is_refused_a_batch():
    with pytest.raises(ValueError, match="use jax.vmap or vaejax.minibatch"):
        fit(objective=vaejax.per_example(vaejax.Pathwise(), MODEL))

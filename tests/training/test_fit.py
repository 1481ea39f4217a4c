"""`fit`: it learns, resumes to the same bits, compiles once, shards, and stops with the reason when
it cannot go on.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.oracles import Line
from vaejax.data.base import batch_rows
from vaejax.training.checkpoints import CheckpointMismatchError, Checkpoints
from vaejax.training.trainer import NonFiniteError

XS = vaejax.load_dataset("digits").train.images
PIXELS = vaejax.Pixels(16)
MODEL = vaejax.VAE(
    vaejax.StandardNormal(2),
    vaejax.Bernoulli(vaejax.MLP((8, 8), (16,))),
    vaejax.DiagNormal(vaejax.MLP(2, (16,), heads=2)),
)
PARAMS = MODEL.init(jax.random.key(0), XS[0])
OBJECTIVE = vaejax.minibatch(partial(vaejax.Pathwise(), MODEL))
KEY = jax.random.key(1)


def fit(num_steps=20, batch_size=32, **settings):
    """A small run; 20 steps of 32 pass the end of no epoch, of 100 they do."""
    defaults = {
        "objective": OBJECTIVE,
        "params": PARAMS,
        "optimizer": optax.adam(1e-3),
        "data": XS,
        "key": KEY,
        "transform": PIXELS,
        "progress": False,
    }
    return vaejax.fit(num_steps=num_steps, batch_size=batch_size, **(defaults | settings))


def assert_same_bits(one, other):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_array_equal(
            np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path)
        )


def state(run):
    return run.params, run.opt_state, run.history["bound"]


@contextlib.contextmanager
def compilations():
    """The names of the programs that XLA compiles inside."""
    names = []

    def record(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(record)
    yield names
    jax.monitoring.unregister_event_duration_listener(record)


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
    objective = vaejax.minibatch(partial(vaejax.AnalyticKL(), model))
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-2, 3000))
    run = vaejax.fit(
        objective,
        model.init(KEY, xs[0]),
        optimizer,
        xs,
        KEY,
        num_steps=3000,
        batch_size=200,
        progress=False,
    )
    eigenvalues = np.linalg.eigvalsh(np.cov(xs.T, bias=True))[::-1]
    covariance_eigenvalues = np.array(
        [eigenvalues[0], eigenvalues[1]]
    )  # one retained, one noise: both are reached
    maximum = -0.5 * np.sum(
        np.log(2 * np.pi) + np.log(covariance_eigenvalues) + eigenvalues / covariance_eigenvalues
    )
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
    assert (
        run.step == 30
        and run.history["bound"].shape == (30,)
        and run.history["bound"].dtype == np.float32
    )
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(PARAMS))
    assert run.history["bound"][-5:].mean() > run.history["bound"][:5].mean()
    assert run.best_params is None


def test_steps_equal_a_plain_loop():
    """The same numbers as a Python loop around value_and_grad and Optax that shares no code with
    fit.
    """
    order_key, noise_key, _ = jax.random.split(KEY, 3)
    rows = batch_rows(order_key, len(XS), 32, 0, 5)
    optimizer = optax.adam(1e-3)
    params, opt_state, bounds = PARAMS, optimizer.init(PARAMS), []
    loss_and_gradient = jax.jit(jax.value_and_grad(lambda p, xs, key: -OBJECTIVE(p, xs, key)))
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


def test_every_cut_into_calls_gives_the_same_bits(monkeypatch):
    whole = fit(20)
    monkeypatch.setattr(vaejax.training, "next_count", lambda count, seconds: 3)
    assert_same_bits(state(fit(20)), state(whole))


def test_a_second_fit_compiles_nothing():
    """Also with the optimiser, the model and the objective typed anew, another key, and another
    number of steps.
    """
    fit(12, validation=XS[:50], validate_every=5)
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Bernoulli(vaejax.MLP((8, 8), (16,))),
        vaejax.DiagNormal(vaejax.MLP(2, (16,), heads=2)),
    )
    objective = vaejax.minibatch(partial(vaejax.Pathwise(num_samples=1), model))
    with compilations() as names:
        fit(
            17,
            objective=objective,
            optimizer=optax.adam(1e-3),
            key=jax.random.key(5),
            validation=XS[:50],
            validate_every=5,
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
    labels = vaejax.Params("theta", "phi", "psi")
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.multi_transform(
            {
                "theta": optax.adam(optax.linear_schedule(1e-3, 0.0, 20)),
                "phi": optax.set_to_zero(),
                "psi": optax.sgd(1e-2),
            },
            labels,
        ),
    )
    run = fit(10, optimizer=optimizer)
    assert_same_bits(run.params.phi, PARAMS.phi)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), run.params.theta, PARAMS.theta)
    assert min(jax.tree.leaves(moved)) > 0


def test_validation_and_early_stopping():
    run = fit(40, validation=XS[:37], validate_every=10)
    assert run.history["validation_step"].tolist() == [10, 20, 30, 40]
    best = run.history["validation_bound"].argmax()
    if best == 3:
        assert_same_bits(run.best_params, run.params)
    stopped = fit(200, optimizer=optax.sgd(0.0), validation=XS[:37], validate_every=10, patience=2)
    assert stopped.step == 30  # the first is the best, then two without a better one
    assert_same_bits(stopped.best_params, PARAMS)


def test_eight_devices_change_the_bound_by_rounding_only():
    mesh = jax.make_mesh((8,), ("data",))
    one, eight = fit(20), fit(20, mesh=mesh)
    assert len(jax.tree.leaves(eight.params)[0].sharding.device_set) == 8
    np.testing.assert_allclose(eight.history["bound"], one.history["bound"], rtol=5e-6)


# Checkpoints: a run is the same bits, wherever it was cut and whichever process goes on.

RESUME = """
import sys, json
import jax, numpy as np, optax, vaejax
sys.path.insert(0, sys.argv[1])
import test_training as here
for cut in map(int, sys.argv[3:]):
    run = here.checkpointed(f"{sys.argv[2]}/{cut}", resume=True)
    print(json.dumps({"cut": cut, "digest": here.digest(run)}))
"""


def checkpointed(directory, num_steps=20, **settings):
    """20 steps over 13 batches an epoch: cuts before, at and after its end."""
    settings = {"checkpoint_every": 1, "validation": XS[:30], "validate_every": 4} | settings
    return fit(
        num_steps,
        batch_size=100,
        optimizer=optax.adamw(optax.cosine_decay_schedule(1e-2, 20)),
        checkpoints=directory,
        **settings,
    )


def digest(run):
    import hashlib

    arrays = [
        *jax.tree.leaves((run.params, run.opt_state, run.best_params)),
        *(run.history[name] for name in sorted(run.history)),
    ]
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize(
    "cuts", [(1, 10, 19), pytest.param(range(1, 20), marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_resumed_at_every_cut_in_a_new_process(tmp_path, monkeypatch, cuts):
    keep_all = partial(vaejax.training.Checkpoints, max_to_keep=None)
    monkeypatch.setattr(vaejax.training, "Checkpoints", keep_all)
    whole = digest(checkpointed(tmp_path / "whole"))
    for cut in cuts:
        for step in range(1, cut + 1):
            shutil.copytree(tmp_path / "whole" / str(step), tmp_path / str(cut) / str(step))
    command = [
        sys.executable,
        "-c",
        RESUME,
        str(Path(__file__).parent),
        str(tmp_path),
        *map(str, cuts),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    digests = {row["cut"]: row["digest"] for row in map(json.loads, done.stdout.splitlines())}
    assert digests == dict.fromkeys(cuts, whole)


def test_a_finished_run_resumes_to_itself_and_can_be_made_longer(tmp_path):
    short = checkpointed(tmp_path, 8)
    assert digest(checkpointed(tmp_path, 8, resume=True)) == digest(short)
    assert digest(checkpointed(tmp_path, 20, resume=True)) == digest(checkpointed(None, 20))


def test_a_run_is_not_written_over(tmp_path):
    fit(3, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="already holds step 3: resume, or name another directory"):
        fit(3, checkpoints=tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 16}, "batch_size: saved 32, now 16"),
        ({"key": jax.random.key(9)}, r"key: saved \[0, 1\], now \[0, 9\]"),
        ({"data": XS[:100]}, "another configuration: data: saved"),
        ({"config": {"learning_rate": 0.1}}, "learning_rate: saved 0.001, now 0.1"),
        ({"optimizer": optax.sgd(0.1)}, "another model"),
    ],
    ids=["batch_size", "key", "data", "config", "optimizer"],
)
def test_resuming_with_another_configuration_names_the_field(tmp_path, change, message):
    settings = {"checkpoints": tmp_path, "config": {"learning_rate": 0.001}}
    fit(3, **settings)
    with pytest.raises(CheckpointMismatchError, match=message):
        fit(**({"num_steps": 6, "resume": True} | settings | change))


# Bad input: refused in one line, before anything compiles, and without a file.

BAD = {
    "0..255 into a Bernoulli": (
        {"transform": None},
        r"data has values in \[0, 16\], and this likelihood is for 0 and 1",
    ),
    "grey": (
        {"transform": vaejax.Pixels(16, "none")},
        "choose a binarisation, one of dynamic, static or threshold",
    ),
    "NaN": (
        {"data": np.full((50, 8, 8), np.nan), "transform": None},
        "data has a NaN or infinity, first in row 0",
    ),
    "empty": ({"data": XS[:0]}, "data is empty"),
    "batch larger than the set": (
        {"batch_size": 2000},
        "batch_size = 2000, but the data have 1297 examples; choose at most 1297",
    ),
    "no steps": ({"num_steps": 0}, "num_steps = 0; it must be a whole number, at least 1"),
    "no batch": ({"batch_size": -1}, "batch_size = -1"),
    "bad validation": (
        {"validation": np.full((5, 8, 8), 99.0)},
        r"validation has values in \[99.0, 99.0\], outside 0..16",
    ),
    "patience for nothing": ({"patience": 3}, "patience = 3 needs validation data"),
    "no patience": ({"patience": 0, "validation": XS}, "patience = 0"),
    "validation of what": (
        {"objective": lambda p, xs, key: 0.0, "validation": XS},
        "make it by vaejax.minibatch",
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


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_bad_arguments(tmp_path, change, message):
    with compilations() as names, pytest.raises(ValueError, match=message) as error:
        fit(**({"checkpoints": tmp_path / "run"} | change))
    assert "\n" not in str(error.value) and names == [] and list(tmp_path.iterdir()) == []


def test_an_objective_that_takes_one_example_is_refused_a_batch():
    with pytest.raises(ValueError, match="use jax.vmap or vaejax.minibatch"):
        fit(objective=partial(vaejax.Pathwise(), MODEL))


def test_a_non_finite_bound_stops_with_step_rows_and_leaf(tmp_path):
    """A decoder that is not finite at one example: training stops there, and the checkpoint before
    it is kept.
    """
    poisoned = 700
    data = {
        "x": XS,
        "weight": np.where(np.arange(len(XS)) == poisoned, 1e38, 1.0).astype(np.float32),
    }

    def objective(params, x, key):
        return vaejax.elbo(MODEL, params, PIXELS(x["x"], key), key) * x["weight"] * x["weight"]

    order_key, *_ = jax.random.split(KEY, 3)
    rows = batch_rows(order_key, len(XS), 32, 0, 60)
    step = int(np.argwhere((rows == poisoned).any(axis=1))[0, 0])
    settings = {"objective": vaejax.minibatch(objective), "data": data, "transform": None}
    with pytest.raises(
        NonFiniteError, match=f"step {step}: the bound is not finite; rows of the batch: "
    ) as error:
        fit(60, checkpoints=tmp_path, checkpoint_every=2, **settings)
    assert f"rows of the batch: {rows[step].tolist()}" in str(error.value) and "\n" not in str(
        error.value
    )
    assert error.value.run.step == step
    with Checkpoints(tmp_path) as store:
        assert store.steps()[-1] == step - step % 2
    assert_same_bits(state(error.value.run), state(fit(step, **settings)))


def test_a_non_finite_gradient_names_its_leaf():
    def objective(params, x, key):
        return (
            vaejax.elbo(MODEL, params, x, key)
            + jnp.sqrt(params.psi["extra"])
            - jnp.sqrt(params.psi["extra"])
        )

    params = PARAMS._replace(psi={"extra": jnp.zeros(())})
    with pytest.raises(
        NonFiniteError, match=r"step 0: the gradient of psi\['extra'\] is not finite; rows"
    ):
        fit(objective=vaejax.minibatch(objective), params=params)


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
        objective=vaejax.minibatch(partial(vaejax.StickTheLanding(), model)),
        params=model.init(KEY, xs[0]),
        data=xs,
        transform=None,
    )
    assert run.step == 5

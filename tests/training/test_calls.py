"""A run that breaks down stops with the step, the rows and the leaf at fault."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.training import KEY, MODEL, PARAMS, PIXELS, XS, fit, state
from tests.lib.trees import assert_same_bits
from vaejax.data.base import batch_rows
from vaejax.training.checkpoints import CheckpointStore
from vaejax.training.run import NonFiniteError, first_non_finite

POISONED = 700
WEIGHTS = np.where(np.arange(len(XS)) == POISONED, 1e38, 1.0).astype(np.float32)


def weighted(params, x, key):
    bound = vaejax.elbo(MODEL, params, PIXELS(x["x"], key), key)
    return bound * x["weight"] * x["weight"]


@pytest.mark.parametrize("source", [False, True], ids=["arrays", "source"])
def test_a_non_finite_bound_stops_with_step_rows_and_leaf(tmp_path, source):
    """A decoder that is not finite at one example: training stops there, and the run before it is
    in a checkpoint.
    """
    order_key, *_ = jax.random.split(KEY, 3)
    rows = batch_rows(order_key, len(XS), 32, 0, 60)
    step = int(np.argwhere((rows == POISONED).any(axis=1))[0, 0])
    data = {"x": XS, "weight": WEIGHTS}
    settings = {
        "objective": vaejax.minibatch(weighted, support=vaejax.supports.REAL),
        "data": vaejax.Arrays(data) if source else data,
        "transform": None,
    }
    with pytest.raises(
        NonFiniteError, match=f"step {step}: the bound is not finite; rows of the batch: "
    ) as error:
        fit(60, checkpoints=vaejax.Checkpoints(tmp_path, every=2), **settings)
    message = str(error.value)
    assert f"rows of the batch: {rows[step].tolist()}" in message and "\n" not in message
    assert error.value.run.step == step
    with CheckpointStore(tmp_path) as store:
        assert store.steps()[-1] == step
    assert_same_bits(state(error.value.run), state(fit(step, **settings)))


def blind(params, x, key):
    """The bound is NaN where the example is, and no gradient sees it."""
    return vaejax.elbo(MODEL, params, PIXELS(x["x"], key), key) + 0 * jnp.log(x["weight"] - 1)


def test_a_bound_that_is_nan_stops_though_all_parameters_are_finite():
    data = {"x": XS[:64], "weight": np.where(np.arange(64) == 40, 0.5, 2).astype(np.float32)}
    objective = vaejax.minibatch(blind, support=vaejax.supports.REAL)
    with pytest.raises(NonFiniteError, match="the bound is not finite; rows of the batch"):
        fit(4, objective=objective, data=data, transform=None)


def bare_root(params, x, key):
    """The gradient of the root at 0 is infinite, and the bound is not."""
    root = jnp.sqrt(params.psi["extra"])
    return vaejax.elbo(MODEL, params, x, key) + root - root


def test_a_non_finite_gradient_names_its_leaf():
    params = PARAMS._replace(psi={"extra": jnp.zeros(())})
    objective = vaejax.minibatch(bare_root, support=MODEL.support)
    with pytest.raises(
        NonFiniteError, match=r"step 0: the gradient of psi\['extra'\] is not finite; rows"
    ):
        fit(objective=objective, params=params)


# The state of the optimiser.

FAR = 40  # the row whose bound is -1e25
BINARY = (XS > 8).astype(np.float32)


def far(params, x, key):
    """Finite, as are its gradient and its update; the square of its gradient is not."""
    return vaejax.elbo(MODEL, params, x["x"], key) * x["weight"]


FAR_SETTINGS = {
    "objective": vaejax.minibatch(far, support=vaejax.supports.REAL),
    "data": {"x": BINARY, "weight": np.where(np.arange(len(XS)) == FAR, 1e23, 1.0)},
    "transform": None,
}


def first_step_with(row):
    order_key, *_ = jax.random.split(KEY, 3)
    rows = batch_rows(order_key, len(XS), 32, 0, 60)
    return int(np.argwhere((rows == row).any(axis=1))[0, 0])


STATES = {
    "adam": lambda: optax.adam(1e-3),
    "clipped by value": lambda: optax.chain(optax.clip(1e22), optax.adam(1e-3)),
    "amsgrad": lambda: optax.amsgrad(1e-3),
    "rmsprop": lambda: optax.rmsprop(1e-3),
    "skipping": lambda: optax.apply_if_finite(optax.adam(1e-3), 5),  # sees the gradient alone
}


@pytest.mark.parametrize("make", cases(STATES, slow={"clipped by value", "amsgrad", "rmsprop"}))
def test_a_state_that_is_not_finite_stops_and_is_named(make):
    """Adam's second moment is infinite after one row, and its entries would never move again."""
    step = first_step_with(FAR)
    message = rf"step {step}: the bound is -\S+e\+2\d, and the optimiser's state .*nu.* is not"
    with pytest.raises(NonFiniteError, match=message) as error:
        fit(60, optimizer=make(), **FAR_SETTINGS)
    assert "; rows of the batch: " in str(error.value) and "\n" not in str(error.value)
    run = error.value.run
    assert run.step == step and first_non_finite((run.params, run.opt_state)) is None


def test_a_seed_whose_state_is_not_finite_is_named():
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    keys = jnp.stack([KEY, jax.random.key(5)])
    settings = {"num_steps": 60, "batch_size": 32, "progress": False, "strategy": "map"}
    data, optimizer = FAR_SETTINGS["data"], optax.adam(1e-3)
    with pytest.raises(NonFiniteError, match="seed .: not finite within steps") as error:
        vaejax.fit_seeds(FAR_SETTINGS["objective"], starts, optimizer, data, keys, **settings)
    run = error.value.run
    assert run.history["bound"].shape == (2, run.step)
    assert first_non_finite((run.params, run.opt_state)) is None


# Steps that the optimiser skips.

SKIPPED = {
    "bound and gradient": (weighted, WEIGHTS, POISONED),
    "a bound that no gradient sees": (blind, np.where(np.arange(len(XS)) == FAR, 0.5, 2.0), FAR),
}


SKIPPERS = {
    "apply_if_finite": (lambda inner: optax.apply_if_finite(inner, 5), "inner_state"),
    "SkipSteps": (lambda inner: vaejax.SkipSteps(inner, above=1e4), "inner"),
}


@pytest.mark.parametrize("skipping, inner", SKIPPERS.values(), ids=SKIPPERS)
@pytest.mark.parametrize("bound, weights, row", SKIPPED.values(), ids=SKIPPED)
def test_steps_that_are_not_finite_are_skipped_and_counted(bound, weights, row, skipping, inner):
    """Such a step moves nothing, the next does, and the warning says how many there were."""
    step = first_step_with(row)
    settings = {
        "objective": vaejax.minibatch(bound, support=vaejax.supports.REAL),
        "data": {"x": XS, "weight": weights.astype(np.float32)},
        "transform": None,
        "optimizer": skipping(optax.adam(1e-3)),
    }
    before = fit(step, **settings)
    runs = []
    for more in (1, 2):
        message = f"1 of {step + more} steps were skipped: their bound or gradient was not finite"
        with pytest.warns(UserWarning, match=message):
            runs.append(fit(step + more, **settings))
    at_step, after = runs
    assert_same_bits(before.params, at_step.params)
    assert_same_bits(getattr(before.opt_state, inner), getattr(at_step.opt_state, inner))
    assert np.flatnonzero(~np.isfinite(after.history["bound"])).tolist() == [step]
    pairs = zip(jax.tree.leaves(after.params), jax.tree.leaves(before.params), strict=True)
    assert all((np.asarray(leaf) != np.asarray(earlier)).any() for leaf, earlier in pairs)


def test_steps_that_explode_are_skipped_and_counted():
    """Those whose gradient, as the history has it, is longer than is allowed, and no others."""
    norms = fit(12).history["gradient_norm"]
    above = float(norms[0]) * 0.999  # the first, until the parameters have moved, is the longest
    assert (norms[1:] < above).all()
    with pytest.warns(UserWarning, match="1 of 1 steps were skipped"):
        first = fit(1, optimizer=vaejax.SkipSteps(optax.adam(1e-3), above))
    assert_same_bits(first.params, PARAMS)
    assert first.history["gradient_norm"][0] == norms[0]
    with pytest.warns(UserWarning, match="steps were skipped"):
        run = fit(12, optimizer=vaejax.SkipSteps(optax.adam(1e-3), above))
    longer = run.history["gradient_norm"] > above
    assert int(run.opt_state.total_skipped) == longer.sum() < 12
    taken = np.cumsum(~longer)[-1]
    assert int(run.opt_state.inner[0].count) == taken  # Adam's own count of its steps


def test_what_skips_no_step_changes_nothing():
    """To the bit, beside an average too."""
    inner = vaejax.Averaged(optax.adam(1e-3), 0.9)
    run, alone = fit(6, optimizer=vaejax.SkipSteps(inner, 1e6)), fit(6, optimizer=inner)
    assert_same_bits(run.params, alone.params)
    assert_same_bits(run.opt_state.inner, alone.opt_state)


def test_a_wrapper_that_gives_up_stops_the_run():
    """After so many skipped steps on end it lets the update through."""
    objective = vaejax.minibatch(blind, support=vaejax.supports.REAL)
    data = {"x": XS, "weight": np.full(len(XS), 0.5, np.float32)}
    optimizer = optax.apply_if_finite(optax.adam(1e-3), 3)
    with pytest.raises(NonFiniteError, match="step 3: the bound is not finite") as error:
        fit(9, objective=objective, data=data, transform=None, optimizer=optimizer)
    assert error.value.run.step == 3


@pytest.mark.slow
def test_seeds_skip_as_one_does():
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    data = {"x": XS, "weight": WEIGHTS}
    objective = vaejax.minibatch(weighted, support=vaejax.supports.REAL)
    settings = {"num_steps": first_step_with(POISONED) + 2, "batch_size": 32, "progress": False}
    optimizer, keys = optax.apply_if_finite(optax.adam(1e-3), 5), jnp.stack([KEY, KEY])
    with pytest.warns(UserWarning, match="1 of .* steps were skipped"):
        run = vaejax.fit_seeds(objective, starts, optimizer, data, keys, strategy="map", **settings)
    assert first_non_finite((run.params, run.opt_state)) is None

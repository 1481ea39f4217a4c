"""A run that breaks down stops with the step, the rows and the leaf at fault."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.training import KEY, MODEL, PARAMS, PIXELS, XS, fit, state
from tests.lib.trees import assert_same_bits
from vaejax.data.base import batch_rows
from vaejax.training.checkpoints import CheckpointStore
from vaejax.training.run import NonFiniteError

POISONED = 700
WEIGHTS = np.where(np.arange(len(XS)) == POISONED, 1e38, 1.0).astype(np.float32)


def weighted(params, x, key):
    bound = vaejax.elbo(MODEL, params, PIXELS(x["x"], key), key)
    return bound * x["weight"] * x["weight"]


@pytest.mark.parametrize("source", [False, True], ids=["arrays", "source"])
def test_a_non_finite_bound_stops_with_step_rows_and_leaf(tmp_path, source):
    """A decoder that is not finite at one example: training stops there, and the checkpoint before
    it is kept.
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
        assert store.steps()[-1] == step - step % 2
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

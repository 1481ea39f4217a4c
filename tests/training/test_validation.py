"""Validation along a training, and the patience without a better one."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.training import MODEL, PARAMS, XS, Counted, fit
from tests.lib.trees import assert_same_bits
from vaejax.training.run import NonFiniteError


def test_validation_and_early_stopping():
    run = fit(40, validation=vaejax.Validation(XS[:37], every=10))
    assert run.history["validation_step"].tolist() == [10, 20, 30, 40]
    best = run.history["validation_bound"].argmax()
    if best == 3:
        assert_same_bits(run.best_params, run.params)
    patient = vaejax.Validation(XS[:37], every=10, patience=2)
    stopped = fit(200, optimizer=optax.sgd(0.0), validation=patient)
    assert stopped.step == 30  # the first is the best, then two without a better one
    assert_same_bits(stopped.best_params, PARAMS)


def test_validation_on_a_source():
    """The same bounds, noise and best parameters as of the arrays with its contents."""
    runs = [
        fit(20, validation=vaejax.Validation(data, every=10))
        for data in (XS[:237], Counted(XS[:237]))
    ]
    bounds = [run.history["validation_bound"] for run in runs]
    np.testing.assert_allclose(bounds[1], bounds[0], rtol=1e-6)
    assert_same_bits(runs[0].best_params, runs[1].best_params)


def with_logarithm(params, x, key):
    return vaejax.elbo(MODEL, params, x["x"], key) + jnp.log(x["number"])


def test_a_validation_that_is_not_finite_stops_the_run():
    objective = vaejax.minibatch(with_logarithm, support={"x": MODEL.support})
    binary = (XS > 8).astype(np.float32)
    data = {"x": binary, "number": np.ones(len(XS), np.float32)}
    validation = vaejax.Validation({"x": binary[:2], "number": -np.ones(2, np.float32)}, every=5)
    with pytest.raises(NonFiniteError, match="step 5: the validation bound is nan") as error:
        fit(10, objective=objective, data=data, transform=None, validation=validation)
    assert error.value.run.step == 5


MISTAKES = {
    "never": ({"every": 0}, "Validation.every = 0; it must be a whole number, at least 1"),
    "half": ({"every": 2.5}, "Validation.every = 2.5"),
    "no patience": ({"patience": 0}, "Validation.patience = 0"),
}


@pytest.mark.parametrize("settings, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused_when_it_is_made(settings, message):
    with pytest.raises(ValueError, match=message):
        vaejax.Validation(XS, **settings)

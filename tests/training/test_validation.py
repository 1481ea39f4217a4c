"""Validation along a training, and the patience without a better one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.lines import LINES
from tests.lib.training import MODEL, OBJECTIVE, PARAMS, XS, Counted, fit
from tests.lib.trees import assert_same_bits
from vaejax.base.mapping import Transformed
from vaejax.training.run import NO_HISTORY, NonFiniteError, Run
from vaejax.training.validation import Validator, settled_step


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


def validator(**settings):
    """Of one example, whose bound is the one parameter itself."""
    bound = Transformed(lambda params, x, key: params, None)
    validation = vaejax.Validation(np.zeros((1, 1), np.float32), every=10, **settings)
    return lambda settled=0: Validator(validation, bound, jax.random.key(0), settled, None)


def validated(rounds, *bounds, first=10):
    """The run after validations with these bounds, ten steps apart."""
    run = Run(jnp.zeros(()), (), first, NO_HISTORY, jnp.zeros(()))
    for i, bound in enumerate(bounds):
        run = rounds.validated(run._replace(params=jnp.asarray(bound), step=first + 10 * i))
    return run


def test_the_best_is_the_best_of_all():
    """Not better than the worst, nor better than the last; of two that are equal the first."""
    run = validated(validator()(), 1.0, 3.0, 2.0, 2.5, 3.0)
    assert float(run.best_params) == 3.0
    assert run.history["validation_bound"].tolist() == [1.0, 3.0, 2.0, 2.5, 3.0]
    assert float(validated(validator()(), 2.0, 1.0, 1.5).best_params) == 2.0


def test_patience_is_counted_from_where_the_schedules_end():
    """The validation at that very step counts; the ones before do not, however good."""
    patient = validator(patience=2)
    for settled, out in ((0, True), (10, True), (20, False), (30, False)):
        rounds = patient(settled)
        # the first is the best of all; from step 20 on there is one without a better one
        run = validated(rounds, 9.0, 3.0, 2.0)
        assert rounds.is_out_of_patience(run) == out, settled
    run = validated(patient(20), 9.0, 3.0, 2.0, 1.0)
    assert patient(20).is_out_of_patience(run) and not patient(30).is_out_of_patience(run)
    assert not validator()(0).is_out_of_patience(run)


def test_schedules_end_with_the_last_of_them():
    objective = vaejax.TCVAE(LINES, 10, vaejax.WarmUp(5), vaejax.WarmUp(9), vaejax.WarmUp(7))
    assert settled_step(objective) == 9 and settled_step(OBJECTIVE) == 0


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

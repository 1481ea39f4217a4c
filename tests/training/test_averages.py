"""An average of the parameters, held against one that is computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.programs import compilations
from tests.lib.training import KEY, OBJECTIVE, PARAMS, PIXELS, XS, fit
from tests.lib.trees import assert_same_bits

DECAY = 0.9


def averaged(optimizer=None):
    return vaejax.Averaged(optimizer or optax.adam(1e-2), DECAY)


def along(num_steps):
    """The parameters at the start and after each step, of a run that keeps no average."""
    steps = [PARAMS]
    for step in range(1, num_steps + 1):
        steps.append(fit(step, optimizer=optax.adam(1e-2)).params)
    return steps


def test_it_is_the_exponential_average_and_changes_nothing():
    run, steps = fit(5, optimizer=averaged()), along(5)
    assert_same_bits(run.params, steps[-1])
    weights = [DECAY**5, *(0.1 * DECAY ** (5 - step) for step in range(1, 6))]
    np.testing.assert_allclose(sum(weights), 1)

    def by_hand(*leaves):
        pairs = zip(weights, leaves, strict=True)
        return sum(weight * np.asarray(leaf, np.float64) for weight, leaf in pairs)

    jax.tree.map(
        lambda ours, expected: np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7),
        vaejax.averaged_params(run),
        jax.tree.map(by_hand, *steps),
    )


def test_it_survives_a_resumption_to_the_bit(tmp_path):
    fit(3, optimizer=averaged(), checkpoints=vaejax.Checkpoints(tmp_path))
    again = vaejax.Checkpoints(tmp_path, resume=True)
    resumed = fit(7, optimizer=averaged(), checkpoints=again)
    whole = fit(7, optimizer=averaged())
    assert_same_bits(vaejax.averaged_params(resumed), vaejax.averaged_params(whole))


def test_typed_anew_it_compiles_nothing():
    fit(2, optimizer=averaged())
    with compilations() as names:
        fit(4, optimizer=averaged())
    assert names == []


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.inject_hyperparams(optax.adam)(1e-2),
        optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
        optax.apply_if_finite(optax.adam(1e-2), 5),
    ],
    ids=["injected", "on a plateau", "if finite"],
)
def test_it_goes_around_any_optimiser(optimizer):
    run = fit(3, optimizer=averaged(optimizer))
    plain = fit(3, optimizer=optimizer)
    assert_same_bits(run.params, plain.params)
    assert run.history.keys() == plain.history.keys()


def test_of_several_seeds_each_has_its_own():
    keys = jax.random.split(KEY, 2)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    settings = {"num_steps": 3, "batch_size": 32, "transform": PIXELS, "progress": False}
    runs = vaejax.fit_seeds(OBJECTIVE, params, averaged(), XS, keys, **settings)
    alone = vaejax.fit(OBJECTIVE, PARAMS, averaged(), XS, keys[1], **settings)
    jax.tree.map(
        lambda both, expected: np.testing.assert_allclose(both[1], expected, rtol=1e-4, atol=1e-6),
        vaejax.averaged_params(runs),
        vaejax.averaged_params(alone),
    )


def test_where_there_is_none_it_says_what_to_write():
    with pytest.raises(ValueError, match=r"keeps 0 averages .*; train with\s+vaejax.Averaged"):
        vaejax.averaged_params(fit(1))
    with pytest.raises(ValueError, match=r"Averaged.decay = 1.5; it must be a number from 0 to 1"):
        vaejax.Averaged(optax.adam(1e-3), 1.5)


def test_an_average_is_validated_and_kept_as_the_parameters_are(tmp_path):
    """The best of a validation of the average is the average of its step, from a checkpoint too."""
    held_out = vaejax.Validation(XS[:30], every=2, params_of=vaejax.averaged_params)
    settings = {"optimizer": averaged(), "validation": held_out}
    run = fit(8, **settings)
    bounds, steps = run.history["validation_bound"], run.history["validation_step"]
    best = int(steps[bounds.argmax()])
    assert_same_bits(run.best_params, vaejax.averaged_params(fit(best, optimizer=averaged())))
    plain = fit(8, optimizer=averaged(), validation=vaejax.Validation(XS[:30], every=2))
    assert (plain.history["validation_bound"] != bounds).all()
    fit(5, **settings, checkpoints=vaejax.Checkpoints(tmp_path, every=3))
    resumed = fit(8, **settings, checkpoints=vaejax.Checkpoints(tmp_path, every=3, resume=True))
    assert_same_bits(resumed.best_params, run.best_params)
    np.testing.assert_array_equal(resumed.history["validation_bound"], bounds)


def test_what_gives_no_parameters_is_refused():
    with pytest.raises(TypeError, match="params_of = 0.9 cannot be called; give a function"):
        vaejax.Validation(XS[:30], params_of=0.9)
    held_out = vaejax.Validation(XS[:30], every=2, params_of=vaejax.averaged_params)
    with pytest.raises(ValueError, match="keeps 0 averages"):
        fit(4, validation=held_out)

"""What `fit` makes of objectives beside the bound: history, gradient, schedules, resuming."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.fits import PARAMS, STILL, XS, beta_objective, fit
from tests.lib.lines import BERNOULLI, KEY, LINES, assert_close, samples
from tests.lib.programs import compilations
from tests.lib.training import NAMES
from tests.lib.trees import assert_same_bits
from vaejax import TCVAE, Checkpoints, Cyclical, FreeBits, Terms, Validation, WarmUp
from vaejax.base.mapping import Transformed, estimate
from vaejax.data.base import batch_rows
from vaejax.data.mapping import map_dataset
from vaejax.training.run import NonFiniteError


def steps_written_out(num_steps):
    """(log p(x|z), log p(z) - log q(z|x)) of each step's batch as functions of the parameters, by
    the rule of the keys alone.
    """
    order_key, noise_key, _ = jax.random.split(KEY, 3)
    rows = batch_rows(order_key, len(XS), 10, 0, num_steps)

    def parts(params, step):
        _, objective_key = jax.random.split(jax.random.fold_in(noise_key, step))
        xs = jnp.asarray(XS[rows])[step]

        def parts_of_example(x, z):
            q = LINES.posterior(params, x)
            log_ratio = LINES.p_z(params).log_prob(z) - q.log_prob(z)
            return LINES.p_x_given_z(params, z).log_prob(x), log_ratio

        zs = samples(params, xs, objective_key)
        return [part.mean() for part in jax.vmap(parts_of_example)(xs, zs)]

    return parts


@pytest.mark.slow
def test_history_has_both_and_the_gradient_is_of_the_objective():
    """With parameters that stand still, row t is the objective at step t, written out. Then one
    step along its gradient.
    """
    parts = steps_written_out(12)
    run = fit(12, beta_objective(Cyclical(6, ramp=0.5, end=2.0)), optimizer=STILL)
    log_p_x, log_ratio = np.array([jax.jit(parts)(PARAMS, step) for step in range(12)]).T
    np.testing.assert_allclose(run.history["bound"], log_p_x + log_ratio, rtol=1e-5)
    np.testing.assert_allclose(
        run.history["objective"],
        log_p_x + np.array([0, 2 / 3, 4 / 3, 2, 2, 2] * 2) * log_ratio,
        rtol=1e-5,
    )
    assert run.history["objective"].dtype == np.float32
    moved = fit(1, beta_objective(3.0), optimizer=optax.sgd(1.0)).params
    gradient = jax.jit(jax.grad(lambda p: parts(p, 0)[0] + 3 * parts(p, 0)[1]))(PARAMS)
    assert_close(moved, jax.tree.map(jnp.add, PARAMS, gradient), rtol=1e-4, atol=1e-4)


class Cut(Exception):  # noqa: N818
    """What stops a run in the middle."""


def cut_at(step):
    def callback(run):
        if run.step >= step:
            raise Cut

    return callback


def test_resumed_to_the_same_bits_in_the_middle_of_a_schedule(tmp_path):
    """In the first rise and in the second."""
    settings = {"validation": Validation(XS[:30], every=4)}
    objective = beta_objective(Cyclical(8))
    whole = fit(16, objective, **settings)
    assert len(whole.history["objective"]) == 16 and not np.array_equal(
        whole.history["objective"], whole.history["bound"]
    )
    for cut in (3, 9):
        with pytest.raises(Cut):
            folder = Checkpoints(tmp_path / str(cut), every=3)
            fit(16, objective, checkpoints=folder, callbacks=(cut_at(cut),), **settings)
        again = Checkpoints(tmp_path / str(cut), every=3, resume=True)
        assert_same_bits(fit(16, objective, checkpoints=again, **settings), whole)


@pytest.mark.slow
def test_rows_stay_aligned_when_the_objective_changes(tmp_path):
    """Before there was a weight, and after, the bound was what was maximised."""
    first = fit(4, checkpoints=Checkpoints(tmp_path))
    assert sorted(first.history) == sorted(NAMES)
    again = Checkpoints(tmp_path, resume=True)
    fit(8, beta_objective(2.0), checkpoints=again)
    history = fit(12, checkpoints=again).history
    assert len(history["bound"]) == len(history["objective"]) == 12
    assert (
        (history["bound"] == history["objective"]) == ([True] * 4 + [False] * 4 + [True] * 4)
    ).all()


def test_typed_anew_a_scheduled_objective_compiles_nothing():
    settings = {"validation": Validation(XS[:50], every=4)}
    fit(8, beta_objective(Cyclical(8)), **settings)
    with compilations() as names:
        fit(16, beta_objective(Cyclical(period=8)), **settings)
    assert names == []


@pytest.mark.slow
def test_validation_is_of_the_bound():
    """Whatever is maximised, at parameters that stand still. And patience begins after the
    schedule: the validation at 16 is the first that counts.
    """
    settings = {"optimizer": STILL, "validation": Validation(XS, every=4, patience=2)}
    run = fit(40, beta_objective(WarmUp(16, end=5.0)), **settings)
    assert run.step == 24
    held_out = Transformed(partial(vaejax.elbo, LINES), None)
    expected = estimate(map_dataset(held_out, PARAMS, XS, jax.random.split(KEY, 3)[2])).mean
    np.testing.assert_allclose(run.history["validation_bound"], expected, rtol=1e-6)
    run = fit(4, TCVAE(LINES, len(XS), beta=WarmUp(4, end=5.0)), **settings)
    np.testing.assert_allclose(run.history["validation_bound"], expected, rtol=1e-6)
    run = fit(4, FreeBits(LINES, 3.0), **settings)
    np.testing.assert_allclose(
        run.history["validation_bound"], expected, atol=0.5
    )  # the KL in closed form, the rest the same
    assert (run.history["objective"] < run.history["bound"] - 1).all()


@pytest.mark.parametrize(
    "objective",
    [FreeBits(BERNOULLI, 0.1), TCVAE(BERNOULLI, 60), beta_objective(2.0, BERNOULLI)],
    ids=lambda o: type(o).__name__,
)
def test_the_data_are_held_against_the_model(objective):
    with compilations() as names, pytest.raises(ValueError, match="this likelihood is for 0 and 1"):
        fit(5, objective)
    assert names == []


def times_factors(params, x, key):
    return Terms(*(vaejax.elbo(LINES, params, x, key) * jax.lax.stop_gradient(params.psi)))


def test_a_non_finite_part_is_named():
    for broken, factors in (("bound", [np.inf, 1.0]), ("objective", [1.0, np.inf])):
        with pytest.raises(NonFiniteError, match=f"step 0: the {broken} is not finite; rows"):
            fit(
                5,
                vaejax.minibatch(times_factors, support=vaejax.supports.REAL),
                PARAMS._replace(psi=jnp.asarray(factors)),
                STILL,
            )

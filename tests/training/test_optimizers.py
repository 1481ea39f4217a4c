"""Any optimiser of Optax trains, or is refused by its name in one line."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.optimizers import OBJECTIVE, PARAMS, XS, fit, made, makers
from tests.lib.programs import compilations
from tests.lib.trees import assert_same_bits
from vaejax.base.compare import differences
from vaejax.base.describe import description
from vaejax.training.optimizers import ByStructure, started, watched
from vaejax.training.run import arrays_of, first_non_finite
from vaejax.training.saving import saved_runs

pytestmark = pytest.mark.usefixtures("as_optax_is_run")


@pytest.fixture
def as_optax_is_run():
    """Optax adds axes in places, and warns of its own past."""
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# What cannot train any parameters by one gradient of a batch, and how its name stands in the error.
REFUSED = {
    "optax.lookahead": "lookahead",  # wants fast and slow parameters
    "optax.measure_with_ema": "measure_with_ema",  # measures, and gives no updates
    "optax.contrib.differentially_private_aggregate": "differentially_private_aggregate",
    "optax.contrib.dpsgd": "differentially_private_aggregate",  # the gradient of each example
    "optax.contrib.scale_by_muon": "scale_by_muon",  # wants to be told which axes are a matrix's
}


@pytest.mark.parametrize("name", cases(list(makers())))
def test_every_one_can_start_or_is_refused(name):
    """By shapes: its updates are for the parameters, and its state keeps its form."""
    optimizer = ByStructure(made(name))
    if name not in REFUSED:
        state = started(optimizer, PARAMS)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
        return
    with pytest.raises(ValueError, match=rf"the optimizer \(.*{REFUSED[name]}.*\) cannot") as error:
        started(optimizer, PARAMS)
    assert "\n" not in str(error.value)


SCHEDULES = {
    "constant_schedule": (0.1,),
    "cosine_decay_schedule": (0.1, 10),
    "cosine_onecycle_schedule": (20, 0.1),
    "exponential_decay": (0.1, 10, 0.5),
    "join_schedules": ([optax.constant_schedule(0.1), optax.constant_schedule(0.2)], [5]),
    "linear_onecycle_schedule": (20, 0.1),
    "linear_schedule": (0.1, 0.0, 10),
    "piecewise_constant_schedule": (0.1, {3: 0.1}),
    "piecewise_interpolate_schedule": ("linear", 0.1, {3: 0.1}),
    "polynomial_schedule": (0.1, 0.0, 1, 10),
    "sgdr_schedule": (
        [{"init_value": 0.0, "peak_value": 0.1, "decay_steps": 10, "warmup_steps": 3}],
    ),
    "warmup_constant_schedule": (0.0, 0.1, 5),
    "warmup_cosine_decay_schedule": (0.0, 0.1, 5, 20),
    "warmup_exponential_decay_schedule": (0.0, 0.1, 5, 20, 0.9),
}


def test_every_schedule_of_optax_makes_one_optimizer():
    """Also one that leaves a variable of its closure empty; typed again it is the same program."""
    public = {name for name in vars(optax) if name[0] != "_" and name in vars(optax.schedules)}
    functions = {name for name in public if inspect.isfunction(vars(optax)[name])}
    others = {"inject_hyperparams", "inject_stateful_hyperparams"}
    assert functions - others == set(SCHEDULES)
    for name, arguments in SCHEDULES.items():
        first, other = (ByStructure(optax.adam(vars(optax)[name](*arguments))) for _ in range(2))
        assert first == other and differences(description(first), description(other)) == [], name


UNMOVED = {"optax.set_to_zero", "optax.scale_by_distance_over_gradients"}  # the second by 1e-9
USUAL = {"optax.contrib.reduce_on_plateau"}


@pytest.mark.parametrize(
    "name",
    cases({n: n for n in makers() if n not in REFUSED}, set(makers()) - USUAL - set(REFUSED)),
)
def test_every_one_trains(name):
    """Alone, and two seeds at once: all moves, and all stays finite."""
    run = fit(made(name), 4)
    assert run.step == 4 and first_non_finite(run.params) is None
    moved = any(
        (np.asarray(leaf) != np.asarray(start)).any()
        for leaf, start in zip(jax.tree.leaves(run.params), jax.tree.leaves(PARAMS), strict=True)
    )
    assert moved == (name not in UNMOVED)
    seeds = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    keys = jax.random.split(jax.random.key(0), 2)
    settings = {"num_steps": 2, "batch_size": 4, "progress": False, "strategy": "map"}
    both = vaejax.fit_seeds(OBJECTIVE, seeds, made(name), XS, keys, **settings)
    assert first_non_finite(both.params) is None


def decayed(params):
    return {"rate": 1, "count": 0, "key": jax.random.key(7), "nothing": None}


def by_its_own_state(gradient, state, params):
    """Numbers of Python, and a key that is used."""
    key, following = jax.random.split(state["key"])
    noise = 1 + jax.random.uniform(key)
    updates = jax.tree.map(lambda leaf: -0.01 * state["rate"] * noise * leaf, gradient)
    count = state["count"] + 1
    return updates, state | {"rate": state["rate"] / 2, "count": count, "key": following}


OWN = optax.GradientTransformation(decayed, by_its_own_state)
RESUMED = {
    "a typed key": lambda: optax.chain(
        optax.add_noise(0.01, 0.5, jax.random.key(3)), optax.sgd(0.001)
    ),
    "a value": lambda: optax.chain(optax.adam(0.01), optax.contrib.reduce_on_plateau(patience=1)),
    "numbers of Python": lambda: OWN,
    "empty states": lambda: optax.masked(optax.adam(0.01), vaejax.Params(True, True, ())),
    "numbers": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
    "several steps": lambda: optax.MultiSteps(optax.adam(0.01), 3),
    "a line search": optax.lbfgs,
}


@pytest.mark.parametrize(
    "make", cases(RESUMED, {"a value", "several steps", "a line search", "numbers", "empty states"})
)
def test_resumed_to_the_same_bits_by_one_program(tmp_path, make):
    """Also where the optimiser is typed anew, a key is in its state, or a number of Python."""
    whole = fit(make())
    fit(make(), 4, checkpoints=vaejax.Checkpoints(tmp_path, every=2))
    with compilations() as names:
        resumed = fit(make(), checkpoints=vaejax.Checkpoints(tmp_path, every=2, resume=True))
    assert "run_steps" not in names
    plain = [arrays_of(run) for run in (whole, resumed)]
    assert_same_bits(*plain)
    np.testing.assert_array_equal(whole.history["bound"], resumed.history["bound"])
    (saved,) = (
        saved_runs(tmp_path, OBJECTIVE, PARAMS, make(), transform=None, validated=False)[step]
        for step in (6,)
    )
    assert_same_bits(arrays_of(saved), plain[0])


# What is offered beside the gradient.


def test_the_value_is_minimised_and_the_function_is_of_the_same_batch_and_noise():
    """value_fn at the parameters is the value, and its gradient is the gradient."""
    seen = []

    def update(gradient, state, params, *, value, value_fn, grad, obj_fn, grad_fn):
        others = value_fn(params, obj_fn=obj_fn), obj_fn(params)
        jax.debug.callback(lambda *numbers: seen.append(numbers), value, *others)
        jax.tree.map(
            lambda *leaves: jax.debug.callback(lambda *same: seen.append(same), *leaves),
            gradient,
            grad,
            grad_fn(params, 0),
            jax.grad(value_fn)(params),
        )
        return jax.tree.map(lambda leaf: -1e-3 * leaf, gradient), state

    def noisy(params, x, key):
        return -jnp.sum((x + jax.random.normal(key, x.shape) - params.theta["w"][:, 0]) ** 2)

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    objective = vaejax.minibatch(noisy, support=vaejax.supports.REAL)
    run = fit(optimizer, 3, objective=objective)
    jax.effects_barrier()
    assert len(seen) == 3 * 3
    for first, *others in seen:
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-6)
    values = sorted(float(numbers[0]) for numbers in seen if len(numbers) == 3)
    np.testing.assert_allclose(values, sorted(-run.history["bound"]), rtol=1e-6)


NONE = {
    "a number": (1e-3, "optimizer = 0.001 has no init and update; give one of Optax's"),
    "a class": (optax.GradientTransformation, "optimizer is the class GradientTransformation"),
    "without its call": (optax.adam, "optimizer = <function adam .* has no init and update"),
}


@pytest.mark.parametrize("optimizer, message", NONE.values(), ids=NONE)
def test_what_is_no_optimizer_is_refused(optimizer, message):
    with pytest.raises(TypeError, match=message) as error:
        fit(optimizer)
    assert "\n" not in str(error.value)


def grows(gradient, state, params):
    return gradient, jnp.append(state, 0.0)


def gives_half(gradient, state, params):
    return gradient["theta"], state


FAULTS = {
    "a state that grows": (grows, r"it makes a state of \(2,\) at .*, in place of \(1,\)"),
    "an error": (gives_half, "indices must be integers"),
    "complex updates": (lambda g, s, p: (jax.tree.map(lambda u: u * 1j, g), s), "complexfloating"),
    "whole updates": (
        lambda g, s, p: (jax.tree.map(lambda u: u.astype(int), g), s),
        r"gives updates of \(.*, 'integer'\) at theta",
    ),
    "a sum": (
        lambda g, s, p: (jax.tree.map(jnp.sum, g), s),
        r"gives updates of \(\(\), 'floating'\)",
    ),
}


@pytest.mark.parametrize("update, message", FAULTS.values(), ids=FAULTS)
def test_an_optimizer_that_keeps_no_form_is_refused(tmp_path, update, message):
    optimizer = optax.GradientTransformation(lambda params: jnp.zeros(1), update)
    with pytest.raises(ValueError, match=message) as error:
        fit(optimizer, checkpoints=vaejax.Checkpoints(tmp_path / "run"))
    assert "of your own" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_starts_infinite_is_not_watched():
    optimizer = ByStructure(optax.contrib.reduce_on_plateau())
    state = started(optimizer, PARAMS)
    fields = dict(zip(state._fields, watched(state), strict=True))
    assert fields["scale"] and not fields["best_value"] and not fields["plateau_count"]


def test_the_first_state_of_one_that_reads_the_parameters():
    """`init` is compiled where that can be, and run as it is where it looks at values."""
    sgd = optax.sgd(0.1)

    def init(params):
        return [float(leaf.sum()) for leaf in jax.tree.leaves(params)], sgd.init(params)

    def update(gradient, state, params):
        updates, following = sgd.update(gradient, state[1], params)
        return updates, (state[0], following)

    sums, _ = started(ByStructure(optax.GradientTransformation(init, update)), PARAMS)
    np.testing.assert_array_equal(sums, [leaf.sum() for leaf in jax.tree.leaves(PARAMS)])

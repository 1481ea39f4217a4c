"""A training that is refused changes nothing on disk, whatever it is that refuses it, and where."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.paths import contents
from tests.lib.training import KEY, MODEL, OBJECTIVE, PARAMS, PIXELS, XS, fit

MLP = vaejax.MLP
SUPPORT = MODEL.support


class OwnError(Exception):
    pass


def raises(params, x, key):
    raise OwnError("by the objective")


@vaejax.component
class OneNumberShort(vaejax.Around):
    """Its steps are sound, its bound of one example is none."""

    inner: vaejax.Objective

    def __call__(self, params, xs, key, step):
        return self.inner(params, xs, key, step)

    def bound(self, params, x, key):
        return jnp.zeros(3)


class CannotStart(vaejax.Callback):
    def start(self, run):
        raise OwnError("by a callback")

    def __call__(self, run):
        pass


def params_of(**parts):
    return replace(MODEL, **parts).init(KEY, XS[0])


def by(estimator, model=MODEL):
    return vaejax.minibatch(estimator, model)


BINARY = replace(MODEL, prior=vaejax.FactorialBernoulli(2), encoder=vaejax.Bernoulli(MLP(2, (16,))))
ANOTHER = "these are the parameters of another model: params|which its parameters do not fit"
REFUSED = {
    "a wider decoder": (
        {"params": params_of(likelihood=vaejax.Bernoulli(MLP((8, 8), (17,))))},
        ANOTHER,
    ),
    "a deeper encoder": (
        {"params": params_of(encoder=vaejax.DiagNormal(MLP(2, (16, 16), heads=2)))},
        ANOTHER,
    ),
    "a learned prior": ({"params": params_of(prior=vaejax.LearnedNormal(2))}, ANOTHER),
    "a batch of parameters": (
        {"params": jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), PARAMS)},
        ANOTHER,
    ),
    "an estimator of other latents": (
        {"objective": by(vaejax.Pathwise(), BINARY), "params": BINARY.init(KEY, XS[0])},
        "those of Bernoulli do not move smoothly",
    ),
    "an objective that raises": (
        {"objective": vaejax.minibatch(raises, support=SUPPORT)},
        "by the objective",
    ),
    "an objective of three numbers": (
        {"objective": vaejax.minibatch(lambda p, x, key: jnp.zeros(3), support=SUPPORT)},
        r"has shape \(3,\); it must be one number",
    ),
    "a bound of three numbers": (
        {"objective": OneNumberShort(OBJECTIVE), "validation": vaejax.Validation(XS[:9])},
        r"OneNumberShort.bound has shape \(3,\); it must be one number",
    ),
    "an optimiser of each example": (
        {"optimizer": optax.contrib.dpsgd(0.1, 1.0, 0.1, 0)},
        "cannot train these parameters",
    ),
    "a callback that cannot start": ({"callbacks": (CannotStart(),)}, "by a callback"),
    "a transform to other shapes": (
        {"transform": lambda x, key: jnp.zeros((4, 8))},
        ANOTHER,
    ),
}
OF_A_RUN = {  # what is refused where there is one
    "another objective": ({"objective": by(vaejax.StickTheLanding())}, "by another run: objective"),
    "another optimiser": ({"optimizer": optax.sgd(0.1)}, "by another run: optimizer"),
    "other data": ({"data": XS[:500]}, "by another run: data"),
    "another key": ({"key": jax.random.key(7)}, "by another run: key"),
}


def is_refused(folder, message, resume=False, **settings):
    """By `fit`, in one line."""
    checkpoints = vaejax.Checkpoints(folder, every=2, resume=resume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage
        with pytest.raises((ValueError, TypeError, OwnError), match=message) as error:
            fit(4, checkpoints=checkpoints, **settings)
    assert "\n" not in str(error.value).split("\n---")[0]


@pytest.mark.parametrize("case", cases(REFUSED))
def test_a_new_run_leaves_no_folder(case, tmp_path):
    """Nor does a log begin."""
    change, message = case
    log = {"callbacks": (vaejax.CSVLog(tmp_path / "logs" / "log.csv"),)}
    is_refused(tmp_path / "below" / "run", message, **log | change)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A run of steps 2 and 4, of which the last is damaged."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(4, checkpoints=vaejax.Checkpoints(folder, every=2))
    next((folder / "4" / "record").rglob("metadata")).write_text("{")
    return folder


@pytest.mark.parametrize("case", cases(REFUSED | OF_A_RUN))
def test_a_run_that_is_gone_on_with_stays_as_it_was(case, damaged):
    """What is damaged there too: it is moved aside when the next step is saved."""
    change, message = case
    before = contents(damaged)
    is_refused(damaged, message, resume=True, **change)
    assert contents(damaged) == before


@pytest.mark.parametrize("case", cases({k: REFUSED[k] for k in list(REFUSED)[:7]}))
def test_seeds_are_refused_before_a_callback_begins(case, tmp_path):
    change, message = case
    keys, log = jax.random.split(KEY), vaejax.CSVLog(tmp_path / "logs" / "log.csv")
    change = {"objective": OBJECTIVE, "params": PARAMS} | change
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), change.pop("params"))
    with pytest.raises((ValueError, TypeError, OwnError), match=message):
        vaejax.fit_seeds(
            params=params,
            optimizer=optax.adam(1e-3),
            data=XS,
            keys=keys,
            num_steps=2,
            batch_size=8,
            transform=PIXELS,
            callbacks=(log,),
            progress=False,
            **change,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("of_source", [False, True])
def test_looking_first_traces_nothing_twice(of_source):
    """What the steps refuse is found by the trace that the first call needs anyway."""
    traced = []

    @vaejax.component
    class Counts(vaejax.VAE):
        def posterior(self, params, x):
            traced.append(jnp.shape(x))
            return super().posterior(params, x)

    model = Counts(MODEL.prior, MODEL.likelihood, MODEL.encoder)
    data = vaejax.Arrays(XS) if of_source else XS
    fit(3, objective=by(vaejax.Pathwise(), model), data=data, mesh=jax.make_mesh((1,), ("data",)))
    assert len(traced) == 2  # what is asked of the data, and the step

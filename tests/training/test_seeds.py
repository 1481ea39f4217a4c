"""`fit_seeds`: every strategy trains each seed as `fit` does alone."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.trees import assert_same_bits
from vaejax.training import seeds as training_of_seeds

IMAGES = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(np.uint8)
MODEL = vaejax.VAE(
    vaejax.MixtureOfGaussians(2, 3),
    vaejax.Bernoulli(vaejax.MLP(6, (5,))),
    vaejax.DiagNormal(vaejax.MLP(2, (5,), heads=2)),
)
OBJECTIVE = vaejax.minibatch(vaejax.Pathwise(), MODEL)
KEYS = jax.random.split(jax.random.key(0), 3)
SETTINGS = {"num_steps": 12, "batch_size": 8, "progress": False}


@pytest.fixture(scope="module")
def starts():
    return jax.jit(jax.vmap(MODEL.init, (0, None)))(KEYS, IMAGES[0])


@pytest.fixture(scope="module")
def alone(starts):
    seeds = [jax.tree.map(lambda leaf: leaf[s], starts) for s in range(3)]
    return [
        vaejax.fit(OBJECTIVE, params, optax.adam(1e-2), IMAGES, key, **SETTINGS)
        for params, key in zip(seeds, KEYS, strict=True)
    ]


@pytest.mark.parametrize(
    "strategy",
    [
        "map",
        pytest.param("vmap", marks=pytest.mark.slow),
        pytest.param("cores", marks=pytest.mark.slow),
    ],
)
def test_each_seed_is_as_alone(strategy, starts, alone):
    """To the same bits by "map"; the others by rounding. Three seeds over eight devices also tries
    the padding.
    """
    run = vaejax.fit_seeds(
        OBJECTIVE, starts, optax.adam(1e-2), IMAGES, KEYS, strategy=strategy, **SETTINGS
    )
    assert run.step == 12 and run.history["bound"].shape == (3, 12)
    for s, single in enumerate(alone):
        pairs = [
            (leaf[s], other)
            for leaf, other in zip(
                jax.tree.leaves(run.params), jax.tree.leaves(single.params), strict=True
            )
        ]
        for name in ("bound", "objective"):
            pairs.append((run.history[name][s], single.history[name]))
        for ours, theirs in pairs:
            np.testing.assert_allclose(
                ours,
                theirs,
                rtol=0 if strategy == "map" else 1e-4,
                atol=0 if strategy == "map" else 1e-5,
            )
    assert len({float(bound) for bound in run.history["bound"][:, -1]}) == 3


@pytest.mark.parametrize("quick", ["map", "vmap", "cores"])
def test_the_fastest_way_trains(quick, monkeypatch, starts, alone):
    """The one that was measured to be: its bits, which are those of the others but for rounding,
    and none of the trials is seen in them.
    """
    tried = []

    def fastest(ways, trial, most_steps, computed):
        hash(computed)
        assert sorted(ways) == ["cores", "map", "vmap"] and most_steps == SETTINGS["num_steps"]
        for way in ways if quick == "map" else ():
            trial(way)(2)
            tried.append(way)
        return quick

    monkeypatch.setattr(training_of_seeds, "fastest", fastest)
    arguments = OBJECTIVE, starts, optax.adam(1e-2), IMAGES, KEYS
    run = vaejax.fit_seeds(*arguments, strategy="fastest", **SETTINGS)
    expected = vaejax.fit_seeds(*arguments, strategy=quick, **SETTINGS)
    assert_same_bits(
        (run.params, run.history["bound"]), (expected.params, expected.history["bound"])
    )
    for s, single in enumerate(alone):
        np.testing.assert_allclose(run.history["bound"][s], single.history["bound"], rtol=1e-4)
    assert len(tried) == 3 * (quick == "map")


def test_an_accelerator_tries_and_a_cpu_does_not(monkeypatch):
    assert training_of_seeds.default_strategy() == "cores"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert training_of_seeds.default_strategy() == "fastest"


REFUSED = {
    "strategy": ({"strategy": "vmapp"}, "unknown strategy 'vmapp'; did you mean vmap"),
    "batch": ({"batch_size": 41}, "batch_size = 41, but the data have 40"),
    "steps": ({"num_steps": 0}, "num_steps = 0"),
    "source": (
        {"data": vaejax.Arrays(IMAGES)},
        "Arrays is a source on the host: give arrays, or run vaejax.fit for one seed",
    ),
    "grey": ({"data": IMAGES + 1}, "this likelihood is for 0 and 1"),
    "keys": ({"keys": KEYS[:2]}, r"2 keys, but params have leading axes \[\(3,\)\]"),
}


@pytest.mark.parametrize("changes, message", REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused(changes, message, starts):
    settings = {"data": IMAGES, "keys": KEYS, **SETTINGS, **changes}
    with pytest.raises(ValueError, match=message):
        vaejax.fit_seeds(OBJECTIVE, starts, optax.adam(1e-2), **settings)


def test_a_seed_that_breaks_down_is_named(starts):
    broken = jax.tree.map(lambda leaf: jnp.asarray(leaf).at[1].set(jnp.nan), starts)
    with pytest.raises(FloatingPointError, match="seed 1: not finite within steps 0..0"):
        vaejax.fit_seeds(
            OBJECTIVE, broken, optax.adam(1e-2), IMAGES, KEYS, strategy="map", **SETTINGS
        )


def test_callbacks_are_told_of_all_seeds(starts, alone, tmp_path):
    """As `fit` tells them of one; a log has a column for each seed, and one may stop the run."""
    seen = []

    def stop(run):
        seen.append(run)
        if run.step >= 2:
            raise vaejax.StopTraining

    log = vaejax.CSVLog(tmp_path / "log.csv", every=1)
    run = vaejax.fit_seeds(
        OBJECTIVE,
        starts,
        optax.adam(1e-2),
        IMAGES,
        KEYS,
        strategy="map",
        callbacks=(log, stop),
        **SETTINGS,
    )
    assert 2 <= run.step < 12 and seen[-1].step == run.step
    assert_same_bits(seen[-1].params, run.params)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, run.step + 1))
    for s, single in enumerate(alone):
        bounds = single.history["bound"][: run.step]
        np.testing.assert_array_equal(seen[-1].history["bound"][s], bounds)
        np.testing.assert_allclose([float(row[f"bound_{s}"]) for row in rows], bounds, rtol=1e-6)

"""What processes do together in tests, and one process alone, for what is expected."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.training import KEY, MODEL, OBJECTIVE, PARAMS, PIXELS, XS, fit
from vaejax.base.devices import fetched
from vaejax.base.mapping import Transformed
from vaejax.base.processes import OtherProcessError
from vaejax.training.run import NonFiniteError
from vaejax.training.sharding import placed_by

SPLIT = vaejax.FullyShardedDataParallel(at_least=16)


def everywhere():
    """All devices of all processes."""
    return jax.make_mesh((jax.device_count(),), ("data",))


def history(num_steps, folder=None, **settings):
    """Of so many steps, of which those that lie in a folder are not done again."""
    checkpoints = None if folder is None else vaejax.Checkpoints(folder, every=5, resume=True)
    validation = vaejax.Validation(XS[:30], every=4)
    run = fit(num_steps, 40, checkpoints=checkpoints, validation=validation, **settings)
    return run.history


def trained(folder, num_steps):
    """So many steps by all; the history lies in NUM_STEPS.npz."""
    settings = {"data": vaejax.Arrays(XS), "mesh": everywhere(), "sharding": SPLIT}
    numbers: Any = history(int(num_steps), f"{folder}/run", **settings)
    if jax.process_index() == 0:
        np.savez(f"{folder}/{num_steps}.npz", **numbers)


def lower_and_upper(params, number, key):
    sandwich = AIS.bdmc(params, key)
    return sandwich.lower, sandwich.upper


def log_marginal(params, x, key):
    return vaejax.log_marginal(MODEL, params, x, key, num_samples=8)


AIS = vaejax.AIS(MODEL, vaejax.ais.Sigmoid(3), num_chains=2)


def answers(params):
    """What each function of the library gives that measures something at parameters."""
    xs = jax.vmap(PIXELS)(XS[:4], jax.random.split(KEY, 4))
    evaluation = vaejax.evaluate(MODEL, params, XS[:4], KEY, num_samples=4, transform=PIXELS)
    moments = vaejax.gradient_moments(OBJECTIVE, params, xs, KEY, 4)
    shared = vaejax.gradient_moments(OBJECTIVE, params, xs, KEY, 4, strategy="devices")
    seeds = jax.tree.map(lambda leaf: np.stack([leaf] * 2), fetched(params))
    run = vaejax.fit_seeds(
        OBJECTIVE,
        seeds,
        optax.adam(1e-2),
        xs,
        jax.random.split(KEY, 2),
        num_steps=2,
        batch_size=2,
        progress=False,
    )
    return {
        "evaluate": evaluation.by_example["iwae_4"],
        "AIS": vaejax.map_dataset(AIS, params, xs, KEY),
        "bdmc": vaejax.map_dataset(lower_and_upper, params, np.arange(2), KEY),
        "log_marginal": vaejax.map_dataset(log_marginal, params, xs, KEY),
        "posterior_means": vaejax.posterior_means(MODEL, params, xs, KEY),
        "gradient_moments": jax.tree.leaves(moments.mean)[0],
        "gradient_moments on each device": jax.tree.leaves(shared.variance)[0],
        "fit_seeds": run.history["bound"],
    }


def shared(mesh, path=None):
    """What functions give that share their batches out: nine full ones and a part of one."""
    examples, number = XS[:29], {"batch_size": 3, "mesh": mesh}
    settings = {"transform": PIXELS, **number}
    stored = Transformed(AIS, PIXELS)
    evaluation = vaejax.evaluate(
        MODEL, PARAMS, examples, KEY, num_samples=30, path=path, **settings
    )
    refined = vaejax.Refined(MODEL, num_steps=2)
    gap = vaejax.inference_gap(
        refined, PARAMS, vaejax.Arrays(examples), AIS, KEY, num_samples=2, **settings
    )
    space = vaejax.latent_space(MODEL, PARAMS, examples, KEY, transform=PIXELS, mesh=mesh)
    return {
        **evaluation.by_example,
        "AIS": vaejax.map_dataset(stored, PARAMS, examples, KEY, **number),
        "AIS of a part": vaejax.map_dataset(stored, PARAMS, XS[7:29], KEY, start=7, **number),
        "means": vaejax.posterior_means(MODEL, PARAMS, examples, KEY, **settings),
        "gap": np.stack(gap),
        "rate": np.array(space.rate),
    }


def fault(**settings):
    """What is said of a training that breaks down at its first step."""
    with pytest.raises(NonFiniteError) as broken:
        fit(2, optimizer=optax.sgd(np.inf), **settings)
    return str(broken.value)


def ended_by_the_last(**settings):
    """What is said where the last process alone has a full disk."""

    def write(run):
        if jax.process_index() == jax.process_count() - 1:
            raise OSError("the disk is full")

    with pytest.raises((OSError, OtherProcessError)) as ended:
        fit(2, callbacks=(write,), **settings)
    return str(ended.value)


def evaluated(folder):
    """What is shared out over all devices of all processes, under one file."""
    values = shared(everywhere(), f"{folder}/evaluation.jsonl")
    np.savez(f"{folder}/{jax.process_index()}.npz", **values)


def asked(folder):
    """Of parameters that lie in parts with all processes; and of whole ones by the last alone."""
    mesh = everywhere()
    numbers = answers(placed_by(SPLIT, mesh, PARAMS))
    whole = placed_by(vaejax.Replicated(), mesh, PARAMS)
    if jax.process_index() == jax.process_count() - 1:
        elbo = vaejax.evaluate(MODEL, whole, XS[:4], KEY, num_samples=4, transform=PIXELS)
        numbers["alone"] = elbo.by_example["iwae_4"]
    numbers["fault"] = fault(mesh=mesh, sharding=SPLIT)
    numbers["ended"] = ended_by_the_last(mesh=mesh)
    np.savez(f"{folder}/{jax.process_index()}.npz", **numbers)
